//! An evd that is short of fds.

use crate::kept::*;
use crate::wire::{Raw, eventually};
use evd_proto::reply::Done;
use evd_proto::sys;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// The numbers of a process's open files.
fn numbers(pid: i32) -> BTreeSet<u64> {
    let dir = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    dir.map(|e| e.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Open files of a kind.
fn count(pid: i32, kind: &str) -> usize {
    let links =
        numbers(pid).into_iter().filter_map(|n| std::fs::read_link(format!("/proc/{pid}/fd/{n}")).ok());
    links.filter(|l| l.to_string_lossy().contains(kind)).count()
}

/// The lowest number below which so many are free.
fn lowest_free(open: &BTreeSet<u64>, free: usize) -> u64 {
    (0..).filter(|n| !open.contains(n)).nth(free).unwrap()
}

/// From now on a process gets no fd with this number or a greater one. Returns what was so before.
fn limit_numbers(pid: i32, below: u64) -> u64 {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `old` is live for the call, which writes one rlimit.
    let got = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &mut old) };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
    let new = libc::rlimit { rlim_cur: below, ..old };
    // SAFETY: `new` is live for the call, which reads one rlimit.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &new, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    old.rlim_cur
}

const USERS: std::ops::Range<u32> = 61_400..61_405;

/// Users who hold something, and something else that expires when beside their workers there are no fds. So there are five then, and a parcel takes seven.
struct Short {
    keeper: Keeper,
    /// Of one who stays.
    raw: Raw,
    stays: Vec<Thing>,
    goes: Vec<Thing>,
    /// What evd and the keeper have open when all is done.
    rest: (usize, usize),
    limit: u64,
}

impl Short {
    /// `None`: it took so long that something has expired before.
    fn start(ttl: u64) -> Option<Short> {
        let all: Vec<String> = USERS.map(|u| u.to_string()).collect();
        let keeper = Keeper::start_with(|c| {
            c.args(["--allow-uid", &all.join(",")]);
        });
        let (rest, evd) = (keeper.fds(), keeper.evd().unwrap());
        let (at_start, sockets) = (numbers(evd), count(evd, "socket:"));
        let give = |raw: &mut Raw, name: &str, ttl| {
            let (fd, thing) = thing(0, name);
            ask(raw, &hold(name, b"", ttl, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
            thing
        };
        let (mut stays, mut goes) = (Vec::new(), Vec::new());
        for uid in USERS {
            let mut raw = keeper.session_of(uid);
            stays.push(give(&mut raw, "stays", 0));
            goes.push(give(&mut raw, "goes", ttl));
        }
        let in_time = || goes.iter().all(Thing::is_open);
        // Numbers that are free below others are filled, so that those of workers are all that can become free.
        let (mut raw, mut fill) = (keeper.session(), Vec::new());
        fill.push(give(&mut raw, "fills", 0));
        // Each user has a worker for the time of what expires, and two ends of a parcel.
        let is_rest = |fill: usize| {
            count(evd, "eventpoll") == 3 + USERS.len()
                && count(evd, "socket:") == sockets + 4 * USERS.len() + 3 + fill
                && count(evd, "pidfd") <= 1
        };
        let last = loop {
            eventually("nobody else is served, or it is too late", || is_rest(fill.len()) || !in_time());
            let open = numbers(evd);
            // It may have inherited something with a great number.
            let last = open.difference(&at_start).copied().max().unwrap();
            if lowest_free(&open, 0) > last || !in_time() {
                break last;
            }
            fill.push(give(&mut raw, &format!("fills{}", fill.len()), 0));
        };
        let limit = limit_numbers(evd, last + 1);
        // A parcel is three fds of evd's and two of the keeper's.
        let (held, parcels) = (stays.len() + fill.len(), stays.len() + 1);
        let rest = (rest.0 + held + 3 * parcels, rest.1 + 2 * parcels);
        in_time().then_some(Short { keeper, raw, stays, goes, rest, limit })
    }
}

#[test]
fn users_who_are_short_of_fds_together_get_on_one_after_another() {
    if sys::effective_ids().0 != 0 {
        println!("skipped: only root can be somebody else");
        return;
    }
    let ttls = (0..).map(|n| 500_000_000 << n);
    let Short { keeper, raw, stays, goes, rest, limit } = ttls.take(8).find_map(Short::start).unwrap();
    eventually("what expires is closed", || !goes.iter().any(Thing::is_open));
    let short = "can't be stored anew: Too many open files";
    assert!(keeper.log().contains(short), "{}", keeper.log());
    limit_numbers(keeper.evd().unwrap(), limit);
    drop(raw);
    // At the start the keeper may not have come to close all yet.
    let is_rest = |now: (usize, usize)| now.0 == rest.0 && now.1 <= rest.1;
    eventually("nothing else is open", || is_rest(keeper.fds()));
    keeper.kill();
    for (uid, thing) in USERS.zip(stays) {
        let held = list(&mut keeper.session_of(uid)).unwrap();
        assert_eq!(held.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["stays"]);
        assert!(thing.is_open());
    }
}

#[test]
fn an_evd_without_fds_still_says_that_it_lives() {
    let usec = 3_000_000;
    let keeper = Keeper::start_with(|c| {
        c.env("WATCHDOG_USEC", usec.to_string());
    });
    let mut raw = keeper.session();
    let pid = keeper.evd().unwrap();
    let before = limit_numbers(pid, lowest_free(&numbers(pid), 0));
    // Time must pass: longer than evd may be silent. What it still had to close is not to become free.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(usec * 3 / 2) {
        std::thread::sleep(Duration::from_millis(10));
        limit_numbers(pid, lowest_free(&numbers(pid), 0));
    }
    assert!(list(&mut raw).unwrap().is_empty());
    assert_eq!(keeper.evd(), Some(pid), "{}", keeper.log());
    assert!(!keeper.log().contains("killed"), "{}", keeper.log());
    limit_numbers(pid, before);
    keeper.back();
}
