//! Processes that end in the midst of things, or whose sockets outlive them, and requests for evd's own process.

use crate::attackers::told;
use crate::files::{hold, sync};
use crate::parts::{jitter, pair};
use crate::process::{Process, hear, say};
use crate::wire::Raw;
use evd_proto::What;
use evd_proto::frame::Kind;
use evd_proto::reply::Refused;
use evd_proto::request::{DaemonSignal, Subscribe};
use evd_proto::sys;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// Every signal, asked for and given back. One that evd lets a client have is sent to nobody here: only evd's own user could.
pub fn signals(socket: &Path, _: u64) {
    let mut c = Raw::hello(socket, "signals", "");
    for signo in -1..70 {
        for on in [true, false] {
            let serial = c.send(&DaemonSignal { signo, on });
            let got = c.answer(serial);
            if got.kind == Kind::Refused {
                told(&got.read::<Refused>());
            }
        }
    }
}

pub fn churn(socket: &Path, _: u64) {
    for _ in 0..100 {
        drop(sys::connect(socket));
        drop(Raw::hello(socket, "churn", ""));
    }
    let _: Vec<_> = (0..150).map(|_| sys::connect(socket)).collect();
}

/// SIGKILL at any moment of a session.
pub fn killed(socket: &Path, n: u64) {
    let process = Process::start("busy", socket, &[]);
    process.says("busy");
    std::thread::sleep(Duration::from_micros(jitter(n).below(20_000)));
    process.kill();
}

/// A role: all a client can do, again and again.
pub fn busy(socket: &Path, _: &[&str]) {
    let mut c = Raw::hello(socket, "busy", "");
    say("busy");
    for seq in 1.. {
        let (near, _far) = pair();
        c.arm(&[(seq % 50, seq, What::READ)], &[near.as_raw_fd()]);
        c.timers(&[(seq % 50, sys::monotonic_ns() + 500_000)], &[(seq + 25) % 50]);
        c.send(&Subscribe { id: seq % 50, name: format!("busy-{seq}") });
        hold(&mut c, "busy", 100, near.as_raw_fd());
        sync(&mut c);
    }
}

/// Processes that end while a child of theirs has their socket.
pub fn forks(socket: &Path, _: u64) {
    let process = Process::start("forking", socket, &[]);
    process.says("forked");
    process.ends();
}

/// A role.
pub fn forking(socket: &Path, _: &[&str]) {
    let mut c = Raw::hello(socket, "parent", "");
    sync(&mut c);
    // SAFETY: the child only sleeps and exits.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: takes a number; stdin and stdout are the parent's alone.
        unsafe { libc::close(1) };
        // SAFETY: sleeps for longer than the parent lives, then ends without running anything of the parent's.
        unsafe { libc::sleep(2) };
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    say("forked");
    hear();
}
