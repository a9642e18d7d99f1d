//! Signals to this process and to evd: `evsignal_new`, with counts, senders and every base served.
//!
//! Tests run side by side in one process: each has a signal of its own, which it sends to its own thread. One to the process may go to another thread, and
//! while it is on its way the next one is lost.

use crate::os;
use crate::parts::*;
use evd_client::{Ended, Error, Event, EventBase, What};
use std::rc::Rc;

fn raise(signo: i32, times: usize) {
    (0..times).for_each(|_| os::raise(signo));
}

#[test]
fn signals_are_counted_and_reach_every_base() {
    let _turn = turn();
    each_base(|base| {
        let other = EventBase::local().unwrap();
        let runs = [Count::default(), Count::default()];
        let events = [base, &other].map(|b| {
            let runs = Rc::clone(&runs[usize::from(std::ptr::eq(b, &other))]);
            let event = Event::signal(b, SIGUSR1, move |event, what| {
                assert_eq!(what, What::SIGNAL);
                assert_eq!(event.times(), 3);
                runs.set(runs.get() + 1);
            });
            event.as_ref().unwrap().add(None).unwrap();
            event.unwrap()
        });
        raise(SIGUSR1, 3);
        assert_eq!(once(base).callbacks, 3);
        assert_eq!(once(&other).callbacks, 3);
        assert_eq!([runs[0].get(), runs[1].get()], [3, 3]);
        drop(events);
    });
}

#[test]
fn all_events_of_a_signal_are_called_newest_first_and_each_all_its_times_in_a_row() {
    let _turn = turn();
    each_base(|base| {
        let seen = Log::default();
        let events = ["one", "two"].map(|name| {
            let event = Event::signal(base, SIGHUP, seen.says(name)).unwrap();
            event.add(None).unwrap();
            event
        });
        raise(SIGHUP, 2);
        once(base);
        assert_eq!(seen.take(), ["two SIGNAL", "two SIGNAL", "one SIGNAL", "one SIGNAL"]);
        events[1].del().unwrap();
        raise(SIGHUP, 1);
        once(base);
        assert_eq!(seen.take(), ["one SIGNAL"]);
    });
}

#[test]
fn a_one_time_signal_event_gets_all_that_came_and_is_gone() {
    let _turn = turn();
    each_base(|base| {
        let runs = Count::default();
        let event = Event::signal_with(base, SIGALRM, What::empty(), counts(&runs)).unwrap();
        event.add(None).unwrap();
        raise(SIGALRM, 2);
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(runs.get(), 2);
        assert_eq!(event.pending(What::all()), What::empty());
    });
}

#[test]
fn del_free_or_a_break_in_a_signals_callback_ends_the_repetition() {
    let _turn = turn();
    each_base(|base| {
        for how in 0..3 {
            let runs = Count::default();
            let r = Rc::clone(&runs);
            let event = Event::signal(base, SIGVTALRM, move |event, _| {
                r.set(r.get() + 1);
                match how {
                    0 => event.del().unwrap(),
                    1 => event.free().unwrap(),
                    _ => event.base().loopbreak(),
                }
            })
            .unwrap();
            event.add(None).unwrap();
            raise(SIGVTALRM, 2);
            once(base);
            assert_eq!(runs.get(), 1, "{how}");
        }
    });
}

#[test]
fn a_signal_event_may_have_a_timeout_and_stays_pending_after_it() {
    let _turn = turn();
    each_timed(|base, time| {
        let seen = Log::default();
        let event = Event::signal(base, SIGPROF, seen.says("it")).unwrap();
        event.add(Some(20 * MS)).unwrap();
        assert_eq!(event.pending(What::all()), What::SIGNAL | What::TIMEOUT);
        for _ in 0..2 {
            time.pass(20 * MS);
            round(base);
        }
        assert_eq!(seen.take(), ["it TIMEOUT", "it TIMEOUT"], "libevent removes it with the first");
        raise(SIGPROF, 1);
        event.add(Some(LONG)).unwrap();
        until(base, "the signal", || !seen.is_empty());
        assert_eq!(seen.take(), ["it SIGNAL"]);
        let one = Event::signal_with(base, SIGPROF, What::empty(), seen.says("one")).unwrap();
        one.add(Some(MS)).unwrap();
        time.pass(MS);
        round(base);
        assert_eq!(one.pending(What::all()), What::empty());
    });
}

#[test]
fn a_signal_that_comes_with_the_timeout_is_called_as_often_as_it_came() {
    let _turn = turn();
    each_timed(|base, time| {
        let seen = Log::default();
        let event = Event::signal(base, SIGXCPU, seen.says("it")).unwrap();
        event.add(Some(20 * MS)).unwrap();
        let stop = Event::user(base, |event, _| event.base().loopbreak()).unwrap();
        for already_due in [false, true] {
            time.pass(20 * MS);
            if already_due {
                stop.active(What::empty()).unwrap();
                round(base);
                assert_eq!(event.pending(What::TIMEOUT), What::TIMEOUT, "it waits for its callback");
            }
            raise(SIGXCPU, 2);
            until(base, "the signals", || !seen.is_empty());
            assert_eq!(seen.take(), ["it TIMEOUT|SIGNAL", "it TIMEOUT|SIGNAL"]);
        }
    });
}

