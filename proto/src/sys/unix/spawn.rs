//! A child that gets fds as a service manager passes them.

use super::{cvt, exec_with_fds};
use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With a status.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// A child process. It is not waited for when this is dropped.
#[derive(Debug)]
pub struct Running {
    pid: i32,
}

impl Running {
    /// Its process id, valid until [`Running::ended`] has returned how it ended.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended; `None`: it runs.
    ///
    /// # Errors
    /// `ECHILD`: somebody else has waited for it.
    ///
    /// Source: waitpid(2).
    pub fn ended(&self) -> io::Result<Option<Exit>> {
        let mut status = 0;
        // SAFETY: `status` is room for one number.
        match cvt(unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) })? {
            0 => Ok(None),
            _ if libc::WIFSIGNALED(status) => Ok(Some(Exit::Signal(libc::WTERMSIG(status)))),
            _ => Ok(Some(Exit::Code(libc::WEXITSTATUS(status)))),
        }
    }
}

/// Starts `command` in a child that finds copies of `fds` from number 3 on, with their names, as [`exec_with_fds`] says, and `variables` in its environment.
/// It gets SIGTERM when the calling thread ends. If it can't be run, it ends with status 127.
///
/// # Errors
/// `Unsupported` if the process has other threads: what the child does between fork and exec is only safe without. `EAGAIN`, `EMFILE`.
///
/// Source: fork(2), prctl(2) on PR_SET_PDEATHSIG.
pub fn spawn_with_fds(
    command: &[OsString],
    variables: &[(&str, OsString)],
    fds: &[(String, BorrowedFd<'_>)],
) -> io::Result<Running> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        let text = "a process with several threads can't start a child this way";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let copies: Vec<(String, OwnedFd)> =
        fds.iter().map(|(n, fd)| Ok((n.clone(), fd.try_clone_to_owned()?))).collect::<io::Result<_>>()?;
    // SAFETY: takes nothing, can't fail.
    let parent = unsafe { libc::getpid() };
    // SAFETY: this is the only thread, so that the child may do whatever the parent could: no lock is held by anybody.
    match cvt(unsafe { libc::fork() })? {
        0 => {
            // SAFETY: prctl takes numbers here.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
            // SAFETY: takes nothing, can't fail.
            if unsafe { libc::getppid() } == parent {
                // This is the child, which has one thread, as its parent had.
                for (name, value) in variables {
                    // SAFETY: nobody else reads the environment: there is no other thread.
                    unsafe { std::env::set_var(name, value) };
                }
                let e = exec_with_fds(command, copies);
                eprintln!(
                    "evd: can't start {}: {e}",
                    command.first().map_or("", |c| c.to_str().unwrap_or("?"))
                );
            }
            // SAFETY: ends the process without running what belongs to the parent.
            unsafe { libc::_exit(127) }
        }
        pid => Ok(Running { pid }),
    }
}
