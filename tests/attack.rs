//! Everybody attacks at once, each as another user, and those who do no wrong get all that is theirs.
//!
//! What each attacker gets told by itself is tested in `tests/server`; here they are all at one evd, which is a user of its own, with little of everything to have.
//! Needs root, to be so many users.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "attack/attackers.rs"]
mod attackers;
#[path = "attack/files.rs"]
mod files;
#[path = "attack/greedy.rs"]
mod greedy;
#[path = "attack/honest.rs"]
mod honest;
#[path = "e2e/parts.rs"]
#[allow(dead_code)]
mod parts;
#[path = "e2e/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "attack/processes.rs"]
mod processes;
#[path = "attack/readers.rs"]
mod readers;
#[path = "attack/role.rs"]
mod role;
#[path = "attack/stage.rs"]
mod stage;
#[path = "attack/streams.rs"]
mod streams;
#[path = "server/wire.rs"]
#[allow(dead_code)]
mod wire;

use attackers::Attack;
use process::Process;
use std::time::Duration;
use wire::{Evd, eventually};

/// Has them stop, and hands out how many whole rounds each did and what it was told.
fn stop(mut all: Vec<(&'static Attack, Process)>) -> Vec<(&'static Attack, u64, String)> {
    all.iter_mut().for_each(|(_, process)| process.tell("stop"));
    let said = |(attack, process): (&'static Attack, Process)| {
        let line = process.line();
        let (rounds, told) = line.split_once(' ').unwrap();
        (attack, rounds.parse().unwrap(), told.to_owned())
    };
    all.into_iter().map(said).collect()
}

#[test]
fn honest_clients_get_everything_and_evd_is_as_before_when_all_attack_at_once() {
    if !stage::can_be_others() {
        return;
    }
    let mut evd = stage::evd();
    let fds = parts::fds_at_rest(&evd);
    let mut honest = stage::honest(&evd, 50);
    let mut resident = vec![evd.resident()];
    for _ in 0..2 {
        let attackers = stage::attackers(&evd, 0, "attacker");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(evd.child.try_wait().unwrap(), None, "evd ended");
        for (attack, rounds, told) in stop(attackers) {
            println!("{}: {rounds} rounds: {told}", attack.name);
            assert!(rounds > 0 && !told.contains("FAULT"), "{}: {told}", attack.name);
            for word in attack.told {
                assert!(told.contains(word), "{} is not told of {word}: {told}", attack.name);
            }
        }
        stage::only_honest_are_left(&evd);
        resident.push(evd.resident());
    }
    honest.tell("finish");
    println!("honest: {}", honest.line());
    honest.ends();
    stage::is_clean(&evd, fds);
    // Never more than all of them together were allowed.
    resident.push(evd.resident());
    println!("resident before, after each time, and at the end: {resident:?}");
    assert!(resident.iter().all(|bytes| *bytes < stage::ALLOWED_BYTES), "{resident:?}");
    evd.signal(libc::SIGTERM);
    eventually("it ends", || evd.child.try_wait().unwrap().is_some());
    assert!(evd.child.wait().unwrap().success(), "its books are even, or it would have said so");
}

/// One measurement of the honest ones' times: p50, p99 in microseconds, and of how many.
fn measured(honest: &mut Process, seconds: u64) -> (u64, u64, u64) {
    honest.tell("measure");
    std::thread::sleep(Duration::from_secs(seconds));
    honest.tell("report");
    let line = honest.line();
    let n: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
    (n[0] / 1000, n[1] / 1000, n[2])
}

#[test]
#[ignore = "a measurement: benches/README.md says how to repeat it"]
fn how_long_the_honest_wait_with_attackers_and_without() {
    if !stage::can_be_others() {
        return;
    }
    // How the other processes are called, their nice value, and their role.
    let crowds = [
        ("nobody else", 0, ""),
        ("spinners", 19, "spinner"),
        ("attackers", 19, "attacker"),
        ("spinners", 0, "spinner"),
        ("attackers", 0, "attacker"),
    ];
    for (who, nice, role) in crowds {
        let mut best = None;
        for _ in 0..5 {
            let evd: Evd = stage::evd();
            let mut honest = stage::honest(&evd, 50);
            let crowd = if role.is_empty() { Vec::new() } else { stage::attackers(&evd, nice, role) };
            let got = measured(&mut honest, 5);
            println!(
                "{who}, nice {nice}: p50 {} us, p99 {} us, {} events; {} KiB",
                got.0,
                got.1,
                got.2,
                evd.resident() / 1024
            );
            best = Some(best.map_or(got, |b: (u64, u64, u64)| if got.1 < b.1 { got } else { b }));
            stop(crowd);
            honest.tell("finish");
            assert!(honest.line().starts_with("got all"));
        }
        println!("{who}, nice {nice}: best {best:?}");
    }
}
