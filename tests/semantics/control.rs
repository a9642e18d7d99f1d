//! Loops, their flags and what they return: `event_base_loop`, `EVLOOP_*`, `loopexit`, `loopbreak`, `loopcontinue`.

use crate::parts::*;
use evd_client::{Ended, Error, Event, EventBase, LoopFlags, What};
use std::io::Write;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

fn ended(base: &EventBase, flags: LoopFlags) -> (Ended, i32, u64) {
    let looped = base.loop_(flags).unwrap();
    (looped.ended, looped.code(), looped.callbacks)
}

#[test]
fn empty_base_ends_at_once_and_says_so() {
    each_base(|base| {
        let flags = [LoopFlags::empty(), LoopFlags::ONCE, LoopFlags::NONBLOCK, ROUND];
        for flags in flags {
            assert_eq!(ended(base, flags), (Ended::Empty, 1, 0), "{flags:?}");
        }
        let flags = LoopFlags::NO_EXIT_ON_EMPTY | LoopFlags::NONBLOCK;
        assert_eq!(ended(base, flags), (Ended::Done, 0, 0));
        assert_eq!(ended(base, flags | LoopFlags::ONCE), (Ended::Done, 0, 0));
    });
}

#[test]
fn loops_return_what_libevent_returns_and_why_they_ended() {
    each_base(|base| {
        let event = Event::user(base, |_, _| {}).unwrap();
        let activate = || event.active(What::READ).unwrap();
        activate();
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Empty, 1, 1));
        activate();
        assert_eq!(ended(base, LoopFlags::ONCE), (Ended::Done, 0, 1), "it ran the last event");
        activate();
        assert_eq!(ended(base, LoopFlags::NONBLOCK), (Ended::Empty, 1, 1), "and found the base empty");
        activate();
        assert_eq!(ended(base, ROUND), (Ended::Done, 0, 1));
        let timer = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        timer.add(Some(LONG)).unwrap();
        assert_eq!(ended(base, ROUND), (Ended::Done, 0, 0), "nothing is ready");
        assert_eq!(ended(base, LoopFlags::NONBLOCK), (Ended::Done, 0, 0));
        base.loopexit(None).unwrap();
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Exit, 0, 1));
        let breaks = active(base, |event, _| event.base().loopbreak());
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Break, 0, 1));
        drop(breaks);
    });
}

#[test]
fn nonblock_alone_goes_on_while_anything_is_active_and_with_once_is_one_round() {
    each_base(|base| {
        let (a, _b) = ready();
        let event = Event::new(base, a, READ, |event, _| {
            if event.count() % 100 == 0 {
                event.base().loopbreak();
            }
        })
        .unwrap();
        event.add(None).unwrap();
        assert_eq!(ended(base, LoopFlags::NONBLOCK), (Ended::Break, 0, 100));
        assert_eq!(ended(base, ROUND), (Ended::Done, 0, 1));
    });
}

#[test]
fn once_goes_on_until_nothing_is_active() {
    each_base(|base| {
        let event = Event::user(base, |event, what| {
            if event.count() < 5 {
                event.active(what).unwrap();
            }
        })
        .unwrap();
        event.active(What::READ).unwrap();
        assert_eq!(ended(base, LoopFlags::ONCE), (Ended::Done, 0, 5));
    });
}

#[test]
fn once_waits_until_something_runs() {
    each_base(|base| {
        let (a, mut b) = pair();
        let event = Event::new(base, a, What::READ, |_, _| {}).unwrap();
        event.add(None).unwrap();
        park(base, 1);
        let writes = std::thread::spawn(move || {
            b.write_all(b"x").unwrap();
            b
        });
        assert_eq!(ended(base, LoopFlags::ONCE), (Ended::Done, 0, 1));
        writes.join().unwrap();
    });
}

#[test]
fn no_exit_on_empty_waits_for_what_other_threads_bring() {
    each_base(|base| {
        let handle = base.handle();
        let (tells, told) = channel();
        let watcher = base.prepare(move |_, timeout| {
            assert_eq!(timeout, None);
            let _ = tells.send(());
        });
        let thread = std::thread::spawn(move || {
            told.recv().unwrap();
            handle.post(|base| base.loopexit(None).unwrap());
        });
        assert_eq!(ended(base, LoopFlags::NO_EXIT_ON_EMPTY).0, Ended::Exit);
        thread.join().unwrap();
        drop(watcher);
    });
}

#[test]
fn loopexit_ends_the_loop_when_its_time_is_over() {
    each_timed(|base, time| {
        base.loopexit(Some(SOON)).unwrap();
        assert_eq!(ended(base, ROUND), (Ended::Done, 0, 0));
        assert!(!base.got_exit());
        time.pass(SOON);
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Exit, 0, 1));
        assert!(base.got_exit() && !base.got_break());
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Empty, 1, 0));
        assert!(!base.got_exit(), "of the last loop only");
    });
}

#[test]
fn a_timed_loopexit_that_is_pending_ends_a_later_loop() {
    each_timed(|base, time| {
        base.loopexit(Some(20 * MS)).unwrap();
        let breaks = active(base, |event, _| event.base().loopbreak());
        assert_eq!(ended(base, LoopFlags::empty()).0, Ended::Break);
        time.pass(20 * MS);
        assert_eq!(ended(base, LoopFlags::empty()).0, Ended::Exit);
        drop(breaks);
    });
}

