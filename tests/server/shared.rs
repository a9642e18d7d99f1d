//! What sessions have in common: names, holds, signals, and what evctl sees.

use crate::wire::*;
use evd_proto::What;
use evd_proto::frame::Kind;
use evd_proto::notice::{Active, Attend, Trace, TraceSource};
use evd_proto::reply::*;
use evd_proto::request::{
    Attach, DaemonSignal, Drop as DropHold, Events, Follow, Hold, HoldAll, HoldOne, ListHolds, LocalWatch,
    Report, Selector, Status, Subscribe, Take, TakeAll, Taken, TakenAll, Trigger, Unsubscribe,
};
use evd_proto::sys::{self, FileKind};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

fn subscribe(c: &mut Raw, id: u32, name: &str) {
    c.ask::<_, Done>(&Subscribe { id, name: name.into() });
}

fn trigger(c: &mut Raw, name: &str) -> (u32, u32) {
    let t: Triggered = c.ask(&Trigger { name: name.into() });
    (t.reached, t.queued)
}

#[test]
fn a_trigger_is_in_every_socket_when_it_is_answered() {
    let evd = Evd::start_with(|c| {
        c.args(["--workers-per-uid", "2"]);
    });
    let mut all = Vec::new();
    for method in evd::backend::supported(false) {
        all.push(Raw::hello(&evd.path(), "sub", method));
        all.push(Raw::hello(&evd.path(), "sub", method));
    }
    for (i, c) in all.iter_mut().enumerate() {
        subscribe(c, i as u32, "reload");
    }
    subscribe(&mut all[0], 77, "reload");
    let mut asker = evd.control();
    assert_eq!(trigger(&mut asker, "reload"), (all.len() as u32 + 1, 0));
    for (i, c) in all.iter_mut().enumerate() {
        let active = c.next_in_socket().read::<Active>();
        assert_eq!((active.names[0].id, active.names[0].count), (i as u32, 1));
    }
    let serial = asker.send(&Trigger { name: "nobody".into() });
    assert_eq!(asker.refused(serial).code, Code::Unknown);
    // A subscriber triggers itself; the others leave.
    let mut one = all.remove(0);
    all.clear();
    one.send(&Unsubscribe { id: 77 });
    one.sync();
    eventually("the others are gone", || trigger(&mut one, "reload") == (1, 0));
    one.send(&Unsubscribe { id: 0 });
    let serial = one.send(&Trigger { name: "reload".into() });
    assert_eq!(one.refused(serial).code, Code::Unknown);
    let serial = one.send(&Subscribe { id: 0, name: "no/slash".into() });
    assert_eq!(one.refused(serial).code, Code::BadName);
    subscribe(&mut one, 0, "a");
    let serial = one.send(&Subscribe { id: 0, name: "b".into() });
    assert_eq!(one.refused(serial).code, Code::BadRequest);
}

#[test]
fn a_held_fd_outlives_its_giver_and_is_let_go_when_it_arrived() {
    let evd = Evd::start();
    let mut watcher = evd.client("watcher");
    watcher.sync();
    let before = evd.fds();
    let (mut near, far) = UnixStream::pair().unwrap();
    let hold = |replace| Hold { name: "conn".into(), attachment: b"state".to_vec(), ttl: 0, replace };
    let mut giver = evd.client("giver");
    let serial = giver.send_fds(&hold(false), &[far.as_raw_fd()]);
    giver.answer(serial).read::<Done>();
    let serial = giver.send_fds(&hold(false), &[far.as_raw_fd()]);
    assert_eq!(giver.refused(serial).code, Code::Exists);
    let serial = giver.send_fds(&hold(true), &[far.as_raw_fd()]);
    giver.answer(serial).read::<Done>();
    drop((giver, far));
    near.write_all(b"hello").unwrap();
    let list = |c: &mut Raw| c.ask::<_, Holds>(&ListHolds { after: String::new() });
    let found = list(&mut watcher);
    let info = &found.holds[0];
    assert_eq!((found.holds.len(), found.more, info.name.as_str()), (1, false, "conn"));
    assert_eq!((info.kind, info.attachment, info.giver.as_str()), (FileKind::Socket, 5, "giver"));
    assert_eq!((info.left, info.pid), (0, std::process::id() as i32));
    assert!(info.ready.contains(What::READ));

    let take = |keep| Take { name: "conn".into(), keep };
    // A copy leaves it held, a taker that dies does too.
    let serial = watcher.send(&take(true));
    let got = watcher.answer(serial);
    assert_eq!((got.read::<Took>().hold, got.fds.len()), (0, 1));
    let mut dies = evd.client("dies");
    let serial = dies.send(&take(false));
    assert_ne!(dies.answer(serial).read::<Took>().hold, 0);
    let serial = watcher.send(&take(false));
    assert_eq!(watcher.refused(serial).code, Code::Busy);
    drop(dies);
    let mut took = None;
    eventually("the mark is lifted", || {
        let serial = watcher.send(&take(false));
        let got = watcher.answer(serial);
        let done = got.kind == Kind::Took;
        took = Some(got);
        done
    });
    let got = took.unwrap();
    let body: Took = got.read();
    assert_eq!((body.attachment.as_slice(), body.ttl), (&b"state"[..], 0));
    let mut mine = UnixStream::from(got.fds.into_iter().next().unwrap());
    let mut text = [0; 5];
    mine.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    watcher.send(&Taken { hold: body.hold });
    assert!(list(&mut watcher).holds.is_empty());
    eventually("its fds are back", || evd.fds() == before);
    let serial = watcher.send(&DropHold { name: "conn".into() });
    assert_eq!(watcher.refused(serial).code, Code::Unknown);
}

