//! evd goes away, in each way that it can, and comes back: the program goes on, and loses nothing.

use crate::parts::*;
use crate::wire::eventually;
use evd_client::{Event, EventBase, LinkState, What};
use evd_proto::sys::{self, signal_number};
use std::io::Write;
use std::os::unix::net::UnixStream;

/// Readers that are parked, and the other ends of their connections.
struct Readers {
    events: Vec<(Event<UnixStream>, Count)>,
    peers: Vec<UnixStream>,
    sent: usize,
}

impl Readers {
    fn new(base: &EventBase, count: usize) -> Readers {
        let mut readers = Readers { events: Vec::new(), peers: Vec::new(), sent: 0 };
        for _ in 0..count {
            let (a, b) = pair();
            readers.events.push(reader(base, a));
            readers.peers.push(b);
        }
        readers
    }

    fn send(&mut self) {
        for peer in &mut self.peers {
            peer.write_all(b"x").unwrap();
        }
        self.sent += 1;
    }

    /// Each has read as much as was sent to it, and not a byte more.
    fn all_read(&self) -> bool {
        self.events.iter().all(|(_, bytes)| bytes.get() == self.sent)
    }
}

fn signal(pid: i32, name: &str) {
    sys::send_signal(pid, signal_number(name).unwrap()).unwrap();
}

fn back_up(base: &EventBase, parked: usize) {
    until(base, "it is parked at the new evd", || is_up(base) && base.watches() == (parked, 0));
}

#[test]
fn a_killed_evd_costs_no_event_and_a_new_one_gets_the_quiet_watches_back() {
    let mut evd = evd();
    let base = base(&evd);
    let told = links(&base);
    let mut readers = Readers::new(&base, 50);
    park(&base, 50);
    // What evd has reported and nobody has read when it dies, and what comes after.
    readers.send();
    kill(&mut evd);
    readers.send();
    until(&base, "all is read", || readers.all_read());
    assert!(matches!(&told.borrow()[0], LinkState::Away { .. }), "{told:?}");
    why_away(&base);
    readers.send();
    until(&base, "all is read without evd", || readers.all_read());
    start_again(&mut evd);
    back_up(&base, 50);
    readers.send();
    until(&base, "all is read through the new evd", || readers.all_read());
    assert!(matches!(told.borrow().last().unwrap(), LinkState::Up { .. }), "{told:?}");
}

#[test]
fn a_frozen_evd_is_noticed_and_gets_the_quiet_watches_back_when_it_goes_on() {
    let evd = evd();
    let base = base(&evd);
    let mut readers = Readers::new(&base, 20);
    park(&base, 20);
    signal(evd.child.id() as i32, "STOP");
    // A signal takes its time: only now it can't report any more.
    let pid = evd.child.id() as i32;
    eventually("all of evd is stopped", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let tid = |t: std::fs::DirEntry| t.file_name().to_string_lossy().parse().unwrap();
        tasks.map(|t| tid(t.unwrap())).all(|tid| sys::process_state(pid, tid) == sys::ProcessState::Stopped)
    });
    readers.send();
    until(&base, "all is read", || readers.all_read());
    assert!(why_away(&base).contains("stopped"));
    readers.send();
    until(&base, "all is read without evd", || readers.all_read());
    signal(evd.child.id() as i32, "CONT");
    back_up(&base, 20);
    readers.send();
    until(&base, "all is read through evd", || readers.all_read());
}

#[test]
fn an_evd_that_ends_says_so_and_its_clients_go_on() {
    let mut evd = evd();
    let base = base(&evd);
    let mut readers = Readers::new(&base, 5);
    park(&base, 5);
    signal(evd.child.id() as i32, "TERM");
    assert!(evd.child.wait().unwrap().success());
    readers.send();
    until(&base, "all is read", || readers.all_read());
    assert!(why_away(&base).contains("evd ended"), "{}", why_away(&base));
    start_again(&mut evd);
    back_up(&base, 5);
}

#[test]
fn timers_fire_as_often_as_they_should_while_evd_is_killed_again_and_again() {
    let mut evd = evd();
    let base = base(&evd);
    let mut readers = Readers::new(&base, 10);
    let fired = Count::default();
    let timers: Vec<_> = (1..=100)
        .map(|i| {
            let f = Count::clone(&fired);
            let event = Event::timer(&base, What::empty(), move |_, _| count(&f)).unwrap();
            event.add(Some(5 * i * MS)).unwrap();
            event
        })
        .collect();
    for round in 0..10 {
        readers.send();
        if round % 2 == 0 {
            until(&base, "evd has it all", || is_up(&base));
        }
        kill(&mut evd);
        readers.send();
        until(&base, "all is read", || readers.all_read());
        start_again(&mut evd);
    }
    until(&base, "all timers fired", || fired.get() >= 100);
    run_for(&base, 20 * MS);
    assert_eq!(fired.get(), 100);
    assert!(timers.iter().all(|t| t.count() == 1));
    back_up(&base, 10);
}

#[test]
fn names_are_subscribed_again_at_a_new_evd() {
    let mut evd = evd();
    let base = base(&evd);
    let times = Count::default();
    let t = Count::clone(&times);
    let named =
        Event::named(&base, "e2e:again", move |event, _| t.set(t.get() + event.times() as usize)).unwrap();
    named.add(None).unwrap();
    base.sync().unwrap();
    evctl(&evd.path(), &["trigger", "e2e:again"]);
    until(&base, "it came", || times.get() == 1);
    kill(&mut evd);
    until(&base, "evd is away", || !is_up(&base));
    start_again(&mut evd);
    until(&base, "evd is back", || is_up(&base));
    base.sync().unwrap();
    evctl(&evd.path(), &["trigger", "e2e:again"]);
    evctl(&evd.path(), &["trigger", "e2e:again"]);
    until(&base, "they came", || times.get() == 3);
}
