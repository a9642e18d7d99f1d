//! The sides of a figure, and their rounds by turns.

use crate::library::{Libraries, Peer};
use crate::parts::{Outcome, Process, Rounds};
use std::error::Error;
use std::process::Command;

/// One side, ready for its rounds: a peer, or ours (`None`).
pub struct Side {
    pub peer: Option<Peer>,
    process: Process,
}

impl Side {
    /// What a side in the role of memory says.
    pub fn weights(&mut self) -> Result<Vec<u64>, Box<dyn Error>> {
        Ok(self.process.control.hear()?)
    }
}

/// For each peer its rounds, one for each line.
pub type Compared = Vec<(Peer, Vec<Rounds>)>;

/// Starts the peers that are there, in a role, with the same numbers; and ours, which is the last.
pub fn start(
    libraries: &Libraries,
    peers: &[Peer],
    role: &str,
    ours: &str,
    core: usize,
    told: &[u64],
) -> Result<Vec<Side>, Box<dyn Error>> {
    let mut sides = Vec::new();
    for &peer in peers {
        if let Some(program) = libraries.program(peer) {
            let mut command = Command::new(program);
            command.arg(role);
            sides.push(Side { peer: Some(peer), process: Process::spawn(command, core)? });
        }
    }
    sides.push(Side { peer: None, process: Process::start(ours, core, None)? });
    // One after the other: each has made itself ready before the next begins.
    for side in &mut sides {
        side.process.control.say(told)?;
        side.process.control.hear()?;
    }
    Ok(sides)
}

/// Runs rounds by turns, until what they say (or `most`) is enough. `of` makes one number for each line of what a side said.
pub fn rounds(
    sides: &mut [Side],
    (least, most): (usize, usize),
    mut warm_up: usize,
    count: usize,
    of: impl Fn(&[u64]) -> Vec<f64>,
) -> Result<Compared, Box<dyn Error>> {
    let peers: Vec<Peer> = sides.iter().filter_map(|s| s.peer).collect();
    let mut all: Compared = peers.into_iter().map(|p| (p, Vec::new())).collect();
    if all.is_empty() {
        return Ok(all);
    }
    let mut round = 0;
    while !all.iter().all(|(_, lines)| !lines.is_empty() && lines.iter().all(|l| l.enough(least, most))) {
        let mut said: Vec<Vec<f64>> = vec![Vec::new(); sides.len()];
        // Nobody is always the first after the same one.
        for turn in 0..sides.len() {
            let at = (turn + round) % sides.len();
            said[at] = of(&sides[at].process.control.round(count, |_| Outcome::Ok(()))?);
        }
        round += 1;
        if warm_up > 0 {
            warm_up -= 1;
            continue;
        }
        let Some((ours, theirs)) = said.split_last() else { break };
        for ((_, lines), theirs) in all.iter_mut().zip(theirs) {
            lines.resize_with(ours.len(), Rounds::default);
            for ((line, ours), theirs) in lines.iter_mut().zip(ours).zip(theirs) {
                line.add(*theirs, *ours);
            }
        }
    }
    Ok(all)
}
