//! Watches and timers: what is armed is reported once, and nothing is kept behind the client's back.

use crate::wire::*;
use evd_proto::What;
use evd_proto::reply::Code;
use evd_proto::request::{ArmWatch, Disarm};
use evd_proto::sys;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

fn put(fd: &OwnedFd) {
    let mut file = std::fs::File::from(fd.try_clone().unwrap());
    file.write_all(b"x").unwrap();
}

/// Runs `with` for each method that this evd has.
fn for_each_method(with: impl Fn(&Evd, &str)) {
    let evd = Evd::start();
    for method in evd::backend::supported(false) {
        with(&evd, method);
    }
    evd.serves();
}

#[test]
fn only_the_newest_arm_counts() {
    for_each_method(|evd, method| {
        let mut c = Raw::hello(&evd.path(), "seq", method);
        let (mut a, far_a) = UnixStream::pair().unwrap();
        let (mut b, far_b) = UnixStream::pair().unwrap();
        c.arm(&[(7, 1, What::READ)], &[far_a.as_raw_fd()]);
        c.arm(&[(7, 2, What::READ)], &[far_b.as_raw_fd()]);
        assert!(c.sync().is_empty());
        a.write_all(b"old").unwrap();
        b.write_all(b"new").unwrap();
        let w = c.active().watches;
        assert_eq!((w.len(), w[0].id, w[0].seq), (1, 7, 2), "{method}");
        c.arm(&[(7, 3, What::READ)], &[far_a.as_raw_fd()]);
        assert_eq!(c.active().watches[0].seq, 3, "{method}");
        let quiet = sys::socketpair().unwrap();
        c.arm(&[(7, 4, What::READ)], &[quiet.0.as_raw_fd()]);
        c.send(&Disarm { with_fd: vec![], ids: vec![7] });
        assert!(c.sync().is_empty(), "{method}");
    });
}

#[test]
fn a_disarmed_watch_says_nothing() {
    for_each_method(|evd, method| {
        let mut c = Raw::hello(&evd.path(), "disarm", method);
        let (mut near, far) = UnixStream::pair().unwrap();
        c.arm(&[(1, 1, What::READ)], &[far.as_raw_fd()]);
        c.send(&Disarm { with_fd: vec![], ids: vec![1] });
        assert!(c.sync().is_empty());
        near.write_all(b"x").unwrap();
        let (mut near2, far2) = UnixStream::pair().unwrap();
        c.arm(&[(2, 1, What::READ)], &[far2.as_raw_fd()]);
        near2.write_all(b"x").unwrap();
        assert_eq!(c.active().watches[0].id, 2, "{method}");
    });
}

#[test]
fn edges_stay_armed_where_the_method_has_them() {
    for_each_method(|evd, method| {
        let mut c = Raw::hello(&evd.path(), "edge", method);
        let (mut near, far) = UnixStream::pair().unwrap();
        let serial = c.arm_with(ArmWatch::EDGE, &[(1, 1, What::READ)], &[far.as_raw_fd()]);
        if c.welcome.as_ref().unwrap().method_features & 1 == 0 {
            assert_eq!(c.refused(serial).code, Code::BadRequest, "{method}");
            return;
        }
        for _ in 0..3 {
            near.write_all(b"x").unwrap();
            assert_eq!(c.active().watches[0].seq, 1);
        }
        c.send_fds(&Disarm { with_fd: vec![1], ids: vec![] }, &[far.as_raw_fd()]);
        c.sync();
        near.write_all(b"x").unwrap();
        assert!(c.sync().is_empty());
    });
}

#[test]
fn kinds_that_share_an_inode_are_told_apart() {
    for_each_method(|evd, method| {
        let mut c = Raw::hello(&evd.path(), "keep", method);
        let (a, b) = (sys::Wake::new().unwrap(), sys::Wake::new().unwrap());
        let fds = [a.as_fd().as_raw_fd(), b.as_fd().as_raw_fd()];
        c.arm_with(ArmWatch::KEEP, &[(0, 1, What::READ), (1, 1, What::READ)], &fds);
        b.notify();
        assert_eq!(c.active().watches[0].id, 1, "{method}");
        a.notify();
        assert_eq!(c.active().watches[0].id, 0, "{method}");
    });
}

#[test]
fn parked_sockets_cost_no_fd_and_their_close_is_a_close() {
    let evd = Evd::start();
    let mut c = evd.client("parked");
    let pairs: Vec<_> = (0..500).map(|_| UnixStream::pair().unwrap()).collect();
    c.sync();
    let before = evd.fds();
    for (at, part) in pairs.chunks(100).enumerate() {
        let watches: Vec<_> = (0..100).map(|i| (at as u32 * 100 + i, 1, What::READ)).collect();
        let fds: Vec<_> = part.iter().map(|(_, far)| far.as_raw_fd()).collect();
        c.arm(&watches, &fds);
    }
    assert!(c.sync().is_empty());
    assert_eq!(evd.fds(), before);
    for (mut near, far) in pairs {
        drop(far);
        assert_eq!(near.read(&mut [0]).unwrap(), 0, "the peer sees the end");
    }
    assert!(c.sync().is_empty());
    evd.serves();
}

