//! What the examples share: a private evd in a process of its own, and the same program in other roles.
//!
//! `cargo run --example` builds one program, so that program is all of them: it starts itself again as evd, as evctl, or as a role of the example.
#![allow(dead_code, reason = "each example uses its own part")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

pub mod survive;

pub type Outcome = Result<(), Box<dyn Error>>;

const ROLE: &str = "EVD_EXAMPLE_ROLE";

/// A role of an example: its name, and what it does.
pub type Role = (&'static str, fn() -> Outcome);

/// Runs the role that this process was started for, or `example`.
pub fn main(roles: &[Role], example: fn() -> Outcome) -> ExitCode {
    let role = std::env::var(ROLE).unwrap_or_default();
    let outcome = match role.as_str() {
        "" => example(),
        "evd" => evd::Daemon::builder().run().map_err(Into::into),
        "evctl" => return evd::evctl::main(),
        role => match roles.iter().find(|(name, _)| *name == role) {
            Some((_, run)) => run(),
            None => Err(format!("no role {role}").into()),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// This program in another role.
pub fn role(name: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, name);
    Ok(command)
}

/// An evd of our own, on a socket that nobody else knows; it ends with this value.
pub struct PrivateEvd {
    child: Child,
    dir: PathBuf,
}

impl PrivateEvd {
    /// Starts it in a process of its own, waits until it answers, and makes it the evd of this process's children.
    pub fn start() -> Result<PrivateEvd, Box<dyn Error>> {
        let dir = std::env::temp_dir().join(format!("evd-example-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let child = role("evd")?.env("EVD_SOCKET", dir.join("socket")).env_remove("NOTIFY_SOCKET").spawn()?;
        let evd = PrivateEvd { child, dir };
        let ready = evd.role("evctl")?.args(["wait", "--timeout", "20"]).status()?;
        if ready.success() { Ok(evd) } else { Err("evd did not start".into()) }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// This program in another role, with this evd.
    pub fn role(&self, name: &str) -> std::io::Result<Command> {
        let mut command = role(name)?;
        command.env("EVD_SOCKET", self.socket()).stdin(Stdio::null());
        Ok(command)
    }

    /// Asks evd to end, and waits for it.
    pub fn stop(self) -> Outcome {
        self.stop_and(|| Ok(()))
    }

    /// Asks evd to end, does `meanwhile`, and waits for evd.
    pub fn stop_and(mut self, meanwhile: impl FnOnce() -> Outcome) -> Outcome {
        evd_proto::sys::send_signal(
            self.child.id() as i32,
            evd_proto::sys::signal_number("TERM").unwrap_or(15),
        )?;
        meanwhile()?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("evd ended with {status}").into()) }
    }
}

impl Drop for PrivateEvd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Nanoseconds of the clock that all processes share.
pub fn now() -> u64 {
    evd_proto::sys::monotonic_ns()
}

/// Nanoseconds, for people.
pub fn took(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} us", ns / 1_000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}
