//! Nobody keeps fds beyond a process's end: what is in flight can't be looked at without taking it, so that a reader that dies half way would lose it.
//! Type-checked where this project is developed, not run there.

use crate::sys::Peer;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

/// Whether fds in flight can be looked at, and a process be told from others by what it sends: without that nobody can keep fds for the next evd.
pub const KEEPS_FDS: bool = false;

fn lacking<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system can't keep fds beyond a process's end; Linux can",
    ))
}

/// On Linux the next [`peek_next`](super::peek_next) shows the first message.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
pub fn peek_from_start(_fd: BorrowedFd<'_>) -> io::Result<()> {
    lacking()
}

/// On Linux a file without a name, in memory.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
pub(in crate::sys::unix) fn memfd(_name: &std::ffi::CStr) -> io::Result<File> {
    lacking()
}

/// What comes does not say who sent it.
pub(super) fn ask_for_senders(_fd: BorrowedFd<'_>) -> io::Result<()> {
    lacking()
}

/// No control message says that.
///
/// # Safety
/// None is needed.
pub(super) unsafe fn sender(_at: *const libc::cmsghdr) -> Option<Peer> {
    None
}

/// A child lives on.
pub(super) fn end_with_parent() -> io::Result<()> {
    lacking()
}

/// It is not known.
pub(super) fn has_one_thread() -> io::Result<bool> {
    lacking()
}
