//! Processes in roles: this program again, told by a socket what to do.
//!
//! The socket is the new process's standard input. Numbers and fds go over it, before and after what is measured and never during it.

use super::Outcome;
use super::place::on_core;
use crate::floor::calls;
use evd_proto::sys;
use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What a process in a role does.
pub type Role = fn(Control) -> Outcome;

/// What fds are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The ends of pipes that are read from.
    Pipes,
    /// One end of pairs of AF_UNIX sockets.
    Sockets,
}

impl Kind {
    /// As the table calls them.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pipes => "pipes",
            Kind::Sockets => "AF_UNIX sockets",
        }
    }
}

const ROLE: &str = "EVD_FIGURES_ROLE";

/// Runs the role that this process was started for, if it was.
pub fn run_role(roles: &[(&str, Role)]) -> Option<Outcome> {
    let name = std::env::var(ROLE).ok()?;
    let Some((_, role)) = roles.iter().find(|(n, _)| *n == name) else {
        return Some(Err(format!("no role {name}").into()));
    };
    let run = || {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        role(Control(UnixStream::from(socket)))
    };
    Some(run().map_err(|e| format!("{name}: {e}").into()))
}

/// One end of the socket between a figure and a process of it.
#[derive(Debug)]
pub struct Control(UnixStream);

impl Control {
    /// Says numbers.
    pub fn say(&mut self, numbers: &[u64]) -> io::Result<()> {
        let mut bytes = (numbers.len() as u64).to_le_bytes().to_vec();
        numbers.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
        self.0.write_all(&bytes)
    }

    /// Waits for numbers.
    pub fn hear(&mut self) -> io::Result<Vec<u64>> {
        let mut eight = [0; 8];
        self.0.read_exact(&mut eight)?;
        let mut bytes = vec![0; u64::from_le_bytes(eight) as usize * 8];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes.chunks_exact(8).filter_map(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b)).collect())
    }

    /// Waits for one number.
    pub fn hear_one(&mut self) -> io::Result<u64> {
        self.hear()?.first().copied().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Until the other end is closed: hears how much to do, says that it begins, does it, and says what came of it.
    pub fn serve(
        &mut self,
        mut round: impl FnMut(&mut Control, usize) -> Result<Vec<u64>, Box<dyn Error>>,
    ) -> Outcome {
        loop {
            let count = match self.hear_one() {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            self.say(&[])?;
            let numbers = round(self, count as usize)?;
            self.say(&numbers)?;
        }
    }

    /// The other side of [`Control::serve`]: one round, of which `meanwhile` is this side's part.
    pub fn round(
        &mut self,
        count: usize,
        meanwhile: impl FnOnce(&mut Control) -> Outcome,
    ) -> Result<Vec<u64>, Box<dyn Error>> {
        self.say(&[count as u64])?;
        self.hear()?;
        meanwhile(self)?;
        Ok(self.hear()?)
    }

    /// Gives copies of fds.
    pub fn give(&mut self, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        for batch in numbers.chunks(sys::MAX_FDS) {
            while let Err(e) = sys::send(self.0.as_fd(), b"f", batch) {
                match e.kind() {
                    io::ErrorKind::WouldBlock => sys::sleep_ns(100_000),
                    _ => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// Waits for `count` fds.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut fds = Vec::new();
        while fds.len() < count {
            match sys::recv(self.0.as_fd(), &mut [0], &mut fds) {
                Ok(got) if got.len > 0 => {}
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => sys::sleep_ns(100_000),
                Err(e) => return Err(e),
            }
        }
        Ok(fds)
    }

    /// Makes fds of a kind and gives them away, a message at a time, so that no process has both ends of all. The other ends.
    pub fn give_new(&mut self, kind: Kind, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut kept = Vec::with_capacity(count);
        while kept.len() < count {
            let mut given: Vec<OwnedFd> = Vec::new();
            for _ in 0..sys::MAX_FDS.min(count - kept.len()) {
                let (theirs, ours) = match kind {
                    Kind::Pipes => calls::pipe()?,
                    Kind::Sockets => UnixStream::pair().map(|(a, b)| (a.into(), b.into()))?,
                };
                given.push(theirs);
                kept.push(ours);
            }
            self.give(&given.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        }
        Ok(kept)
    }
}

/// A process in a role; it is ended with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub control: Control,
}

impl Process {
    /// Starts this program in a role, on one core, with the evd at `socket` if it needs one.
    pub fn start(role: &str, core: usize, socket: Option<&Path>) -> Result<Process, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(ROLE, role);
        if let Some(socket) = socket {
            command.env("EVD_SOCKET", socket);
        }
        Process::spawn(command, core)
    }

    /// Starts another program, on one core.
    pub fn spawn(mut command: Command, core: usize) -> Result<Process, Box<dyn Error>> {
        let (ours, theirs) = UnixStream::pair()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = on_core(core, || command.spawn())??;
        Ok(Process { child, control: Control(ours) })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Stops a child, does something, and lets it go on: what became ready meanwhile, the child finds all at once.
pub fn while_stopped<T>(pid: u32, what: impl FnOnce() -> T) -> io::Result<T> {
    let pid = pid as libc::pid_t;
    sys::send_signal(pid, libc::SIGSTOP)?;
    calls::wait_until_stopped(pid)?;
    let done = what();
    sys::send_signal(pid, libc::SIGCONT)?;
    Ok(done)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
