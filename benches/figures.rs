//! The figures of evd: what it costs beside plain system calls.
//!
//! `cargo bench --bench figures` measures all of them; `cargo bench --bench figures -- sparse busy` those named. Each is a ratio of evd against a **floor**:
//! a program of plain system calls that does the same work with as many processes. Both run in one run, by turns, because only ratios tell something
//! on a machine that has other work to do. What the figures are, and what they were when they were last looked at, is in README.md beside this file.
//!
//! With `--strict` it fails if a figure falls short of its goal.
//!
//! The processes of a figure are this program again, each in a role; evd is the real binary.

mod figure;
mod floor;
mod parts;

use parts::{Outcome, Table};
use std::process::ExitCode;

/// Name, what it shows, and the function that measures it.
type Figure = (&'static str, &'static str, fn(&mut Table) -> Outcome);

const FIGURES: [Figure; 7] = [
    ("sparse", "a byte to a parked fd, sparse events", figure::sparse::measure),
    ("busy", "a busy connection", figure::busy::measure),
    ("park", "10,000 fds parked in batches", figure::park::measure),
    ("rounds", "1,000 fds active a round", figure::rounds::measure),
    ("idle", "what an idle evd does in 10 s", figure::idle::measure),
    ("fds", "fds open in evd for parked sockets", figure::fds::measure),
    ("memory", "memory of an idle evd, and for each fd and timer", figure::memory::measure),
];

const ROLES: [(&str, parts::Role); 14] = [
    ("floor-relay", floor::relay::relay),
    ("floor-receiver", floor::relay::receiver),
    ("floor-echo", floor::echo::echo),
    ("floor-keeper", floor::park::keeper),
    ("floor-parker", floor::park::parker),
    ("floor-rounds-local", floor::rounds::local),
    ("floor-rounds-keeper", floor::rounds::keeper),
    ("floor-rounds-client", floor::rounds::client),
    ("sparse", figure::sparse::client),
    ("busy", figure::busy::client),
    ("park", figure::park::client),
    ("rounds-busy", figure::rounds::client_busy),
    ("rounds-parked", figure::rounds::client_parked),
    ("hoard", figure::hoard::client),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("figures: {e}");
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
    let mut table = Table::against("floor");
    for (name, about, measure) in FIGURES {
        if asked.is_empty() || asked.iter().any(|a| a == name) {
            table.chapter(name, about);
            measure(&mut table)?;
        }
    }
    table.end();
    if strict && table.shortfalls() > 0 { Err("not all goals are reached".into()) } else { Ok(()) }
}
