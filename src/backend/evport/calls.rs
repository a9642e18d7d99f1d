//! What the evport method asks of its kernel.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

/// One event port: its fd, which is readable while an event is queued, and the calls on it.
pub trait Calls: AsFd {
    /// Has one event queued when `fd` has one of `events` (`POLLIN` and the like; `POLLHUP` and `POLLERR` always), at once if it has one now. Replaces what was asked of this
    /// fd before; an event of it that is still queued is dropped.
    ///
    /// # Errors
    /// `EBADF`: not an open file (the kernel's own word is `EBADFD`). `EAGAIN`, `ENOMEM`: too many.
    ///
    /// Source: port_associate(3C), `PORT_SOURCE_FD`.
    fn associate(&mut self, fd: RawFd, events: libc::c_short) -> io::Result<()>;

    /// Takes that back; a queued event of the fd is dropped.
    ///
    /// # Errors
    /// `ENOENT`: nothing was asked of it, or its event was taken. `EBADF`.
    ///
    /// Source: port_dissociate(3C).
    fn dissociate(&mut self, fd: RawFd) -> io::Result<()>;

    /// Waits for at most `timeout` (`None` = for ever) for one event, then appends the numbers of those that are queued, at most `room`. Each is asked of again before it
    /// comes again. What an event says is as old as its being queued.
    ///
    /// # Errors
    /// `EINTR`. That the time is over is none.
    ///
    /// Source: port_getn(3C).
    fn take(&mut self, into: &mut Vec<RawFd>, room: usize, timeout: Option<Duration>) -> io::Result<()>;
}
