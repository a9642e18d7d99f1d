//! How many fds evd has open: the same number with one parked socket of a client and with 5,000 more, because its epoll needs none.

use super::hoard::Hoard;
use crate::parts::{Evd, Outcome, Table, placements};

const SOCKETS: usize = 5_000;

pub fn measure(table: &mut Table) -> Outcome {
    let Some(&place) = placements()?.first() else { return Ok(()) };
    let evd = Evd::start(None)?;
    let mut hoard = Hoard::start(place.ends, &evd)?;
    hoard.add(1, 0)?;
    let before = evd.open_fds()?;
    hoard.add(SOCKETS, 0)?;
    table.number("open with one parked socket", "", before as f64, None);
    table.number("more with 5,000 more", "", evd.open_fds()? as f64 - before as f64, Some(0.0));
    Ok(())
}
