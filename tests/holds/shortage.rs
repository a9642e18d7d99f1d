//! An evd that is short of fds.

use crate::kept::*;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The numbers of a process's open files.
fn numbers(pid: i32) -> BTreeSet<u64> {
    let dir = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    dir.map(|e| e.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
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
