//! The portable names of what a file is owned, borrowed and named by: on Windows these are sockets.

use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, OwnedSocket, RawSocket};

/// An owned socket.
pub type OwnedFd = OwnedSocket;

/// A borrowed socket.
pub type BorrowedFd<'a> = BorrowedSocket<'a>;

/// A socket's number. As everywhere it is an `i32`, with -1 for none: a handle has 32 significant bits, also in a program of 64.
///
/// Source: Microsoft, "Interprocess Communication Between 32-bit and 64-bit Applications".
pub type RawFd = i32;

/// Lends its socket: the portable name of [`AsSocket`], which all that has it has.
pub trait AsFd {
    /// Lends the socket.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl<T: AsSocket> AsFd for T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.as_socket()
    }
}

/// Tells its socket's number: the portable name of [`AsRawSocket`].
pub trait AsRawFd {
    /// The number.
    fn as_raw_fd(&self) -> RawFd;
}

impl<T: AsRawSocket> AsRawFd for T {
    fn as_raw_fd(&self) -> RawFd {
        RawFd::try_from(self.as_raw_socket()).unwrap_or(-1)
    }
}

/// The number of a socket that somebody else keeps open.
///
/// A table of watches holds numbers, not borrows: the owner of each watch promises that its socket stays open until the watch is gone (the client's events
/// own their source and are deleted before it is closed). If that promise is broken, system calls see another socket or fail with `WSAENOTSOCK`; memory
/// is never at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdNumber(pub RawFd);

impl AsFd for FdNumber {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is not INVALID_SOCKET, as -1 is never stored; that the number stays open is what the owner of the watch has promised, see the type.
        unsafe { BorrowedFd::borrow_raw(handle(self.0) as RawSocket) }
    }
}

/// The number as Windows takes it.
pub(super) fn handle(number: RawFd) -> usize {
    if number < 0 { usize::MAX } else { number as usize }
}
