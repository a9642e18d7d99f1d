//! What a parked watch is watched for changes.

use crate::parts::*;
use crate::wire::{Evd, PATIENCE};
use evd_client::{Event, EventBase, Features, What};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

type Log = Rc<RefCell<Vec<(char, What)>>>;

/// A base of one connection that several events share.
struct One {
    base: EventBase,
    near: Rc<UnixStream>,
    far: UnixStream,
    log: Log,
}

impl One {
    fn new(evd: &Evd, method: &str) -> One {
        let (near, far) = pair();
        let builder =
            EventBase::builder().patience(PATIENCE).socket(evd.path()).name(method).connect().method(method);
        One { base: builder.ignore_env().build().unwrap(), near: Rc::new(near), far, log: Log::default() }
    }

    /// An event that logs what it gets, and reads all that is there.
    fn event(&self, name: char, what: What) -> Event<Shared> {
        let log = Rc::clone(&self.log);
        let event = Event::new(&self.base, Shared(Rc::clone(&self.near)), what, move |event, what| {
            log.borrow_mut().push((name, what));
            if what.contains(What::READ) {
                drain(&*event.source().0);
            }
        })
        .unwrap();
        event.add(None).unwrap();
        event
    }

    /// Fills the connection until it takes no more.
    fn fill(&self) {
        loop {
            match (&*self.near).write(&[0; 65536]) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Reads all of it at the other end: it takes more again.
    fn empty(&mut self) {
        self.far.set_nonblocking(true).unwrap();
        while self.far.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {}
        self.far.set_nonblocking(false).unwrap();
    }

    fn logged(&self, wanted: &[(char, What)]) {
        until(&self.base, "what is logged", || self.log.borrow().len() >= wanted.len());
        run_for(&self.base, 2 * MS);
        assert_eq!(*self.log.borrow(), wanted);
        self.log.borrow_mut().clear();
    }

    /// What evd knows of the watch.
    fn watch(&self, evd: &Evd) -> Value {
        let text = evctl(&evd.path(), &["events", "--json", "--base", self.base.method()]);
        let all: Value = serde_json::from_str(&text).unwrap();
        all["bases"][0]["watches"][0].clone()
    }

    /// Where evd says that the watch is, and what it is watched for.
    fn shown(&self, evd: &Evd) -> Value {
        let watch = self.watch(evd);
        json!([watch["place"], watch["interest"]])
    }

    fn parked_for(&self, evd: &Evd, interest: &[&str]) {
        until(&self.base, "it is parked for that", || {
            self.base.watches() == (1, 0) && self.shown(evd) == json!(["parked", interest])
        });
    }
}

#[test]
fn an_interest_that_grows_and_shrinks_at_evd_loses_nothing_and_invents_nothing() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let mut one = One::new(&evd, method);
        let read = one.event('r', READ);
        for _ in 0..3 {
            park(&one.base, 1);
            one.parked_for(&evd, &["READ"]);
            one.fill();
            let write = one.event('w', What::WRITE | What::PERSIST);
            one.parked_for(&evd, &["READ", "WRITE"]);
            one.far.write_all(b"x").unwrap();
            one.logged(&[('r', What::READ)]);
            park(&one.base, 1);
            // Smaller: evd may report what nobody wants any more, and nobody is told.
            write.del().unwrap();
            park(&one.base, 1);
            one.empty();
            one.far.write_all(b"x").unwrap();
            one.logged(&[('r', What::READ)]);
            one.parked_for(&evd, &["READ"]);
            // Greater again, and there is room: that is known at once.
            write.del().unwrap();
            let once = one.event('o', What::WRITE);
            one.logged(&[('o', What::WRITE)]);
            one.parked_for(&evd, &["READ"]);
            drop((write, once));
        }
        read.del().unwrap();
        one.base.sync().unwrap();
        one.far.write_all(b"x").unwrap();
        one.logged(&[]);
    }
}

#[test]
fn a_watch_that_was_busy_here_is_shown_as_parked_when_its_counts_come_later() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let mut one = One::new(&evd, method);
        let read = one.event('r', READ);
        for _ in 0..2 {
            park(&one.base, 1);
            until(&one.base, "it is busy, and here", || {
                one.far.write_all(b"x").unwrap();
                one.base.watches() == (0, 1)
            });
            park(&one.base, 1);
            // evd counts what it reported, and is told of the others at most once a second.
            let counted = |of: &One| of.watch(&evd)["count"].as_u64().unwrap();
            until(&one.base, "all counts", || counted(&one) >= read.count());
            assert_eq!(one.shown(&evd), json!(["parked", ["READ"]]));
        }
    }
}

#[test]
fn both_directions_that_become_ready_while_parked_are_told_together() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let mut one = One::new(&evd, method);
        let _read = one.event('r', READ);
        one.fill();
        let _write = one.event('w', What::WRITE);
        one.parked_for(&evd, &["READ", "WRITE"]);
        one.empty();
        one.far.write_all(b"x").unwrap();
        one.logged(&[('w', What::WRITE), ('r', What::READ)]);
    }
}

#[test]
fn closed_may_be_added_to_a_parked_read_and_outlive_it() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let mut one = One::new(&evd, method);
        if !one.base.features().contains(Features::EARLY_CLOSE) {
            println!("{method}: it does not see a close early");
            continue;
        }
        let read = one.event('r', READ);
        park(&one.base, 1);
        let closed = one.event('c', What::CLOSED | What::PERSIST);
        one.parked_for(&evd, &["READ", "CLOSED"]);
        one.far.write_all(b"x").unwrap();
        one.logged(&[('r', What::READ)]);
        park(&one.base, 1);
        read.del().unwrap();
        // Data that nobody wants now does not count; the close behind it does.
        one.far.write_all(b"x").unwrap();
        one.logged(&[]);
        one.far.shutdown(Shutdown::Write).unwrap();
        until(&one.base, "the close", || !one.log.borrow().is_empty());
        closed.del().unwrap();
        assert!(one.log.borrow().iter().all(|l| *l == ('c', What::CLOSED)), "{:?}", one.log);
        one.log.borrow_mut().clear();
        read.add(None).unwrap();
        until(&one.base, "the data is still there", || !one.log.borrow().is_empty());
        assert_eq!(one.log.borrow()[0], ('r', What::READ));
        read.del().unwrap();
    }
}
