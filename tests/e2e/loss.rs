//! evd is lost, in every way in which that can happen, and comes back.

use crate::fake::{Fake, Manner};
use crate::parts::*;
use crate::wire::{Evd, eventually};
use evd_client::{Error, Event, EventBase, LinkState, LoopFlags, What};
use evd_proto::sys::{self, PollFd};
use std::cell::Cell;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

/// Sockets that a base reads, and their other ends.
struct Sockets {
    events: Vec<Event<UnixStream>>,
    got: Vec<Count>,
    peers: Vec<UnixStream>,
    sent: Vec<usize>,
}

impl Sockets {
    fn new(base: &EventBase, n: usize) -> Sockets {
        let mut s = Sockets { events: Vec::new(), got: Vec::new(), peers: Vec::new(), sent: vec![0; n] };
        for _ in 0..n {
            let (near, far) = pair();
            let (event, got) = reader(base, near);
            s.events.push(event);
            s.got.push(got);
            s.peers.push(far);
        }
        s
    }

    fn write(&mut self, which: std::ops::Range<usize>) {
        for i in which {
            self.peers[i].write_all(b"four").unwrap();
            self.sent[i] += 4;
        }
    }

    fn write_all(&mut self) {
        self.write(0..self.peers.len());
    }

    fn have_all(&self) -> bool {
        self.got.iter().zip(&self.sent).all(|(got, sent)| got.get() == *sent)
    }
}

/// Timers of 20, 40, .. ms, each of which must fire once and not early.
fn one_shots(base: &EventBase, n: usize) -> (Vec<Event>, Rc<Cell<usize>>) {
    let fired = Count::default();
    let timers = (1..=n as u32).map(|i| {
        let (count_of, start, due) = (Rc::clone(&fired), Instant::now(), 20 * i * MS);
        let timer = Event::timer(base, What::empty(), move |event, _| {
            assert!(start.elapsed() >= due);
            assert_eq!(event.count(), 1);
            count(&count_of);
        })
        .unwrap();
        timer.add(Some(due)).unwrap();
        timer
    });
    (timers.collect(), fired)
}

#[test]
fn a_killed_evd_costs_no_event_and_the_base_says_so_and_is_parked_again() {
    let mut evd = evd();
    let base = base(&evd);
    let links = links(&base);
    let mut s = Sockets::new(&base, 20);
    let (timers, fired) = one_shots(&base, 20);
    park(&base, 20);
    s.write(0..10);
    kill(&mut evd);
    s.write(5..15);
    until(&base, "what was sent before and after the kill is there", || s.have_all());
    // It may be noticed where no callback runs: then that follows with the next loop.
    until(&base, "the loss is told", || !is_up(&base) && !links.borrow().is_empty());
    assert_eq!(*links.borrow(), [base.link()]);
    why_away(&base);
    assert_eq!(base.watches(), (0, 20));
    s.write_all();
    until(&base, "the program goes on by itself", || s.have_all());
    until(&base, "half of the timers", || fired.get() >= 10);

    start_again(&mut evd);
    until(&base, "evd is found again", || is_up(&base) && links.borrow().len() > 1);
    assert_eq!(links.borrow()[1..], [base.link()]);
    park(&base, 20);
    s.write_all();
    until(&base, "it works as before", || s.have_all());
    until(&base, "all timers", || fired.get() == timers.len());
    assert_eq!(links.borrow().len(), 2, "{links:?}");
}

#[test]
fn what_evd_had_sent_before_its_death_is_drained() {
    let mut evd = evd();
    let (base, other) = (base(&evd), base_at(&evd.path(), "other"));
    let times = Count::default();
    let sum = Rc::clone(&times);
    let named = Event::named(&base, "drained", move |event, _| sum.set(sum.get() + event.times() as usize));
    let named = named.unwrap();
    named.add(None).unwrap();
    base.sync().unwrap();
    for _ in 0..200 {
        // "Reached": it is in the socket, where it survives evd.
        assert_eq!(other.trigger("drained").unwrap().reached, 1);
    }
    kill(&mut evd);
    until(&base, "what only evd knew is there", || times.get() == 200);
    until(&base, "the loss is noticed", || !is_up(&base));
    assert_eq!(times.get(), 200);
}

#[test]
fn a_loss_that_a_call_finds_is_told_by_the_call_and_loses_nothing() {
    let mut evd = evd();
    let (base, other) = (base(&evd), base_at(&evd.path(), "other"));
    let links = links(&base);
    let times = Count::default();
    let sum = Rc::clone(&times);
    let named = Event::named(&base, "drained", move |event, _| sum.set(sum.get() + event.times() as usize));
    let named = named.unwrap();
    named.add(None).unwrap();
    let mut s = Sockets::new(&base, 3);
    park(&base, 3);
    other.trigger("drained").unwrap();
    s.write_all();
    kill(&mut evd);
    assert!(matches!(base.sync(), Err(Error::Lost)));
    assert!(matches!(base.sync(), Err(Error::NeedsEvd)), "{:?}", base.link());
    assert!(links.borrow().is_empty(), "no callback runs inside a call");
    until(&base, "all of it is there", || s.have_all() && times.get() == 1);
    assert_eq!(links.borrow().len(), 1);
    assert_eq!(base.trigger("drained").unwrap().reached, 1, "its own events are still reached");
    until(&base, "its own trigger", || times.get() == 2);
}

