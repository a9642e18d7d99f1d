//! Named events from process to process.

use crate::parts::*;
use crate::role::{Process, hear, say};
use crate::wire::{eventually, outcome};
use evd_client::{Ended, Error, Event, EventBase, LoopFlags, What};
use evd_proto::reply::Code;
use evd_proto::sys;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

fn is_unknown(base: &EventBase, name: &str) {
    match base.trigger(name) {
        Err(Error::Refused(why)) => assert!(why.code == Code::Unknown && why.text.contains(name), "{why:?}"),
        other => panic!("{other:?}"),
    }
}

/// A role: tells how often it was triggered, each time it is told of it. Its first callback lasts until it hears something.
pub fn subscriber(socket: &Path, args: &[&str]) {
    let base = base_at(socket, "subscriber");
    let mut first = true;
    let named = Event::named(&base, args[0], move |event, _| {
        say(event.times());
        if std::mem::take(&mut first) {
            assert_eq!(hear(), "go on");
        }
    })
    .unwrap();
    named.add(None).unwrap();
    base.sync().unwrap();
    say("subscribed");
    base.dispatch().unwrap();
}

fn subscriber_of(socket: &Path, name: &str) -> Process {
    let process = Process::start("subscriber", socket, &[name]);
    process.says("subscribed");
    process
}

/// Reads the counts that a subscriber tells until they are `sum` in all.
fn tells_in_all(process: &Process, sum: u32) {
    let mut all = 0;
    while all < sum {
        all += process.line().parse::<u32>().unwrap();
    }
    assert_eq!(all, sum);
}

#[test]
fn triggers_during_a_long_callback_come_as_one_with_their_number() {
    let evd = evd();
    let base = base(&evd);
    let mut process = subscriber_of(&evd.path(), "counted");
    assert_eq!(base.trigger("counted").unwrap().reached, 1);
    process.says("1");
    for _ in 0..100 {
        // The answer says that it has them, although it reads nothing now.
        assert_eq!(base.trigger("counted").unwrap().reached, 1);
    }
    process.tell("go on");
    process.says("100");
    base.trigger("counted").unwrap();
    process.says("1");
}

#[test]
fn each_subscriber_in_each_process_gets_each_trigger_and_the_dead_ones_hinder_nobody() {
    let evd = evd();
    let base = base(&evd);
    let (twice, sum) = (0..2)
        .map(|_| {
            let sum = Count::default();
            let of = Rc::clone(&sum);
            let event = Event::named(&base, "all", move |event, _| of.set(of.get() + event.times() as usize));
            let event = event.unwrap();
            event.add(None).unwrap();
            (event, sum)
        })
        .collect::<(Vec<_>, Vec<_>)>();
    let mut processes: Vec<Process> = (0..3).map(|_| subscriber_of(&evd.path(), "all")).collect();
    assert_eq!(base.trigger("all").unwrap().reached, 5);
    for process in &mut processes {
        process.says("1");
        process.tell("go on");
    }
    // One dies somewhere in between.
    let mut sent = 1;
    for i in 0..100 {
        let t = base.trigger("all").unwrap();
        sent += 1;
        assert!((4..=5).contains(&(t.reached + t.queued)), "{t:?}");
        if i == 50 {
            processes.remove(1).kill();
        }
    }
    eventually("the dead one is not counted", || {
        sent += 1;
        base.trigger("all").unwrap().reached == 4
    });
    for process in &processes {
        tells_in_all(process, sent - 1);
    }
    until(&base, "the own ones, too", || sum.iter().all(|s| s.get() == sent as usize));
    drop(twice);
    assert_eq!(base.trigger("all").unwrap().reached, 2);
    drop(processes);
    eventually("nobody is left", || base.trigger("all").is_err());
    is_unknown(&base, "all");
}

#[test]
fn a_name_that_nobody_subscribed_to_is_an_error_that_names_it() {
    let evd = evd();
    let base = base(&evd);
    is_unknown(&base, "no:such");
    let mut c = Command::new(env!("CARGO_BIN_EXE_evctl"));
    c.arg("--socket").arg(evd.path()).args(["trigger", "no:such"]);
    let (code, text) = outcome(c);
    assert!(code == Some(1) && text.contains("no:such"), "{code:?} {text}");
    let named = Event::named(&base, "no:such", |_, _| {}).unwrap();
    is_unknown(&base, "no:such");
    named.add(None).unwrap();
    assert_eq!(base.trigger("no:such").unwrap().reached, 1);
    named.del().unwrap();
    is_unknown(&base, "no:such");
    for bad in ["", "with space", "a/b", &"x".repeat(65)] {
        assert!(matches!(base.trigger(bad), Err(Error::BadName(_))), "{bad:?}");
        assert!(matches!(Event::named(&base, bad, |_, _| {}), Err(Error::BadName(_))), "{bad:?}");
    }
}

#[test]
fn the_fd_of_a_base_that_has_nothing_any_more_does_not_stay_readable() {
    let evd = evd();
    let (base, other) = (base(&evd), base(&evd));
    let readable = |base: &EventBase| {
        let mut fds = [sys::PollFd::new(base.pollable().unwrap().as_raw_fd(), What::READ)];
        sys::poll(&mut fds, Some(Duration::ZERO)).unwrap() == 1
    };
    let named = Event::named(&base, "late", |_, _| panic!("it is deleted")).unwrap();
    named.add(None).unwrap();
    base.sync().unwrap();
    assert!(!readable(&base));
    assert_eq!(other.trigger("late").unwrap().reached, 1);
    assert!(readable(&base), "it is in the base's socket");
    named.del().unwrap();
    let looped = base.loop_(LoopFlags::ONCE | LoopFlags::NONBLOCK).unwrap();
    assert_eq!((looped.ended, looped.callbacks), (Ended::Empty, 0));
    assert!(!readable(&base), "whoever polls it would spin");
}
