//! There is nothing that counts by itself and can be read and waited for by whoever has it. (FreeBSD and NetBSD have eventfds, but nothing that tells one from
//! another file, or what it has counted.) Type-checked where this project is developed, not run there.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

fn lacking<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system has no fds that count by themselves; Linux has",
    ))
}

/// On Linux a counter that is zero.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
pub fn counter() -> io::Result<OwnedFd> {
    lacking()
}

/// On Linux a timer that counts how often it was due.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
pub fn counting_timer(_first: Duration, _every: Option<Duration>) -> io::Result<OwnedFd> {
    lacking()
}

/// On Linux adds one to a counter.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
pub fn count_up(_counter: BorrowedFd<'_>) -> io::Result<()> {
    lacking()
}

/// On Linux takes what a counter or a timer has counted.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
pub fn take_count(_fd: BorrowedFd<'_>) -> io::Result<u64> {
    lacking()
}

/// It can't be told: 0.
pub fn look_at_count(_fd: BorrowedFd<'_>) -> u64 {
    0
}