#[test]
fn a_nested_base_without_events_keeps_no_outer_loop_busy_when_evd_is_lost() {
    let mut evd = evd();
    let base = base(&evd);
    let fd = base.pollable().unwrap().as_raw_fd();
    kill(&mut evd);
    let (mut rounds, start, time) = (0, Instant::now(), 500 * MS);
    while start.elapsed() < time {
        let mut one = [PollFd::new(fd, What::READ)];
        sys::poll(&mut one, Some(time.saturating_sub(start.elapsed()))).unwrap();
        base.loop_(LoopFlags::ONCE | LoopFlags::NONBLOCK).unwrap();
        rounds += 1;
    }
    why_away(&base);
    assert!(rounds < 100, "{rounds}");
}

#[test]
fn names_and_signals_are_subscribed_again_after_a_reconnect() {
    let mut evd = evd();
    let base = base(&evd);
    let (named_times, signals) = (Count::default(), Count::default());
    let sum = Rc::clone(&named_times);
    let named = Event::named(&base, "again", move |event, _| sum.set(sum.get() + event.times() as usize));
    let named = named.unwrap();
    named.add(None).unwrap();
    let count_of = Rc::clone(&signals);
    let signal = Event::daemon_signal(&base, libc::SIGUSR2, move |_, _| count(&count_of)).unwrap();
    signal.add(None).unwrap();
    for round in 1..=3 {
        base.sync().unwrap();
        evctl(&evd.path(), &["trigger", "again"]);
        evd.signal(libc::SIGUSR2);
        until(&base, "both came", || named_times.get() == round && signals.get() == round);
        kill(&mut evd);
        until(&base, "the loss is noticed", || !is_up(&base));
        start_again(&mut evd);
        until(&base, "evd is found again", || is_up(&base));
    }
}

#[test]
fn a_frozen_evd_is_left_and_found_again() {
    let evd = evd();
    let base = base(&evd);
    let links = links(&base);
    let mut s = Sockets::new(&base, 10);
    let (timers, fired) = one_shots(&base, 10);
    for round in 1..=3 {
        park(&base, 10);
        s.write(0..5);
        freeze(&evd);
        s.write(3..7);
        until(&base, "what came while evd was frozen is there", || s.have_all());
        until(&base, "the base notices it", || !is_up(&base));
        assert_eq!(why_away(&base), "evd is stopped");
        s.write_all();
        until(&base, "the program goes on by itself", || s.have_all());
        if round == 1 {
            until(&base, "timers", || fired.get() == timers.len());
        }
        evd.signal(libc::SIGCONT);
        until(&base, "evd is found again", || is_up(&base) && links.borrow().len() >= 2 * round);
        assert_eq!(links.borrow().len(), 2 * round, "{links:?}");
    }
    park(&base, 10);
    s.write_all();
    until(&base, "it works as before", || s.have_all());
    eventually("its first sessions have ended", || status(&evd)["bases"].as_array().unwrap().len() == 1);
}

#[test]
fn a_call_to_a_frozen_evd_comes_back_with_lost() {
    let evd = evd();
    let base = base(&evd);
    let mut s = Sockets::new(&base, 3);
    park(&base, 3);
    freeze(&evd);
    s.write_all();
    assert!(matches!(base.trigger("whatever"), Err(Error::Lost)));
    assert_eq!(why_away(&base), "evd does not answer");
    until(&base, "all of it is there", || s.have_all());
    evd.signal(libc::SIGCONT);
    until(&base, "evd is found again", || is_up(&base));
    park(&base, 3);
}

#[test]
fn an_orderly_end_is_told_as_such() {
    let mut evd = evd();
    let base = base(&evd);
    let links = links(&base);
    let mut s = Sockets::new(&base, 5);
    park(&base, 5);
    s.write_all();
    evd.signal(libc::SIGTERM);
    assert!(evd.child.wait().unwrap().success());
    s.write_all();
    until(&base, "all of it is there", || s.have_all());
    until(&base, "the end is noticed", || !is_up(&base));
    assert_eq!(why_away(&base), "evd ended: evd stops");
    assert!(!evd.path().exists());
    start_again(&mut evd);
    until(&base, "evd is found again", || is_up(&base) && links.borrow().len() > 1);
    assert_eq!(links.borrow().len(), 2);
    park(&base, 5);
}

/// Whatever is at evd's place after its death, the base goes on, and takes to a good evd again.
fn goes_on_beside(manner: Manner) {
    let mut evd = evd();
    let base = base(&evd);
    let links = links(&base);
    let mut s = Sockets::new(&base, 5);
    let (timers, fired) = one_shots(&base, 5);
    park(&base, 5);
    kill(&mut evd);
    let bad = Fake::at(&evd.path(), manner);
    s.write_all();
    let enough = if manner == Manner::Silent { 1 } else { 3 };
    until(&base, "it was tried", || bad.met() >= enough);
    s.write_all();
    until(&base, "the program goes on", || s.have_all() && fired.get() == timers.len());
    assert!(matches!(base.link(), LinkState::Away { .. }), "{:?}", base.link());
    assert_eq!(links.borrow().len(), 1, "{links:?}");
    drop(bad);
    start_again(&mut evd);
    until(&base, "a good evd is found", || is_up(&base));
    park(&base, 5);
    s.write_all();
    until(&base, "it works as before", || s.have_all());
}

