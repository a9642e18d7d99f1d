//! A child that gets fds as a service manager passes them.

use super::{cvt, exec_with_fds, keep};
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
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

/// Starts `command` in a child that finds copies of `fds` from number 3 on, with their names, as [`exec_with_fds`] says, and `variables` and its own id as `WATCHDOG_PID` in its
/// environment. It gets SIGTERM when the calling thread ends. If it can't be run, it ends with status 127.
///
/// # Errors
/// `Unsupported` if the process has other threads: what the child does between fork and exec is only safe without; and elsewhere than on Linux. `EAGAIN`, `EMFILE`.
///
/// Source: fork(2), prctl(2) on PR_SET_PDEATHSIG, sd_watchdog_enabled(3).
pub fn spawn_with_fds(
    command: &[OsString],
    variables: &[(&str, OsString)],
    fds: &[(String, BorrowedFd<'_>)],
) -> io::Result<Running> {
    if !keep::has_one_thread()? {
        let text = "a process with several threads can't start a child this way";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let copies: Vec<(String, OwnedFd)> =
        fds.iter().map(|(n, fd)| Ok((n.clone(), fd.try_clone_to_owned()?))).collect::<io::Result<_>>()?;
    // SAFETY: takes nothing, can't fail.
    let parent = unsafe { libc::getpid() };
    // A signal that came to the child before its exec would be taken by a handler of ours, and be lost: it waits until the handlers are gone.
    let before = mask_all()?;
    // SAFETY: this is the only thread, so that the child may do whatever the parent could: no lock is held by anybody.
    let forked = cvt(unsafe { libc::fork() });
    if !matches!(forked, Ok(0)) {
        // SAFETY: `before` is a valid set.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    }
    match forked? {
        0 => {
            forget_handlers();
            // SAFETY: `before` is a valid set. What came meanwhile does now what it does by default.
            unsafe { libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
            // Without it the child would outlive the one that keeps its fds, and its lock.
            let bound = keep::end_with_parent().is_ok();
            // SAFETY: takes nothing, can't fail.
            if bound && unsafe { libc::getppid() } == parent {
                // This is the child, which has one thread, as its parent had.
                let watchdog = ("WATCHDOG_PID", OsString::from(std::process::id().to_string()));
                for (name, value) in variables.iter().chain([&watchdog]) {
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

/// Blocks all signals; returns what was blocked before.
fn mask_all() -> io::Result<libc::sigset_t> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `all` is room for a set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` was filled just now, and `before` is room for a set.
    cvt(unsafe { libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) })?;
    // SAFETY: sigprocmask succeeded, so it is written.
    Ok(unsafe { before.assume_init() })
}

/// What is caught does again what it does by default; what is ignored stays so. An exec does the same.
fn forget_handlers() {
    for signo in 1..=31 {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: `now` is room for an action; for what is no signal it is an error.
        if unsafe { libc::sigaction(signo, std::ptr::null(), now.as_mut_ptr()) } != 0 {
            continue;
        }
        // SAFETY: all zeroes is a valid action, and the kernel wrote the rest.
        let mut now = unsafe { now.assume_init() };
        if now.sa_sigaction != libc::SIG_IGN && now.sa_sigaction != libc::SIG_DFL {
            now.sa_sigaction = libc::SIG_DFL;
            // SAFETY: `now` is a valid action.
            unsafe { libc::sigaction(signo, &now, std::ptr::null_mut()) };
        }
    }
}
