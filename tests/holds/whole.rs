//! What comes over a kill is the whole of it: batches, long attachments, times to live, counts, what it costs its user, and an upgrade between.

use crate::kept::*;
use crate::wire::{Got, Raw, eventually};
use evd_proto::frame::Kind;
use evd_proto::reply::{Attached, Code, Done, Refused, Resource, StatusPage, Took, TookAll};
use evd_proto::request::{Attach, Drop as DropHold, HoldAll, HoldOne, Status, Take, TakeAll, TakenAll};
use std::os::fd::{AsRawFd, RawFd};

const HOUR: u64 = 3_600_000_000_000;

/// What root uses of something, and its limit.
fn uses(keeper: &Keeper, what: Resource) -> (u64, u64) {
    let page: StatusPage = ask(&mut keeper.session(), &Status { after: 0 }, &[]).unwrap().read();
    let account = page.accounts.iter().find(|a| a.uid == 0).unwrap();
    let used = account.uses.iter().find(|u| u.what == what).unwrap();
    (used.used, used.limit)
}

/// The answer, and what came ahead of it.
fn with_attached(raw: &mut Raw, body: &impl evd_proto::frame::Body) -> (Vec<u8>, Got) {
    let mut ahead = Vec::new();
    let mut got = ask(raw, body, &[]).unwrap();
    while got.kind == Kind::Attached {
        ahead.append(&mut got.read::<Attached>().bytes);
        got = raw.next();
    }
    (ahead, got)
}

