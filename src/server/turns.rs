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

    /// Whose turn it is now; [`Turns::over`] ends it.
    pub fn next(&self, now: u64) -> Option<u32> {
        let mut queue = lock(&self.queue);
        if queue.current.as_ref().is_some_and(|turn| now < turn.since + LONG) {
            return None;
        }
        let (uid, at) = queue.first()?;
        if at > now && !queue.goes_on {
            return None;
        }
        queue.waiting.remove(&uid);
        queue.current = Some(Turn { uid, since: now, worked: None });
        queue.goes_on = false;
        Some(uid)
    }

    /// When [`Turns::next`] is to be asked again, unless a turn is over before. `None`: nobody waits.
    pub fn due(&self) -> Option<u64> {
        let queue = lock(&self.queue);
        let (_, at) = queue.first()?;
        Some(queue.current.as_ref().map_or(at, |turn| turn.since + LONG))
    }

    /// A user has tried in his turn.
    pub fn tried(&self, uid: u32, worked: bool) {
        if let Some(turn) = lock(&self.queue).current.as_mut().filter(|turn| turn.uid == uid) {
            turn.worked = Some(worked);
        }
    }

    /// A user's turn is over, if it is his, and what he does not need for anything else is closed.
    pub fn over(&self, uid: u32) {
        let mut queue = lock(&self.queue);
        let Some(turn) = queue.current.take_if(|turn| turn.uid == uid) else { return };
        queue.goes_on = turn.worked == Some(true);
        if turn.worked.is_none() {
            // There is no worker for it, or it has ended before.
            queue.waiting.insert(uid, sys::monotonic_ns() + PAUSE);
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

    #[test]
    fn one_after_another_tries_and_at_once_as_long_as_it_works() {
        let turns = Turns::new(new_base().unwrap().waker().unwrap());
        let now = sys::monotonic_ns();
        assert_eq!((turns.next(now), turns.due()), (None, None));
        [(1, 1), (2, 2), (3, 99)].into_iter().for_each(|(uid, failures)| turns.wait(uid, failures));
        assert_eq!(turns.next(now), None, "too early");
        let due = turns.due().unwrap();
        assert!(due >= now + PAUSE);
        assert_eq!((turns.next(due), turns.next(due + LONG - 1)), (Some(1), None));
        assert_eq!(turns.due(), Some(due + LONG));
        turns.over(2);
        turns.tried(1, true);
        assert_eq!(turns.next(due), None, "it is not over yet");
        turns.over(1);
        assert_eq!(turns.next(now), Some(2), "the first one did not fail");
        turns.tried(2, false);
        turns.over(2);
        assert_eq!(turns.next(now), None, "the second did, and put himself off");
        assert_eq!(turns.next(now + 60 * LONG), Some(3));
        turns.over(3);
        assert_eq!(turns.next(now + 60 * LONG), Some(3), "he was not asked");
        turns.wait(1, 1);
        assert_eq!(turns.next(now + 61 * LONG), Some(1), "the third is stuck");
    }
}
