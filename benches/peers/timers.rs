//! Timers, while there are 1,000,000: what adding, moving, cancelling and firing one costs, in a callback, where the time is known.

use crate::library::{Libraries, Peer};
use crate::parts::{Outcome, Table, placements};
use crate::side;

/// At least and at most.
const ROUNDS: (usize, usize) = (15, 40);
const WARM_UP: usize = 2;
const MANY: u64 = 1_000_000;
/// So many are added, moved, and so on, in each round.
const SOME: u64 = 50_000;
const GOAL: f64 = 0.7;

const WORK: [&str; 5] = ["add", "move", "put off", "cancel", "fire"];

pub fn measure(table: &mut Table, libraries: &Libraries) -> Outcome {
    for (common, peers) in
        [(false, &[Peer::Libevent, Peer::Libev, Peer::Libuv][..]), (true, &[Peer::Libevent])]
    {
        compare(table, libraries, common, peers, "timers")?;
    }
    compare(table, libraries, false, &[Peer::Libevent], "timers-base")
}

fn compare(table: &mut Table, libraries: &Libraries, common: bool, peers: &[Peer], ours: &str) -> Outcome {
    let Some(place) = placements()?.first().copied() else { return Ok(()) };
    let told = [MANY, SOME, u64::from(common)];
    let mut sides = side::start(libraries, peers, "timers", ours, place.ends, &told)?;
    let of = |said: &[u64]| said.iter().map(|ns| *ns as f64 / SOME as f64).collect();
    for (peer, lines) in side::rounds(&mut sides, ROUNDS, WARM_UP, 1, of)? {
        let goal = (peer == Peer::Libevent && ours == "timers").then_some(GOAL);
        let kind = if common { "common timeouts" } else { "random" };
        let alone = if ours == "timers" { "" } else { ", Base alone" };
        for (work, rounds) in WORK.iter().zip(&lines) {
            table.ratio(&format!("{kind}, {work}, {}{alone}", peer.name()), "ns", rounds, goal);
        }
    }
    Ok(())
}