#[cfg(unix)]
#[test]
fn a_signal_event_knows_its_sender() {
    each_base(|base| {
        let me = os::ids();
        let runs = Count::default();
        let r = Rc::clone(&runs);
        let event = Event::signal(base, libc::SIGTTIN, move |event, _| {
            let sender = event.sender().unwrap();
            assert_eq!((sender.pid, sender.uid), me);
            assert_eq!(sender.code, libc::SI_TKILL, "raise is a tgkill");
            r.set(r.get() + 1);
        })
        .unwrap();
        event.add(None).unwrap();
        assert_eq!(event.sender(), None);
        raise(libc::SIGTTIN, 1);
        once(base);
        assert_eq!(runs.get(), 1);
    });
}

#[test]
fn what_is_no_signal_or_cannot_be_caught_is_refused() {
    each_base(|base| {
        for bad in [-1, 0, 65, 1_000_000] {
            assert!(matches!(Event::signal(base, bad, |_, _| {}), Err(Error::OutOfRange(_))), "{bad}");
        }
        #[cfg(unix)]
        for bad in [libc::SIGKILL, libc::SIGSTOP] {
            let event = Event::signal(base, bad, |_, _| {}).unwrap();
            assert!(matches!(event.add(Some(LONG)), Err(Error::Os(_))), "{bad}");
            assert_eq!(event.pending(What::all()), What::empty());
        }
        #[cfg(unix)]
        for (bad, why) in [
            (libc::SIGKILL, "can't be caught"),
            (libc::SIGSEGV, "happens again"),
            (libc::SIGILL, "happens again"),
            (libc::SIGFPE, "happens again"),
            (libc::SIGRTMIN() - 1, "C library"),
        ] {
            let event = Event::signal(base, bad, |_, _| {}).unwrap();
            let text = event.add(None).unwrap_err().to_string();
            assert!(text.contains(why) && text.contains(&bad.to_string()), "{text}");
        }
        for bad in [libc::SIGTERM, libc::SIGINT, libc::SIGSEGV, 0] {
            assert!(matches!(Event::daemon_signal(base, bad, |_, _| {}), Err(Error::OutOfRange(_))), "{bad}");
        }
    });
}

#[test]
fn what_came_before_an_event_was_added_or_after_it_was_deleted_is_not_its() {
    let _turn = turn();
    each_base(|base| {
        // Keeps it caught meanwhile.
        let other = EventBase::local().unwrap();
        let keeps = Event::signal(&other, SIGTTOU, |_, _| {}).unwrap();
        keeps.add(None).unwrap();
        let runs = Count::default();
        let event = Event::signal(base, SIGTTOU, counts(&runs)).unwrap();
        raise(SIGTTOU, 1);
        event.add(None).unwrap();
        round(base);
        raise(SIGTTOU, 1);
        event.del().unwrap();
        round(base);
        assert_eq!(runs.get(), 0);
        event.add(None).unwrap();
        raise(SIGTTOU, 1);
        once(base);
        assert_eq!(runs.get(), 1);
    });
}

#[test]
fn a_storm_of_signals_from_a_thread_of_its_own_reaches_every_base_in_full() {
    let _turn = turn();
    each_base(|base| {
        const STORM: usize = 20_000;
        let other = EventBase::local().unwrap();
        let runs = [Count::default(), Count::default()];
        let signal = storm_signal();
        let here = Event::signal(base, signal, counts(&runs[0])).unwrap();
        let there = Event::signal(&other, signal, counts(&runs[1])).unwrap();
        here.add(None).unwrap();
        there.add(None).unwrap();
        let storm = std::thread::spawn(move || raise(signal, STORM));
        until(base, "all of them", || runs[0].get() == STORM);
        storm.join().unwrap();
        until(&other, "all of them", || runs[1].get() == STORM);
    });
}

#[cfg(unix)]
#[test]
fn a_signal_sent_to_evd_reaches_its_subscribers_with_its_sender() {
    each(|setting| {
        let base = setting.builder().build().unwrap();
        let signal = libc::SIGRTMIN() + 5;
        let seen = Log::default();
        let s = seen.clone();
        let event = Event::daemon_signal(&base, signal, move |event, what| {
            s.add(format!("{what} {}", event.sender().unwrap().pid == std::process::id() as i32));
        })
        .unwrap();
        event.add(None).unwrap();
        assert_eq!(event.pending(What::all()), What::SIGNAL);
        if setting.remote {
            base.sync().unwrap();
            // evd is in this process, so it is sent to it by sending it here.
            raise(signal, 1);
            until(&base, "evd's signal", || !seen.is_empty());
            assert_eq!(seen.take(), ["SIGNAL true"]);
        } else {
            let keep = Event::signal(&base, signal, |_, _| {}).unwrap();
            keep.add(None).unwrap();
            raise(signal, 1);
            once(&base);
            assert!(seen.is_empty(), "without evd it never comes");
        }
        event.del().unwrap();
        assert_eq!(event.time_left(), None);
    });
}
