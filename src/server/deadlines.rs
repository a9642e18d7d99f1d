//! What a worker must do at a time, if nothing else happens before.

use std::collections::BTreeSet;
use std::time::Duration;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The base of a session has a timer. By the session's id.
    Session(u64),
    /// A connection has not said `Hello`. By the id that its session would have.
    Hello(u64),
    /// Other workers have not answered. By the ticket's number.
    Ticket(u64),
    /// Something is to be done about the held fds of the worker's user.
    Holds,
}

/// Times in `CLOCK_MONOTONIC` nanoseconds, earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    set: BTreeSet<(u64, Due)>,
    holds: Option<u64>,
}

impl Deadlines {
    /// Adds one.
    pub fn add(&mut self, at: u64, due: Due) {
        self.set.insert((at, due));
    }

    /// Removes one that was added with the same time; one that is not there is not an error.
    pub fn remove(&mut self, at: u64, due: Due) {
        self.set.remove(&(at, due));
    }

    /// Takes the first one that is due at `now`.
    pub fn pop(&mut self, now: u64) -> Option<Due> {
        let (at, due) = *self.set.first()?;
        if at > now {
            return None;
        }
        self.remove(at, due);
        if due == Due::Holds {
            self.holds = None;
        }
        Some(due)
    }

    /// The first.
    pub fn first(&self) -> Option<u64> {
        self.set.first().map(|(at, _)| *at)
    }

    /// How long it is to the first, from `now` on.
    pub fn until(&self, now: impl FnOnce() -> u64) -> Option<Duration> {
        let (at, _) = self.set.first()?;
        Some(Duration::from_nanos(at.saturating_sub(now())))
    }

    /// When something is to be done about held fds next, if at all.
    pub fn plan_holds(&mut self, at: Option<u64>) {
        if at == self.holds {
            return;
        }
        if let Some(old) = std::mem::replace(&mut self.holds, at) {
            self.remove(old, Due::Holds);
        }
        if let Some(at) = at {
            self.add(at, Due::Holds);
        }
    }

    /// Whether held fds have a time here: then their worker stays.
    pub fn has_holds(&self) -> bool {
        self.holds.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_removed_ones_never() {
        let mut d = Deadlines::default();
        d.plan_holds(Some(50));
        d.add(10, Due::Session(7));
        d.add(20, Due::Ticket(3));
        d.plan_holds(Some(30));
        d.remove(20, Due::Ticket(3));
        d.remove(99, Due::Ticket(1));
        assert_eq!(d.until(|| 4), Some(Duration::from_nanos(6)));
        assert_eq!((d.pop(9), d.pop(40), d.has_holds()), (None, Some(Due::Session(7)), true));
        assert_eq!((d.pop(40), d.pop(60), d.has_holds()), (Some(Due::Holds), None, false));
        d.plan_holds(Some(70));
        d.plan_holds(None);
        assert_eq!(d.until(|| 0), None);
    }
}
