//! evd is killed at its system calls, one after the other: what was said to be held is held, and what was not is held or not, but never half.

use crate::kept::*;
use crate::wire::eventually;
use evd_proto::reply::{Done, Took};
use evd_proto::request::{Drop as DropHold, Sync as SyncAll, Take, Taken};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

/// Kills evd with the `nth` of this call from now on.
fn kill_at(keeper: &Keeper, call: &str, nth: usize) -> std::process::Child {
    let pid = keeper.evd().unwrap();
    let mut c = Command::new("strace");
    c.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
    c.args(["-e"]).arg(format!("inject={call}:signal=KILL:when={nth}")).arg("-p").arg(pid.to_string());
    let child = dies_with_us(&mut c).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let traced = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("status"))
            .is_ok_and(|s| s.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0")))
    };
    let all = || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|t| t.flatten().all(traced));
    eventually("all of its threads are traced", all);
    child
}

fn has_strace() -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !there {
        println!("skipped: needs strace");
    }
    there
}

/// One run: `call` kills evd at its `nth` time while a hold is put, one taken and one dropped. `first`: it is the user's first one, so there is nothing to take
/// or drop, and the parcel is made and stored; otherwise the hold goes into a parcel that is there. Returns whether evd was killed.
fn run(keeper: &Keeper, call: &str, nth: usize, first: bool) -> bool {
    eventually("evd is sure of itself", || keeper.is_settled());
    let mut raw = keeper.session();
    let mut put = |name: &str, attachment: &[u8]| {
        let (fd, thing) = thing(0, name);
        ask(&mut raw, &hold(name, attachment, 0, true), &[fd.as_raw_fd()]).unwrap().read::<Done>();
        thing
    };
    let before = (!first).then(|| (put("old", b"1"), put("gone", b"")));
    let mut strace = kill_at(keeper, call, nth);
    // What is said to be done, in this order.
    let (fd, new) = thing(0, "new");
    let put = ask(&mut raw, &hold("new", b"2", 0, true), &[fd.as_raw_fd()]).is_some();
    drop(fd);
    let take = Take { name: "old".into(), keep: false };
    let got = if put && !first { ask(&mut raw, &take, &[]) } else { None };
    let taken = got.map(|mut got| (got.read::<Took>(), got.fds.pop().unwrap()));
    let asked = taken.is_some();
    let dropped = asked && ask(&mut raw, &DropHold { name: "gone".into() }, &[]).is_some();
    let _ = strace.kill();
    strace.wait().unwrap();
    // What was said to this evd must not be said again by somebody else while it lives.
    let is_killed = ask(&mut raw, &SyncAll {}, &[]).is_none();
    if is_killed {
        raw = keeper.session();
    }
    if let (Some((old, _)), Some((took, fd))) = (&before, taken) {
        assert_eq!(took.attachment, b"1");
        old.check(fd, "old");
        tell(&mut raw, &Taken { hold: took.hold }, &[]).unwrap();
        ask(&mut raw, &SyncAll {}, &[]).unwrap();
    }
    let names: Vec<String> = list(&mut raw).unwrap().into_iter().map(|h| h.name).collect();
    let has = |name: &str| names.iter().any(|n| n == name);
    let at = format!("{call} {nth}, first: {first}: {names:?}");
    assert!(has("new") || !put, "{at}");
    assert!(!has("old") || !asked, "{at}");
    assert!(!has("gone") || !dropped, "{at}");
    // It was asked for only behind the take.
    assert!(first || has("gone") || asked, "{at}");
    if has("new") {
        let mut got = ask(&mut raw, &Take { name: "new".into(), keep: true }, &[]).unwrap();
        assert_eq!(got.read::<Took>().attachment, b"2");
        new.check(got.fds.pop().unwrap(), "new");
    }
    for name in names {
        ask(&mut raw, &DropHold { name }, &[]).unwrap().read::<Done>();
    }
    drop(raw);
    eventually("all are closed", || {
        !new.is_open() && before.as_ref().is_none_or(|(old, gone)| !old.is_open() && !gone.is_open())
    });
    is_killed
}

/// All times of a call, until it does not come so often any more.
fn run_all(calls: &[&str], first: bool) -> usize {
    let keeper = Keeper::start();
    let rest = keeper.fds();
    let mut kills = 0;
    for call in calls {
        let count = (1..).take_while(|nth| run(&keeper, call, *nth, first)).count();
        println!("{call}: {count} kills");
        kills += count;
    }
    eventually("nothing is left", || keeper.fds() == rest);
    kills
}

#[test]
fn a_kill_at_any_call_of_a_put_a_take_and_a_drop_loses_nothing() {
    if has_strace() {
        assert!(run_all(&["sendmsg", "pwrite64", "recvmsg"], false) >= 8);
    }
}

#[test]
fn a_kill_between_taking_an_fd_and_storing_it_leaves_it_held_or_closed() {
    if has_strace() {
        // The parcel is made, and given to the service manager in several messages, before the client is answered.
        assert!(run_all(&["socketpair", "memfd_create", "pwrite64", "sendmsg", "pipe2"], true) >= 8);
    }
}

#[test]
fn old_things_are_let_go_when_the_store_is_cleared() {
    // The whole life of one hold leaves nothing behind in either process.
    let keeper = Keeper::start();
    let rest = keeper.fds();
    for _ in 0..20 {
        let mut raw = keeper.session();
        let (fd, thing) = thing(0, "x");
        ask(&mut raw, &hold("a", &[1; 16_000], 0, false), &[fd.as_raw_fd()]).unwrap().read::<Done>();
        drop(fd);
        assert!(thing.is_open());
        ask(&mut raw, &DropHold { name: "a".into() }, &[]).unwrap().read::<Done>();
        eventually("it is closed", || !thing.is_open());
    }
    eventually("nothing is left", || keeper.fds() == rest);
}
