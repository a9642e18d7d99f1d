//! evd has only few fds: whoever asks for too much serves himself, and nobody else notices.

use crate::parts::*;
use crate::role::{Process, hear, say};
use crate::wire::{Evd, PATIENCE, Raw, eventually, hello};
use evd_client::{Error, Event, EventBase};
use evd_proto::frame::Kind;
use evd_proto::reply::{Code, Refused};
use evd_proto::sys::{self, Wake};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// An evd that may open so many files.
fn small_evd(files: u64) -> Evd {
    Evd::start_with(|c| {
        dies_with_us(c);
        let limit = move || {
            let lim = libc::rlimit { rlim_cur: files, rlim_max: files };
            // SAFETY: `lim` is live for the call.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &lim) };
            Ok(())
        };
        // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe.
        unsafe { c.pre_exec(limit) };
    })
}

/// Sets what evd may open from now on; returns what it might.
fn limit_files(evd: &Evd, soft: u64) -> u64 {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: null asks only; `old` is writable for the call.
    let asked = unsafe { libc::prlimit(evd.pid(), libc::RLIMIT_NOFILE, std::ptr::null(), &mut old) };
    assert_eq!(asked, 0);
    let new = libc::rlimit { rlim_cur: soft, rlim_max: old.rlim_max };
    // SAFETY: `new` is live for the call, and null wants no answer.
    let set = unsafe { libc::prlimit(evd.pid(), libc::RLIMIT_NOFILE, &new, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    old.rlim_cur
}

/// How long a process has run, with those of its threads that have ended.
fn ran(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap());
    // A hundred a second.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Sockets that a base reads, one byte a round.
struct Readers {
    events: Vec<(Event<UnixStream>, Count)>,
    peers: Vec<UnixStream>,
    rounds: usize,
}

impl Readers {
    fn new(base: &EventBase, n: usize) -> Readers {
        let (near, peers): (Vec<_>, Vec<_>) = (0..n).map(|_| pair()).unzip();
        let events = near.into_iter().map(|s| reader(base, s)).collect();
        Readers { events, peers, rounds: 0 }
    }

    fn all_get_a_byte(&mut self, base: &EventBase) {
        self.peers.iter_mut().for_each(|p| p.write_all(b"x").unwrap());
        self.rounds += 1;
        until(base, "a byte of each", || self.events.iter().all(|(_, got)| got.get() == self.rounds));
    }
}

#[test]
fn a_client_that_wants_more_fds_than_evd_has_serves_the_rest_itself() {
    let evd = small_evd(64);
    let modest = base_at(&evd.path(), "modest");
    let mut few = Readers::new(&modest, 5);
    park(&modest, 5);
    let link = modest.link();
    let mut process = Process::start("greedy", &evd.path(), &[]);
    let mut more = Vec::new();
    for i in 1..=3 {
        process.says("all came");
        few.all_get_a_byte(&modest);
        // There is still room for what others pass.
        more.push(Readers::new(&modest, 5));
        park(&modest, 5 + 5 * i);
        process.tell("once more");
    }
    process.says("evd has room again");
    process.ends();
    few.all_get_a_byte(&modest);
    more.iter_mut().for_each(|m| m.all_get_a_byte(&modest));
    assert_eq!(modest.link(), link, "it was never lost");
}

/// A role: wants too much for a while, and then less.
pub fn greedy(socket: &Path, _: &[&str]) {
    // With this method evd needs a copy of each.
    let builder = EventBase::builder().socket(socket).name("greedy").connect().method("poll");
    let base = builder.ignore_env().patience(PATIENCE).liveness(50 * MS).build().unwrap();
    let links = links(&base);
    let mut many = Readers::new(&base, 100);
    base.sync().unwrap();
    let (parked, local) = base.watches();
    assert!((5..=32).contains(&parked) && local == 100 - parked, "{:?}", (parked, local));
    for _ in 0..3 {
        many.all_get_a_byte(&base);
        run_for(&base, 50 * MS);
        say("all came");
        assert_eq!(hear(), "once more");
    }
    many.events.truncate(5);
    many.peers.truncate(5);
    for (event, _) in &many.events {
        // What was refused is asked for again when it is added again.
        event.del().unwrap();
        event.add(None).unwrap();
    }
    park(&base, 5);
    many.all_get_a_byte(&base);
    assert!(links.borrow().is_empty(), "{links:?}");
    say("evd has room again");
}

#[test]
fn files_that_evd_must_keep_are_watched_here_when_it_has_no_room() {
    let evd = small_evd(64);
    let base = base(&evd);
    let link = base.link();
    let fired = Count::default();
    let events: Vec<Event<Wake>> = (0..100)
        .map(|_| {
            let of = Rc::clone(&fired);
            let event = Event::new(&base, Wake::new().unwrap(), READ, move |event, _| {
                assert!(event.source().drain());
                count(&of);
            });
            let event = event.unwrap();
            event.add(None).unwrap();
            event
        })
        .collect();
    base.sync().unwrap();
    assert!((5..=32).contains(&base.watches().0), "{:?}", base.watches());
    for round in 1..=3 {
        events.iter().for_each(|e| e.source().notify());
        until(&base, "all", || fired.get() == 100 * round);
        run_for(&base, 30 * MS);
        assert_eq!(fired.get(), 100 * round);
    }
    assert_eq!(base.link(), link);
}

#[test]
fn holds_leave_fds_for_others() {
    let evd = small_evd(64);
    let base = base(&evd);
    let link = base.link();
    let (near, _far) = pair();
    let mut held = 0;
    let why = loop {
        match base.hold(&format!("hold:{held}"), &near, b"", None) {
            Ok(()) => held += 1,
            Err(Error::Refused(why)) => break why,
            Err(e) => panic!("{e}"),
        }
    };
    // Three eighths, as each is open and twice on its way while a parcel is made anew; and something is left for the next user.
    assert_eq!((why.code, why.limit, why.value, held), (Code::Limit, 23, 23, 23));
    let mut others = Readers::new(&base, 10);
    park(&base, 10);
    others.all_get_a_byte(&base);
    base.drop_held("hold:0").unwrap();
    base.hold("again", &near, b"", None).unwrap();
    assert_eq!(base.link(), link);
}

#[test]
fn connections_leave_fds_for_those_who_are_here_and_evd_accepts_again_when_some_leave() {
    let evd = small_evd(64);
    let base = base_at(&evd.path(), "modest");
    let link = base.link();
    let mut all = Vec::new();
    let why = loop {
        let mut one = Raw::connect(&evd.path());
        one.send(&hello("many", ""));
        match one.next() {
            got if got.kind == Kind::Refused => break got.read::<Refused>(),
            _ => all.push(one),
        }
        assert!(all.len() < 64);
    };
    // What a user may have is a part of what evd may open.
    let full = |code| matches!(code, Code::Limit | Code::OutOfFds);
    assert!(full(why.code), "{why:?}");
    assert!(all.len() > 3);
    let refused = EventBase::builder().socket(evd.path()).patience(PATIENCE).connect().build().unwrap_err();
    assert!(matches!(refused, Error::Refused(r) if full(r.code)));
    // It would rather be there, but goes on without.
    let local = EventBase::builder().socket(evd.path()).patience(PATIENCE).build().unwrap();
    let mut theirs = Readers::new(&local, 3);
    theirs.all_get_a_byte(&local);
    why_away(&local);
    let mut mine = Readers::new(&base, 10);
    park(&base, 10);
    mine.all_get_a_byte(&base);
    assert_eq!(base.link(), link);
    drop(all);
    until(&local, "there is room", || is_up(&local));
    park(&local, 3);
    theirs.all_get_a_byte(&local);
}

#[test]
fn an_evd_that_can_not_accept_does_not_spin() {
    let evd = evd();
    let base = base_at(&evd.path(), "modest");
    let mut mine = Readers::new(&base, 5);
    park(&base, 5);
    // From now on it gets no new number.
    let open = |n: &u64| Path::new(&format!("/proc/{}/fd/{n}", evd.pid())).exists();
    let before = limit_files(&evd, (0..).find(|n| !open(n)).unwrap());
    let waiting: Vec<_> = (0..50).map(|_| sys::connect(&evd.path()).unwrap()).collect();
    let (slept, cpu) = (sleeps(evd.pid()), ran(evd.pid()));
    mine.all_get_a_byte(&base);
    run_for(&base, Duration::from_secs(1));
    let (slept, cpu) = (sleeps(evd.pid()).saturating_sub(slept), ran(evd.pid()) - cpu);
    assert!(slept < 300 && cpu < 300 * MS, "woken {slept} times, ran for {cpu:?}");
    limit_files(&evd, before);
    drop(waiting);
    eventually("it accepts again", || {
        let mut one = Raw::connect(&evd.path());
        one.send(&hello("again", ""));
        one.next().kind == Kind::Welcome
    });
    // The fds that it parked meanwhile were lost on the way: that ended its session, and it came back.
    until(&base, "all is well", || is_up(&base));
    park(&base, 5);
    mine.all_get_a_byte(&base);
}

#[test]
fn a_client_without_fds_is_told_so_and_what_it_takes_stays_held() {
    let evd = evd();
    let base = base(&evd);
    let (near, _far) = pair();
    base.hold("wanted", &near, b"", None).unwrap();
    let process = Process::start("without_fds", &evd.path(), &[]);
    process.says("it has it");
    process.ends();
}

/// A role: takes something while it has no fd left for it, and once more.
pub fn without_fds(socket: &Path, _: &[&str]) {
    let base = base_at(socket, "without_fds");
    let links = links(&base);
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `old` is writable for the call.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut old) }, 0);
    let limit = |files: u64| {
        let new = libc::rlimit { rlim_cur: files, ..old };
        // SAFETY: `new` is live for the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &new) }, 0);
    };
    // The lowest number that is free: all below it are used.
    let free = sys::reserve_fd().unwrap().as_raw_fd();
    limit(free as u64);
    match base.take("wanted") {
        Err(Error::Os(e)) => assert!(e.to_string().contains("RLIMIT_NOFILE"), "{e}"),
        other => panic!("{other:?}"),
    }
    let why = why_away(&base);
    assert!(why.contains("RLIMIT_NOFILE"), "{why}");
    limit(old.rlim_cur);
    until(&base, "evd is found again", || is_up(&base) && links.borrow().len() > 1);
    assert_eq!(links.borrow().len(), 2, "{links:?}");
    eventually("evd knows that it has not arrived", || base.take("wanted").is_ok());
    say("it has it");
}
