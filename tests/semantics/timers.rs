//! Timeouts: `evtimer_*`, `event_add` with a time, the rule of persistent ones, `event_remove_timer`, common timeouts.

use crate::parts::*;
use evd_client::{Counted, Ended, Error, Event, EventBase, What};
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(50);

fn timer(base: &EventBase, log: &Log, name: &str) -> Event {
    Event::timer(base, What::empty(), log.says(name)).unwrap()
}

#[test]
fn timers_fire_in_order_never_early_and_persist_restarts() {
    each_base(|base| {
        let start = Instant::now();
        let seen = Log::default();
        let events = [30u64, 10, 20].map(|ms| {
            let s = seen.clone();
            let event = Event::timer(base, What::empty(), move |_, what| {
                assert_eq!(what, What::TIMEOUT);
                assert!(start.elapsed() >= Duration::from_millis(ms));
                s.add(ms);
            })
            .unwrap();
            (event, Duration::from_millis(ms))
        });
        // In one callback, so that all count from one time however slow the machine is.
        let adds =
            active(base, move |_, _| events.iter().for_each(|(e, after)| e.add(Some(*after)).unwrap()));
        let count = Count::default();
        let c = Rc::clone(&count);
        let ticking = Event::timer(base, What::PERSIST, move |event, _| {
            c.set(c.get() + 1);
            if c.get() == 5 {
                event.del().unwrap();
            }
        })
        .unwrap();
        ticking.add(Some(8 * MS)).unwrap();
        assert_eq!(base.dispatch().unwrap().code(), 1);
        assert_eq!(seen.take(), ["10", "20", "30"]);
        assert_eq!(count.get(), 5);
        assert!(start.elapsed() >= 40 * MS);
        drop(adds);
    });
}

#[test]
fn timeout_of_a_read_event_comes_alone_and_with_data_both_come() {
    each_base(|base| {
        let (a, mut b) = pair();
        let seen = Log::default();
        let event = Event::new(base, a, What::READ, seen.says("it")).unwrap();
        event.add(Some(5 * MS)).unwrap();
        base.dispatch().unwrap();
        b.write_all(b"x").unwrap();
        event.add(Some(Duration::ZERO)).unwrap();
        base.dispatch().unwrap();
        assert_eq!(seen.take(), ["it TIMEOUT", "it TIMEOUT|READ"]);
    });
}

#[test]
fn data_that_came_before_the_timeout_was_seen_is_not_lost() {
    each_timed(|base, time| {
        let (a, mut b) = pair();
        let seen = Log::default();
        let event = Event::new(base, a, What::READ, seen.says("it")).unwrap();
        event.add(Some(TICK)).unwrap();
        park(base, 1);
        b.write_all(b"x").unwrap();
        time.pass(TICK);
        base.dispatch().unwrap();
        assert_eq!(seen.take(), ["it TIMEOUT|READ"]);
        assert_eq!(event.pending(What::all()), What::empty());
    });
}

#[test]
fn a_timeout_that_comes_alone_ends_a_one_time_event() {
    each_timed(|base, time| {
        let seen = Log::default();
        let event = Event::new(base, silent(), What::READ, seen.says("it")).unwrap();
        event.add(Some(TICK)).unwrap();
        time.pass(TICK);
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["it TIMEOUT"]);
        assert_eq!(event.pending(What::all()), What::empty());
    });
}

#[test]
fn a_timeout_of_zero_fires_with_the_next_round_and_not_at_once() {
    each_base(|base| {
        let seen = Log::default();
        let event = timer(base, &seen, "zero");
        event.add(Some(Duration::ZERO)).unwrap();
        assert_eq!(event.pending(What::all()), What::TIMEOUT);
        assert_eq!(base.num_events(Counted::ACTIVE), 0);
        assert_eq!(round(base).callbacks, 1);
        assert_eq!(seen.take(), ["zero TIMEOUT"]);
    });
}

#[test]
fn a_timeout_without_end_is_no_overflow() {
    each_base(|base| {
        for what in [What::empty(), What::PERSIST] {
            let event = Event::timer(base, what, |_, _| {}).unwrap();
            event.add(Some(Duration::MAX)).unwrap();
            assert_eq!(round(base).callbacks, 0);
            assert!(event.time_left().unwrap() > LONG);
        }
    });
}

#[test]
fn adding_again_without_a_timeout_keeps_it_and_with_one_replaces_it() {
    each_timed(|base, time| {
        let seen = Log::default();
        let event = timer(base, &seen, "it");
        event.add(Some(TICK)).unwrap();
        let before = event.deadline();
        event.add(None).unwrap();
        assert_eq!(event.deadline(), before);
        event.add(Some(LONG)).unwrap();
        assert!(event.deadline() > before);
        time.pass(2 * TICK);
        assert_eq!(round(base).callbacks, 0);
        event.add(Some(MS)).unwrap();
        time.pass(MS);
        assert_eq!(round(base).callbacks, 1);
    });
}

