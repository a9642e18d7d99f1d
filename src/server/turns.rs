//! Who tries again, when fds are short, or room in the service manager's store: one user after another.
//!
//! A user whose holds could not be read, or not be stored anew, has lost nothing: what was stored is stored still. But he keeps the fds of what he could not
//! replace, and his worker has some of its own. If all such users tried again when they liked, each would have a part of what the others need, and none might ever
//! have enough. So they wait here, one at a time tries, and a worker that serves nobody else ends meanwhile. The acceptor gives the turns.

use super::mail::lock;
use crate::base::Waker;
use evd_proto::sys;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// How long one waits after he was short for the first time, in nanoseconds; doubled each time, up to [`LONGEST_PAUSE`].
const PAUSE: u64 = 50_000_000;
const LONGEST_PAUSE: u64 = 1_000_000_000;
/// After so long in a turn, in nanoseconds, nobody waits for its end: what a client gave can block its user's worker for ever.
const LONG: u64 = 1_000_000_000;

pub(super) struct Turns {
    queue: Mutex<Queue>,
    /// The acceptor's.
    waker: Waker,
}

#[derive(Default)]
struct Queue {
    /// From when on who may try again.
    waiting: BTreeMap<u32, u64>,
    current: Option<Turn>,
    /// The last one got what he needed: there may be enough for the next one as well.
    goes_on: bool,
}

struct Turn {
    uid: u32,
    since: u64,
    /// Who was told: no other worker of the user ends it.
    worker: Option<u32>,
    /// Whether he got what he needed. `None`: he has not come to it.
    worked: Option<bool>,
}

impl Turns {
    /// Nobody waits. `waker` is that of whoever gives the turns.
    pub fn new(waker: Waker) -> Turns {
        Turns { queue: Mutex::default(), waker }
    }

    /// A user waits for his turn, after it was tried in vain so many times in a row.
    pub fn wait(&self, uid: u32, failures: u32) {
        let pause = (PAUSE << failures.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
        lock(&self.queue).waiting.insert(uid, sys::monotonic_ns() + pause);
        self.waker.wake();
    }

    /// Whose turn it is now; [`Turns::over`] ends it. Who has not come to it for long waits again, as he may never do.
    pub fn next(&self, now: u64) -> Option<u32> {
        let mut queue = lock(&self.queue);
        if let Some(late) = queue.current.take_if(|turn| now >= turn.since + LONG) {
            if late.worked.is_none() {
                queue.waiting.entry(late.uid).or_insert(now + LONGEST_PAUSE);
            }
        }
        if queue.current.is_some() {
            return None;
        }
        let (uid, at) = queue.first()?;
        if at > now && !queue.goes_on {
            return None;
        }
        queue.waiting.remove(&uid);
        queue.current = Some(Turn { uid, since: now, worker: None, worked: None });
        queue.goes_on = false;
        Some(uid)
    }

    /// When [`Turns::next`] is to be asked again, unless a turn is over before. `None`: nobody waits.
    pub fn due(&self) -> Option<u64> {
        let queue = lock(&self.queue);
        match &queue.current {
            Some(turn) => Some(turn.since + LONG),
            None => queue.first().map(|(_, at)| at),
        }
    }

    /// A worker of the user whose turn it is is about to be told.
    pub fn give(&self, uid: u32, worker: u32) {
        if let Some(turn) = lock(&self.queue).current.as_mut().filter(|turn| turn.uid == uid) {
            turn.worker = Some(worker);
        }
    }

    /// A user has tried in his turn.
    pub fn tried(&self, uid: u32, worked: bool) {
        if let Some(turn) = lock(&self.queue).current.as_mut().filter(|turn| turn.uid == uid) {
            turn.worked = Some(worked);
        }
    }

    /// A user's turn is over, if it is his and that worker's (`None`: nobody was told), and what he does not need for anything else is closed.
    pub fn over(&self, uid: u32, worker: Option<u32>) {
        let mut queue = lock(&self.queue);
        let Some(turn) = queue.current.take_if(|turn| (turn.uid, turn.worker) == (uid, worker)) else {
            return;
        };
        queue.goes_on = turn.worked == Some(true);
        if turn.worked.is_none() {
            // There can be no worker for it, which may be so for the next one, too; or it has ended before.
            queue.waiting.insert(uid, sys::monotonic_ns() + LONGEST_PAUSE);
        }
        drop(queue);
        self.waker.wake();
    }
}

impl Queue {
    fn first(&self) -> Option<(u32, u64)> {
        self.waiting.iter().map(|(uid, at)| (*uid, *at)).min_by_key(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::builder::new_base;

    fn turns() -> Turns {
        Turns::new(new_base().unwrap().waker().unwrap())
    }

    #[test]
    fn one_after_another_tries_and_at_once_as_long_as_it_works() {
        let turns = turns();
        let now = sys::monotonic_ns();
        assert_eq!((turns.next(now), turns.due()), (None, None));
        [(1, 1), (2, 2), (3, 99)].into_iter().for_each(|(uid, failures)| turns.wait(uid, failures));
        assert_eq!(turns.next(now), None, "too early");
        let due = turns.due().unwrap();
        assert!(due >= now + PAUSE);
        assert_eq!((turns.next(due), turns.next(due + LONG - 1)), (Some(1), None));
        assert_eq!(turns.due(), Some(due + LONG));
        turns.over(2, None);
        turns.give(1, 7);
        turns.tried(1, true);
        turns.over(1, Some(6));
        assert_eq!(turns.next(due), None, "it is not over yet");
        turns.over(1, Some(7));
        assert_eq!(turns.next(now), Some(2), "the first one did not fail");
        turns.tried(2, false);
        turns.over(2, None);
        assert_eq!(turns.next(now), None, "the second did, and put himself off");
        assert_eq!(turns.next(now + 60 * LONG), Some(3));
        turns.over(3, None);
        assert_eq!(turns.next(now), None, "there was no worker for him");
        assert_eq!(turns.next(now + 60 * LONG), Some(3), "he was not asked");
        turns.wait(1, 1);
        assert_eq!(turns.next(now + 61 * LONG), Some(1), "the third is stuck");
    }

    #[test]
    fn who_has_a_turn_for_too_long_waits_again_and_holds_up_nobody() {
        let turns = turns();
        let now = sys::monotonic_ns();
        turns.wait(1, 1);
        let given = now + LONG;
        assert_eq!(turns.next(given), Some(1));
        turns.give(1, 7);
        assert_eq!(turns.due(), Some(given + LONG), "also when nobody else waits");
        let late = given + LONG;
        assert_eq!((turns.next(late), turns.due()), (None, Some(late + LONGEST_PAUSE)));
        // It ends after all.
        turns.tried(1, true);
        turns.over(1, Some(7));
        assert_eq!(turns.next(late + LONGEST_PAUSE), Some(1));
        // Another one's time has not come when this one's is over.
        turns.wait(2, 99);
        let later = late + LONGEST_PAUSE + LONG;
        lock(&turns.queue).waiting.insert(2, later + 1);
        assert_eq!((turns.next(later), turns.due()), (None, Some(later + 1)), "it is not asked for ever");
    }
}
