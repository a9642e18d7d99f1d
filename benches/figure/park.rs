//! 10,000 fds are parked: from the wish to wait until evd has armed the last one.
//!
//! Two times are taken: that of the parking, which is judged (it includes the look whether one of the fds is ready, which the floor does not take), and that of all
//! from the first `event_add` on. The fds are new in each round. The floor is in `floor::park`.

use crate::parts::{
    Control, Evd, Kind, Outcome, Placement, Process, Rounds, Table, now, on_core, placements,
};
use evd_client::{Event, EventBase, What};
use std::error::Error;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// At least and at most.
const ROUNDS: (usize, usize) = (15, 25);
const FDS: usize = 10_000;
const GOAL: f64 = 1.5;

pub fn measure(table: &mut Table) -> Outcome {
    for place in placements()? {
        for kind in [Kind::Pipes, Kind::Sockets] {
            let (parking, all) = on_core(place.ends, || rounds(place, kind))??;
            table.ratio(&format!("{}, per fd, {}", kind.name(), place.name), "us", &parking, Some(GOAL));
            table.ratio(&format!("{} and event_add, per fd, {}", kind.name(), place.name), "us", &all, None);
        }
    }
    Ok(())
}

fn rounds(place: Placement, kind: Kind) -> Result<(Rounds, Rounds), Box<dyn Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut keeper = Process::start("floor-keeper", place.middle, None)?;
    keeper.control.give(&[ours.as_fd()])?;
    keeper.control.say(&[FDS as u64])?;
    keeper.control.hear()?;
    let mut parker = Process::start("floor-parker", place.ends, None)?;
    parker.control.give(&[theirs.as_fd()])?;
    parker.control.hear()?;

    let evd = Evd::start(Some(place.middle))?;
    let mut client = Process::start("park", place.ends, Some(evd.socket()))?;
    let (mut parking, mut all) = (Rounds::default(), Rounds::default());
    while !parking.enough(ROUNDS.0, ROUNDS.1) {
        let floor = one(&mut parker.control, kind)?;
        let ours = one(&mut client.control, kind)?;
        let per_fd = |ns: u64| ns as f64 / 1000.0 / FDS as f64;
        parking.add(per_fd(floor[0]), per_fd(ours[0]));
        all.add(per_fd(floor[0]), per_fd(ours[1]));
    }
    Ok((parking, all))
}

/// One round, with new fds, which live until it is over.
fn one(control: &mut Control, kind: Kind) -> Result<Vec<u64>, Box<dyn Error>> {
    let mut other_ends = Vec::new();
    control.round(FDS, |control| {
        other_ends = control.give_new(kind, FDS)?;
        control.hear()?;
        Ok(control.say(&[])?)
    })
}

/// In each round: new fds, and how long it took to park them, and to add and park them.
pub fn client(mut control: Control) -> Outcome {
    control.serve(|control, count| {
        // A new session each time: what is measured is the parking of watches that evd does not know.
        let base = EventBase::connect()?;
        let fds = control.take(count)?;
        control.say(&[])?;
        control.hear()?;
        let start = now();
        let mut events = Vec::with_capacity(count);
        for fd in fds {
            let event = Event::new(&base, fd, What::READ | What::PERSIST, |_, _| {})?;
            event.add(None)?;
            events.push(event);
        }
        let added = now();
        base.sync()?;
        // What evd did not take at once is local until a second try.
        while base.watches() != (count, 0) {
            base.sync()?;
        }
        let end = now();
        Ok(vec![end - added, end - start])
    })
}