#[test]
fn a_hold_ends_with_its_time_and_survives_its_worker() {
    for method in evd::backend::supported(false) {
        let evd = Evd::start();
        let (mut near, far) = UnixStream::pair().unwrap();
        let give = |c: &mut Raw, name: &str, ttl| {
            let hold = Hold { name: name.into(), attachment: vec![], ttl, replace: false };
            let serial = c.send_fds(&hold, &[far.as_raw_fd()]);
            c.answer(serial).read::<Done>();
        };
        let mut giver = Raw::hello(&evd.path(), "giver", method);
        give(&mut giver, "short", 300_000_000);
        let asked = sys::monotonic_ns();
        drop((giver, far));
        assert_eq!(near.read(&mut [0]).unwrap(), 0, "{method}: the peer sees the end when it is let go");
        assert!(sys::monotonic_ns() - asked < 60_000_000_000);
        let (_near, far) = UnixStream::pair().unwrap();
        let mut giver = Raw::hello(&evd.path(), "giver", method);
        let hold = Hold { name: "long".into(), attachment: vec![], ttl: 0, replace: false };
        let serial = giver.send_fds(&hold, &[far.as_raw_fd()]);
        giver.answer(serial).read::<Done>();
        drop(giver);
        eventually("all workers have ended", || evd.threads() == 1);
        let mut next = evd.client("next");
        next.ask::<_, Done>(&DropHold { name: "long".into() });
    }
}

#[test]
fn a_worker_that_only_waits_for_a_hold_to_expire_ends_when_that_is_gone() {
    for method in evd::backend::supported(false) {
        let evd = Evd::start();
        let (_near, far) = UnixStream::pair().unwrap();
        let mut giver = Raw::hello(&evd.path(), "giver", method);
        let hold = Hold { name: "x".into(), attachment: vec![], ttl: 1 << 50, replace: false };
        let serial = giver.send_fds(&hold, &[far.as_raw_fd()]);
        giver.answer(serial).read::<Done>();
        drop(giver);
        let mut other = evd.client("other");
        other.ask::<_, Done>(&DropHold { name: "x".into() });
        drop(other);
        eventually("all workers have ended", || evd.threads() == 1);
    }
}

#[test]
fn a_worker_that_only_waits_for_a_hold_to_expire_ends_with_evd() {
    for method in evd::backend::supported(false) {
        let mut evd = Evd::start();
        let (_near, far) = UnixStream::pair().unwrap();
        let mut giver = Raw::hello(&evd.path(), "giver", method);
        let hold = Hold { name: "x".into(), attachment: vec![], ttl: 1 << 50, replace: false };
        let serial = giver.send_fds(&hold, &[far.as_raw_fd()]);
        giver.answer(serial).read::<Done>();
        drop(giver);
        evd.signal(libc::SIGINT);
        assert!(evd.child.wait().unwrap().success(), "{method}");
    }
}