#[test]
fn a_replaced_timeout_of_a_persistent_event_is_its_new_interval() {
    each_timed(|base, time| {
        let event = Event::timer(base, What::PERSIST, |_, _| {}).unwrap();
        event.add(Some(LONG)).unwrap();
        event.add(Some(TICK)).unwrap();
        let due = event.deadline().unwrap();
        time.pass(TICK);
        assert_eq!(round(base).callbacks, 1);
        let next = event.deadline().unwrap();
        assert!(next >= due + TICK && next < due + LONG);
    });
}

#[test]
fn adding_an_event_that_is_active_for_its_timeout_takes_it_off_the_queue() {
    each_timed(|base, time| {
        let seen = Log::default();
        let (a, _b) = ready();
        let late = Rc::new(timer(base, &seen, "late"));
        let io = Rc::new(Event::new(base, a, What::READ, seen.says("io")).unwrap());
        let (l, i) = (Rc::clone(&late), Rc::clone(&io));
        let first = Event::timer(base, What::empty(), move |_, _| {
            assert_eq!(l.pending(What::all()), What::TIMEOUT);
            l.add(Some(LONG)).unwrap();
            i.active(What::READ).unwrap();
            i.add(Some(LONG)).unwrap();
        })
        .unwrap();
        first.add(Some(MS)).unwrap();
        late.add(Some(2 * MS)).unwrap();
        time.pass(5 * MS);
        assert_eq!(round(base).callbacks, 2);
        assert_eq!(seen.take(), ["io READ"], "active for READ stays so");
        assert!(late.time_left().unwrap() > LONG / 2);
    });
}

/// A persistent event of this interval whose callback notes when the next timeout is due, and when it was called, by the base's clock.
fn notes(base: &EventBase, interval: Duration) -> (Event, Rc<Cell<(Duration, Duration)>>) {
    let noted = Rc::new(Cell::default());
    let n = Rc::clone(&noted);
    let event = Event::timer(base, What::PERSIST, move |event, _| {
        n.set((event.deadline().unwrap(), event.base().time()));
    })
    .unwrap();
    event.add(Some(interval)).unwrap();
    (event, noted)
}

#[test]
fn a_persistent_timeout_counts_from_when_it_was_due() {
    each_timed(|base, time| {
        let (event, noted) = notes(base, TICK);
        for i in 1..=3 {
            let due = event.deadline().unwrap();
            time.pass(TICK + 10 * MS);
            assert_eq!(round(base).callbacks, 1, "tick {i}");
            let (next, now) = noted.get();
            // On a real clock it may have been missed altogether: that is the next test.
            let expected = if due + TICK >= now { due + TICK } else { now + TICK };
            assert_eq!(next, expected);
        }
    });
}

#[test]
fn missed_timeouts_of_a_persistent_event_are_not_made_up_for() {
    each_timed(|base, time| {
        let (event, noted) = notes(base, TICK);
        time.pass(3 * TICK + TICK / 2);
        assert_eq!(round(base).callbacks, 1);
        let (next, now) = noted.get();
        assert_eq!(next, now + TICK);
        assert_eq!((event.count(), event.deadline()), (1, Some(next)));
    });
}

#[test]
fn timers_that_a_long_callback_has_delayed_are_due_as_soon_as_it_has_ended() {
    each_timed(|base, time| {
        let log = Log::default();
        let (l, t) = (log.clone(), time.clone());
        let long = Event::timer(base, What::PERSIST, move |_, _| {
            l.add("long");
            t.pass(3 * TICK + TICK / 2);
        })
        .unwrap();
        long.add(Some(TICK)).unwrap();
        let once = Event::timer(base, What::empty(), log.says("once")).unwrap();
        once.add(Some(2 * TICK)).unwrap();
        let (near, far) = pair();
        let read = Event::new(base, near, What::READ, log.says("read")).unwrap();
        read.add(None).unwrap();
        time.pass(TICK);
        round(base);
        assert_eq!(log.take(), ["long"]);
        (&far).write_all(b"x").unwrap();
        round(base);
        let ran = log.take();
        for each in ["long", "once TIMEOUT", "read READ"] {
            assert!(ran.iter().any(|r| r == each), "{ran:?}");
        }
    });
}

#[test]
fn a_persistent_timeout_starts_anew_when_anything_else_fires_the_event() {
    each_timed(|base, time| {
        let (a, mut b) = pair();
        let noted: Rc<Cell<(Duration, Duration)>> = Rc::default();
        let n = Rc::clone(&noted);
        let event = Event::new(base, a, READ, move |event, _| {
            drain(event.source());
            n.set((event.deadline().unwrap(), event.base().time()));
        })
        .unwrap();
        event.add(Some(LONG)).unwrap();
        park(base, 1);
        for by_hand in [false, true] {
            time.pass(TICK);
            let before = event.count();
            if by_hand {
                event.active(What::READ).unwrap()
            } else {
                b.write_all(b"x").unwrap()
            }
            until(base, "it fires", || event.count() > before);
            let (next, now) = noted.get();
            assert_eq!(next, now + LONG);
        }
        let due = event.deadline().unwrap();
        event.active(What::TIMEOUT).unwrap();
        round(base);
        assert_eq!(event.deadline(), Some(due + LONG), "as if it were due: from when it would have been");
    });
}