#[test]
fn loopexit_lets_its_own_queue_run_to_its_end() {
    each_base(|base| {
        let seen = Log::default();
        let s = seen.clone();
        let added = Event::user(base, seen.says("added later")).unwrap();
        let added_later = added.key();
        let handle = base.handle();
        let first = active(base, move |event, _| {
            s.add("exit");
            event.base().loopexit(Some(Duration::ZERO)).unwrap();
            handle.active(added_later, What::empty());
        });
        let second = active(base, seen.says("second"));
        assert_eq!(base.dispatch().unwrap().ended, Ended::Exit);
        assert_eq!(seen.take(), ["exit", "second -", "added later -"]);
        drop((first, second));
    });
}

#[test]
fn loopexit_without_a_time_and_with_none_left_are_the_same() {
    each_base(|base| {
        for after in [None, Some(Duration::ZERO)] {
            let (a, _b) = ready();
            let event = Event::new(base, a, READ, move |event, _| event.base().loopexit(after).unwrap());
            event.as_ref().unwrap().add(None).unwrap();
            assert_eq!(
                ended(base, LoopFlags::empty()),
                (Ended::Exit, 0, 2),
                "the exit does not wait for a turn"
            );
        }
    });
}

#[test]
fn loopbreak_leaves_the_rest_active_for_the_next_loop() {
    each_base(|base| {
        let seen = Log::default();
        let events = ["one", "two"].map(|name| {
            let s = seen.clone();
            active(base, move |event, _| {
                s.add(name);
                event.base().loopbreak();
            })
        });
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Break, 0, 1));
        assert!(base.got_break() && !base.got_exit());
        assert_eq!(seen.take(), ["one"]);
        assert_eq!(events[1].pending(What::all()), What::empty());
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Break, 0, 1));
        assert_eq!(seen.take(), ["two"]);
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Empty, 1, 0));
        assert!(!base.got_break());
    });
}

#[test]
fn loopbreak_before_a_loop_is_lost_and_stop_is_not() {
    each_base(|base| {
        let runs = Count::default();
        let event = active(base, counts(&runs));
        base.loopbreak();
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Empty, 1, 1));
        event.active(What::empty()).unwrap();
        base.stop();
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Break, 0, 0));
        assert!(base.got_break());
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Empty, 1, 1));
        assert_eq!(runs.get(), 2);
    });
}

#[test]
fn stop_in_a_callback_is_a_loopbreak() {
    each_base(|base| {
        let event = active(base, |event, _| event.base().stop());
        let rest = active(base, |_, _| {});
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Break, 0, 1));
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Empty, 1, 1));
        drop((event, rest));
    });
}

#[test]
fn loopcontinue_looks_for_new_events_before_the_rest_of_the_queue() {
    each_base(|base| {
        let (a, _b) = ready();
        let seen = Log::default();
        let s = seen.clone();
        let io = Event::new(base, a, What::READ, seen.says("io")).unwrap();
        let io = Rc::new(io);
        let later = Rc::clone(&io);
        let check = base.check({
            let seen = seen.clone();
            move |_| seen.add("wait")
        });
        let first = active(base, move |event, _| {
            s.add("first");
            later.add(None).unwrap();
            event.base().loopcontinue();
        });
        let second = active(base, seen.says("second"));
        base.loopcontinue();
        assert_eq!(ended(base, LoopFlags::ONCE), (Ended::Done, 0, 3), "none before a loop");
        assert_eq!(seen.take(), ["wait", "first", "wait", "second -", "io READ"]);
        drop((first, second, check));
    });
}

#[test]
fn loop_in_a_callback_is_refused() {
    each_base(|base| {
        let event = active(base, |event, _| {
            assert!(matches!(event.base().dispatch(), Err(Error::Reentrant)));
            assert!(matches!(event.base().loop_(ROUND), Err(Error::Reentrant)));
        });
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
        drop(event);
    });
}

#[test]
fn panic_in_a_callback_reaches_the_caller_and_the_base_goes_on() {
    each_base(|base| {
        let runs = Count::default();
        let bad = active(base, |_, _| panic!("on purpose"));
        let good = active(base, counts(&runs));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| base.dispatch()));
        assert!(result.is_err());
        assert_eq!(base.running_event(), None);
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
        assert_eq!(runs.get(), 1);
        drop((bad, good));
    });
}

#[cfg(unix)]
#[test]
fn a_signal_that_interrupts_the_wait_is_no_error() {
    each_base(|base| {
        // Whatever catches it: without a handler it would end the process.
        let other = EventBase::local().unwrap();
        let signal = Event::signal(&other, libc::SIGIO, |_, _| {}).unwrap();
        signal.add(None).unwrap();
        let me = crate::os::this_thread();
        let (tells, told) = channel();
        let prepare = base.prepare(move |_, _| {
            let _ = tells.send(());
        });
        let timer = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        timer.add(Some(20 * MS)).unwrap();
        let thread = std::thread::spawn(move || {
            told.recv().unwrap();
            me.signal(libc::SIGIO);
        });
        assert_eq!(ended(base, LoopFlags::empty()), (Ended::Empty, 1, 1));
        thread.join().unwrap();
        drop(prepare);
    });
}
