//! What a base consists of: `event_base_foreach_event`, `dump_events`, `get_num_events`, `get_max_events`, the running event, features and version.

use crate::parts::*;
use evd_client::{Counted, Event, EventBase, EventInfo, EventKey, Features, What};
use evd_proto::sys::AsRawFd;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

fn all(base: &EventBase) -> Vec<EventInfo> {
    let mut all = Vec::new();
    let broke = base.for_each_event(|e| {
        all.push(e.clone());
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(broke, None);
    all
}

fn keys(base: &EventBase) -> Vec<EventKey> {
    all(base).into_iter().map(|e| e.key).collect()
}

#[test]
fn for_each_event_goes_by_fds_signals_names_timers_and_active_ones() {
    let _turn = turn();
    each_base(|base| {
        let (low, high) = (Rc::new(silent()), silent());
        let user = active(base, |_, _| {});
        let timer = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        timer.add(Some(LONG)).unwrap();
        let named = Event::named(base, "a:name", |_, _| {}).unwrap();
        named.add(None).unwrap();
        let signal = Event::signal(base, SIGURG, |_, _| {}).unwrap();
        signal.add(None).unwrap();
        let fd = Event::new(base, high, READ, |_, _| {}).unwrap();
        fd.add(None).unwrap();
        let older = Event::new(base, Rc::clone(&low), READ, |_, _| {}).unwrap();
        older.add(None).unwrap();
        let newer = Event::new(base, low, What::WRITE, |_, _| {}).unwrap();
        newer.add(Some(LONG)).unwrap();
        let _not_pending = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        let mut by_number = vec![(fd.source().as_raw_fd(), vec![fd.key()])];
        by_number.push((newer.source().as_raw_fd(), vec![newer.key(), older.key()]));
        by_number.sort_by_key(|(number, _)| *number);
        let mut expected: Vec<EventKey> = by_number.into_iter().flat_map(|(_, keys)| keys).collect();
        expected.extend([signal.key(), named.key(), timer.key(), user.key()]);
        assert_eq!(keys(base), expected);
    });
}

#[test]
fn for_each_event_stops_with_what_it_is_told() {
    each_base(|base| {
        let timers = [1, 2, 3].map(|_| Event::timer(base, What::empty(), |_, _| {}).unwrap());
        timers.iter().for_each(|t| t.add(Some(LONG)).unwrap());
        let mut calls = 0;
        let second = base.for_each_event(|e| {
            calls += 1;
            if calls == 2 { ControlFlow::Break(e.key) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((calls, second), (2, Some(timers[1].key())));
        let _ = base.for_each_event(|_| {
            timers.iter().for_each(|t| t.del().unwrap());
            ControlFlow::<()>::Continue(())
        });
        assert!(all(base).is_empty(), "it may do anything");
    });
}

#[test]
fn an_events_info_is_all_that_is_known_of_it() {
    let _turn = turn();
    each_base_with(
        |b| b.priorities(3),
        |base| {
            let stream = silent();
            let number = stream.as_raw_fd();
            let event = Event::new(base, stream, READ, |_, _| {}).unwrap();
            event.set_priority(2).unwrap();
            event.label("a label");
            event.add(Some(LONG)).unwrap();
            event.active(What::CLOSED).unwrap();
            let info = all(base).remove(0);
            assert_eq!((info.key, info.fd, info.signo, info.name), (event.key(), Some(number), None, None));
            assert_eq!((info.what, info.priority, info.count), (READ, 2, 0));
            assert_eq!((info.inserted, info.active), (true, Some(What::CLOSED)));
            assert_eq!(info.pending, What::READ | What::TIMEOUT | What::CLOSED);
            assert!(info.time_left.unwrap() <= LONG);
            assert_eq!(info.label, "a label");
            round(base);
            let info = all(base).remove(0);
            assert_eq!((info.count, info.active, info.pending), (1, None, What::READ | What::TIMEOUT));
            drop(event);
            let signal = Event::signal(base, SIGURG, |_, _| {}).unwrap();
            signal.add(None).unwrap();
            let named = Event::named(base, "a:name", |_, _| {}).unwrap();
            named.add(None).unwrap();
            let [s, n] = &all(base)[..] else { panic!() };
            assert_eq!((s.signo, s.fd, s.pending), (Some(SIGURG), None, What::SIGNAL));
            assert_eq!((n.name.as_deref(), n.inserted, n.pending), (Some("a:name"), true, What::empty()));
        },
    );
}

#[test]
fn the_dump_has_a_line_for_each_event_in_libevents_form() {
    let _turn = turn();
    each_base(|base| {
        let stream = silent();
        let number = stream.as_raw_fd();
        let io = Event::new(base, stream, READ | What::WRITE | What::CLOSED, |_, _| {}).unwrap();
        io.add(None).unwrap();
        io.active(What::READ).unwrap();
        let timer = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        timer.add(Some(LONG)).unwrap();
        let signal = Event::signal(base, SIGURG, |_, _| {}).unwrap();
        signal.add(None).unwrap();
        // Active with all that it waits for.
        signal.active(What::SIGNAL).unwrap();
        let user = active(base, |_, _| {});
        let mut text = Vec::new();
        base.dump(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|l| *l == "Active events:").unwrap();
        assert_eq!(lines[0], "Inserted events:");
        assert!(lines[1].ends_with(&format!(" [fd {number:2}] Read Write EOF Persist")), "{text}");
        assert!(lines[2].ends_with(&format!(" [sig {}] Signal Persist", SIGURG)), "{text}");
        let (head, tail) = lines[3].split_once(" Timeout=").unwrap();
        assert!(head.ends_with(" [fd -1]"), "{text}");
        let (secs, micros) = tail.split_once('.').unwrap();
        assert!(secs.parse::<u64>().unwrap() <= LONG.as_secs() && micros.len() == 6, "{text}");
        assert_eq!(at, 4);
        assert!(lines[5].ends_with(&format!(" [fd {number:2}, priority=0] Read active")), "{text}");
        assert!(lines[6].ends_with("priority=0] Signal active"), "{text}");
        assert!(lines[7].ends_with(" [fd -1, priority=0] active"), "{text}");
        drop(user);
    });
}

#[test]
fn counts_are_memberships_active_events_and_whoever_keeps_the_loop_going() {
    each_base(|base| {
        let everything = Counted::ACTIVE | Counted::VIRTUAL | Counted::ADDED;
        assert_eq!(base.num_events(everything), 0);
        let event = Event::new(base, silent(), READ, |_, _| {}).unwrap();
        event.add(None).unwrap();
        assert_eq!(base.num_events(Counted::ADDED), 1);
        event.add(Some(LONG)).unwrap();
        assert_eq!(base.num_events(Counted::ADDED), 2);
        event.active(What::READ).unwrap();
        assert_eq!((base.num_events(Counted::ADDED), base.num_events(Counted::ACTIVE)), (3, 1));
        let keep = base.keep_going();
        assert_eq!(base.num_events(Counted::VIRTUAL), 1);
        assert_eq!(base.num_events(everything), 5);
        drop(keep);
        event.del().unwrap();
        assert_eq!(base.num_events(everything), 0);
        assert_eq!(base.max_events(everything, false), 5, "each kind for itself");
        assert_eq!(base.max_events(Counted::ACTIVE, true), 1);
        assert_eq!(base.max_events(Counted::ACTIVE, false), 0);
        assert_eq!(base.max_events(Counted::ADDED, false), 3, "only what was asked for is forgotten");
        assert_eq!(base.max_events(Counted::VIRTUAL | Counted::ADDED, true), 4);
        assert_eq!(base.max_events(everything, false), 0);
        event.add(None).unwrap();
        assert_eq!(base.max_events(Counted::ADDED, false), 1);
    });
}

#[test]
fn keep_going_keeps_a_loop_from_ending_as_empty() {
    each_timed(|base, time| {
        let keep = Rc::new(Cell::new(Some(base.keep_going())));
        assert_eq!(base.loop_(ROUND).unwrap().code(), 0);
        let k = Rc::clone(&keep);
        let timer = Event::timer(base, What::empty(), move |_, _| drop(k.take())).unwrap();
        timer.add(Some(MS)).unwrap();
        time.pass(MS);
        assert_eq!(base.dispatch().unwrap().code(), 1);
        assert!(keep.take().is_none());
    });
}

#[test]
fn the_running_event_is_known_in_its_callback_and_only_there() {
    each_base(|base| {
        assert_eq!(base.running_event(), None);
        let event = active(base, |event, _| assert_eq!(event.base().running_event(), Some(event.key())));
        let freed = active(base, |event, _| {
            event.free().unwrap();
            assert_eq!(event.base().running_event(), Some(event.key()), "this one still runs");
        });
        base.handle().post(|base| assert_eq!(base.running_event(), None));
        assert_eq!(base.dispatch().unwrap().callbacks, 3);
        assert_eq!(base.running_event(), None);
        drop((event, freed));
    });
}

#[test]
fn methods_have_libevents_features() {
    each_base(|base| {
        let bits = match base.method() {
            "poll" => 0x0c,
            "select" => 0x04,
            "wepoll" => 0x0a,
            "win32" => 0x00,
            _ => 0x0b,
        };
        assert_eq!(base.features(), Features::from_bits_retain(bits));
    });
}

#[test]
fn the_version_is_the_crates_and_a_number_that_grows_with_it() {
    assert_eq!(evd_client::version(), env!("CARGO_PKG_VERSION"));
    let parts: Vec<u32> = evd_client::version().split('.').map(|p| p.parse().unwrap()).collect();
    assert_eq!(evd_client::version_number(), parts[0] << 24 | parts[1] << 16 | parts[2] << 8);
}
