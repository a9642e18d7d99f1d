//! What the keeper promises.

use crate::kept::*;
use crate::wire::{command, eventually, outcome};
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Done, Refused, Took};
use evd_proto::request::{Drop as DropHold, Take, Taken};
use evd_proto::sys;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn what_is_held_is_there_after_a_kill_with_all_that_belongs_to_it() {
    for count in [1, 300, 2000] {
        sys::raise_open_files().unwrap();
        let keeper = Keeper::start();
        let rest = keeper.fds();
        let mut raw = keeper.session();
        let mut things = Vec::new();
        for n in 0..count {
            let (line, ttl) = (format!("line {n}\n"), if n % 2 == 0 { 0 } else { 3_600_000_000_000 });
            let (fd, thing) = thing(n, &line);
            let body = hold(&format!("n:{n}"), format!("of {n}").as_bytes(), ttl, false);
            ask(&mut raw, &body, &[fd.as_raw_fd()]).unwrap().read::<Done>();
            things.push((line, thing));
        }
        drop(raw);
        let stored = keeper.stored();
        assert!(stored <= rest.1 + 3, "{} fds are stored for {count} holds", stored - rest.1);
        for _ in 0..2 {
            keeper.kill();
            let mut raw = keeper.session();
            assert_eq!(list(&mut raw).unwrap().len(), count);
            assert!(things.iter().all(|(_, thing)| thing.is_open()));
        }
        let mut raw = keeper.session();
        for (n, (line, thing)) in things.iter().enumerate() {
            let take = Take { name: format!("n:{n}"), keep: false };
            let mut got = ask(&mut raw, &take, &[]).unwrap();
            let fd = got.fds.pop().unwrap();
            let took: Took = got.read();
            assert_eq!(took.attachment, format!("of {n}").as_bytes());
            let hour = 3_600_000_000_000;
            assert!(if n % 2 == 0 { took.ttl == 0 } else { took.ttl > hour / 2 && took.ttl < hour });
            tell(&mut raw, &Taken { hold: took.hold }, &[]).unwrap();
            thing.check(fd, line);
        }
        assert!(list(&mut raw).unwrap().is_empty());
        drop(raw);
        // The last ones are really closed, and nothing is left anywhere.
        eventually("all are closed", || things.iter().all(|(_, t)| !t.is_open()));
        eventually("nothing is stored", || keeper.fds() == rest);
    }
}

#[test]
fn what_is_let_go_is_closed_soon_and_stays_gone() {
    let keeper = Keeper::start();
    let mut raw = keeper.session();
    let mut give = |name: &str, ttl| {
        let (fd, thing) = thing(0, "x");
        ask(&mut raw, &hold(name, b"", ttl, true), &[fd.as_raw_fd()]).unwrap().read::<Done>();
        thing
    };
    let stays = give("stays", 0);
    let (dropped, replaced) = (give("dropped", 0), give("replaced", 0));
    let (new, expires) = (give("replaced", 0), give("expires", 50_000_000));
    let later = give("later", 400_000_000);
    ask(&mut raw, &DropHold { name: "dropped".into() }, &[]).unwrap().read::<Done>();
    let start = Instant::now();
    eventually("both are closed", || !dropped.is_open() && !replaced.is_open());
    assert!(start.elapsed() < Duration::from_secs(10));
    eventually("its time comes", || !expires.is_open());
    // Later may have come already, on a slow machine.
    assert!(stays.is_open() && new.is_open());
    // Killed directly after it was let go: it does not come back, and is closed by the next evd.
    ask(&mut raw, &DropHold { name: "stays".into() }, &[]).unwrap().read::<Done>();
    keeper.kill();
    let mut raw = keeper.session();
    let names: Vec<String> = list(&mut raw).unwrap().into_iter().map(|h| h.name).collect();
    assert!(names == ["later", "replaced"] || names == ["replaced"], "{names:?}");
    eventually("they are closed", || !stays.is_open() && !later.is_open());
    assert!(new.is_open());
}

#[test]
fn a_take_that_evd_did_not_hear_the_end_of_can_be_ended_with_the_next_one() {
    let keeper = Keeper::start();
    let mut raw = keeper.session();
    let (fd, thing) = thing(0, "x");
    ask(&mut raw, &hold("a", b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    drop(fd);
    let take = Take { name: "a".into(), keep: false };
    let mut got = ask(&mut raw, &take, &[]).unwrap();
    let (took, fd) = (got.read::<Took>(), got.fds.pop().unwrap());
    keeper.kill();
    // It is with its taker, and still held: nothing is lost at any moment.
    let mut raw = keeper.session();
    assert_eq!(list(&mut raw).unwrap().len(), 1);
    tell(&mut raw, &Taken { hold: took.hold }, &[]).unwrap();
    assert_eq!(ask(&mut raw, &take, &[]).unwrap().read::<Refused>().code, Code::Unknown);
    assert!(thing.is_open());
    thing.check(fd, "x");
    eventually("it is closed", || !thing.is_open());
}

#[test]
fn it_ends_as_it_is_told_and_does_not_repeat_a_mistake() {
    for signo in [libc::SIGTERM, libc::SIGINT] {
        let mut keeper = Keeper::start();
        let mut raw = keeper.session();
        let (fd, thing) = thing(0, "x");
        ask(&mut raw, &hold("a", b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
        drop(fd);
        sys::send_signal(keeper.process.id() as i32, signo).unwrap();
        assert!(keeper.process.wait().unwrap().success());
        assert!(!keeper.path().exists() && !thing.is_open(), "with it goes what is held");
        assert_eq!(std::fs::read_dir(&keeper.dir.0).unwrap().count(), 2, "but for lock and log");
    }
    let dir = crate::wire::Dir::new();
    let mut c = command(&dir.socket());
    c.args(["--keeper", "--allow-uid", "nobody-by-name"]);
    assert_eq!(outcome(c).0, Some(2));
    let keeper = Keeper::start();
    let mut c = command(&keeper.path());
    c.arg("--keeper");
    assert_eq!(outcome(c).0, Some(75));
}

#[test]
fn only_evd_itself_can_store_something() {
    let keeper = Keeper::start();
    let before = keeper.fds();
    let mut path = keeper.path().into_os_string();
    path.push(".sd");
    let null = sys::reserve_fd().unwrap();
    for text in ["FDSTORE=1\nFDNAME=h0.1", "FDSTOREREMOVE=1\nFDNAME=evd", "READY=1", "\u{7f}=\n\n="] {
        sys::notify(&path, text, &[null.as_raw_fd()], Duration::from_secs(5)).unwrap();
    }
    // Behind them in the same queue.
    keeper.kill();
    assert_eq!(keeper.fds(), before);
}

#[test]
fn evd_ends_with_its_keeper_and_another_one_takes_its_place() {
    let mut keeper = Keeper::start();
    let mut raw = keeper.session();
    let (fd, thing) = thing(0, "x");
    ask(&mut raw, &hold("a", b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    drop(fd);
    keeper.process.kill().unwrap();
    keeper.process.wait().unwrap();
    // In order: its clients are told.
    let mut last = None;
    while let Some(got) = raw.next_or_end() {
        last = Some(got.kind);
    }
    assert_eq!(last, Some(Kind::Closing));
    eventually("what was held is closed", || !thing.is_open());
    let mut c = command(&keeper.path());
    c.args(["--keeper"]).stdin(Stdio::null());
    keeper.process = dies_with_us(&mut c).spawn().unwrap();
    keeper.back();
    assert!(list(&mut keeper.session()).unwrap().is_empty());
}
