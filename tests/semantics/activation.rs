//! Events made active by hand: `event_active`, `evuser_trigger`, `event_base_active_by_fd`, `event_base_active_by_signal`.

use crate::parts::*;
use evd_client::{Counted, Ended, Error, Event, What};
use evd_proto::reply::Code;
use evd_proto::sys::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

#[test]
fn active_passes_its_bits_as_they_are_and_several_calls_are_one() {
    each_base(|base| {
        let seen = Log::default();
        let event = Event::new(base, silent(), What::READ, seen.says("it")).unwrap();
        event.active(What::WRITE | What::TIMEOUT).unwrap();
        event.active(What::CLOSED).unwrap();
        assert_eq!(round(base).callbacks, 1);
        assert_eq!(seen.take(), ["it TIMEOUT|WRITE|CLOSED"]);
        event.active(What::from_bits_retain(0x46)).unwrap();
        round(base);
        assert_eq!(seen.take(), ["it READ|WRITE|0x40"], "also bits without a meaning");
    });
}

#[test]
fn active_works_on_events_that_are_not_pending() {
    let _turn = turn();
    each_base(|base| {
        let seen = Log::default();
        let events = [
            Event::timer(base, What::empty(), seen.says("timer")).unwrap(),
            Event::user(base, seen.says("user")).unwrap(),
            Event::named(base, "by:hand", seen.says("named")).unwrap(),
            Event::signal(base, SIGURG, seen.says("signal")).unwrap(),
        ];
        events.iter().for_each(|e| e.active(What::empty()).unwrap());
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["timer -", "user -", "named -", "signal -"]);
    });
}

#[test]
fn a_one_time_event_is_deleted_with_its_timer_when_it_was_made_active() {
    each_base(|base| {
        let seen = Log::default();
        let event = Event::new(base, silent(), What::READ, seen.says("it")).unwrap();
        event.add(Some(LONG)).unwrap();
        event.active(What::READ).unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["it READ"]);
    });
}

#[test]
fn an_event_made_active_in_a_callback_runs_behind_its_queue_in_the_same_round() {
    each_base(|base| {
        let seen = Log::default();
        let again = Rc::new(Event::user(base, seen.says("again")).unwrap());
        let (a, s) = (Rc::clone(&again), seen.clone());
        let first = active(base, move |_, _| {
            s.add("first");
            a.active(What::READ).unwrap();
        });
        let second = active(base, seen.says("second"));
        assert_eq!(round(base).callbacks, 3);
        assert_eq!(seen.take(), ["first", "second -", "again READ"]);
        drop((first, second));
    });
}

#[test]
fn active_later_waits_for_the_next_wait() {
    each_base(|base| {
        let seen = Log::default();
        let s = seen.clone();
        let check = base.check(move |_| s.add("wait"));
        let later = Rc::new(Event::user(base, seen.says("later")).unwrap());
        let l = Rc::clone(&later);
        let first = active(base, move |_, _| {
            l.active_later(What::READ).unwrap();
            l.active_later(What::WRITE).unwrap();
        });
        let second = active(base, seen.says("second"));
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty, "it keeps the loop going");
        assert_eq!(seen.take(), ["wait", "second -", "wait", "later READ|WRITE"]);
        later.active_later(What::READ).unwrap();
        later.del().unwrap();
        assert_eq!(base.dispatch().unwrap().callbacks, 0);
        later.active_later(What::READ).unwrap();
        later.active(What::WRITE).unwrap();
        assert_eq!(base.dispatch().unwrap().callbacks, 1, "once");
        drop((check, first, second));
    });
}

#[test]
fn active_times_is_how_often_a_signals_callback_runs_also_none() {
    let _turn = turn();
    each_base(|base| {
        let runs = Count::default();
        let signal = Event::signal(base, SIGURG, counts(&runs)).unwrap();
        signal.active_times(What::SIGNAL, 3).unwrap();
        assert_eq!(once(base).callbacks, 3);
        signal.active_times(What::SIGNAL, 0).unwrap();
        let timer = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        timer.add(Some(LONG)).unwrap();
        assert_eq!(once(base).callbacks, 0, "and that was what the loop waited for");
        assert_eq!(runs.get(), 3);
        let user = Event::user(base, counts(&runs)).unwrap();
        user.active_times(What::READ, 7).unwrap();
        assert_eq!(once(base).callbacks, 1, "it means nothing for others");
        signal.active_times(What::SIGNAL, 2).unwrap();
        signal.active_times(What::READ, 4).unwrap();
        assert_eq!(once(base).callbacks, 2, "while it is active the number is not changed");
        // What really came is added, also to that.
        signal.add(None).unwrap();
        signal.active_times(What::SIGNAL, 2).unwrap();
        base.active_by_signal(SIGURG);
        assert_eq!(once(base).callbacks, 3);
    });
}

