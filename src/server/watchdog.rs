//! Whether evd as a whole gets on: what the service manager's watchdog is told, and who is stuck.
//!
//! The acceptor looks at half the manager's interval, and only if there is one: without a watchdog nothing here runs. No worker is asked, and none that
//! has nothing to do is woken; each shows by `busy_since` and by its mailbox whether it gets on:
//!
//! - one that waits, and has no mail, is fine: it has nothing to do;
//! - one whose turn began a moment ago is fine: the time is another one at each look;
//! - one that has been in one turn for [`STUCK`], or has let its mail lie for so long, is **stuck**. What a client passes can block only the worker of its
//!   own user (see `worker`), so such a worker is in quarantine: it is named to the service manager and in the log, and does not count. Otherwise
//!   anybody could have evd restarted. A worker that sleeps over its mail is woken again, in case its wake-up was lost.
//!
//! The whole is at fault if the tables that all workers share can't be locked (then the look itself hangs), or if **every** worker is stuck and they are
//! of more than one user. Then nothing is said, and the service manager starts evd anew.

use super::mail::{Handle, STUCK};
use super::registry::Shared;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How soon it is looked again when evd is at fault, in nanoseconds: it may just have been frozen.
const AGAIN: u64 = 100_000_000;

/// What one look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pulse {
    /// The workers in quarantine, with their users.
    pub stuck: BTreeSet<(u32, u32)>,
    /// Nobody gets on, and no single user can be to blame.
    pub is_faulty: bool,
}

/// The look, and what is remembered between two of them.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// In nanoseconds.
    every: u64,
    stuck: BTreeSet<(u32, u32)>,
}

impl Watchdog {
    /// For a service manager that wants to hear something at least once in `interval`.
    pub fn new(interval: Duration) -> Watchdog {
        let every = u64::try_from(interval.as_nanos() / 2).unwrap_or(u64::MAX / 2).max(1_000_000);
        Watchdog { every, stuck: BTreeSet::new() }
    }

    /// Looks at all workers. Whether all is well, and how long it is until the next look.
    pub fn look(&mut self, shared: &Shared, now: u64) -> (bool, u64) {
        // Each takes its lock once, so that a deadlock of the workers is one of this thread as well.
        let _ = (shared.names.count(None), shared.holds.count(None), shared.books.is_even());
        let pulse = pulse(&shared.all_workers(), now);
        for (worker, uid) in pulse.stuck.difference(&self.stuck) {
            log::warn!(
                "worker {worker} of user {uid} is stuck; its clients go on by themselves, and others are served"
            );
        }
        for (worker, uid) in self.stuck.difference(&pulse.stuck) {
            log::info!("worker {worker} of user {uid} is no longer stuck");
        }
        self.stuck = pulse.stuck;
        if pulse.is_faulty {
            log::error!("no worker gets on: the service manager is told nothing, and may start evd anew");
        }
        if pulse.is_faulty { (false, AGAIN.min(self.every)) } else { (true, self.every) }
    }

    /// The users whose workers were stuck at the last look.
    pub fn quarantined(&self) -> Vec<u32> {
        let users: BTreeSet<u32> = self.stuck.iter().map(|(_, uid)| *uid).collect();
        users.into_iter().collect()
    }
}

fn pulse(workers: &[Arc<Handle>], now: u64) -> Pulse {
    let mut found = Pulse::default();
    for worker in workers {
        let mail = worker.mail_lies(now) > STUCK;
        let busy = worker.busy_for(now);
        if mail && busy == 0 {
            worker.wake();
        }
        if mail || busy > STUCK {
            found.stuck.insert((worker.id, worker.uid));
        }
    }
    let users: BTreeSet<u32> = found.stuck.iter().map(|(_, uid)| *uid).collect();
    found.is_faulty = users.len() > 1 && found.stuck.len() == workers.len();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Base, Config};
    use crate::server::mail::Mail;
    use evd_proto::sys;
    use std::sync::atomic::Ordering;

    const SECOND: u64 = 1_000_000_000;

    /// A worker that nobody runs.
    fn worker(id: u32, uid: u32) -> Arc<Handle> {
        let waker = Base::new(&Config::default()).unwrap().waker().unwrap();
        Arc::new(Handle::new(id, uid, false, "epoll", waker, 0))
    }

    fn stuck(pulse: &Pulse) -> Vec<u32> {
        pulse.stuck.iter().map(|(worker, _)| *worker).collect()
    }

    #[test]
    fn who_has_nothing_to_do_or_is_at_it_is_fine() {
        let (idle, busy) = (worker(1, 5), worker(2, 6));
        busy.busy_since.store(99 * SECOND, Ordering::Relaxed);
        assert_eq!(pulse(&[idle, busy], 100 * SECOND), Pulse::default());
        assert_eq!(pulse(&[], 100 * SECOND), Pulse::default());
    }

    #[test]
    fn a_long_turn_and_mail_that_lies_are_stuck() {
        let (idle, long, asleep) = (worker(1, 5), worker(2, 6), worker(3, 7));
        long.busy_since.store(SECOND, Ordering::Relaxed);
        asleep.post(Mail::Followers);
        let found = pulse(&[idle, long, asleep.clone()], sys::monotonic_ns() + 3 * SECOND);
        assert_eq!((stuck(&found), found.is_faulty), (vec![2, 3], false));
        let mut mail = Vec::new();
        asleep.collect(&mut mail);
        assert_eq!(pulse(&[asleep], sys::monotonic_ns() + 3 * SECOND), Pulse::default());
    }

    #[test]
    fn one_user_alone_is_never_evds_fault() {
        let all = [worker(1, 5), worker(2, 5), worker(3, 6)];
        for w in &all {
            w.busy_since.store(SECOND, Ordering::Relaxed);
        }
        assert!(!pulse(&all[..2], 9 * SECOND).is_faulty, "all workers of the only user");
        assert!(pulse(&all, 9 * SECOND).is_faulty, "all workers of two users");
        all[0].busy_since.store(0, Ordering::Relaxed);
        assert!(!pulse(&all, 9 * SECOND).is_faulty, "one gets on");
    }
}
