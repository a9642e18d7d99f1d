//! A timer that is an fd: what makes a nested base readable when a timer is due, and epoll precise where the kernel lacks `epoll_pwait2`.
//!
//! - timerfd_settime(2) with a zero value disarms, so "now" is 1 ns. Setting it again takes back a readiness that nobody has read.
//! - `TFD_TIMER_ABSTIME` with a time that has passed fires at once.
//! - `CLOCK_MONOTONIC` like all of evd's deadlines; it does not count suspend.

use super::cvt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A timerfd.
#[derive(Debug)]
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    /// A disarmed one, non-blocking and closed on exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(crate) fn new() -> io::Result<Alarm> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: timerfd_create takes two numbers.
        let fd = cvt(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        // SAFETY: the kernel has just made `fd`; nobody else owns it.
        Ok(Alarm(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Readable from `deadline` on, in ns of the monotonic clock; `None` = never.
    ///
    /// # Errors
    /// None that the kernel documents for a valid timerfd.
    pub(crate) fn set(&self, deadline: Option<u64>) -> io::Result<()> {
        let at = deadline.map_or(Duration::ZERO, |ns| Duration::from_nanos(ns.max(1)));
        self.settime(libc::TFD_TIMER_ABSTIME, at)
    }

    /// Readable after `delay`, which is not zero.
    ///
    /// # Errors
    /// As `set`.
    pub(crate) fn set_after(&self, delay: Duration) -> io::Result<()> {
        self.settime(0, delay.max(Duration::from_nanos(1)))
    }

    fn settime(&self, flags: libc::c_int, value: Duration) -> io::Result<()> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: zero, it_value: super::timespec(value) };
        // SAFETY: `spec` is a live itimerspec, and a null old value is allowed.
        cvt(unsafe { libc::timerfd_settime(self.0.as_raw_fd(), flags, &spec, std::ptr::null_mut()) })?;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