#[test]
fn a_name_that_nobody_has_is_refused_and_ones_own_is_reached() {
    each_base(|base| {
        let nobody = "activation:nobody";
        match base.trigger(nobody) {
            Err(Error::Refused(why)) => {
                assert!(why.code == Code::Unknown && why.text.contains(nobody), "{why:?}");
            }
            other => panic!("{other:?}"),
        }
        let runs = Count::default();
        let named = Event::named(base, "activation:own", counts(&runs)).unwrap();
        assert!(base.trigger("activation:own").is_err(), "it is not added");
        named.add(None).unwrap();
        assert_eq!(base.trigger("activation:own").unwrap().reached, 1);
        until(base, "it is called", || runs.get() == 1);
    });
}

#[test]
fn active_by_fd_is_as_if_the_fd_were_ready() {
    each_base(|base| {
        let seen = Log::default();
        let a = Shared::new(pair().0);
        let quiet = silent();
        let number = quiet.as_raw_fd();
        let quiet = Rc::new(quiet);
        let reads = Event::new(base, Rc::clone(&quiet), What::READ, seen.says("reads")).unwrap();
        let closed = Event::new(base, Rc::clone(&quiet), What::CLOSED, seen.says("closed")).unwrap();
        let both = Event::new(base, quiet, READ | What::CLOSED, seen.says("both")).unwrap();
        let off = Event::new(base, a, What::READ, seen.says("another fd")).unwrap();
        reads.add(None).unwrap();
        closed.add(None).unwrap();
        both.add(Some(LONG)).unwrap();
        park(base, 1);
        base.active_by_fd(number, What::READ);
        assert_eq!(round(base).callbacks, 2);
        assert_eq!(seen.take(), ["both READ", "reads READ"]);
        base.active_by_fd(number, What::READ | What::CLOSED);
        assert_eq!(round(base).callbacks, 2);
        assert_eq!(seen.take(), ["both READ|CLOSED", "closed CLOSED"], "reads is not pending any more");
        for bogus in [-1, 12_345, i32::MAX] {
            base.active_by_fd(bogus, What::READ);
            base.active_by_fd(bogus, What::TIMEOUT);
        }
        assert_eq!(base.num_events(Counted::ACTIVE), 0);
        assert_eq!(off.pending(What::all()), What::empty());
    });
}

#[test]
fn active_by_fd_is_no_edge() {
    each_base(|base| {
        let seen = Log::default();
        let edge = Event::new(base, silent(), READ | What::ET, seen.says("edge")).unwrap();
        edge.add(None).unwrap();
        base.active_by_fd(edge.source().as_raw_fd(), What::READ | What::ET);
        assert_eq!(round(base).callbacks, 1);
        assert_eq!(seen.take(), ["edge READ"], "as in libevent");
    });
}

#[test]
fn active_by_fd_with_timeout_is_for_timed_events_only() {
    each_base(|base| {
        let seen = Log::default();
        let quiet = Rc::new(silent());
        let number = quiet.as_raw_fd();
        let timed = Event::new(base, Rc::clone(&quiet), READ, seen.says("timed")).unwrap();
        let plain = Event::new(base, Rc::clone(&quiet), READ, seen.says("plain")).unwrap();
        let timer = Event::new(base, quiet, What::empty(), seen.says("no interest")).unwrap();
        timed.add(Some(LONG)).unwrap();
        plain.add(None).unwrap();
        timer.add(Some(LONG)).unwrap();
        base.active_by_fd(number, What::TIMEOUT | What::READ);
        assert_eq!(round(base).callbacks, 2);
        let mut seen = seen.take();
        seen.sort();
        assert_eq!(seen, ["no interest TIMEOUT", "timed TIMEOUT"]);
        assert!(timed.time_left().unwrap_or(Duration::ZERO) > LONG, "as if it had been due");
        assert_eq!(timer.pending(What::all()), What::empty());
    });
}

#[test]
fn active_by_signal_calls_each_event_of_the_signal_once() {
    let _turn = turn();
    each_base(|base| {
        let seen = Log::default();
        let names = ["one", "two"];
        let events = names.map(|name| Event::signal(base, SIGURG, seen.says(name)).unwrap());
        events.iter().for_each(|e| e.add(None).unwrap());
        let other = Event::signal(base, SIGCONT, seen.says("other")).unwrap();
        other.add(None).unwrap();
        base.active_by_signal(SIGURG);
        base.active_by_signal(SIGPIPE);
        base.active_by_signal(-1);
        base.active_by_signal(12_345);
        assert_eq!(round(base).callbacks, 2);
        assert_eq!(seen.take(), ["two SIGNAL", "one SIGNAL"], "newest first");
    });
}
