//! The local base beside its peers: libevent, libev and libuv as the system has them.
//!
//! `cargo bench --bench peers` measures all of it; `cargo bench --bench peers -- shapes timers` those named. Each side is a process of its own: a peer is a small C
//! program, built when it is needed (`cc -O2`); ours is this program in a role. The work is the same on all sides (`work.h`, `ours.rs`), and so are the system
//! calls that belong to it. What is measured is processor time, as no side ever sleeps in its rounds: so other programs on the machine count for little. All take turns, round by round, on one core; what is judged is the median of the rounds' ratios. What the figures are, and
//! what they were when they were last looked at, is in ../README.md.
//!
//! A library that is not installed is left out, and so is all if there is no `cc`. With `--strict` it fails if a figure falls short of its goal.

// What the two benches share; each needs only a part of it.
#[allow(dead_code, unused_imports, reason = "shared with the other bench, which needs the rest")]
#[path = "../floor/mod.rs"]
mod floor;
#[allow(dead_code, unused_imports, reason = "shared with the other bench, which needs the rest")]
#[path = "../parts/mod.rs"]
mod parts;

mod calls;
mod cascade;
mod library;
mod memory;
mod ours;
mod shapes;
mod side;
mod timers;

use library::Libraries;
use parts::{Outcome, Table};
use std::process::ExitCode;

/// Name, what it shows, and the function that measures it.
type Figure = (&'static str, &'static str, fn(&mut Table, &Libraries) -> Outcome);

const FIGURES: [Figure; 4] = [
    ("shapes", "the shapes of libevent's bench: a byte goes round among sockets", shapes::measure),
    ("cascade", "one-shot events with a timeout of 60 s, one after the other", cascade::measure),
    ("timers", "timers, while there are 1,000,000", timers::measure),
    ("memory", "memory of events and timers", memory::measure),
];

const ROLES: [(&str, parts::Role); 5] = [
    ("shapes", ours::shapes),
    ("cascade", ours::cascade),
    ("timers", ours::timers),
    ("timers-base", ours::timers_of_base),
    ("memory", ours::weigh),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    if let Some(outcome) = parts::run_role(&ROLES) {
        return outcome;
    }
    let strict = std::env::args().any(|a| a == "--strict");
    // Cargo passes --bench on.
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let Some(unknown) = asked.iter().find(|a| FIGURES.iter().all(|(name, ..)| name != a)) {
        let names: Vec<_> = FIGURES.iter().map(|(name, ..)| *name).collect();
        return Err(format!("there is no figure {unknown:?}; there are {}", names.join(", ")).into());
    }
    evd_proto::sys::raise_open_files()?;
    let libraries = Libraries::build()?;
    let mut table = Table::against("peer");
    for (name, about, measure) in FIGURES {
        if asked.is_empty() || asked.iter().any(|a| a == name) {
            table.chapter(name, about);
            measure(&mut table, &libraries)?;
        }
    }
    table.end();
    if strict && table.shortfalls() > 0 { Err("not all goals are reached".into()) } else { Ok(()) }
}
