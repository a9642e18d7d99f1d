//! Who takes part: an evd of a user of its own, honest clients, and attackers, each of another user.

use crate::attackers::{ALL, Attack};
use crate::parts::{self, dies_with_us};
use crate::process::Process;
use crate::wire::{Dir, Evd, command_of, eventually, limit_files};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// evd's own.
const EVD: u32 = 47_000;
/// The group that may connect.
const GUESTS: u32 = 47_001;
const HONEST: u32 = 47_002;
/// The first attacker's; the next ones follow.
const ATTACKERS: u32 = 47_010;

/// Small enough that an attacker reaches its limits in no time, large enough for the honest.
const QUOTAS: &str = "connections=200,watches=5000,entries=8000,copies=300,timers=5000,names=300,holds=100,hold-bytes=300000,table-bytes=1500000,output-bytes=300000,\
                      requests=50";

/// About the bytes that the limits above allow thirty users, evd's own included.
pub const ALLOWED_BYTES: u64 = 64 << 20;

/// Whether users can be had; says so if not.
pub fn can_be_others() -> bool {
    let root = evd_proto::sys::effective_ids().0 == 0;
    if !root {
        println!("skipped: only root can be many users");
    }
    root
}

/// An evd that is no root, as under systemd.
pub fn evd() -> Evd {
    let dir = Dir::new();
    std::fs::set_permissions(&dir.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&dir.0, Some(EVD), Some(GUESTS)).unwrap();
    // It may lie where others can't reach it. By a program: a child that is forked just now would keep a copy that this process writes open, and what is written can't be
    // executed.
    let program = dir.0.join("evd");
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_evd")).arg(&program).status().unwrap().success());
    let mut c = command_of(&program, &dir.socket());
    c.args(["--allow-gid", &GUESTS.to_string(), "--quota", QUOTAS]).env("EVD_LOG_LEVEL", "error");
    c.uid(EVD).gid(GUESTS).current_dir("/");
    limit_files(&mut c, 10_000);
    dies_with_us(&mut c);
    Evd::started(c, dir)
}

fn start(evd: &Evd, uid: u32, nice: i32, role: &str, args: &[&str]) -> Process {
    Process::start_with(role, &evd.path(), args, |c| {
        c.uid(uid).gid(GUESTS).current_dir("/");
        limit_files(c, 10_000);
        let be_nice = move || {
            // SAFETY: takes numbers.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
            Ok(())
        };
        // SAFETY: between fork and exec only setpriority is called, which is a system call and nothing else.
        unsafe { c.pre_exec(be_nice) };
    })
}

/// The honest clients, all in one process. They are parked when this returns.
pub fn honest(evd: &Evd, clients: usize) -> Process {
    let process = start(evd, HONEST, 0, "honest", &[&clients.to_string()]);
    process.says("ready");
    process
}

/// All attackers, or as many processes that only take the same time of the processors. Each has begun when this returns.
pub fn attackers(evd: &Evd, nice: i32, role: &str) -> Vec<(&'static Attack, Process)> {
    let start = |(i, attack): (usize, &'static Attack)| {
        (attack, start(evd, ATTACKERS + i as u32, nice, role, &[attack.name]))
    };
    // For who looks for a mistake: some of them, by their names.
    let only = std::env::var("EVD_ATTACK_ONLY").unwrap_or_default();
    let asked = |(_, attack): &(usize, &Attack)| only.is_empty() || only.split(',').any(|o| o == attack.name);
    let all: Vec<_> = ALL.iter().enumerate().filter(asked).map(start).collect();
    for (attack, process) in &all {
        println!("{}", attack.name);
        process.says("began");
    }
    all
}

/// Nothing is left of anybody: no base, name, held fd, worker, fd, and nothing in the books.
pub fn is_clean(evd: &Evd, fds: usize) {
    eventually("no base, name and held fd is left", || {
        let s = parts::status(evd);
        s["bases"].as_array().unwrap().is_empty() && s["names"] == 0 && s["holds"] == 0
    });
    eventually("its workers have ended", || workers(evd) == 0);
    eventually("its fds are closed", || evd.fds() == fds);
    let status = parts::status(evd);
    let all = status["accounts"].as_array().unwrap();
    assert!(all.iter().all(|a| a["uid"] == 0), "only root, who asks, has something: {all:?}");
    for (what, entry) in all[0].as_object().unwrap().iter().filter(|(_, e)| e.is_object()) {
        assert_eq!(entry["used"], u64::from(what == "connections"), "{what}: {all:?}");
    }
}

/// Its threads but the first, and the one that takes leave of who is refused, which stays.
fn workers(evd: &Evd) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", evd.pid())).unwrap();
    let name =
        |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.filter(|task| !matches!(name(task.as_ref().unwrap()).trim_end(), "evd" | "evd-reject")).count()
}

/// Who has a base at evd, by uid.
pub fn users(evd: &Evd) -> Vec<u64> {
    let status: Value = parts::status(evd);
    status["bases"].as_array().unwrap().iter().map(|b| b["uid"].as_u64().unwrap()).collect()
}

/// Waits until the honest ones are all that is left.
pub fn only_honest_are_left(evd: &Evd) {
    eventually("the attackers are gone", || users(evd).iter().all(|uid| *uid == u64::from(HONEST)));
}
