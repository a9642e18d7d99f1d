//! A byte to a parked fd, one event each millisecond: from the write in one process to the callback in another, through evd.
//!
//! The linger is zero, so that the fd is parked again after each event; that evd woke at least once for each is looked up in /proc afterwards.
//! The floor is in `floor::relay`.

use crate::floor::calls;
use crate::parts::{Control, Evd, Outcome, Placement, Process, Samples, Table, now, on_core, placements};
use evd_client::{Event, EventBase, What};
use evd_proto::sys;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

/// At least and at most.
const ROUNDS: (usize, usize) = (50, 200);
const EVENTS: usize = 60;
const WARM_UP: usize = 10;
const GOAL: f64 = 1.4;

pub fn measure(table: &mut Table) -> Outcome {
    for place in placements()? {
        let samples = on_core(place.ends, || rounds(place))??;
        table.latency(&format!("write to callback, {}", place.name), &samples, GOAL);
    }
    Ok(())
}

fn rounds(place: Placement) -> Result<Samples, Box<dyn std::error::Error>> {
    let (relayed, to_relay) = calls::pipe()?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut relay = Process::start("floor-relay", place.middle, None)?;
    relay.control.give(&[relayed.as_fd(), ours.as_fd()])?;
    relay.control.hear()?;
    let mut receiver = Process::start("floor-receiver", place.ends, None)?;
    receiver.control.give(&[relayed.as_fd(), theirs.as_fd()])?;
    receiver.control.hear()?;

    let (parked, to_parked) = calls::pipe()?;
    let evd = Evd::start(Some(place.middle))?;
    let mut client = Process::start("sparse", place.ends, Some(evd.socket()))?;
    client.control.give(&[parked.as_fd()])?;
    client.control.hear()?;

    let slept = evd.slept()?;
    let mut samples = Samples::default();
    let mut events_in_all = 0;
    while !samples.medians.enough(ROUNDS.0, ROUNDS.1) {
        let floor = receiver.control.round(EVENTS, |_| events(&relayed, &to_relay))?;
        let ours = client.control.round(EVENTS, |_| events(&parked, &to_parked))?;
        samples.add(&floor, &ours, WARM_UP);
        events_in_all += EVENTS;
    }
    let woke = evd.slept()? - slept;
    if woke < events_in_all as u64 {
        return Err(format!("evd woke {woke} times for {events_in_all} events: not all were parked").into());
    }
    Ok(samples)
}

/// Writes the time, again and again, each time a millisecond after the former one was read: an event that comes together with another would be none of its own.
fn events(reader: &OwnedFd, to: &OwnedFd) -> Outcome {
    let mut look = [libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    for _ in 0..EVENTS {
        sys::sleep_ns(1_000_000);
        while calls::poll(&mut look)? > 0 {
            sys::sleep_ns(1_000_000);
        }
        calls::write(to.as_raw_fd(), &now().to_ne_bytes())?;
    }
    Ok(())
}

/// Gets the fd to wait for. In each round: how long each event took from the time that is written in it.
pub fn client(mut control: Control) -> Outcome {
    let fd = control.take(1)?.remove(0);
    let base = EventBase::builder().linger(Duration::ZERO).connect().build()?;
    let took = Rc::new(RefCell::new(Vec::new()));
    let left = Rc::new(Cell::new(0));
    let event = {
        let (base, took, left) = (base.clone(), Rc::clone(&took), Rc::clone(&left));
        Event::new(&base.clone(), fd, What::READ | What::PERSIST, move |event: &Event<OwnedFd>, _| {
            let at = now();
            let mut sent = [0; 8];
            let read = calls::read(event.source().as_raw_fd(), &mut sent);
            assert!(read.is_ok_and(|n| n == 8), "a callback with nothing to read");
            took.borrow_mut().push(at - u64::from_ne_bytes(sent));
            left.set(left.get() - 1);
            if left.get() == 0 {
                base.loopbreak();
            }
        })?
    };
    event.add(None)?;
    base.sync()?;
    control.say(&[])?;
    control.serve(|_, count| {
        left.set(count);
        base.dispatch()?;
        Ok(took.take())
    })
}
