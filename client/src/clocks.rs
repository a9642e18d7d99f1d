//! Timers on clocks that libevent has none for: the wall clock, which is set and jumps, and the one that goes on while the machine is suspended.
//!
//! On Linux each is a timerfd, and so an event with an fd like others: evd can wait for it. On Windows each is a waitable timer, which stays in-process as all handles do; it comes with the first
//! tick of the system after it is due, up to 15.6 ms later. Other systems have neither.
//!
//! Source: timerfd_create(2), clock_gettime(2); Microsoft, SetWaitableTimer.

use crate::{Error, Event, EventBase};
use evd_proto::What;
use evd_proto::sys::{AsFd, BorrowedFd, TimerClock, TimerFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The source of a timer on the wall clock.
#[derive(Debug)]
pub struct WallClock(TimerFd);

/// The source of a timer that counts the time in which the machine is suspended.
#[derive(Debug)]
pub struct BootClock(TimerFd);

impl AsFd for WallClock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for BootClock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Event<WallClock> {
    /// A timer on the wall clock (`CLOCK_REALTIME`): it is due when that shows the time it is set to, also if it is set forward or back meanwhile.
    ///
    /// If the clock is set back after it was due and before its callback, it waits once more on Windows, and not on Linux.
    ///
    /// # Errors
    /// `Os`: out of fds, or, elsewhere than on Linux and Windows, `Unsupported`. `Forked`.
    pub fn wall_timer(
        base: &EventBase,
        mut callback: impl FnMut(&Event<WallClock>) + 'static,
    ) -> Result<Event<WallClock>, Error> {
        let clock = WallClock(TimerFd::new(TimerClock::Wall)?);
        Event::new(base, clock, What::READ, move |event, _| {
            // Set anew meanwhile: it is not due.
            if event.source().0.expired() { callback(event) } else { drop(event.add(None)) }
        })
    }

    /// Sets it, once; it replaces what was set before. A time that has passed is due at once. [`Event::del`] takes it back.
    ///
    /// # Errors
    /// `Os`, `Forked`.
    pub fn set_at(&self, at: SystemTime) -> Result<(), Error> {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Before anything is set: in the child of a fork the clock is the parent's.
        self.base().core().check_fork()?;
        self.source().0.set_at(since)?;
        self.add(None)
    }
}

impl Event<BootClock> {
    /// A timer that counts suspend (`CLOCK_BOOTTIME`; the performance counter on Windows): an hour is an hour, also if the machine slept for half of it. It does not wake the machine.
    ///
    /// # Errors
    /// `Os`: out of fds, or, elsewhere than on Linux and Windows, `Unsupported`. `Forked`.
    pub fn boot_timer(
        base: &EventBase,
        mut callback: impl FnMut(&Event<BootClock>) + 'static,
    ) -> Result<Event<BootClock>, Error> {
        let clock = BootClock(TimerFd::new(TimerClock::Boot)?);
        Event::new(base, clock, What::READ, move |event, _| {
            if event.source().0.expired() { callback(event) } else { drop(event.add(None)) }
        })
    }

    /// Sets it, once, to `after` from now; it replaces what was set before. [`Event::del`] takes it back.
    ///
    /// # Errors
    /// `Os`, `Forked`.
    pub fn set_after(&self, after: Duration) -> Result<(), Error> {
        self.base().core().check_fork()?;
        self.source().0.set_after(after)?;
        self.add(None)
    }
}
