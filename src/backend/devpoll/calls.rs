//! What the devpoll method asks of its kernel, and the definitions that libc lacks.
//!
//! Source: poll(7D) of Solaris, poll(4D) of illumos, <sys/devpoll.h>, <sys/poll.h>.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// In place of events: the fd is taken out of the set. Nothing else may be asked with it.
pub const POLLREMOVE: libc::c_short = 0x0800;

/// What is asked of an fd, or reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The fd.
    pub number: RawFd,
    /// `POLLIN` and the like, or [`POLLREMOVE`]; in a report what is ready.
    pub events: libc::c_short,
}

/// One set of /dev/poll, and the two calls on it.
pub trait Calls {
    /// Changes the set, in order. The events of an fd that is in it already are added to those that it has: to have fewer, remove it first.
    ///
    /// # Errors
    /// `EACCES`: the set is that of a parent process. `EINVAL`: more entries than the limit on open files. A number that is not open is no error here: it is
    /// reported with `POLLNVAL`.
    ///
    /// Source: write(2) on /dev/poll.
    fn write(&mut self, changes: &[Entry]) -> io::Result<()>;

    /// Waits for at most `timeout` (`None` = for ever), rounded up to a millisecond, and appends at most `room` reports to `into`.
    ///
    /// # Errors
    /// `EINTR`, `EACCES`, `EINVAL` as above.
    ///
    /// Source: ioctl(2), `DP_POLL`.
    fn poll(&mut self, into: &mut Vec<Entry>, room: usize, timeout: Option<Duration>) -> io::Result<()>;
}