#[test]
fn a_persistent_event_with_a_timeout_of_zero_fires_once_and_is_gone() {
    each_base(|base| {
        let seen = Log::default();
        let only = Event::timer(base, What::PERSIST, seen.says("timer")).unwrap();
        let io = Event::new(base, silent(), READ, seen.says("io")).unwrap();
        only.add(Some(Duration::ZERO)).unwrap();
        io.add(Some(Duration::ZERO)).unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["timer TIMEOUT", "io TIMEOUT"]);
        assert_eq!(only.pending(What::all()) | io.pending(What::all()), What::empty());
    });
}

#[test]
fn remove_timer_drops_the_timeout_and_its_interval_and_keeps_the_rest() {
    each_timed(|base, time| {
        let (a, mut b) = pair();
        let seen = Log::default();
        let s = seen.clone();
        let event = Event::new(base, a, READ, move |event, what| {
            drain(event.source());
            s.add(what);
        })
        .unwrap();
        event.remove_timer().unwrap();
        event.add(Some(TICK)).unwrap();
        event.remove_timer().unwrap();
        assert_eq!((event.pending(What::all()), event.deadline()), (What::READ, None));
        time.pass(TICK);
        park(base, 1);
        b.write_all(b"x").unwrap();
        once(base);
        assert_eq!(seen.take(), ["READ"]);
        assert_eq!(event.pending(What::all()), What::READ);
    });
}

#[test]
fn a_timeout_that_was_deleted_does_not_come_back() {
    each_base(|base| {
        let (a, _b) = ready();
        let event = Event::new(base, a, READ, |event, _| drain(event.source())).unwrap();
        event.add(Some(LONG)).unwrap();
        event.del().unwrap();
        event.add(None).unwrap();
        once(base);
        // libevent starts the old interval here.
        assert_eq!(event.pending(What::all()), What::READ);
    });
}

#[test]
fn timers_with_and_without_a_common_timeout_keep_their_order() {
    each_timed(|base, time| {
        base.common_timeout(30 * MS).unwrap();
        base.common_timeout(30 * MS).unwrap();
        let seen = Log::default();
        let times = [30u32, 20, 30, 31, 30, 40, 29, 30];
        let events: Vec<Event> = (0..times.len()).map(|i| timer(base, &seen, &i.to_string())).collect();
        // Added in one callback, so that all count from one time.
        let events = Rc::new(events);
        let e = Rc::clone(&events);
        let adds = active(base, move |_, _| {
            e.iter().zip(times).for_each(|(event, ms)| event.add(Some(ms * MS)).unwrap());
            // One moves later, one goes, one is shorter than its queue's, one moves within the queue.
            e[0].add(Some(35 * MS)).unwrap();
            e[2].del().unwrap();
            e[4].add(Some(10 * MS)).unwrap();
            e[7].add(Some(30 * MS)).unwrap();
            e[2].add(Some(30 * MS)).unwrap();
        });
        round(base);
        time.pass(50 * MS);
        round(base);
        let expected = ["4", "1", "6", "7", "2", "3", "0", "5"].map(|i| format!("{i} TIMEOUT"));
        assert_eq!(seen.take(), expected);
        drop(adds);
    });
}

#[test]
fn a_persistent_event_with_a_common_timeout_fires_like_another() {
    each_timed(|base, time| {
        base.common_timeout(TICK).unwrap();
        let (event, noted) = notes(base, TICK);
        let (other, others) = notes(base, TICK);
        for i in 1..=3 {
            time.pass(TICK + MS);
            round(base);
            assert_eq!((event.count(), other.count()), (i, i));
            assert!(noted.get().0 > noted.get().1 && others.get().0 >= noted.get().0);
        }
    });
}

#[test]
fn a_base_has_at_most_256_common_timeouts() {
    each_base(|base| {
        for i in 0..256 {
            base.common_timeout(LONG + i * MS).unwrap();
        }
        assert!(matches!(base.common_timeout(MS), Err(Error::OutOfRange(_))));
        base.common_timeout(LONG).unwrap();
        let seen = Log::default();
        let event = timer(base, &seen, "ordinary");
        event.add(Some(MS)).unwrap();
        base.dispatch().unwrap();
        assert_eq!(seen.take(), ["ordinary TIMEOUT"]);
    });
}

#[test]
fn a_timer_may_delete_and_add_others_that_are_due_with_it() {
    each_timed(|base, time| {
        let seen = Log::default();
        let cells: Rc<RefCell<Vec<Event>>> = Rc::default();
        let c = Rc::clone(&cells);
        let first = Event::timer(base, What::empty(), move |_, _| {
            c.borrow()[0].del().unwrap();
            c.borrow()[1].add(None).unwrap();
            c.borrow_mut().pop();
        })
        .unwrap();
        first.add(Some(MS)).unwrap();
        for name in ["deleted", "kept", "freed"] {
            let event = timer(base, &seen, name);
            event.add(Some(2 * MS)).unwrap();
            cells.borrow_mut().push(event);
        }
        time.pass(5 * MS);
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["kept TIMEOUT"]);
    });
}
