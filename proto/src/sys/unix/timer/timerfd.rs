//! Timers that are fds, on the clocks that the loops have no timers for.

use crate::sys::unix::{cvt, file::own};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What a [`TimerFd`] counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerClock {
    /// The wall clock, `CLOCK_REALTIME`.
    Wall,
    /// The time since boot with suspend, `CLOCK_BOOTTIME`.
    Boot,
}

/// A timer that becomes readable when it is due. On Linux only; elsewhere there is none.
///
/// Source: timerfd_create(2).
#[derive(Debug)]
pub struct TimerFd(OwnedFd);

impl TimerFd {
    /// One that is not set; non-blocking, closed on exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new(clock: TimerClock) -> io::Result<TimerFd> {
        let clock = match clock {
            TimerClock::Wall => libc::CLOCK_REALTIME,
            TimerClock::Boot => libc::CLOCK_BOOTTIME,
        };
        // SAFETY: timerfd_create takes two numbers.
        let fd = cvt(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })?;
        Ok(TimerFd(own(fd)))
    }

    /// Due at a time of its clock; what was set before is forgotten, also if it was due and nobody has looked.
    ///
    /// # Errors
    /// `EINVAL`: a time that the kernel can't count.
    pub fn set_at(&self, since_epoch: Duration) -> io::Result<()> {
        self.set(libc::TFD_TIMER_ABSTIME, since_epoch)
    }

    /// Due after a time.
    ///
    /// # Errors
    /// As [`TimerFd::set_at`].
    pub fn set_after(&self, after: Duration) -> io::Result<()> {
        self.set(0, after)
    }

    fn set(&self, flags: libc::c_int, value: Duration) -> io::Result<()> {
        // Zero would disarm it.
        let value = value.max(Duration::from_nanos(1));
        let secs = value.as_secs().min(i64::MAX as u64);
        let it_value =
            libc::timespec { tv_sec: secs as libc::time_t, tv_nsec: value.subsec_nanos() as libc::c_long };
        let it_interval = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval, it_value };
        // SAFETY: `spec` is a live itimerspec, and a null old value is allowed.
        cvt(unsafe { libc::timerfd_settime(self.0.as_raw_fd(), flags, &spec, std::ptr::null_mut()) })?;
        Ok(())
    }

    /// Whether it was due since the last look; it is not readable any more then.
    pub fn expired(&self) -> bool {
        let mut count = [0u8; 8];
        // SAFETY: `count` is writable for 8 bytes.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) == 8 }
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