#[test]
fn an_evd_that_refuses_after_a_restart_leaves_the_base_local() {
    goes_on_beside(Manner::Refuses);
}

#[test]
fn an_evd_of_another_version_after_a_restart_leaves_the_base_local() {
    goes_on_beside(Manner::WrongVersion);
}

#[test]
fn an_evd_that_closes_at_once_leaves_the_base_local() {
    goes_on_beside(Manner::Closes);
}

#[test]
fn an_evd_that_sends_garbage_leaves_the_base_local() {
    goes_on_beside(Manner::Garbage);
}

#[test]
fn an_evd_that_does_not_answer_the_hello_leaves_the_base_local() {
    goes_on_beside(Manner::Silent);
}

#[test]
fn an_evd_whose_process_can_not_be_seen_is_asked_and_left_if_it_says_nothing() {
    let d = dir();
    let deaf = Fake::at(&d.socket(), Manner::Deaf);
    let base = base_at(&d.socket(), "test");
    let mut s = Sockets::new(&base, 5);
    let (timers, fired) = one_shots(&base, 5);
    until(&base, "it is all at that evd", || base.watches() == (5, 0));
    s.write_all();
    until(&base, "nothing is lost", || s.have_all() && fired.get() == timers.len());
    assert_eq!(why_away(&base), "evd does not answer");
    drop(deaf);
}

#[test]
fn a_base_is_made_beside_an_evd_that_is_no_good() {
    let d = dir();
    for manner in [Manner::Refuses, Manner::Closes, Manner::Garbage, Manner::Silent, Manner::WrongVersion] {
        // Whoever answers may do so late on a busy machine.
        let patience = if manner == Manner::Silent { 50 * MS } else { 20_000 * MS };
        let new =
            || EventBase::builder().socket(d.socket()).name("test").patience(patience).liveness(50 * MS);
        let bad = Fake::at(&d.socket(), manner);
        // Only one says nothing; the others may take their time on a busy machine.
        let patience = if matches!(manner, Manner::Silent) { 50 * MS } else { 10_000 * MS };
        match (manner, new().patience(patience).connect().build().unwrap_err()) {
            (Manner::Refuses, Error::Refused(r)) => assert_eq!(r.text, "not you"),
            (Manner::WrongVersion, Error::WrongVersion { theirs: (7, 9), .. }) => {}
            (Manner::Silent, Error::TimedOut) => {}
            (Manner::Closes | Manner::Garbage, Error::Lost | Error::Os(_)) => {}
            (manner, e) => panic!("{manner:?}: {e:?}"),
        }
        let base = new().build().unwrap();
        let mut s = Sockets::new(&base, 2);
        s.write_all();
        until(&base, "it runs locally", || s.have_all());
        why_away(&base);
        drop(bad);
        let mut good = Evd { child: evd_at(&d.socket()), dir: dir() };
        until(&base, "a good evd is found", || is_up(&base));
        park(&base, 2);
        kill(&mut good);
    }
}

#[test]
fn a_new_evd_hears_the_labels_that_the_one_before_knew() {
    let mut evd = evd();
    let base = base_at(&evd.path(), "labels");
    let (near, _far) = pair();
    let (event, _got) = reader(&base, near);
    event.label("a label");
    let shown = |evd: &Evd| evctl(&evd.path(), &["events", "--json", "--base", "labels"]).contains("a label");
    for round in 0..2 {
        park(&base, 1);
        until(&base, "its label is shown", || shown(&evd));
        if round == 0 {
            kill(&mut evd);
            until(&base, "it is away", || !is_up(&base));
            start_again(&mut evd);
            until(&base, "it is up", || is_up(&base));
        }
    }
}

#[test]
fn what_evd_says_together_with_its_welcome_is_heard() {
    let d = dir();
    let _brief = Fake::at(&d.socket(), Manner::Brief);
    let base = EventBase::builder().socket(d.socket()).name("test").connect().build().unwrap();
    assert_eq!(why_away(&base), "evd ended: enough");
}

#[test]
fn a_second_welcome_is_the_end_of_what_sent_it_and_no_watch_is_lost() {
    let d = dir();
    let _fake = Fake::at(&d.socket(), Manner::Twice);
    let base = EventBase::builder().socket(d.socket()).name("test").connect().build().unwrap();
    let (near, mut far) = pair();
    let (_event, got) = reader(&base, near);
    until(&base, "the second Welcome was heard", || !is_up(&base));
    assert_eq!(why_away(&base), "evd broke the protocol: a second Welcome");
    far.write_all(b"x").unwrap();
    until(&base, "it is served here, or by the next loss", || got.get() == 1);
}