#[test]
fn long_attachments_come_ahead_of_their_fd_and_have_a_limit() {
    let evd = Evd::start();
    let mut c = evd.client("attach");
    let limit = c.welcome.as_ref().unwrap().limits.attachment as usize;
    assert_eq!(limit, 65_536);
    let null = sys::reserve_fd().unwrap();
    let hold = |n| Hold { name: "x".into(), attachment: vec![7; n], ttl: 1 << 50, replace: true };
    // All ahead in two pieces, with some in the frame itself, and all of it there.
    for (ahead, with) in [(limit, 0), (limit - 100, 100), (0, 16_000)] {
        for piece in vec![6; ahead].chunks(Attach::PIECE) {
            c.send(&Attach { bytes: piece.to_vec() });
        }
        let serial = c.send_fds(&hold(with), &[null.as_raw_fd()]);
        c.answer(serial).read::<Done>();
        let serial = c.send(&Take { name: "x".into(), keep: true });
        let mut attachment = Vec::new();
        let took: Took = loop {
            let got = c.answer(serial);
            match got.kind {
                Kind::Attached => attachment.append(&mut got.read::<Attached>().bytes),
                _ => break got.read(),
            }
        };
        attachment.extend(took.attachment);
        assert_eq!(attachment, [vec![6; ahead], vec![7; with]].concat());
        assert!(took.ttl > 0 && took.ttl <= 1 << 50);
    }
    // One byte more, in either place; and with that it is forgotten.
    for (ahead, with) in [(limit + 1, 0), (limit, 1)] {
        for piece in vec![6; ahead].chunks(Attach::PIECE) {
            c.send(&Attach { bytes: piece.to_vec() });
        }
        let serial = c.send_fds(&hold(with), &[null.as_raw_fd()]);
        let refused = c.refused(serial);
        let expected = (Code::Limit, limit as u64, limit as u64 + 1);
        assert_eq!((refused.code, refused.limit, refused.value), expected);
        let serial = c.send_fds(&hold(1), &[null.as_raw_fd()]);
        c.answer(serial).read::<Done>();
        let serial = c.send(&Take { name: "x".into(), keep: true });
        assert_eq!(c.answer(serial).read::<Took>().attachment, [7]);
    }
}

