//! As much of everything as there is to have, and more.

use crate::attackers::told;
use crate::files::{hold, sync};
use crate::parts::pair;
use crate::wire::{Raw, hello};
use evd_proto::What;
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Refused};
use evd_proto::request::{ArmWatch, Subscribe};
use evd_proto::sys::{Wake, monotonic_ns};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

pub fn connections(socket: &Path, _: u64) {
    let mut all = Vec::new();
    for _ in 0..250 {
        let mut c = Raw::connect(socket);
        c.send_if_open(&hello("many", ""));
        match c.next_or_end() {
            Some(got) if got.kind == Kind::Refused => {
                let why: Refused = got.read();
                told(&why);
                // Others may have all that is left.
                assert!(matches!(why.code, Code::Limit | Code::Busy | Code::OutOfFds), "{}", why.text);
            }
            Some(_) => all.push(c),
            None => {}
        }
    }
}

/// A file for each, which stays open.
pub fn watches(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "watches", "");
    let pairs: Vec<_> = (0..2600).map(|_| pair()).collect();
    let fds: Vec<_> = pairs.iter().flat_map(|(a, b)| [a.as_raw_fd(), b.as_raw_fd()]).collect();
    for (n, fds) in fds.chunks(200).enumerate() {
        let watches: Vec<_> = (0..fds.len()).map(|i| ((n * 200 + i) as u32, 1, What::READ)).collect();
        c.arm(&watches, fds);
    }
    sync(&mut c);
}

/// All due at once, again and again.
pub fn timers(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "timers", "");
    for _ in 0..2 {
        let soon = monotonic_ns() + 1_000_000;
        for first in (0..7_000).step_by(1000) {
            c.timers(&(first..first + 1000).map(|id| (id, soon)).collect::<Vec<_>>(), &[]);
        }
        sync(&mut c);
        // All that is refused is so only as long as the others are set.
        let far = monotonic_ns() + 3_600_000_000_000;
        for first in (0..7_000).step_by(1000) {
            c.timers(&(first..first + 1000).map(|id| (id, far)).collect::<Vec<_>>(), &[]);
        }
        sync(&mut c);
    }
}

pub fn names(socket: &Path, n: u64) {
    let mut c = Raw::hello(socket, "names", "");
    for id in 0..400 {
        c.send_unread(&Subscribe { id, name: format!("name-{n}-{id}") });
    }
    sync(&mut c);
}

pub fn holds(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "holds", "");
    let (near, _far) = pair();
    // Too many bytes first, then too many fds.
    for bytes in [15_000, 0] {
        for i in 0..150 {
            hold(&mut c, &format!("hold-{bytes}-{i}"), bytes, near.as_raw_fd());
        }
        sync(&mut c);
        std::thread::sleep(std::time::Duration::from_nanos(crate::files::HELD_NS));
    }
}

/// By several sessions, in frames with as many fds as can be.
pub fn copies(socket: &Path, _: u64) {
    let wake = Wake::new().unwrap();
    let mut all: Vec<Raw> = (0..5).map(|_| Raw::hello(socket, "copies", "")).collect();
    for c in &mut all {
        let watches: Vec<_> = (0..253).map(|id| (id, 1, What::READ)).collect();
        c.arm_with(ArmWatch::KEEP, &watches, &[wake.as_fd().as_raw_fd(); 253]);
    }
    all.iter_mut().for_each(sync);
}

/// Ids far apart cost memory.
pub fn tables(socket: &Path, _: u64) {
    let (near, _far) = pair();
    let mut all: Vec<Raw> = (0..8).map(|_| Raw::hello(socket, "tables", "")).collect();
    for c in &mut all {
        let limit = c.welcome.as_ref().unwrap().limits.watches;
        for n in 0..64 {
            let id = limit / 64 * n;
            c.arm(&[(id, 1, What::READ)], &[near.as_raw_fd()]);
            c.timers(&[(id, monotonic_ns() + 3_600_000_000_000)], &[]);
        }
        sync(c);
    }
}
