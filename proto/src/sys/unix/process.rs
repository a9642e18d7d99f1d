//! Other processes, and this one: states, ids, exec with passed fds.

use super::{cvt, system};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// What the kernel says of a thread, as far as it matters to somebody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Waiting for something.
    Waiting,
    /// Running, or in a wait of the kernel that nothing can interrupt.
    Busy,
    /// Stopped by a signal or a debugger.
    Stopped,
    /// Ended, or a zombie.
    Gone,
    /// Can't be known from here: another pid namespace, or a /proc that hides it.
    Unknown,
}

/// Asks /proc for the state of thread `tid` of process `pid`. Costs the asked process nothing. Where there is no /proc as Linux has it only [`ProcessState::Gone`] is known.
///
/// Source: proc_pid_stat(5).
pub fn process_state(pid: i32, tid: i32) -> ProcessState {
    if pid <= 0 {
        return ProcessState::Unknown;
    }
    let path = format!("/proc/{pid}/task/{tid}/stat");
    let Ok(stat) = std::fs::read(&path) else {
        // SAFETY: signal 0 only asks whether the process is there.
        return match cvt(unsafe { libc::kill(pid, 0) }) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => ProcessState::Gone,
            _ => ProcessState::Unknown,
        };
    };
    // The command's name may hold anything, so the state is looked for behind its last parenthesis.
    let state = stat.iter().rposition(|&b| b == b')').and_then(|at| stat.get(at + 2));
    match state {
        Some(b'T' | b't') => ProcessState::Stopped,
        Some(b'Z' | b'X' | b'x') => ProcessState::Gone,
        Some(b'R' | b'D') => ProcessState::Busy,
        Some(_) => ProcessState::Waiting,
        None => ProcessState::Unknown,
    }
}

/// The name of thread `tid` of process `pid`, if it can be seen from here; on Linux only.
///
/// Source: proc_pid_comm(5).
pub fn thread_name(pid: i32, tid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok().map(|s| s.trim_end().to_owned())
}

/// The thread id of the caller; where a thread's state can't be asked for, the id of the process.
///
/// Source: gettid(2).
pub fn current_tid() -> i32 {
    system::thread_id()
}

/// Whether this process runs with more rights than who started it, so that its environment is not to be trusted.
///
/// Source: getauxval(3), issetugid(2).
pub fn is_privileged() -> bool {
    system::is_privileged()
}

/// The effective user and group of this process.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: takes nothing, can't fail.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: takes nothing, can't fail.
    let gid = unsafe { libc::getegid() };
    (uid, gid)
}

/// From now on nothing that this process starts gets more rights than it has.
///
/// # Errors
/// `EINVAL` before Linux 3.5; [`io::ErrorKind::Unsupported`] on other systems.
///
/// Source: prctl(2), PR_SET_NO_NEW_PRIVS.
pub fn no_new_privileges() -> io::Result<()> {
    system::no_new_privileges()
}

/// Sends `signo` to `pid`.
///
/// # Errors
/// `ESRCH`, `EPERM`, `EINVAL`.
pub fn send_signal(pid: i32, signo: i32) -> io::Result<()> {
    // SAFETY: kill takes two numbers.
    cvt(unsafe { libc::kill(pid, signo) }).map(drop)
}

/// The resident memory of process `pid` in bytes: all of it, and the part that is its own anonymous memory; on Linux only.
///
/// Source: proc_pid_status(5), `VmRSS` and `RssAnon`.
pub fn resident_bytes(pid: u32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((field("VmRSS:")?, field("RssAnon:")?))
}

/// Whether `program` can be run, as far as a look tells; exec itself has the last word. Without a slash it is looked for in `PATH`.
///
/// # Errors
/// `NotFound`: there is no such command. `PermissionDenied`: it is not an executable file. `Unsupported`: nothing can be, on Windows.
pub fn check_exec(program: &OsStr) -> io::Result<()> {
    let candidates: Vec<PathBuf> = if program.as_bytes().contains(&b'/') {
        vec![PathBuf::from(program)]
    } else if program.is_empty() {
        Vec::new()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        std::env::split_paths(&path).map(|dir| dir.join(program)).collect()
    };
    let known: Vec<_> = candidates.iter().filter_map(|c| std::fs::metadata(c).ok()).collect();
    if known.iter().any(|m| m.is_file() && m.permissions().mode() & 0o111 != 0) {
        return Ok(());
    }
    let kind = if known.is_empty() { io::ErrorKind::NotFound } else { io::ErrorKind::PermissionDenied };
    Err(kind.into())
}

/// Replaces this process by `command`, which finds `fds` from number 3 on and their names as a service manager would give them (`LISTEN_FDS`,
/// `LISTEN_PID`, `LISTEN_FDNAMES`). Returns only on failure.
///
/// Source: sd_listen_fds(3).
pub fn exec_with_fds(command: &[OsString], fds: Vec<(String, OwnedFd)>) -> io::Error {
    let Some((program, args)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command was given");
    };
    let names: Vec<&str> = fds.iter().map(|(n, _)| n.as_str()).collect();
    let mut cmd = std::process::Command::new(program);
    cmd.args(args)
        .env("LISTEN_FDS", fds.len().to_string())
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    // Away from 3.. first, so that no dup2 lands on one that is still needed.
    let first = 3 + fds.len() as i32;
    let mut moved = Vec::new();
    for (_, fd) in &fds {
        // SAFETY: F_DUPFD_CLOEXEC takes a number; the result is a new fd that is owned just below.
        match cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first) }) {
            Ok(n) => moved.push(super::file::own(n)),
            Err(e) => return e,
        }
    }
    drop(fds);
    for (i, fd) in moved.iter().enumerate() {
        // SAFETY: the target numbers 3.. were those of `fds` or unused by anything that lives past the exec; dup2 leaves them without CLOEXEC.
        if let Err(e) = cvt(unsafe { libc::dup2(fd.as_raw_fd(), 3 + i as i32) }) {
            return e;
        }
    }
    cmd.exec()
}