#[test]
fn many_fds_are_held_all_or_none_and_come_back_those_first_that_can_be_read() {
    let evd = Evd::start();
    let mut c = evd.client("many");
    let pairs: Vec<_> = (0..100).map(|_| UnixStream::pair().unwrap()).collect();
    let fds: Vec<_> = pairs.iter().map(|(_, far)| far.as_raw_fd()).collect();
    let one = |n: usize| HoldOne { name: format!("set:{n:02}"), attachment: vec![n as u8; 200], ttl: 0 };
    let all = |numbers: std::ops::Range<usize>| HoldAll { holds: numbers.map(one).collect(), replace: false };
    let serial = c.send_fds(&all(0..50), &fds[..50]);
    c.answer(serial).read::<Done>();
    // The last of these is there: so none of them is held; as with a name that is none, and one that is twice.
    let serial = c.send_fds(&HoldAll { holds: vec![one(60), one(49)], replace: false }, &fds[50..52]);
    assert_eq!(c.refused(serial).code, Code::Exists);
    let serial = c.send_fds(&HoldAll { holds: vec![one(60), one(60)], replace: true }, &fds[50..52]);
    assert_eq!(c.refused(serial).code, Code::BadRequest);
    let bad = HoldOne { name: "no/slash".into(), ..one(61) };
    let serial = c.send_fds(&HoldAll { holds: vec![one(60), bad], replace: true }, &fds[50..52]);
    assert_eq!(c.refused(serial).code, Code::BadName);
    let serial = c.send(&HoldAll { holds: vec![], replace: true });
    assert_eq!(c.refused(serial).code, Code::BadRequest);
    let serial = c.send_fds(&all(50..100), &fds[50..]);
    c.answer(serial).read::<Done>();
    assert_eq!(c.ask::<_, Holds>(&ListHolds { after: String::new() }).holds.len(), 100);
    for ready in [77, 33] {
        (&pairs[ready].0).write_all(b"x").unwrap();
    }
    // A session that dies gives them back; what it said of arrivals counts.
    let mut names = Vec::new();
    let mut dies = evd.client("dies");
    let serial = dies.send(&TakeAll { prefix: "set:".into() });
    let lost: TookAll = dies.answer(serial).read();
    assert!(lost.more && lost.holds.len() > 50, "a frame has room for about 60");
    drop(dies);
    eventually("they are given back", || {
        let serial = c.send(&TakeAll { prefix: "set:".into() });
        let got = c.answer(serial);
        let took: TookAll = got.read();
        assert_eq!(took.holds.len(), got.fds.len());
        for (one, fd) in took.holds.iter().zip(&got.fds) {
            let number: usize = one.name[4..].parse().unwrap();
            assert_eq!(one.attachment, vec![number as u8; 200]);
            let ino = |fd: std::os::fd::BorrowedFd<'_>| sys::identify(fd).unwrap().ino;
            assert_eq!(ino(fd.as_fd()), ino(pairs[number].1.as_fd()));
        }
        c.send(&TakenAll { holds: took.holds.iter().map(|h| h.hold).collect() });
        names.extend(took.holds.into_iter().map(|h| h.name));
        names.len() == 100
    });
    let first: Vec<_> = names.iter().position(|n| n == "set:33").into_iter().collect();
    assert!(first[0] + 1 == names.iter().position(|n| n == "set:77").unwrap(), "{names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 100);
    let none: TookAll = c.ask(&TakeAll { prefix: String::new() });
    assert!(none.holds.is_empty() && !none.more);
}

#[test]
fn signals_of_evd_reach_every_base_that_asked() {
    let evd = Evd::start();
    let mut all = [evd.client("a"), evd.client("b")];
    for c in &mut all {
        c.ask::<_, Done>(&DaemonSignal { signo: libc::SIGUSR1, on: true });
    }
    for bad in [libc::SIGTERM, libc::SIGCHLD, libc::SIGKILL, 0, 99] {
        let serial = all[0].send(&DaemonSignal { signo: bad, on: true });
        assert_eq!(all[0].refused(serial).code, Code::NotAllowed);
    }
    evd.signal(libc::SIGUSR1);
    for c in &mut all {
        let s = c.active().signals[0];
        assert_eq!((s.signo, s.count, s.pid), (libc::SIGUSR1, 1, std::process::id() as i32));
    }
    all[0].ask::<_, Done>(&DaemonSignal { signo: libc::SIGUSR1, on: false });
    evd.signal(libc::SIGUSR1);
    assert_eq!(all[1].active().signals.len(), 1);
    assert!(all[0].sync().is_empty());
}

#[test]
fn the_status_shows_what_there_is() {
    let evd = Evd::start();
    let mut c = evd.client("shown");
    let (mut near, far) = UnixStream::pair().unwrap();
    let pipe = sys::pipe().unwrap();
    let wake = sys::Wake::new().unwrap();
    c.arm(&[(0, 1, What::READ), (1, 1, What::READ)], &[far.as_raw_fd(), pipe.0.as_raw_fd()]);
    let keep = evd_proto::request::ArmWatch::KEEP;
    c.arm_with(keep, &[(2, 1, What::READ)], &[wake.as_fd().as_raw_fd()]);
    let hour = 3_600_000_000_000;
    c.timers(&[(4, sys::monotonic_ns() + hour)], &[]);
    subscribe(&mut c, 9, "reload");
    c.ask::<_, Done>(&DaemonSignal { signo: libc::SIGUSR2, on: true });
    let local = LocalWatch {
        id: 3,
        interest: What::READ | What::WRITE,
        kind: FileKind::Socket,
        ino: 4711,
        fired: 6,
        ready: What::READ,
    };
    let labels = vec![(0, "front\u{1b}[2J".to_owned()), (3, "é".repeat(40))];
    c.send(&Report { local: vec![local], labels, signals: 6, callbacks: 11, ..Report::default() });
    c.sync();
    near.write_all(b"x").unwrap();
    c.active();
    let other = sys::pipe().unwrap();
    c.arm(&[(0, 2, What::READ)], &[other.0.as_raw_fd()]);
    c.sync();

    let mut control = evd.control();
    let page: StatusPage = control.ask(&Status { after: 0 });
    assert_eq!((page.pid, page.more, page.workers.len(), page.names), (evd.pid(), false, 1, 1));
    assert_eq!((page.workers[0].sessions, page.workers[0].method.as_str()), (2, "epoll"));
    let b = &page.bases[0];
    assert_eq!((b.id, b.name.as_str(), b.pid), (c.base(), "shown", std::process::id() as i32));
    assert_eq!((b.parked, b.local, b.timers, b.activations, b.callbacks), (3, 1, 1, 1, 11));
    assert_eq!((b.signals, b.daemon_signals, b.unread), (6, 1 << libc::SIGUSR2, 0));
    assert_eq!(b.names, ["reload"]);

    let events: EventsPage = control.ask(&Events { base: Selector::Name("shown".into()), from: (0, 0) });
    assert_eq!((events.base, events.next), (c.base(), None));
    let kinds: Vec<_> = events.watches.iter().map(|w| (w.id, w.place, w.kind)).collect();
    let want = [
        (0, Place::Parked, Some(FileKind::Pipe)),
        (1, Place::Parked, Some(FileKind::Pipe)),
        (2, Place::Parked, Some(FileKind::EventFd)),
        (3, Place::Local, Some(FileKind::Socket)),
    ];
    assert_eq!(kinds, want);
    let ino = sys::identify(pipe.0.as_fd()).unwrap().ino;
    let w = &events.watches;
    assert_eq!((w[1].ino, w[0].count, w[3].count, w[3].ino), (ino, 1, 6, 4711));
    assert_eq!((w[0].label.as_str(), w[3].label.len()), ("front?[2J", 64));
    assert!(events.timers[0].left > hour / 2 && events.timers[0].left <= hour);
    assert_eq!((events.names[0].id, events.signals[0].signo), (9, libc::SIGUSR2));
    c.send(&Report { gone: vec![3], ..Report::default() });
    c.sync();
    let events: EventsPage = control.ask(&Events { base: Selector::Id(c.base()), from: (0, 2) });
    assert_eq!(events.watches.iter().map(|w| w.id).collect::<Vec<_>>(), [2]);
    let serial = control.send(&Events { base: Selector::Id(99), from: (0, 0) });
    assert_eq!(control.refused(serial).code, Code::Unknown);
}

#[test]
fn pages_go_on_where_they_stopped() {
    let evd = Evd::start();
    let mut c = evd.client("many");
    let set: Vec<_> = (0..3000).map(|i| (i, u64::MAX)).collect();
    c.timers(&set, &[]);
    let local = |id| LocalWatch {
        id,
        interest: What::READ,
        kind: FileKind::Socket,
        ino: 1,
        fired: 0,
        ready: What::empty(),
    };
    for ids in (0..3000).collect::<Vec<u32>>().chunks(500) {
        let labels = ids.iter().map(|i| (*i, "l".repeat(64))).collect();
        c.send(&Report { local: ids.iter().map(|i| local(*i)).collect(), labels, ..Report::default() });
    }
    c.sync();
    let _others: Vec<_> = (0..150).map(|i| evd.client(&format!("c{i}"))).collect();
    let mut control = evd.control();
    let (mut watches, mut timers, mut from) = (0, 0, (0, 0));
    loop {
        let page: EventsPage = control.ask(&Events { base: Selector::Id(c.base()), from });
        watches += page.watches.len();
        timers += page.timers.len();
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!((watches, timers), (3000, 3000));
    let (mut bases, mut after) = (0, 0);
    loop {
        let page: StatusPage = control.ask(&Status { after });
        bases += page.bases.len();
        after = page.bases.last().unwrap().id;
        if !page.more {
            break;
        }
    }
    assert_eq!(bases, 151);
}

#[test]
fn followers_see_what_happens() {
    for method in evd::backend::supported(false) {
        let evd = Evd::start();
        let mut c = Raw::hello(&evd.path(), "seen", method);
        let mut control = evd.control();
        let serial = control.send(&Follow { base: Some(Selector::Name("other".into())) });
        assert_eq!(control.refused(serial).code, Code::Unknown);
        control.ask::<_, Done>(&Follow { base: Some(Selector::Name("seen".into())) });
        assert!(c.next().read::<Attend>().on);
        let (mut near, far) = UnixStream::pair().unwrap();
        c.send(&Report { labels: vec![(0, "front".into())], ..Report::default() });
        c.arm(&[(0, 1, What::READ)], &[far.as_raw_fd()]);
        near.write_all(b"x").unwrap();
        c.active();
        let local = LocalWatch {
            id: 1,
            interest: What::READ,
            kind: FileKind::Pipe,
            ino: 1,
            fired: 2,
            ready: What::READ,
        };
        c.send(&Report { local: vec![local], ..Report::default() });
        let mut entries = Vec::new();
        while entries.len() < 2 {
            let trace: Trace = control.next().read();
            assert_eq!((trace.base, trace.name.as_str(), trace.lost), (c.base(), "seen", 0));
            entries.extend(trace.entries);
        }
        assert_eq!((entries[0].source, entries[0].label.as_str()), (TraceSource::Parked, "front"));
        assert_eq!((entries[1].source, entries[1].count), (TraceSource::Local, 2));
        drop(control);
        assert!(!c.next().read::<Attend>().on);
        // Who follows all is told of those that come later, too.
        let mut control = evd.control();
        control.ask::<_, Done>(&Follow { base: None });
        let mut late = Raw::hello(&evd.path(), "late", method);
        assert!(late.next().read::<Attend>().on);
        late.timers(&[(0, 0)], &[]);
        let trace: Trace = control.next().read();
        assert_eq!((trace.name.as_str(), trace.entries[0].source), ("late", TraceSource::Timer));
    }
}
