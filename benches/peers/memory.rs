//! Memory of events on fds and of timers: what malloc has given out for each one that is made and added, with malloc's own headers. Resident memory is shown beside it:
//! tables that double are counted by the first as they are, by the second as far as they have been touched.

use crate::library::{Libraries, Peer};
use crate::parts::table::Row;
use crate::parts::{Outcome, Table, placements};
use crate::side;

/// So many that tables which double are nearly full with the first, and not with the second.
const FDS: u64 = 15_000;
const TIMERS: u64 = 200_000;
const FD_GOAL: f64 = 128.0;
const TIMER_GOAL: f64 = 64.0;

pub fn measure(table: &mut Table, libraries: &Libraries) -> Outcome {
    let Some(place) = placements()?.first().copied() else { return Ok(()) };
    let peers = [Peer::Libevent, Peer::Libev, Peer::Libuv];
    for (name, fds, timers, goal) in [("fd event", FDS, 0, FD_GOAL), ("timer", 0, TIMERS, TIMER_GOAL)] {
        let mut sides = side::start(libraries, &peers, "memory", "memory", place.ends, &[fds, timers])?;
        let mut said = Vec::new();
        for side in &mut sides {
            said.push((side.peer, side.weights()?));
        }
        let Some((_, ours)) = said.pop() else { continue };
        let of = |from: u64, to: u64| to.saturating_sub(from) as f64 / (fds + timers) as f64;
        for (peer, theirs) in said {
            let Some(peer) = peer else { continue };
            for (what, at) in [("malloc", 0), ("resident", 1)] {
                table.row(Row {
                    name: &format!("{}, each {name}, {what}", peer.name()),
                    unit: "B",
                    floor: Some(of(theirs[at], theirs[at + 4])),
                    ours: of(ours[at], ours[at + 4]),
                    value: of(ours[at], ours[at + 4]) / of(theirs[at], theirs[at + 4]),
                    goal: None,
                    note: String::new(),
                });
            }
        }
        // The first events were made, freed, and made again in tables that were large enough then: so the second time only the events themselves counted.
        let (event, all, added) = (of(ours[6], ours[7]), of(ours[0], ours[4]), of(ours[2], ours[4]));
        let is_timer = timers > 0;
        table.number(&format!("each {name}, with the event"), "B", all, (!is_timer).then_some(goal));
        table.number("  of this the user's event", "B", event, None);
        table.number("  of this the base's part of an event", "B", all - event - added, None);
        table.number("  of this in the base once it is added", "B", added, is_timer.then_some(goal));
        if is_timer {
            table.number("  in evd::base::Base alone", "B", of(ours[8], ours[9]), Some(goal));
        }
    }
    Ok(())
}
