//! The shape of libevent's `bench_cascade`: events that run once and have a timeout of 60 s, each of which writes the byte that the next one reads. The time is that of
//! adding all of them, and of the loop until none is left.

use crate::library::{Libraries, Peer};
use crate::parts::{Outcome, Table, placements};
use crate::shapes::method_number;
use crate::side;

/// At least and at most.
const ROUNDS: (usize, usize) = (40, 150);
const WARM_UP: usize = 5;
const GOAL: f64 = 0.8;

pub fn measure(table: &mut Table, libraries: &Libraries) -> Outcome {
    let Some(place) = placements()?.first().copied() else { return Ok(()) };
    for (pairs, runs) in [(1000, 4), (5000, 1)] {
        let told = [pairs, method_number("epoll")];
        let mut sides =
            side::start(libraries, &[Peer::Libevent, Peer::Plain], "cascade", "cascade", place.ends, &told)?;
        let of = |said: &[u64]| vec![said[0] as f64 / (pairs as f64 * runs as f64 * 1000.0)];
        for (peer, lines) in side::rounds(&mut sides, ROUNDS, WARM_UP, runs, of)? {
            let goal = (peer == Peer::Libevent).then_some(GOAL);
            table.ratio(&format!("n={pairs}, per event, {}", peer.name()), "us", &lines[0], goal);
        }
    }
    Ok(())
}
