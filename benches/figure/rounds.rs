//! 1,000 fds become active at once, again and again.
//!
//! **Busy**: all are local by their linger, which is long here, so that the time between two rounds does not count. What is ready is written before the loop
//! begins; measured is the time from there to the last callback.
//!
//! **Parked**: the linger is zero, so that each event goes through evd and each fd is parked again. evd, and the keeper of the floor, are stopped while the fds are
//! made ready: so both find all at once, and the number of messages does not depend on who was scheduled when. Measured is the time from there until all are read and
//! armed again. The floors are in `floor::rounds`.

use crate::floor::calls;
use crate::parts::{
    Control, Evd, Kind, Outcome, Placement, Process, Rounds, Table, now, on_core, placements, while_stopped,
};
use evd_client::{Event, EventBase, What};
use evd_proto::sys;
use std::cell::Cell;
use std::error::Error;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

/// At least and at most.
const ROUNDS: (usize, usize) = (60, 300);
const WARM_UP: usize = 5;
const FDS: usize = 1_000;
const BUSY_GOAL: f64 = 1.3;
const PARKED_GOAL: f64 = 1.5;

pub fn measure(table: &mut Table) -> Outcome {
    let places = placements()?;
    if let Some(&place) = places.first() {
        let rounds = on_core(place.ends, || busy(place))??;
        table.ratio("busy, per event", "us", &rounds, Some(BUSY_GOAL));
    }
    for place in places {
        let rounds = on_core(place.ends, || parked(place))??;
        table.ratio(&format!("all parked, per event, {}", place.name), "us", &rounds, Some(PARKED_GOAL));
    }
    Ok(())
}

fn per_event(ns: u64) -> f64 {
    ns as f64 / 1000.0 / FDS as f64
}

fn make_ready(fds: &[OwnedFd]) -> Outcome {
    for fd in fds {
        calls::write(fd.as_raw_fd(), b"x")?;
    }
    Ok(())
}

/// Starts a process that gets FDS pipes; the ends to write to.
fn start(
    role: &str,
    core: usize,
    evd: Option<&Evd>,
    before: impl FnOnce(&mut Control) -> Outcome,
) -> Result<(Process, Vec<OwnedFd>), Box<dyn Error>> {
    let mut process = Process::start(role, core, evd.map(Evd::socket))?;
    before(&mut process.control)?;
    process.control.say(&[FDS as u64])?;
    let writers = process.control.give_new(Kind::Pipes, FDS)?;
    process.control.hear()?;
    Ok((process, writers))
}

fn busy(place: Placement) -> Result<Rounds, Box<dyn Error>> {
    let (mut floor, to_floor) = start("floor-rounds-local", place.ends, None, |_| Ok(()))?;
    let evd = Evd::start(Some(place.middle))?;
    let (mut client, to_client) = start("rounds-busy", place.ends, Some(&evd), |_| Ok(()))?;
    let mut rounds = Rounds::default();
    let mut warm_up = WARM_UP;
    while !rounds.enough(ROUNDS.0, ROUNDS.1) {
        let one = |process: &mut Process, fds| {
            process.control.round(FDS, |control| {
                make_ready(fds)?;
                Ok(control.say(&[])?)
            })
        };
        let floor = one(&mut floor, &to_floor)?;
        let ours = one(&mut client, &to_client)?;
        match warm_up {
            0 => rounds.add(per_event(floor[0]), per_event(ours[0])),
            _ => warm_up -= 1,
        }
    }
    Ok(rounds)
}

fn parked(place: Placement) -> Result<Rounds, Box<dyn Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut keeper = Process::start("floor-rounds-keeper", place.middle, None)?;
    keeper.control.give(&[ours.as_fd()])?;
    keeper.control.say(&[FDS as u64])?;
    keeper.control.hear()?;
    let (mut floor, to_floor) =
        start("floor-rounds-client", place.ends, None, |control| Ok(control.give(&[theirs.as_fd()])?))?;
    let evd = Evd::start(Some(place.middle))?;
    let (mut client, to_client) = start("rounds-parked", place.ends, Some(&evd), |_| Ok(()))?;
    let mut rounds = Rounds::default();
    let mut warm_up = WARM_UP;
    while !rounds.enough(ROUNDS.0, ROUNDS.1) {
        let one = |process: &mut Process, middle: u32, fds: &[OwnedFd]| -> Result<u64, Box<dyn Error>> {
            let mut start = 0;
            let end = process.control.round(FDS, |_| {
                // Until it waits.
                sys::sleep_ns(2_000_000);
                while_stopped(middle, || {
                    make_ready(fds)?;
                    start = now();
                    Outcome::Ok(())
                })?
            })?;
            Ok(end[0] - start)
        };
        let floor = one(&mut floor, keeper.pid(), &to_floor)?;
        let ours = one(&mut client, evd.pid(), &to_client)?;
        match warm_up {
            0 => rounds.add(per_event(floor), per_event(ours)),
            _ => warm_up -= 1,
        }
    }
    Ok(rounds)
}

/// A base with its fds, and how many callbacks are left until it ends its loop.
struct Watching {
    base: EventBase,
    left: Rc<Cell<usize>>,
    _events: Vec<Event<OwnedFd>>,
}

fn watch(control: &mut Control, linger: Duration) -> Result<Watching, Box<dyn Error>> {
    let count = control.hear_one()? as usize;
    // A look at evd while it is stopped would find it so, and be right.
    let base = EventBase::builder().linger(linger).liveness(Duration::from_secs(3600)).connect().build()?;
    let left = Rc::new(Cell::new(0));
    let mut events = Vec::with_capacity(count);
    for fd in control.take(count)? {
        let (ending, left) = (base.clone(), Rc::clone(&left));
        let event = Event::new(&base, fd, What::READ | What::PERSIST, move |event: &Event<OwnedFd>, _| {
            let read = calls::read(event.source().as_raw_fd(), &mut [0; 8]);
            assert!(read.is_ok_and(|n| n == 1), "a callback with nothing to read");
            left.set(left.get() - 1);
            if left.get() == 0 {
                ending.loopbreak();
            }
        })?;
        event.add(None)?;
        events.push(event);
    }
    base.sync()?;
    control.say(&[])?;
    Ok(Watching { base, left, _events: events })
}

/// In each round: how long it took until all callbacks had run.
pub fn client_busy(mut control: Control) -> Outcome {
    let watching = watch(&mut control, Duration::from_secs(600))?;
    control.serve(|control, count| {
        control.hear()?;
        let start = now();
        watching.left.set(count);
        watching.base.dispatch()?;
        Ok(vec![now() - start])
    })
}

/// In each round: when all callbacks had run and all was parked again.
pub fn client_parked(mut control: Control) -> Outcome {
    let watching = watch(&mut control, Duration::ZERO)?;
    control.serve(|_, count| {
        watching.left.set(count);
        watching.base.dispatch()?;
        watching.base.sync()?;
        let end = now();
        if watching.base.watches() != (count, 0) {
            return Err("not all is parked".into());
        }
        Ok(vec![end])
    })
}
