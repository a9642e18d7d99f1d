//! Events that end by themselves, and events that move: `event_base_once`, `event_finalize`, `event_free_finalize`, `event_base_free`, `event_base_set`.

use crate::parts::*;
use evd_client::{Counted, Ended, Error, Event, EventBase, What};
use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

#[test]
fn once_calls_when_its_fd_is_ready_or_its_time_is_over_and_closes_its_source() {
    each_timed(|base, time| {
        let ((a, mut b), (c, d)) = (pair(), pair());
        let seen = Log::default();
        let (s, t) = (seen.clone(), seen.clone());
        base.once(a, What::READ, Some(LONG), move |_, what| s.add(format!("a {what}"))).unwrap();
        base.once(c, What::READ, Some(20 * MS), move |_, what| t.add(format!("c {what}"))).unwrap();
        park(base, 2);
        b.write_all(b"x").unwrap();
        until(base, "the first", || !seen.is_empty());
        time.pass(20 * MS);
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        let mut seen = seen.take();
        seen.sort();
        assert_eq!(seen, ["a READ", "c TIMEOUT"]);
        until(base, "both are closed, also if evd had copies", || is_closed(&b) && is_closed(&d));
    });
}

#[test]
fn once_after_no_time_is_active_at_once_in_its_order() {
    each_timed(|base, time| {
        let seen = Log::default();
        let says = |name: &'static str| {
            let s = seen.clone();
            move |_: &EventBase| s.add(name)
        };
        let before = active(base, seen.says("before"));
        base.once_after(Duration::ZERO, says("once")).unwrap();
        let behind = active(base, seen.says("behind"));
        base.once_after(SOON, says("later")).unwrap();
        assert_eq!(round(base).callbacks, 3);
        time.pass(SOON);
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["before -", "once", "behind -", "later"]);
        drop((before, behind));
    });
}

#[test]
fn once_refuses_what_it_cannot_do_and_closes_the_source() {
    each_base(|base| {
        for bad in [READ, What::READ | What::SIGNAL, What::SIGNAL, What::empty(), What::PERSIST] {
            let (a, b) = pair();
            let refused = base.once(a, bad, None, |_, _| panic!("it was refused"));
            assert!(matches!(refused, Err(Error::Combination(_))), "{bad}");
            assert!(closes(&b));
        }
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
    });
}

#[test]
fn what_once_waits_for_is_closed_with_its_base() {
    each_base(|shared| {
        let base = shared.clone();
        drop(base);
    });
    each(|setting| {
        let base = setting.builder().build().unwrap();
        let (a, b) = pair();
        base.once(a, What::READ, None, |_, _| panic!("it never was ready")).unwrap();
        drop(base);
        assert!(closes(&b));
    });
}

#[test]
fn a_finalizer_runs_once_in_the_loop_in_place_of_what_was_queued() {
    each_base(|base| {
        let seen = Log::default();
        let event = Event::new(base, silent(), READ, seen.says("callback")).unwrap();
        event.add(Some(LONG)).unwrap();
        event.active(What::READ).unwrap();
        let (s, t) = (seen.clone(), seen.clone());
        event
            .finalize(move |event| {
                assert_eq!(event.base().running_event(), None);
                s.add("finalizer");
            })
            .unwrap();
        event.finalize(move |_| t.add("a second one")).unwrap();
        assert!(matches!(event.add(None), Err(Error::Finalizing)));
        event.active(What::READ).unwrap();
        event.active_later(What::READ).unwrap();
        event.del().unwrap();
        event.remove_timer().unwrap();
        base.handle().del(event.key());
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
        assert_eq!(seen.take(), ["finalizer"]);
        event.active(What::WRITE).unwrap();
        round(base);
        assert_eq!(seen.take(), ["callback WRITE"], "and then it is an event again");
    });
}

