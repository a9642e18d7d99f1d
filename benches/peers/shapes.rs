//! The shapes of libevent's `bench`: n pairs of sockets, `a` of which are written to; each callback reads a byte and, while writes are left, writes one to the
//! next pair. The loop is what libevent's bench prints; the run is that and all before it, in which each event is deleted and added again.

use crate::library::{Libraries, Peer};
use crate::parts::{Outcome, Table, placements};
use crate::side;

/// At least and at most.
const ROUNDS: (usize, usize) = (40, 150);
const WARM_UP: usize = 5;
const LIBEVENT_GOAL: f64 = 0.95;
const GOAL: f64 = 1.0;

/// Pairs, active, writes, and how many runs are a round.
type Shape = (u64, u64, u64, usize);

const SMALL: Shape = (100, 100, 100, 20);
const MIDDLE: Shape = (1000, 100, 1000, 3);
const LARGE: Shape = (9000, 100, 1000, 2);
/// libevent's select aborts where an fd is 1024 or more; a pair is two.
const FOR_SELECT: Shape = (450, 100, 450, 5);

/// Collect changes until the next wait: `event_config_set_flag`, and ours.
const CHANGELIST: u64 = 1;

pub fn measure(table: &mut Table, libraries: &Libraries) -> Outcome {
    let all = [Peer::Libevent, Peer::Libev, Peer::Libuv, Peer::Plain];
    let only = [Peer::Libevent];
    for shape in [SMALL, MIDDLE, LARGE] {
        compare(table, libraries, shape, "epoll", 0, &all)?;
    }
    compare(table, libraries, MIDDLE, "epoll", CHANGELIST, &[Peer::Libevent, Peer::Libev])?;
    for (shape, method) in [(SMALL, "poll"), (MIDDLE, "poll"), (SMALL, "select"), (FOR_SELECT, "select")] {
        compare(table, libraries, shape, method, 0, &only)?;
    }
    Ok(())
}

/// The number of a method, as the sides know it.
pub fn method_number(method: &str) -> u64 {
    crate::ours::METHODS.iter().position(|m| *m == method).unwrap_or(usize::MAX) as u64
}

fn compare(
    table: &mut Table,
    libraries: &Libraries,
    (pairs, active, writes, runs): Shape,
    method: &str,
    flags: u64,
    peers: &[Peer],
) -> Outcome {
    let Some(place) = placements()?.first().copied() else { return Ok(()) };
    let told = [pairs, active, writes, method_number(method), flags];
    let mut sides = side::start(libraries, peers, "shapes", "shapes", place.ends, &told)?;
    let events = (active + writes) as f64 * runs as f64 * 1000.0;
    let of = |said: &[u64]| vec![said[1] as f64 / events, said[0] as f64 / runs as f64 / 1000.0];
    let list = if flags & CHANGELIST == 0 { "" } else { ", changelist" };
    let shape = format!("{method} {pairs}/{active}/{writes}{list}");
    for (peer, lines) in side::rounds(&mut sides, ROUNDS, WARM_UP, runs, of)? {
        let goal = match peer {
            Peer::Plain => None,
            Peer::Libevent if method == "epoll" => Some(LIBEVENT_GOAL),
            _ => Some(GOAL),
        };
        table.ratio(&format!("{shape}, loop, {}", peer.name()), "us", &lines[0], goal);
        table.ratio(&format!("{shape}, run, {}", peer.name()), "us", &lines[1], goal);
    }
    Ok(())
}
