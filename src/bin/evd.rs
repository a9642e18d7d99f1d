//! evd: see `evd::server`.

fn main() -> std::process::ExitCode {
    evd::server::main()
}
