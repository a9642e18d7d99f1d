//! A timer that is an fd, where a kqueue has timers: a kqueue of its own with one of them. It is readable when that has rung.
//!
//! `EVFILT_TIMER` counts milliseconds everywhere and less only on some systems. A timer of 0 ms may never ring, so "now" is a wake-up beside it.

use super::kqueue::{Calls, Filter, Flags, Kevent};
use super::kqueue_real::{Kernel, call, empty};
use super::os;
use evd_proto::sys::{Wake, monotonic_ns};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// It rings at least once a day: more milliseconds are refused by some systems. Whoever hears it too early sets it again.
const LONGEST_MS: u64 = 24 * 3600 * 1000;

/// A timer of a kqueue.
pub(crate) struct Alarm {
    kernel: Kernel,
    now: Wake,
}

impl Alarm {
    /// A disarmed one, closed on exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(crate) fn new() -> io::Result<Alarm> {
        let (mut kernel, now) = (Kernel::new()?, Wake::new()?);
        let knote =
            Kevent { ident: now.as_fd().as_raw_fd(), filter: Filter::Read, flags: Flags::ADD, data: 0 };
        kernel.kevent(&[knote], &mut Vec::new(), 0, Some(Duration::ZERO))?;
        Ok(Alarm { kernel, now })
    }

    /// Readable from `deadline` on, in ns of the monotonic clock; `None` = never. What has rung and nobody has read is taken back.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(crate) fn set(&self, deadline: Option<u64>) -> io::Result<()> {
        let left = deadline.map(|at| at.saturating_sub(monotonic_ns()));
        let ms = left.filter(|ns| *ns > 0).map(|ns| ns.div_ceil(1_000_000).min(LONGEST_MS) as i32);
        self.set_timer(ms)?;
        if left == Some(0) {
            self.now.notify();
        } else {
            self.now.drain();
        }
        Ok(())
    }

    /// The one timer of this kqueue: due once, after `ms`.
    fn set_timer(&self, ms: Option<i32>) -> io::Result<()> {
        let mut timer = empty();
        timer.filter = os::EVFILT_TIMER;
        timer.flags = os::EV_DELETE;
        // ENOENT: it was not set.
        let _ = call(self.kernel.as_fd(), &[timer], &mut [], Some(Duration::ZERO));
        let Some(ms) = ms else { return Ok(()) };
        timer.flags = os::EV_ADD | os::EV_ONESHOT;
        // A timer of 0 ms may never ring.
        timer.data = ms.max(1) as _;
        call(self.kernel.as_fd(), &[timer], &mut [], Some(Duration::ZERO)).map(drop)
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alarm").field("fd", &self.kernel.as_fd()).finish_non_exhaustive()
    }
}
