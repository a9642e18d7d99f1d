//! What the BSDs and macOS have in common. Type-checked where this project is developed, not run there.

use super::cvt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Whether this process runs with more rights than who started it. Source: issetugid(2).
pub(super) fn is_privileged() -> bool {
    // SAFETY: takes nothing.
    unsafe { libc::issetugid() != 0 }
}

/// Locks a file for this open of it, without blocking. Source: flock(2).
pub(super) fn lock(file: &File) -> io::Result<()> {
    // SAFETY: flock takes a number and flags; `file` is open for the call.
    cvt(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }).map(drop)
}

/// Ends a lock of [`lock`], for everybody who shares this open of the file. Source: flock(2).
pub(super) fn unlock(file: &File) {
    // SAFETY: flock takes a number and flags; `file` is open for the call.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
}

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
