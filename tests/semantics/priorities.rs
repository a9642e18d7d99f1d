//! Priorities, and how much of a queue runs: `event_priority_set`, `event_base_priority_init`, `max_dispatch_interval`, fairness.

use crate::parts::*;
use evd_client::{Builder, Ended, Error, Event, EventBase, What};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

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

#[test]
fn new_events_have_the_middle_priority() {
    for (count, middle) in [(1, 0), (2, 1), (3, 1), (4, 2), (255, 127)] {
        each_base_with(
            |b| b.priorities(count),
            |base| {
                assert_eq!(base.priorities(), count);
                assert_eq!(Event::user(base, |_, _| {}).unwrap().priority(), middle);
            },
        );
    }
}

#[test]
fn the_number_of_priorities_is_1_to_255_and_is_not_changed_while_an_event_is_active() {
    each(|setting| {
        for bad in [0, 256, usize::MAX] {
            assert!(matches!(setting.builder().priorities(bad).build(), Err(Error::OutOfRange(_))));
        }
        let base = setting.builder().build().unwrap();
        assert!(matches!(base.set_priorities(256), Err(Error::OutOfRange(_))));
        assert!(matches!(base.set_priorities(0), Err(Error::OutOfRange(_))));
        base.set_priorities(255).unwrap();
        let event = active(&base, |_, _| {});
        assert!(matches!(base.set_priorities(2), Err(Error::OutOfRange(_))));
        assert_eq!(base.priorities(), 255);
        event.del().unwrap();
        base.set_priorities(2).unwrap();
        // It keeps its own, and is the least urgent now; libevent ends the process here.
        assert_eq!(event.priority(), 127);
        let seen = Log::default();
        event.active(What::empty()).unwrap();
        let urgent = of_priority(&base, &seen, "urgent", 0);
        assert_eq!(base.dispatch().unwrap().callbacks, 2);
        drop(urgent);
    });
}

#[test]
fn the_priority_of_an_event_is_set_while_it_is_not_active_and_within_range() {
    each_base_with(
        |b| b.priorities(3),
        |base| {
            let (a, _b) = ready();
            let seen = Log::default();
            let event = Event::new(base, a, What::READ, seen.says("io")).unwrap();
            event.add(None).unwrap();
            assert!(matches!(event.set_priority(3), Err(Error::OutOfRange(_))));
            event.set_priority(2).unwrap();
            let user = active(base, seen.says("user"));
            assert!(matches!(user.set_priority(0), Err(Error::OutOfRange(_))));
            assert_eq!((user.priority(), event.priority()), (1, 2));
            base.dispatch().unwrap();
            assert_eq!(seen.take(), ["user -", "io READ"]);
        },
    );
}

#[test]
fn after_a_queue_the_loop_looks_for_what_is_more_urgent() {
    each_base_with(
        |b| b.priorities(3),
        |base| {
            let seen = Log::default();
            let s = seen.clone();
            let check = base.check(move |_| s.add("wait"));
            let events = [("b", 1), ("c", 2), ("a", 0)].map(|(name, p)| of_priority(base, &seen, name, p));
            base.dispatch().unwrap();
            assert_eq!(seen.take(), ["wait", "a -", "wait", "b -", "wait", "c -"]);
            drop((check, events));
        },
    );
}

// libevent's test priority_active_inversion.
#[test]
fn a_more_urgent_event_made_active_in_a_callback_interrupts_the_queue() {
    each_base_with(
        |b| b.priorities(2),
        |base| {
            let seen = Log::default();
            let urgent = Rc::new(Event::user(base, seen.says("urgent")).unwrap());
            urgent.set_priority(0).unwrap();
            let u = Rc::clone(&urgent);
            let s = seen.clone();
            let first = active(base, move |_, _| {
                s.add("first");
                u.active(What::empty()).unwrap();
            });
            let rest = active(base, seen.says("rest"));
            base.dispatch().unwrap();
            assert_eq!(seen.take(), ["first", "urgent -", "rest -"]);
            drop((first, rest));
        },
    );
}

#[test]
fn a_more_urgent_event_made_active_by_a_handle_interrupts_the_queue() {
    each_base_with(
        |b| b.priorities(2),
        |base| {
            let seen = Log::default();
            let urgent = Event::user(base, seen.says("urgent")).unwrap();
            urgent.set_priority(0).unwrap();
            let (key, handle, s) = (urgent.key(), base.handle(), seen.clone());
            let first = active(base, move |_, _| {
                let handle = handle.clone();
                std::thread::spawn(move || handle.active(key, What::empty())).join().unwrap();
                s.add("first");
            });
            let rest = active(base, seen.says("rest"));
            base.dispatch().unwrap();
            assert_eq!(seen.take(), ["first", "urgent -", "rest -"]);
            drop((first, rest));
        },
    );
}

