//! Clients that do not read for a while, and hang-ups that nobody asked about.

use crate::os;
use crate::parts::*;
use crate::role::{Process, say};
use crate::wire::eventually;
use evd_client::{Event, What};
use evd_proto::sys::{self, ProcessState};
use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const MANY: usize = 1000;

/// A pipe whose reading end does not block.
fn pipe() -> (File, File) {
    let (r, w) = os::pipe();
    let own = format!("/proc/self/fd/{}", r.as_raw_fd());
    (File::options().read(true).custom_flags(libc::O_NONBLOCK).open(own).unwrap(), w)
}

#[test]
fn a_thousand_fds_that_fire_during_a_long_callback_are_all_seen_once() {
    sys::raise_open_files().unwrap();
    let evd = evd();
    let base = base(&evd);
    let fired = Rc::new(RefCell::new(vec![0; MANY]));
    let (mut events, mut writers) = (Vec::new(), Vec::new());
    for i in 0..MANY {
        let (r, w) = pipe();
        let all = Rc::clone(&fired);
        let event = Event::new(&base, r, READ, move |event, what| {
            assert_eq!((what, drain(event.source())), (What::READ, (1, false)));
            all.borrow_mut()[i] += 1;
        })
        .unwrap();
        event.add(None).unwrap();
        events.push(event);
        writers.push(w);
    }
    park(&base, MANY);
    let slow = Event::user(&base, move |_, _| {
        writers.iter_mut().for_each(|w| w.write_all(b"x").unwrap());
        std::thread::sleep(300 * MS);
    })
    .unwrap();
    for round in 1..=2 {
        slow.active(What::READ).unwrap();
        until(&base, "all have fired", || fired.borrow().iter().all(|n| *n >= round));
        run_for(&base, 50 * MS);
        assert!(fired.borrow().iter().all(|n| *n == round), "{fired:?}");
        park(&base, MANY);
    }
}

const ROUNDS: usize = 20;
const TRIGGERS: usize = 2000;

#[test]
fn a_frozen_client_costs_evd_no_memory_and_sees_all_when_it_wakes() {
    sys::raise_open_files().unwrap();
    let evd = evd();
    let process = Process::start("frozen", &evd.path(), &[]);
    let open = |number: &str| {
        let path = format!("/proc/{}/fd/{number}", process.pid());
        File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    };
    let mut writers: Vec<File> = process.line().split(' ').map(open).collect();
    assert_eq!(writers.len(), MANY);
    let base = base(&evd);
    let (near, mut far) = pair();
    let (_event, got) = reader(&base, near);
    assert_eq!(base_info(&evd, "frozen").unwrap()["unread_ns"], 0);

    process.signal(libc::SIGSTOP);
    let stopped = || sys::process_state(process.pid(), process.pid()) == ProcessState::Stopped;
    eventually("it is frozen", stopped);
    let mut resident = Vec::new();
    for round in 1..=ROUNDS {
        writers.iter_mut().for_each(|w| w.write_all(b"x").unwrap());
        for _ in 0..TRIGGERS / ROUNDS {
            let t = base.trigger("frozen").unwrap();
            assert_eq!(t.reached + t.queued, 1);
        }
        base.sync().unwrap();
        far.write_all(b"x").unwrap();
        until(&base, "the others are served", || got.get() == round);
        resident.push(evd.resident());
    }
    // From when it had everything to report once, nothing is added.
    let grown = resident[ROUNDS - 1].saturating_sub(resident[ROUNDS / 4]);
    assert!(grown < 256 * 1024, "{resident:?}");
    let unread = || base_info(&evd, "frozen").unwrap()["unread_ns"].as_u64().unwrap();
    eventually("evd shows that it does not read", || unread() > 0);
    assert!(evctl(&evd.path(), &["status"]).contains("the client has not read for"));

    process.signal(libc::SIGCONT);
    process.says("all is there");
    eventually("it reads again", || unread() == 0);
    process.says("and no more");
}

/// A role: reads what it gets until it has all.
pub fn frozen(socket: &Path, _: &[&str]) {
    sys::raise_open_files().unwrap();
    let base = base_at(socket, "frozen");
    let (bytes, times) = (Count::default(), Count::default());
    let (mut events, mut writers) = (Vec::new(), Vec::new());
    for i in 0..MANY {
        let (r, w) = pipe();
        let sum = Rc::clone(&bytes);
        let edge = if i % 3 == 0 { What::ET } else { What::empty() };
        let event = Event::new(&base, r, READ | edge, move |event, _| {
            sum.set(sum.get() + drain(event.source()).0);
        })
        .unwrap();
        event.add(None).unwrap();
        events.push(event);
        writers.push(w);
    }
    let sum = Rc::clone(&times);
    let named = Event::named(&base, "frozen", move |event, _| sum.set(sum.get() + event.times() as usize));
    let named = named.unwrap();
    named.add(None).unwrap();
    let links = links(&base);
    park(&base, MANY);
    let numbers: Vec<String> = writers.iter().map(|w| w.as_raw_fd().to_string()).collect();
    say(numbers.join(" "));
    until(&base, "all bytes and all triggers", || (bytes.get(), times.get()) == (ROUNDS * MANY, TRIGGERS));
    say("all is there");
    run_for(&base, 50 * MS);
    assert_eq!((bytes.get(), times.get()), (ROUNDS * MANY, TRIGGERS));
    assert!(links.borrow().is_empty(), "{links:?}");
    say("and no more");
}

#[test]
fn a_hang_up_that_nobody_wants_keeps_nobody_awake() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        for what in [What::CLOSED | What::PERSIST, What::PERSIST] {
            for closed_before in [true, false] {
                let base = base_of(&evd, method);
                let (r, w) = os::pipe();
                let mut w = Some(w);
                if closed_before {
                    w = None;
                }
                let event = Event::new(&base, r, what, |_, what| panic!("{what}")).unwrap();
                event.add(None).unwrap();
                base.sync().unwrap();
                drop(w);
                let (near, far) = pair();
                let (_reader, got) = reader(&base, near);
                let here = Path::new("/proc/thread-self");
                let before = (sleeps_of(here), sleeps(evd.pid()));
                run_for(&base, Duration::from_millis(400));
                // A thread of the round before may have ended just now.
                let slept = (sleeps_of(here) - before.0, sleeps(evd.pid()).saturating_sub(before.1));
                assert!(slept.0 < 30 && slept.1 < 30, "{method} {what}: woken {slept:?} times");
                (&far).write_all(b"x").unwrap();
                until(&base, "others are served", || got.get() == 1);
            }
        }
    }
}