#[test]
fn a_finalizer_waits_for_the_callback_that_asked_for_it_and_has_its_priority() {
    each_base_with(
        |b| b.priorities(3),
        |base| {
            let seen = Log::default();
            let s = seen.clone();
            let event = Event::user(base, move |event, _| {
                let t = s.clone();
                event.finalize(move |_| t.add("finalizer")).unwrap();
                s.add("callback");
            })
            .unwrap();
            event.set_priority(2).unwrap();
            event.active(What::empty()).unwrap();
            let behind = Event::user(base, seen.says("behind")).unwrap();
            behind.set_priority(2).unwrap();
            behind.active(What::empty()).unwrap();
            let urgent = Event::user(base, seen.says("urgent")).unwrap();
            urgent.active(What::empty()).unwrap();
            base.dispatch().unwrap();
            assert_eq!(seen.take(), ["urgent -", "callback", "behind -", "finalizer"]);
        },
    );
}

#[test]
fn a_finalizer_that_is_more_urgent_interrupts_the_queue() {
    each_base_with(
        |b| b.priorities(2),
        |base| {
            let seen = Log::default();
            let urgent = Event::user(base, seen.says("urgent")).unwrap();
            urgent.set_priority(0).unwrap();
            let (s, t) = (seen.clone(), seen.clone());
            let first = Event::user(base, move |_, _| {
                let t = t.clone();
                urgent.finalize(move |_| t.add("finalizer")).unwrap();
                s.add("first");
            })
            .unwrap();
            let rest = Event::user(base, seen.says("rest")).unwrap();
            for event in [&first, &rest] {
                event.active(What::empty()).unwrap();
            }
            base.dispatch().unwrap();
            assert_eq!(seen.take(), ["first", "finalizer", "rest -"]);
        },
    );
}

#[test]
fn an_event_that_is_to_be_finalized_is_pending_for_nothing() {
    let _turn = turn();
    each_base(|base| {
        let fd = Event::new(base, silent(), READ, |_, _| {}).unwrap();
        let signal = Event::signal(base, SIGVTALRM, |_, _| {}).unwrap();
        fd.active(READ | What::TIMEOUT).unwrap();
        fd.finalize(|event| assert_eq!(event.pending(What::all()), What::empty())).unwrap();
        signal.finalize(|event| assert_eq!(event.pending(What::all()), What::empty())).unwrap();
        for again in [false, true] {
            if again {
                fd.active(READ).unwrap();
                signal.active(What::SIGNAL).unwrap();
            }
            assert_eq!(fd.pending(What::all()), What::empty());
            assert_eq!(signal.pending(What::all()), What::empty());
        }
        assert_eq!(base.num_events(Counted::ACTIVE), 2, "their finalizers are");
        assert_eq!(round(base).callbacks, 2);
    });
}

#[test]
fn free_finalize_ends_the_event_after_its_finalizer() {
    each_base(|base| {
        let (a, b) = pair();
        let runs = Count::default();
        let r = Rc::clone(&runs);
        let event = Event::new(base, a, READ, |_, _| {}).unwrap();
        event.add(None).unwrap();
        event
            .free_finalize(move |event| {
                assert_eq!(event.what(), READ, "it is still there");
                r.set(r.get() + 1);
            })
            .unwrap();
        assert!(!is_closed(&b));
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(runs.get(), 1);
        until(base, "its fd is closed", || is_closed(&b));
    });
}

#[test]
fn finalizers_run_with_the_bases_end_unless_it_is_told_not_to() {
    each(|setting| {
        for runs_them in [true, false] {
            let base = setting.builder().build().unwrap();
            let runs = Count::default();
            let r = Rc::clone(&runs);
            let (a, b) = pair();
            let event = Event::new(&base, a, READ, |_, _| {}).unwrap();
            event.free_finalize(move |_| r.set(r.get() + 1)).unwrap();
            if runs_them {
                drop(base)
            } else {
                base.free_nofinalize()
            }
            assert_eq!(runs.get(), usize::from(runs_them));
            assert!(closes(&b));
        }
    });
}