/// An event of priority 0 that is active all the time, and one in each other queue: what runs until the first has run five times.
fn starving(base: &EventBase) -> Vec<String> {
    let seen = Log::default();
    let s = seen.clone();
    let busy = Event::user(base, move |event, what| {
        s.add("busy");
        if event.count() == 5 {
            return event.base().loopbreak();
        }
        // Not in this pass, which would have no end.
        event.active_later(what).unwrap();
    })
    .unwrap();
    busy.set_priority(0).unwrap();
    busy.active(What::empty()).unwrap();
    let rest = [1, 2].map(|p| of_priority(base, &seen, &p.to_string(), p));
    assert_eq!(base.dispatch().unwrap().ended, Ended::Break);
    drop(rest);
    seen.take()
}

#[test]
fn an_urgent_event_that_is_always_active_starves_the_rest_unless_fairness_is_asked_for() {
    let three = |b: Builder| b.priorities(3);
    let fair = |b: Builder| b.priorities(3).fairness(2);
    each_base_with(three, |base| assert_eq!(starving(base), ["busy"; 5]));
    each_base_with(fair, |base| {
        assert_eq!(starving(base), ["busy", "busy", "1 -", "busy", "busy", "2 -", "busy"]);
    });
}

/// Five events and what the loop looked at in between.
fn five(base: &EventBase) -> (Vec<String>, u64) {
    let seen = Log::default();
    let s = seen.clone();
    let check = base.check(move |_| s.add("wait"));
    let events = ["1", "2", "3", "4", "5"].map(|name| active(base, seen.says(name)));
    let looped = once(base);
    drop((check, events));
    (seen.take().iter().map(|line| line.trim_end_matches(" -").to_owned()).collect(), looped.callbacks)
}

#[test]
fn a_limit_on_callbacks_looks_for_events_in_between_and_ends_no_loop_early() {
    let limited = |b: Builder| b.max_dispatch(None, Some(2), 0);
    each_base_with(limited, |base| {
        let (seen, ran) = five(base);
        assert_eq!(seen, ["wait", "1", "2", "wait", "3", "4", "wait", "5"]);
        assert_eq!(ran, 5, "ONCE runs all that is active");
    });
}

#[test]
fn queues_more_urgent_than_min_priority_have_no_limit() {
    let limited = |b: Builder| b.priorities(2).max_dispatch(None, Some(1), 1);
    each_base_with(limited, |base| {
        let seen = Log::default();
        let s = seen.clone();
        let check = base.check(move |_| s.add("wait"));
        let all = [("a", 0), ("b", 0), ("c", 1), ("d", 1)];
        let events = all.map(|(name, priority)| of_priority(base, &seen, name, priority));
        once(base);
        assert_eq!(seen.take(), ["wait", "a -", "b -", "wait", "c -", "wait", "d -"]);
        drop((check, events));
    });
}

#[test]
fn a_limit_on_time_is_looked_at_after_each_callback_which_gets_a_fresh_time() {
    let limited = |b: Builder| b.max_dispatch(Some(10 * MS), None, 0);
    each_timed_with(limited, |base, time| {
        let seen = Log::default();
        let s = seen.clone();
        let check = base.check(move |_| s.add("wait"));
        let start = base.time();
        let events: Vec<Event> = (0..4u32)
            .map(|i| {
                let (s, time) = (seen.clone(), time.clone());
                active(base, move |event, _| {
                    assert!(event.base().time() >= start + i * 6 * MS);
                    s.add(i);
                    time.pass(6 * MS);
                })
            })
            .collect();
        once(base);
        let seen = seen.take();
        // On a real clock one callback may take as long as two.
        let waits = seen.iter().filter(|line| *line == "wait").count();
        let numbers: Vec<_> = seen.iter().filter(|line| *line != "wait").collect();
        assert_eq!(numbers, ["0", "1", "2", "3"]);
        assert!(waits >= 2, "{seen:?}");
        drop((check, events));
    });
}

#[test]
fn a_limit_on_callbacks_alone_leaves_the_cached_time_alone() {
    let limited = |b: Builder| b.max_dispatch(Some(Duration::MAX), Some(2), 0);
    each_timed_with(limited, |base, time| {
        let times: Rc<RefCell<Vec<Duration>>> = Rc::default();
        let events = [(); 2].map(|()| {
            let (t, time) = (Rc::clone(&times), time.clone());
            active(base, move |event, _| {
                t.borrow_mut().push(event.base().time());
                time.pass(MS);
            })
        });
        round(base);
        let times = times.take();
        assert_eq!(times[0], times[1]);
        drop(events);
    });
}

#[test]
fn there_may_be_fewer_priorities_from_a_callback_on() {
    each_base(|base| {
        base.set_priorities(3).unwrap();
        let seen = Log::default();
        let event = Event::user(base, |event, _| event.base().set_priorities(1).unwrap()).unwrap();
        event.set_priority(2).unwrap();
        event.active(What::empty()).unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        let next = of_priority(base, &seen, "next", 0);
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["next -"]);
        drop(next);
    });
}
