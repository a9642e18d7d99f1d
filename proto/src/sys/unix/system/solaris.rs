//! Solaris and illumos: what it alone has, or has in its own way. Type-checked where this project is developed, not run there.

use super::cvt;
use crate::sys::Peer;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// illumos has it, Solaris has not.
pub(super) const POLLRDHUP: libc::c_short = 0;
/// All numbers of this process's open files. Source: proc(5).
pub(super) const FD_DIRECTORY: &str = "/proc/self/fd";
/// illumos has one, Solaris has not: what is passed is marked after it has come, and a program that another thread executes in between has it too.
pub(super) const RECV_CLOEXEC: libc::c_int = 0;

/// Where the files of what runs are.
pub(super) const RUN_DIRECTORY: &str = "/var/run";

/// Where the calling thread's errno is.
pub(super) fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing; the address is valid in every thread.
    unsafe { libc::___errno() }
}

/// A ucred_t, which is freed in the end.
struct Cred(*mut libc::ucred_t);

impl Cred {
    /// Source: getpeerucred(3C).
    fn of(fd: BorrowedFd<'_>) -> io::Result<Cred> {
        let mut cred = std::ptr::null_mut();
        // SAFETY: `cred` is null, so that one is allocated.
        cvt(unsafe { libc::getpeerucred(fd.as_raw_fd(), &mut cred) })?;
        Ok(Cred(cred))
    }
}

impl Drop for Cred {
    fn drop(&mut self) {
        // SAFETY: it was allocated by getpeerucred and is freed once.
        unsafe { libc::ucred_free(self.0) };
    }
}

/// Source: getpeerucred(3C), ucred_get(3C).
pub(super) fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let cred = Cred::of(fd)?;
    // SAFETY: a live ucred_t.
    let pid = unsafe { libc::ucred_getpid(cred.0) };
    // SAFETY: as above.
    let uid = unsafe { libc::ucred_geteuid(cred.0) };
    // SAFETY: as above.
    let gid = unsafe { libc::ucred_getegid(cred.0) };
    Ok(Peer { pid: pid.max(0), uid, gid })
}

/// Source: ucred_getgroups(3C).
pub(super) fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let (cred, mut at) = (Cred::of(fd)?, std::ptr::null());
    // SAFETY: a live ucred_t; `at` is made to point into it.
    let n = cvt(unsafe { libc::ucred_getgroups(cred.0, &mut at) })?;
    if n == 0 || at.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: `n` numbers in `cred`, which lives until the end of this function.
    Ok(unsafe { std::slice::from_raw_parts(at, n as usize) }.to_vec())
}

/// illumos can (memcntl(2)), Solaris can't.
///
/// # Safety
/// None is needed.
pub(super) unsafe fn wipe_in_children(_at: *mut libc::c_void, _size: usize) -> bool {
    false
}

unsafe extern "C" {
    /// libc does not have it for this system. Source: issetugid(2).
    safe fn issetugid() -> libc::c_int;
}

/// Whether this process runs with more rights than who started it. Source: issetugid(2).
pub(super) fn is_privileged() -> bool {
    issetugid() != 0
}

/// The first and the last real-time signal.
pub(super) fn real_time_signals() -> Option<(i32, i32)> {
    Some((libc::SIGRTMIN(), libc::SIGRTMAX()))
}

/// Whether a signal with this `si_code` was sent by a process. Source: siginfo.h(3HEAD).
pub(super) fn sent_by_process(code: i32) -> bool {
    code <= 0
}

/// Locks a file for this process, without blocking; closing any fd of the file unlocks it. Source: fcntl(2), `F_SETLK`.
pub(super) fn lock(file: &File) -> io::Result<()> {
    // SAFETY: all zeroes is a valid flock: the whole file from its start.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = libc::F_WRLCK as _;
    // SAFETY: `whole` is live for the call.
    match cvt(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const whole) }) {
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => Err(io::ErrorKind::WouldBlock.into()),
        other => other.map(drop),
    }
}

/// Nothing to do: the lock is the process's own, and ends when the file is closed.
pub(super) fn unlock(_file: &File) {}

/// The process: nobody asks for a thread's state here.
pub(super) fn thread_id() -> i32 {
    std::process::id() as i32
}

/// It can't be known: there is no fd of another's process.
pub(super) fn peer_process(_fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    None
}

/// It can't be known: what is sent is in the reader's buffer at once.
pub(super) fn unread_by_peer(_fd: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(0)
}

/// There is nothing of the kind here that every version has.
pub(super) fn no_new_privileges() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
