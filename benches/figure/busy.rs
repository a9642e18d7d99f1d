//! A busy connection: a message goes to and fro without a pause, from the write to the callback.
//!
//! The linger is the one that a base has unless it is told another. So the connection is local but for its first messages, which don't count.
//! The floor is in `floor::echo`.

use crate::floor::calls;
use crate::parts::{Control, Evd, Outcome, Placement, Process, Samples, Table, now, on_core, placements};
use evd_client::{Event, EventBase, What};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// At least and at most.
const ROUNDS: (usize, usize) = (30, 100);
const EVENTS: usize = 2_500;
const WARM_UP: usize = 200;
const GOAL: f64 = 1.1;

pub fn measure(table: &mut Table) -> Outcome {
    for place in placements()? {
        let (samples, trips) = on_core(place.ends, || rounds(place))??;
        table.latency(&format!("write to callback, {}", place.name), &samples, GOAL);
        table.ratio(&format!("there and back, {}", place.name), "us", &trips.medians, None);
    }
    Ok(())
}

fn rounds(place: Placement) -> Result<(Samples, Samples), Box<dyn std::error::Error>> {
    let (mut to_floor, theirs) = UnixStream::pair()?;
    let mut floor = Process::start("floor-echo", place.middle, None)?;
    floor.control.give(&[theirs.as_fd()])?;
    floor.control.hear()?;

    let (mut to_client, theirs) = UnixStream::pair()?;
    let evd = Evd::start(Some(place.middle))?;
    let mut client = Process::start("busy", place.middle, Some(evd.socket()))?;
    client.control.give(&[theirs.as_fd()])?;
    client.control.hear()?;

    let (mut samples, mut trips) = (Samples::default(), Samples::default());
    while !samples.medians.enough(ROUNDS.0, ROUNDS.1) {
        let (mut floor_trips, mut our_trips) = (Vec::new(), Vec::new());
        let floor = floor.control.round(EVENTS, |_| messages(&mut to_floor, &mut floor_trips))?;
        let ours = client.control.round(EVENTS, |_| messages(&mut to_client, &mut our_trips))?;
        samples.add(&floor, &ours, WARM_UP);
        trips.add(&floor_trips, &our_trips, WARM_UP);
    }
    Ok((samples, trips))
}

/// Sends the time and waits until it comes back, again and again.
fn messages(to: &mut UnixStream, trips: &mut Vec<u64>) -> Outcome {
    for _ in 0..EVENTS {
        let at = now();
        to.write_all(&at.to_ne_bytes())?;
        to.read_exact(&mut [0; 8])?;
        trips.push(now() - at);
    }
    Ok(())
}

/// Gets the socket. In each round: how long each message took from the time that is written in it.
pub fn client(mut control: Control) -> Outcome {
    let fd = control.take(1)?.remove(0);
    let base = EventBase::connect()?;
    let took = Rc::new(RefCell::new(Vec::new()));
    let left = Rc::new(Cell::new(0));
    let event = {
        let (base, took, left) = (base.clone(), Rc::clone(&took), Rc::clone(&left));
        Event::new(&base.clone(), fd, What::READ | What::PERSIST, move |event: &Event<OwnedFd>, _| {
            let at = now();
            let (socket, mut sent) = (event.source().as_raw_fd(), [0; 8]);
            let echoed = calls::read(socket, &mut sent).and_then(|_| calls::write(socket, &sent));
            assert!(echoed.is_ok_and(|n| n == 8), "a callback with nothing to read");
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
