//! New fds where the system can't make them closed on exec from the start: they are marked just after.
//!
//! A program that another thread executes in between inherits them: std's `Command` does not (it asks for all that is not its own to be closed), a plain fork and exec may.
//! Sockets never raise SIGPIPE here.
//!
//! Type-checked where this project is developed, not run there.

use crate::sys::unix::{close_on_exec, cvt, file::own, set_nonblocking};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

fn marked(fd: OwnedFd) -> io::Result<OwnedFd> {
    close_on_exec(fd.as_fd())?;
    Ok(fd)
}

fn socket(fd: OwnedFd) -> io::Result<OwnedFd> {
    let (fd, on) = (marked(fd)?, 1 as libc::c_int);
    set_nonblocking(fd.as_fd())?;
    let (at, len) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
    // SAFETY: `at` is `len` readable bytes.
    cvt(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NOSIGPIPE, at, len) })?;
    Ok(fd)
}

/// A Unix stream socket, non-blocking.
pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointers; the result is a new fd.
    socket(cvt(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) }).map(own)?)
}

/// Two connected Unix stream sockets, non-blocking.
pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [0; 2];
    // SAFETY: `pair` is room for two numbers.
    cvt(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) })?;
    let (one, other) = (own(pair[0]), own(pair[1]));
    Ok((socket(one)?, socket(other)?))
}

/// The next connection of a listening socket, non-blocking. Source: accept(2).
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let none = std::ptr::null_mut();
    // SAFETY: null address and length are allowed.
    socket(cvt(unsafe { libc::accept(listener.as_raw_fd(), none, std::ptr::null_mut()) }).map(own)?)
}

/// The reading and the writing end of a pipe, blocking. Source: pipe(2).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` is room for two numbers.
    cvt(unsafe { libc::pipe(ends.as_mut_ptr()) })?;
    let (r, w) = (own(ends[0]), own(ends[1]));
    Ok((marked(r)?, marked(w)?))
}

/// Makes the number `to`, which the caller owns, refer to the file of `from`. Source: dup2(2).
pub(crate) fn duplicate_onto(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes numbers; that `to` is the caller's is what is asked.
    cvt(unsafe { libc::dup2(from, to) })?;
    // SAFETY: F_SETFD takes a number.
    cvt(unsafe { libc::fcntl(to, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}
