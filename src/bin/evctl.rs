//! `evctl`: shows what evd does, and hands fds over to it and back.
//!
//! Arguments, then one call: everything is in `evd::evctl`.

fn main() -> std::process::ExitCode {
    evd::evctl::main()
}