#[test]
fn a_method_that_needs_the_fd_gives_it_back_with_the_report() {
    for_each_method(|evd, method| {
        let mut c = Raw::hello(&evd.path(), "copies", method);
        c.sync();
        let before = evd.fds();
        let (mut near, far) = UnixStream::pair().unwrap();
        c.arm(&[(0, 1, What::READ)], &[far.as_raw_fd()]);
        near.write_all(b"x").unwrap();
        c.active();
        drop(far);
        near.set_nonblocking(false).unwrap();
        let mut byte = [0];
        // What was written is still unread at the other end, which makes its close a reset.
        assert!(near.read(&mut byte).is_err() || byte == [0], "{method}");
        // The worker of the method before may still have been closing its own then.
        assert!(evd.fds() <= before, "{method}: {} and not {before}", evd.fds());
    });
}

#[test]
fn a_close_of_the_peer_is_seen() {
    let evd = Evd::start();
    let mut c = evd.client("closed");
    let (near, far) = UnixStream::pair().unwrap();
    c.arm(&[(0, 1, What::CLOSED)], &[far.as_raw_fd()]);
    assert!(c.sync().is_empty());
    drop(near);
    assert!(c.active().watches[0].ready.contains(What::CLOSED));
}

#[test]
fn a_hang_up_that_nobody_asked_for_is_reported_once_an_arm() {
    let evd = Evd::start();
    let mut c = evd.client("hup");
    let (r, w) = sys::pipe().unwrap();
    drop(w);
    c.arm(&[(0, 1, What::CLOSED)], &[r.as_raw_fd()]);
    assert_eq!(c.active().watches[0].seq, 1);
    assert!(c.sync().is_empty());
}

#[test]
fn timers_fire_once_and_in_time_or_later() {
    for_each_method(|evd, method| {
        let mut c = Raw::hello(&evd.path(), "timers", method);
        let now = sys::monotonic_ns();
        let (soon, later) = (now + 20_000_000, now + 40_000_000);
        c.timers(&[(0, soon), (1, later), (2, soon), (3, now + 3_600_000_000_000), (4, 0)], &[]);
        c.timers(&[], &[2, 99]);
        let mut fired = BTreeMap::new();
        while fired.len() < 3 {
            let got = c.next();
            let at = sys::monotonic_ns();
            for t in got.read::<evd_proto::notice::Active>().timers {
                assert!(at >= t.deadline, "{method}: too early");
                assert!(fired.insert(t.id, t.deadline).is_none());
            }
        }
        assert_eq!(fired, BTreeMap::from([(0, soon), (1, later), (4, 0)]), "{method}");
        c.timers(&[(3, 0)], &[]);
        assert_eq!(c.active().timers[0].id, 3, "{method}: set anew");
        assert!(c.sync().is_empty());
    });
}

#[test]
fn a_client_that_never_reads_costs_little_and_misses_nothing() {
    let evd = Evd::start();
    let mut frozen = evd.client("frozen");
    let pipes: Vec<_> = (0..1000).map(|_| sys::pipe().unwrap()).collect();
    let most = frozen.welcome.as_ref().unwrap().limits.fds_per_frame as usize;
    let mut seq = 0;
    let arm_all = |frozen: &mut Raw, seq: u32| {
        let all: Vec<_> = pipes.iter().enumerate().collect();
        for part in all.chunks(most.min(250)) {
            let watches: Vec<_> = part.iter().map(|(i, _)| (*i as u32, seq, What::READ)).collect();
            let fds: Vec<_> = part.iter().map(|(_, (r, _))| r.as_raw_fd()).collect();
            frozen.arm(&watches, &fds);
        }
    };
    pipes.iter().for_each(|(_, w)| put(w));
    let mut control = evd.control();
    let mut activations = || {
        let page: evd_proto::reply::StatusPage = control.ask(&evd_proto::request::Status { after: 0 });
        let base = page.bases.into_iter().find(|b| b.name == "frozen").unwrap();
        (base.activations, base.unread)
    };
    // Until its socket is full, and a good while longer.
    let mut full_for = 0;
    let mut resident = 0;
    while full_for < 60 {
        seq += 1;
        arm_all(&mut frozen, seq);
        eventually("all are reported", || activations().0 == u64::from(seq) * 1000);
        full_for += u32::from(activations().1 > 0);
        if full_for == 20 {
            resident = evd.resident();
        }
    }
    assert!(evd.resident() < resident + (1 << 20), "what it costs is bounded");
    evd.serves();
    let mut newest = BTreeMap::new();
    for got in frozen.sync() {
        for w in got.read::<evd_proto::notice::Active>().watches {
            newest.insert(w.id, w.seq);
        }
    }
    // What was OR-ed while the socket was full comes behind the answer.
    while newest.len() < 1000 || newest.values().any(|s| *s != seq) {
        for w in frozen.active().watches {
            newest.insert(w.id, w.seq);
        }
    }
    eventually("it reads again", || activations().1 == 0);
}

#[test]
fn a_client_that_is_gone_leaves_nothing_behind() {
    for_each_method(|evd, method| {
        let mut watcher = evd.client("watcher");
        watcher.sync();
        let (fds, threads) = (evd.fds(), evd.threads());
        let pairs: Vec<_> = (0..50).map(|_| UnixStream::pair().unwrap()).collect();
        for _ in 0..5 {
            let mut c = Raw::hello(&evd.path(), "gone", method);
            let watches: Vec<_> = (0..50).map(|i| (i, 1, What::READ)).collect();
            let all: Vec<_> = pairs.iter().map(|(_, far)| far.as_raw_fd()).collect();
            c.arm_with(ArmWatch::KEEP, &watches, &all);
            c.timers(&[(0, u64::MAX)], &[]);
        }
        eventually("everything is back", || evd.fds() == fds && evd.threads() == threads);
        assert!(watcher.sync().is_empty(), "{method}");
    });
}
