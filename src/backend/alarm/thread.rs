//! A timer that is an fd, where the system has none: a thread that sleeps, and a wake-up.
//!
//! The thread lives as long as the alarm. In the child of a fork there is no thread, and nothing rings; a base makes a new alarm then.

use evd_proto::sys::{AsFd, BorrowedFd, Wake, monotonic_ns};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A thread that wakes.
#[derive(Debug)]
pub(crate) struct Alarm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    wake: Wake,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    Resting,
    Until(u64),
    Over,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            state = match *state {
                State::Over => return,
                State::Resting => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                State::Until(at) => match at.saturating_sub(monotonic_ns()) {
                    0 => {
                        // Under the lock: whoever sets it anew after this takes the wake-up back.
                        self.wake.notify();
                        *state = State::Resting;
                        state
                    }
                    left => {
                        let left = Duration::from_nanos(left);
                        self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                    }
                },
            };
        }
    }
}

impl Alarm {
    /// A disarmed one, closed on exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, and `EAGAIN` if there can't be another thread.
    pub(crate) fn new() -> io::Result<Alarm> {
        let shared = Arc::new(Shared {
            wake: Wake::new()?,
            state: Mutex::new(State::Resting),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("evd-alarm".to_owned()).spawn(move || of_thread.run())?;
        Ok(Alarm(shared))
    }

    /// Readable from `deadline` on, in ns of the monotonic clock; `None` = never. What has rung and nobody has read is taken back.
    ///
    /// # Errors
    /// None.
    pub(crate) fn set(&self, deadline: Option<u64>) -> io::Result<()> {
        let mut state = self.0.lock();
        self.0.wake.drain();
        *state = match deadline {
            Some(at) if at <= monotonic_ns() => {
                self.0.wake.notify();
                State::Resting
            }
            Some(at) => State::Until(at),
            None => State::Resting,
        };
        self.0.changed.notify_one();
        Ok(())
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // In the child of a fork the lock may be that of a thread that is not there.
        if let Ok(mut state) = self.0.state.try_lock() {
            *state = State::Over;
            self.0.changed.notify_one();
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evd_proto::What;
    use evd_proto::sys::{AsRawFd, PollFd, poll};

    fn rings(alarm: &Alarm, ms: u64) -> bool {
        let mut fds = [PollFd::new(alarm.as_fd().as_raw_fd(), What::READ)];
        poll(&mut fds, Some(Duration::from_millis(ms))).unwrap() == 1
    }

    #[test]
    fn rings_when_it_is_due_and_not_when_it_was_taken_back() {
        let alarm = Alarm::new().unwrap();
        assert!(!rings(&alarm, 5));
        let at = monotonic_ns() + 10_000_000;
        alarm.set(Some(at)).unwrap();
        assert!(rings(&alarm, 10_000));
        assert!(monotonic_ns() >= at);
        alarm.set(None).unwrap();
        assert!(!rings(&alarm, 5));
        alarm.set(Some(0)).unwrap();
        assert!(rings(&alarm, 0));
        alarm.set(Some(u64::MAX)).unwrap();
        assert!(!rings(&alarm, 5));
        alarm.set(Some(monotonic_ns() + 5_000_000)).unwrap();
        alarm.set(None).unwrap();
        assert!(!rings(&alarm, 20));
    }
}