#[test]
fn batches_come_over_with_their_attachments_and_times() {
    let keeper = Keeper::start();
    let rest = keeper.fds();
    let things: Vec<_> = (0..600).map(|n| thing(0, &format!("line {n}"))).collect();
    let one = |n: usize| HoldOne {
        name: format!("set:{n:03}"),
        attachment: vec![n as u8; 20],
        ttl: if n % 2 == 0 { 0 } else { HOUR },
    };
    let mut raw = keeper.session();
    for start in (0..600).step_by(200) {
        let fds: Vec<RawFd> = things[start..start + 200].iter().map(|(fd, _)| fd.as_raw_fd()).collect();
        let all = HoldAll { holds: (start..start + 200).map(one).collect(), replace: false };
        ask(&mut raw, &all, &fds).unwrap().read::<Done>();
    }
    let long: Vec<u8> = (0..65_536u32).map(|n| (n % 251) as u8).collect();
    for piece in long.chunks(Attach::PIECE) {
        tell(&mut raw, &Attach { bytes: piece.to_vec() }, &[]).unwrap();
    }
    let (fd, long_thing) = thing(0, "the long one");
    ask(&mut raw, &hold("set:500", b"", HOUR, true), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    drop((raw, fd));
    let things: Vec<Thing> = things.into_iter().map(|(_, thing)| thing).collect();
    for _ in 0..2 {
        keeper.kill();
        let mut raw = keeper.session();
        assert_eq!(list(&mut raw).unwrap().len(), 600);
    }
    let mut raw = keeper.session();
    let mut came = 0;
    loop {
        let (ahead, got) = with_attached(&mut raw, &TakeAll { prefix: "set:".into() });
        let took: TookAll = got.read();
        for (at, (one, fd)) in took.holds.iter().zip(got.fds).enumerate() {
            let n: usize = one.name[4..].parse().unwrap();
            came += 1;
            if n == 500 {
                assert!(ahead == long && at == 0 && one.attachment.is_empty());
                long_thing.check(fd, "the long one");
            } else {
                assert_eq!(one.attachment, vec![n as u8; 20]);
                things[n].check(fd, &format!("line {n}"));
            }
            let has_ttl = n % 2 == 1 || n == 500;
            assert!(if has_ttl { one.ttl > HOUR / 2 && one.ttl < HOUR } else { one.ttl == 0 }, "{n}");
        }
        let numbers = took.holds.iter().map(|h| h.hold).collect();
        tell(&mut raw, &TakenAll { holds: numbers }, &[]).unwrap();
        if !took.more {
            break;
        }
    }
    assert_eq!(came, 600);
    assert!(list(&mut raw).unwrap().is_empty());
    drop(raw);
    eventually("nothing is left", || keeper.fds() == rest);
}

#[test]
fn what_is_inherited_costs_its_user_as_before_and_nothing_once_it_is_gone() {
    let keeper = Keeper::start_with(|c| {
        c.args(["--quota", "holds=5,hold-bytes=1000"]);
    });
    let mut raw = keeper.session();
    let put = |raw: &mut Raw, name: &str, bytes: usize| {
        let (fd, _thing) = thing(0, "x");
        ask(raw, &hold(name, &vec![1; bytes], 0, false), &[fd.as_raw_fd()]).unwrap()
    };
    for n in 0..5 {
        put(&mut raw, &format!("n:{n}"), 100).read::<Done>();
    }
    drop(raw);
    for _ in 0..2 {
        keeper.kill();
        assert_eq!(uses(&keeper, Resource::Holds), (5, 5));
        assert_eq!(uses(&keeper, Resource::HoldBytes), (500, 1000));
        let why: Refused = put(&mut keeper.session(), "more", 1).read();
        assert_eq!((why.code, why.limit, why.value), (Code::Limit, 5, 5), "{}", why.text);
    }
    let mut raw = keeper.session();
    ask(&mut raw, &DropHold { name: "n:0".into() }, &[]).unwrap().read::<Done>();
    let why: Refused = put(&mut raw, "more", 601).read();
    assert_eq!((why.code, why.limit, why.value), (Code::Limit, 1000, 400), "{}", why.text);
    put(&mut raw, "more", 600).read::<Done>();
    for h in list(&mut raw).unwrap() {
        ask(&mut raw, &DropHold { name: h.name }, &[]).unwrap().read::<Done>();
    }
    drop(raw);
    assert_eq!((uses(&keeper, Resource::Holds).0, uses(&keeper, Resource::HoldBytes).0), (0, 0));
}

#[test]
fn what_expires_while_evd_is_away_is_not_there_when_it_is_back() {
    // The next evd takes its time.
    let keeper = Keeper::start_replaceable(|_| {});
    let mut raw = keeper.session();
    let (fd, stays) = thing(0, "x");
    ask(&mut raw, &hold("stays", b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    let (fd, goes) = thing(0, "x");
    ask(&mut raw, &hold("goes", b"", 300_000_000, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    drop((raw, fd));
    keeper.replace("sleep 0.5");
    keeper.kill();
    let names: Vec<String> = list(&mut keeper.session()).unwrap().into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["stays"]);
    eventually("it is closed", || !goes.is_open());
    assert!(stays.is_open());
}

#[test]
fn a_program_that_is_put_in_the_place_of_evd_is_what_is_started_next() {
    let keeper = Keeper::start_replaceable(|_| {});
    let (fd, thing) = thing(0, "over an upgrade");
    ask(&mut keeper.session(), &hold("a", b"1", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    drop(fd);
    for version in 1..4 {
        keeper.replace(&format!("echo 'this is evd {version}' >&2"));
        keeper.kill();
        assert_eq!(list(&mut keeper.session()).unwrap().len(), 1);
        assert!(keeper.log().contains(&format!("this is evd {version}")));
    }
    let mut got = ask(&mut keeper.session(), &Take { name: "a".into(), keep: true }, &[]).unwrap();
    assert_eq!(got.read::<Took>().attachment, b"1");
    thing.check(got.fds.pop().unwrap(), "over an upgrade");
    // One that can't be started is tried again, until another one is there.
    std::fs::write(keeper.dir.0.join("evd.new"), "no program").unwrap();
    std::fs::rename(keeper.dir.0.join("evd.new"), keeper.dir.0.join("evd")).unwrap();
    let old = keeper.evd().unwrap();
    evd_proto::sys::send_signal(old, libc::SIGKILL).unwrap();
    eventually("it can't be started", || keeper.log().contains("can't start"));
    keeper.replace("");
    assert_eq!(list(&mut keeper.session()).unwrap().len(), 1);
}