#[test]
fn an_event_outlives_its_base_unharmed() {
    each(|setting| {
        let base = setting.builder().build().unwrap();
        let event = Event::new(&base, silent(), READ, |_, _| {}).unwrap();
        event.add(Some(LONG)).unwrap();
        let timer = Event::timer(&base, What::empty(), |_, _| {}).unwrap();
        drop(base);
        assert_eq!(event.pending(What::all()), What::READ | What::TIMEOUT);
        timer.add(Some(LONG)).unwrap();
        event.del().unwrap();
        // It has a base for as long as it lives: that one can run again.
        timer.active(What::READ).unwrap();
        assert_eq!(timer.base().dispatch().unwrap().callbacks, 1);
    });
}

#[test]
fn move_to_is_for_idle_events_and_gives_the_middle_priority() {
    each(|setting| {
        let (from, to) =
            (setting.builder().build().unwrap(), setting.builder().priorities(5).build().unwrap());
        let (a, _b) = ready();
        let seen = Log::default();
        let event = Event::new(&from, a, What::READ, seen.says("moved")).unwrap();
        event.label("its label");
        let old = event.key();
        event.add(None).unwrap();
        assert!(matches!(event.move_to(&to), Err(Error::Pending)));
        event.del().unwrap();
        event.active(What::READ).unwrap();
        assert!(matches!(event.move_to(&to), Err(Error::Pending)));
        event.del().unwrap();
        event.move_to(&to).unwrap();
        assert_eq!((event.priority(), event.base().priorities()), (2, 5));
        from.handle().active(old, What::READ);
        assert_eq!(round(&from).callbacks, 0);
        event.add(None).unwrap();
        assert_eq!(once(&to).callbacks, 1);
        assert_eq!(seen.take(), ["moved READ"]);
        event.detach();
        drop(from);
        setting.is_as_asked(&to);
    });
}

#[test]
fn slack_goes_along_to_another_base() {
    each_timed(|base, _| {
        let other = EventBase::local().unwrap();
        let event = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        event.set_slack(LONG);
        event.move_to(&other).unwrap();
        event.add(Some(Duration::from_secs(1))).unwrap();
        let due = event.deadline().unwrap().as_nanos();
        assert!(due.trailing_zeros() >= 38, "{due} is no round number");
    });
}

#[test]
fn an_event_may_move_in_its_own_callback() {
    each(|setting| {
        let bases = [setting.builder().build().unwrap(), setting.builder().build().unwrap()];
        let seen = Log::default();
        let (to, s) = (bases[1].clone(), seen.clone());
        let cell: Rc<RefCell<Option<EventBase>>> = Rc::new(RefCell::new(Some(to)));
        let event = Event::timer(&bases[0], What::empty(), move |event, what| {
            s.add(what);
            if let Some(to) = cell.borrow_mut().take() {
                event.move_to(&to).unwrap();
                event.add(Some(MS)).unwrap();
            }
        })
        .unwrap();
        event.active(What::READ).unwrap();
        assert_eq!(bases[0].dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(bases[1].dispatch().unwrap().callbacks, 1);
        assert_eq!(seen.take(), ["READ", "TIMEOUT"]);
    });
}

#[test]
fn a_second_finalizer_is_dropped_and_may_own_what_it_likes() {
    each_base(|base| {
        let event = Event::user(base, |_, _| {}).unwrap();
        let (a, b) = pair();
        let owned = Event::new(base, a, READ, |_, _| {}).unwrap();
        owned.add(None).unwrap();
        event.finalize(|_| {}).unwrap();
        event.finalize(move |_| drop(owned)).unwrap();
        assert!(closes(&b), "it was dropped at once");
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
    });
}

#[test]
fn once_closes_its_source_also_when_its_callback_panics() {
    each_base(|base| {
        let (a, b) = ready();
        base.once(a, What::READ, None, |_, _| panic!("as the test wants")).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| base.dispatch())).is_err());
        assert!(closes(&b));
        let (c, d) = pair();
        base.once_after(Duration::ZERO, move |_| panic!("as the test wants, with {c:?}")).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| base.dispatch())).is_err());
        assert!(closes(&d));
    });
}
