//! Priorities, and how much of a queue runs: `event_priority_set`, `event_base_priority_init`, `max_dispatch_interval`, fairness.

use crate::parts::*;
use evd_client::{Ended, Event, EventBase, What};

fn of_priority(base: &EventBase, log: &Log, name: &str, priority: usize) -> Event {
    let event = Event::user(base, log.says(name)).unwrap();
    event.set_priority(priority).unwrap();
    event.active(What::empty()).unwrap();
    event
}

#[test]
fn priorities_are_strict_and_loopexit_lets_the_queue_end() {
    each_base(|base| {
        base.set_priorities(3).unwrap();
        let seen = Log::default();
        let four = [("low", 2), ("mid", 1), ("high", 0), ("high2", 0)];
        let events = four.map(|(name, priority)| of_priority(base, &seen, name, priority));
        base.loopexit(None).unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Exit);
        assert!(base.got_exit());
        assert_eq!(seen.take(), ["high -", "high2 -", "mid -"], "loopexit is an event of middle priority");
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["low -"]);
        drop(events);
    });
}
