//! New fds, closed on exec from their first moment on.

use crate::sys::unix::{cvt, file::own};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

const KIND: libc::c_int = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// A Unix stream socket, non-blocking.
pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointers; the result is a new fd.
    cvt(unsafe { libc::socket(libc::AF_UNIX, KIND, 0) }).map(own)
}

/// Two connected Unix stream sockets, non-blocking.
pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [0; 2];
    // SAFETY: `pair` is room for two numbers.
    cvt(unsafe { libc::socketpair(libc::AF_UNIX, KIND, 0, pair.as_mut_ptr()) })?;
    Ok((own(pair[0]), own(pair[1])))
}

/// The next connection of a listening socket, non-blocking. Source: accept4(2).
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (none, flags) = (std::ptr::null_mut(), libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    // SAFETY: null address and length are allowed.
    cvt(unsafe { libc::accept4(listener.as_raw_fd(), none, std::ptr::null_mut(), flags) }).map(own)
}

/// The reading and the writing end of a pipe, blocking. Source: pipe2(2).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` is room for two numbers.
    cvt(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((own(ends[0]), own(ends[1])))
}

/// Makes the number `to`, which the caller owns, refer to the file of `from`. Source: dup3(2).
pub(crate) fn duplicate_onto(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup3 takes numbers; that `to` is the caller's is what is asked.
    cvt(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
}
