//! What the keeper promises.

use crate::kept::*;
use crate::wire::{command, eventually, limit_files, outcome};
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Done, Refused, Took};
use evd_proto::request::{Drop as DropHold, ListHolds, Take, Taken};
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
        assert!(!keeper.path().exists());
        // What was in flight in a socket is closed by the kernel when it comes to it, which may be after the process is gone.
        eventually("with it goes what is held", || !thing.is_open());
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
    let (null, notifier) = (sys::reserve_fd().unwrap(), sys::Notifier::new(path.as_os_str()).unwrap());
    for text in ["FDSTORE=1\nFDNAME=h0.1", "FDSTOREREMOVE=1\nFDNAME=evd", "READY=1", "\u{7f}=\n\n="] {
        notifier.tell(text, &[null.as_raw_fd()], Duration::from_secs(5)).unwrap();
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

#[test]
fn a_frozen_keeper_stops_nobody() {
    let keeper = Keeper::start();
    let pid = keeper.process.id() as i32;
    let mut raw = keeper.session();
    let mut put = |name: &str| {
        let (fd, thing) = thing(0, name);
        ask(&mut raw, &hold(name, b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
        thing
    };
    let (kept, gone) = (put("kept"), put("gone"));
    sys::send_signal(pid, libc::SIGSTOP).unwrap();
    // More than its queue takes of what evd tells about each of them.
    for _ in 0..700 {
        drop(keeper.session());
    }
    let late = put("late");
    ask(&mut raw, &DropHold { name: "gone".into() }, &[]).unwrap().read::<Done>();
    drop(keeper.session());
    sys::send_signal(pid, libc::SIGCONT).unwrap();
    eventually("it is closed when the keeper is back", || !gone.is_open());
    keeper.kill();
    assert_eq!(list(&mut keeper.session()).unwrap().len(), 2);
    assert!(kept.is_open() && late.is_open());
}

#[test]
fn a_keeper_with_few_fds_keeps_what_it_can_and_starts_evd_again() {
    if sys::effective_ids().0 != 0 {
        println!("skipped: only root can be somebody else");
        return;
    }
    let users = 61_300..61_316;
    let all: Vec<String> = users.clone().map(|u| u.to_string()).collect();
    let keeper = Keeper::start_with(|c| {
        limit_files(c, 96);
        c.args(["--allow-uid", &all.join(",")]);
    });
    // Who has only looked has nothing stored.
    for uid in users.clone() {
        list(&mut keeper.session_of(uid)).unwrap();
    }
    let mut held = Vec::new();
    for uid in users {
        let (fd, thing) = thing(0, "x");
        let got = ask(&mut keeper.session_of(uid), &hold("a", b"", 0, false), &[fd.as_raw_fd()]).unwrap();
        if got.kind == Kind::Done {
            held.push((uid, thing));
        }
    }
    assert!((2..16).contains(&held.len()), "{}", held.len());
    keeper.kill();
    for (uid, thing) in held {
        // While all are read at once there may be no room for some, which are tried again.
        let back = || ask(&mut keeper.session_of(uid), &ListHolds { after: String::new() }, &[]).unwrap();
        eventually("they are read", || back().kind == Kind::Holds);
        assert_eq!(list(&mut keeper.session_of(uid)).unwrap().len(), 1);
        assert!(thing.is_open());
    }
}

#[test]
fn a_keeper_that_is_told_to_end_at_any_moment_ends() {
    for n in 0..40u32 {
        let dir = crate::wire::Dir::new();
        let mut c = command(&dir.socket());
        let log = std::fs::File::create(dir.0.join("log")).unwrap();
        let mut keeper =
            dies_with_us(&mut c).arg("--keeper").stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let mut sd = dir.socket().into_os_string();
        sd.push(".sd");
        eventually("it is about to start evd", || std::path::Path::new(&sd).exists());
        for _ in 0..n * 2000 {
            std::hint::spin_loop();
        }
        sys::send_signal(keeper.id() as i32, libc::SIGTERM).unwrap();
        let status = keeper.wait().unwrap();
        assert!(status.success(), "{status}: {}", std::fs::read_to_string(dir.0.join("log")).unwrap());
    }
}

/// It may write files of so many bytes.
fn limit_file_size(c: &mut std::process::Command, bytes: u64) {
    use std::os::unix::process::CommandExt;
    let limit = move || {
        let lim = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: `lim` is live for the call.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &lim) };
        Ok(())
    };
    // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe.
    unsafe { c.pre_exec(limit) };
}

#[test]
fn a_limit_on_the_size_of_files_refuses_holds_and_ends_nobody() {
    let keeper = Keeper::start_with(|c| limit_file_size(c, 0));
    let pid = keeper.evd();
    let mut raw = keeper.session();
    let (fd, thing) = thing(0, "x");
    let got = ask(&mut raw, &hold("a", b"", 0, false), &[fd.as_raw_fd()]).unwrap();
    assert_eq!(got.read::<Refused>().code, Code::System);
    drop(fd);
    eventually("it is closed", || !thing.is_open());
    assert!(list(&mut raw).unwrap().is_empty());
    assert!(pid.is_some());
    assert_eq!(keeper.evd(), pid);
}

#[test]
fn an_evd_that_ends_at_once_is_started_more_and_more_slowly() {
    let keeper = Keeper::start_replaceable(|_| {});
    keeper.replace("[ -e \"$0.bad\" ] && kill -KILL $$");
    let bad = keeper.dir.0.join("evd.bad");
    std::fs::write(&bad, "").unwrap();
    let begin = Instant::now();
    sys::send_signal(keeper.evd().unwrap(), libc::SIGKILL).unwrap();
    eventually("it was started often", || keeper.log().contains("again in 320 ms"));
    assert!(begin.elapsed() >= Duration::from_millis(5 * 20 + 40 + 80 + 160));
    let log = keeper.log();
    let pauses: Vec<&str> =
        log.lines().filter_map(|l| Some(l.split_once("again in ")?.1.split_once(' ')?.0)).collect();
    assert_eq!(pauses[..9], ["20", "20", "20", "20", "20", "40", "80", "160", "320"], "{log}");
    std::fs::remove_file(&bad).unwrap();
    keeper.back();
}

#[test]
fn an_evd_that_is_frozen_is_replaced_and_what_is_held_is_there() {
    let keeper = Keeper::start_with(|c| {
        c.env("WATCHDOG_USEC", "1000000");
    });
    let mut raw = keeper.session();
    let (fd, thing) = thing(0, "x");
    ask(&mut raw, &hold("a", b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    for _ in 0..2 {
        let frozen = keeper.evd().unwrap();
        sys::send_signal(frozen, libc::SIGSTOP).unwrap();
        eventually("another evd is there", || keeper.evd().is_some_and(|p| p != frozen));
        assert_eq!(list(&mut keeper.session()).unwrap().len(), 1);
        assert!(thing.is_open());
    }
    assert!(keeper.log().contains("says nothing any more; it is killed"), "{}", keeper.log());
}

#[test]
fn an_evd_that_is_well_is_not_killed_by_its_keeper() {
    let usec = 3_000_000;
    let keeper = Keeper::start_with(|c| {
        // This one is the keeper's own, if it was any's.
        c.env("WATCHDOG_USEC", usec.to_string()).env("WATCHDOG_PID", "1");
    });
    let pid = keeper.evd().unwrap();
    // Time must pass: the keeper was frozen for longer than evd may be silent, and then is not for as long.
    sys::send_signal(keeper.process.id() as i32, libc::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_micros(usec * 3 / 2));
    sys::send_signal(keeper.process.id() as i32, libc::SIGCONT).unwrap();
    std::thread::sleep(Duration::from_micros(usec * 3 / 2));
    assert_eq!(keeper.evd(), Some(pid), "{}", keeper.log());
    assert!(!keeper.log().contains("killed"), "{}", keeper.log());
}

#[test]
fn a_keeper_that_is_told_to_end_does_not_wait_for_ever_for_an_evd_that_is_frozen() {
    let mut keeper = Keeper::start();
    sys::send_signal(keeper.evd().unwrap(), libc::SIGSTOP).unwrap();
    sys::send_signal(keeper.process.id() as i32, libc::SIGTERM).unwrap();
    assert_eq!(keeper.process.wait().unwrap().code(), Some(128 + libc::SIGKILL));
    assert!(keeper.log().contains("does not end; it is killed"), "{}", keeper.log());
    assert!(!keeper.path().exists());
}

#[test]
fn sockets_that_somebody_has_removed_are_made_anew_with_the_next_evd() {
    let keeper = Keeper::start();
    let mut raw = keeper.session();
    let (fd, thing) = thing(0, "x");
    ask(&mut raw, &hold("a", b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    let before = std::fs::metadata(keeper.path()).unwrap().permissions();
    let mut beside = keeper.path().into_os_string();
    beside.push(".sd");
    for file in [keeper.path(), beside.into()] {
        std::fs::remove_file(&file).unwrap();
        if !keeper.path().exists() {
            // Another one says what is wrong.
            let (status, text) = outcome(command(&keeper.path()));
            assert_eq!(status, Some(75));
            assert!(text.contains("the socket is gone"), "{text}");
        }
        let old = keeper.evd().unwrap();
        sys::send_signal(old, libc::SIGTERM).unwrap();
        eventually("another evd is there", || keeper.evd().is_some_and(|p| p != old));
        keeper.back();
        assert!(file.exists());
        assert_eq!(list(&mut keeper.session()).unwrap().len(), 1);
        assert!(thing.is_open());
    }
    assert_eq!(std::fs::metadata(keeper.path()).unwrap().permissions(), before);
    // What is stored from now on is stored.
    let (fd, _later) = crate::kept::thing(0, "y");
    ask(&mut keeper.session(), &hold("b", b"", 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
    keeper.kill();
    assert_eq!(list(&mut keeper.session()).unwrap().len(), 2);
}
