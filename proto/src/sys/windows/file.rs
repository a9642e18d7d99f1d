//! What a number refers to.

use super::fd::handle;
use super::{AsRawFd, BorrowedFd, OwnedFd, RawFd, cvt, wait_effect};
use crate::sys::{FileId, FileKind};
use std::io;
use std::time::Duration;
use windows_sys::Win32::Networking::WinSock::{SO_TYPE, SOL_SOCKET, getsockopt};

/// Asks what `fd` is. Each socket is its own file: Windows does not tell which numbers are duplicates of each other.
///
/// # Errors
/// `WSAENOTSOCK` if `fd` is neither an open socket nor a handle that can be waited for.
pub fn identify(fd: BorrowedFd<'_>) -> io::Result<FileId> {
    let number = fd.as_raw_fd();
    let kind = match socket_type(number) {
        Ok(_) => FileKind::Socket,
        // One of those that are never parked: a wait of another process would take what is this one's.
        Err(_) if wait_effect(number).is_ok_and(|effect| effect.is_some()) => FileKind::SignalFd,
        Err(e) => return Err(e),
    };
    Ok(FileId { kind, dev: 0, ino: number as u64, access: 0 })
}

fn socket_type(number: RawFd) -> io::Result<i32> {
    let (mut kind, mut len) = (0i32, size_of::<i32>() as i32);
    let at = (&raw mut kind).cast();
    // SAFETY: `at` is `len` writable bytes; a number that is no socket gives WSAENOTSOCK.
    cvt(unsafe { getsockopt(handle(number), SOL_SOCKET, SO_TYPE, at, &mut len) })?;
    Ok(kind)
}

/// Whether `number` is an open socket.
///
/// Source: getsockopt of Winsock, SO_TYPE.
pub fn is_open(number: RawFd) -> bool {
    socket_type(number).is_ok()
}

/// Another number for the same socket, which no child inherits.
///
/// # Errors
/// `WSAEMFILE`, `WSAENOTSOCK`.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// Not on Windows: evd, which would keep it, is not there yet.
///
/// # Errors
/// `Unsupported`, always.
pub fn counter() -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, NOTHING_HELD))
}

/// As [`counter`].
///
/// # Errors
/// `Unsupported`, always.
pub fn counting_timer(_first: Duration, _every: Option<Duration>) -> io::Result<OwnedFd> {
    counter()
}

/// As [`counter`].
///
/// # Errors
/// `Unsupported`, always.
pub fn take_count(_fd: BorrowedFd<'_>) -> io::Result<u64> {
    Err(io::Error::new(io::ErrorKind::Unsupported, NOTHING_HELD))
}

const NOTHING_HELD: &str = "evd is not there for Windows yet, so nothing can be held";

/// Whether there is a [`replace`].
pub const CAN_REPLACE: bool = false;

/// Not on Windows, where a number can't be made to mean another file.
///
/// # Errors
/// `Unsupported`, always.
pub fn replace(_old: &OwnedFd, _new: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "Windows can't replace the socket behind a number"))
}

/// How many handles a process may have; there is no limit to be raised.
///
/// # Errors
/// None.
///
/// Source: Microsoft, "Kernel objects": 2^24 a process.
pub fn raise_open_files() -> io::Result<u64> {
    Ok(1 << 24)
}
