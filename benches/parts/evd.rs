//! An evd of the figures' own: the binary of this build, on a socket that nobody else knows.

use super::Outcome;
use super::place::on_core;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running evd; it is ended with this value.
#[derive(Debug)]
pub struct Evd {
    child: Child,
    dir: PathBuf,
    socket: PathBuf,
}

impl Evd {
    /// Starts one on a core, or wherever the system likes, and waits until it answers.
    pub fn start(core: Option<usize>) -> Result<Evd, Box<dyn Error>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("evd-figures-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let socket = dir.join("socket");
        let mut command = Command::new(env!("CARGO_BIN_EXE_evd"));
        command.env_clear().env("EVD_SOCKET", &socket).env("EVD_LOG_LEVEL", "error").stdin(Stdio::null());
        let child = match core {
            Some(core) => on_core(core, || command.spawn())??,
            None => command.spawn()?,
        };
        let evd = Evd { child, dir, socket };
        evd.wait_for_it()?;
        Ok(evd)
    }

    /// evctl ends its session before it ends: what it cost evd is over then.
    fn wait_for_it(&self) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evctl"));
        let status = command.args(["wait", "--timeout", "20"]).env("EVD_SOCKET", &self.socket).status()?;
        if status.success() { Ok(()) } else { Err("evd did not start".into()) }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How often its threads went to sleep by themselves: not less than they were woken.
    pub fn slept(&self) -> Result<u64, Box<dyn Error>> {
        slept(self.pid())
    }

    /// How many fds it has open.
    pub fn open_fds(&self) -> std::io::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Its resident memory in bytes: all of it, and the part that is its own anonymous memory.
    pub fn resident(&self) -> Result<(u64, u64), Box<dyn Error>> {
        evd_proto::sys::resident_bytes(self.pid()).ok_or_else(|| "evd's memory can't be seen".into())
    }
}

/// How often the threads of a process went to sleep by themselves.
///
/// Source: proc_pid_status(5), `voluntary_ctxt_switches`.
pub fn slept(pid: u32) -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("status"))?;
        let line = text.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.ok_or("no context switches in /proc")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

impl Drop for Evd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
