//! Timers that are fds: this system has none, or has had them too short a time to count on.

use crate::sys::{AsFd, BorrowedFd};
use std::io;
use std::time::Duration;

/// What a [`TimerFd`] counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerClock {
    /// The wall clock.
    Wall,
    /// The time since boot with suspend.
    Boot,
}

/// A timer that becomes readable when it is due. There is none on this system.
#[derive(Debug)]
pub struct TimerFd(std::convert::Infallible);

impl TimerFd {
    /// Not on this system.
    ///
    /// # Errors
    /// `Unsupported`, always.
    pub fn new(_clock: TimerClock) -> io::Result<TimerFd> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no timers that are fds"))
    }

    /// Due at a time of its clock.
    ///
    /// # Errors
    /// There is none to be set.
    pub fn set_at(&self, _since_epoch: Duration) -> io::Result<()> {
        match self.0 {}
    }

    /// Due after a time.
    ///
    /// # Errors
    /// There is none to be set.
    pub fn set_after(&self, _after: Duration) -> io::Result<()> {
        match self.0 {}
    }

    /// Whether it was due since the last look.
    pub fn expired(&self) -> bool {
        match self.0 {}
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
