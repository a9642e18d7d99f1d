//! Memory: what an idle evd has resident, and what each further parked socket or timer adds to its own (anonymous) memory.
//!
//! What the kernel needs for a watch (an epoll entry of about 200 bytes) is charged to evd's user by the kernel and is not counted here.

use super::hoard::Hoard;
use crate::parts::{Evd, Outcome, Table, placements};

const IDLE_MIB: f64 = 4.0;
const EACH_BYTES: f64 = 256.0;

pub fn measure(table: &mut Table) -> Outcome {
    let Some(&place) = placements()?.first() else { return Ok(()) };
    let evd = Evd::start(None)?;
    table.number("resident, idle", "MiB", evd.resident()?.0 as f64 / 1048576.0, Some(IDLE_MIB));
    for (name, sockets, timers) in [("each further parked fd", 9_000, 0), ("each further timer", 0, 50_000)] {
        let evd = Evd::start(None)?;
        let mut hoard = Hoard::start(place.ends, &evd)?;
        // The first ones bring what a session costs anyway.
        hoard.add(sockets.min(500), timers.min(500))?;
        let before = evd.resident()?.1;
        hoard.add(sockets, timers)?;
        let added = evd.resident()?.1.saturating_sub(before);
        table.number(name, "B", added as f64 / (sockets + timers) as f64, Some(EACH_BYTES));
    }
    Ok(())
}
