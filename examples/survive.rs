//! A server is killed with SIGKILL, and its successor takes over its listener and its established connection.
//!
//! `cargo run --example survive`

mod parts;

fn main() -> std::process::ExitCode {
    parts::main(&[("survive-server", parts::survive::server)], || {
        let evd = parts::PrivateEvd::start()?;
        parts::survive::play(&evd)?;
        evd.stop()
    })
}
