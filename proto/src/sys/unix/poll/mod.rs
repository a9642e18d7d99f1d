//! `poll(2)` over borrowed fds: one look at many files, without registering anything.

#[cfg_attr(any(target_vendor = "apple", target_os = "illumos", target_os = "solaris"), path = "coarse.rs")]
#[cfg_attr(
    not(any(target_vendor = "apple", target_os = "illumos", target_os = "solaris")),
    path = "precise.rs"
)]
mod wait;

use super::system;
use crate::sys::What;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// One entry of a [`poll`].
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Asks for the READ, WRITE and CLOSED bits of `what` on `fd`. A negative `fd` is passed over.
    pub fn new(fd: RawFd, what: What) -> PollFd {
        let mut events = 0;
        if what.contains(What::READ) {
            events |= libc::POLLIN;
        }
        if what.contains(What::WRITE) {
            events |= libc::POLLOUT;
        }
        if what.contains(What::CLOSED) {
            events |= system::POLLRDHUP;
        }
        PollFd(libc::pollfd { fd, events, revents: 0 })
    }

    /// The number that it asks of; negative if it is passed over.
    pub fn number(&self) -> RawFd {
        self.0.fd
    }

    /// What the last [`poll`] found, as libevent maps it: HUP, ERR and NVAL count as READ and WRITE, RDHUP as CLOSED.
    pub fn ready(&self) -> What {
        let mut what = self.strictly_ready();
        if self.0.revents & (libc::POLLHUP | libc::POLLNVAL) != 0 {
            what |= What::READ | What::WRITE;
        }
        what
    }

    /// As [`PollFd::ready`], but HUP and NVAL alone are nothing to read and no room to write.
    pub fn strictly_ready(&self) -> What {
        let r = self.0.revents;
        let mut what = What::empty();
        if r == 0 {
            return what;
        }
        if r & libc::POLLERR != 0 {
            what |= What::READ | What::WRITE;
        }
        if r & libc::POLLIN != 0 {
            what |= What::READ;
        }
        if r & libc::POLLOUT != 0 {
            what |= What::WRITE;
        }
        #[allow(clippy::bad_bit_mask, reason = "it is 0 where there is none")]
        if r & system::POLLRDHUP != 0 {
            what |= What::CLOSED;
        }
        what
    }

    /// Whether the kernel said that the number is not an open file.
    pub fn is_invalid(&self) -> bool {
        self.0.revents & libc::POLLNVAL != 0
    }
}

impl std::fmt::Debug for PollFd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let libc::pollfd { fd, events, revents } = self.0;
        f.debug_struct("PollFd").field("fd", &fd).field("events", &events).field("revents", &revents).finish()
    }
}

/// Whether [`poll`] tells that a peer has closed its half: CLOSED is never found elsewhere.
pub const POLL_SEES_CLOSED: bool = system::POLLRDHUP != 0;

/// Looks at all of `fds`; blocks for at most `timeout` (`None` = for ever), rounded up to what the system counts: nanoseconds, on macOS and Solaris milliseconds.
/// Returns how many are ready; a signal that interrupts counts as none.
///
/// # Errors
/// `EINVAL` if there are more entries than the limit on open files, `ENOMEM`.
///
/// Source: poll(2), ppoll(2).
pub fn poll(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<usize> {
    let (at, len) = (fds.as_mut_ptr().cast::<libc::pollfd>(), fds.len());
    // SAFETY: `PollFd` is a transparent pollfd, and the slice is borrowed for as long as this one is used.
    let plain = unsafe { std::slice::from_raw_parts_mut(at, len) };
    match wait::wait(plain, timeout) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {
            fds.iter_mut().for_each(|f| f.0.revents = 0);
            Ok(0)
        }
        other => other,
    }
}
