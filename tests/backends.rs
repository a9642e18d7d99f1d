//! The conformance suite on `Base` itself, for each method, and what is a base's alone.

// The lint knows test functions, but not the helpers of a test file.
#![allow(clippy::unwrap_used)]

mod conformance;
#[cfg_attr(not(target_os = "linux"), path = "models/none.rs")]
mod models;

use conformance::{Closed, Files, Fired, Id, Loop, Refused, os};
use evd::backend::{self, Entry, Features, Interest, Mode, WatchError};
use evd::base::{Activation, Base, Clock, Config, TimerId};
use evd_proto::What;
use evd_proto::sys::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An owner of a base, as simple as can be.
struct BaseLoop {
    base: Base,
    watches: BTreeMap<Id, (RawFd, Interest)>,
    timers: BTreeMap<Id, TimerId>,
    last: Id,
}

fn base(method: &str) -> Option<Base> {
    if let Some(backend) = models::open(method) {
        return Some(Base::on(backend, Clock::Monotonic));
    }
    backend::methods().iter().find(|m| m.name == method)?;
    let config = Config { method: Some(method.into()), ignore_env: true, ..Config::default() };
    Some(Base::new(&config).unwrap())
}

impl Loop for BaseLoop {
    fn open(method: &str) -> Option<Self> {
        let base = base(method)?;
        Some(BaseLoop { base, watches: BTreeMap::new(), timers: BTreeMap::new(), last: 0 })
    }

    fn features(&self) -> Features {
        self.base.features()
    }

    fn files(&self) -> Files {
        // The model of wepoll does not mind what is no socket.
        let any = self.base.features().contains(Features::FDS) || self.base.method() == "wepoll";
        if any { Files::Reported } else { Files::Refused }
    }

    fn closed(&self) -> Closed {
        Closed::of(self.base.method(), self.base.features())
    }

    fn watch(&mut self, old: Option<Id>, fd: BorrowedFd<'_>, what: What, mode: Mode) -> Result<Id, Refused> {
        let id = old.unwrap_or(self.last + 1);
        let interest = Interest { what, mode };
        let entry = if old.is_some() { Entry::Known } else { Entry::New };
        self.base.watch(fd, id, interest, entry).map_err(|e| match e {
            WatchError::AlwaysReady => Refused::AlwaysReady,
            WatchError::BadFd => Refused::BadFd,
            WatchError::Unsupported(_) if mode == Mode::Edge => Refused::Edge,
            other => Refused::Other(other.to_string()),
        })?;
        self.last = self.last.max(id);
        self.watches.insert(id, (fd.as_raw_fd(), interest));
        Ok(id)
    }

    fn unwatch(&mut self, id: Id) {
        let (number, _) = self.watches.remove(&id).unwrap();
        self.base.unwatch(os::lend(number), id);
    }

    fn timer(&mut self, old: Option<Id>, after: Duration) -> Id {
        let id = old.unwrap_or(self.last + 1);
        self.last = self.last.max(id);
        let deadline = self.base.refresh_now() + after.as_nanos() as u64;
        let timer = self.base.set_timer(old.map(|o| self.timers[&o]), deadline, id);
        self.timers.insert(id, timer);
        id
    }

    fn cancel(&mut self, id: Id) {
        self.base.cancel_timer(self.timers.remove(&id).unwrap());
    }

    fn catch_signal(&mut self, signo: i32) {
        self.base.add_signal(signo).unwrap();
    }

    fn waker(&mut self) -> Box<dyn Fn() + Send> {
        let waker = self.base.waker().unwrap();
        Box::new(move || waker.wake())
    }

    fn wait(&mut self, ms: u64) -> Vec<Fired> {
        let longest = Duration::from_millis(ms);
        let timeout = self.base.until_next_timer().map_or(longest, |t| t.min(longest));
        let mut out = Vec::new();
        self.base.wait(Some(timeout), &mut out).unwrap();
        self.base.expire(&mut out);
        let mut fired = Vec::new();
        for activation in out {
            fired.push(match activation {
                Activation::Ready { token, ready } => {
                    let (number, interest) = self.watches[&token];
                    let hit = ready & interest.what;
                    if hit.is_empty() {
                        self.base.mute(os::lend(number), token, interest);
                        continue;
                    }
                    Fired::Ready(token, hit)
                }
                Activation::Timer { token, .. } => {
                    self.timers.remove(&token);
                    Fired::Timer(token)
                }
                Activation::Signal(s) => Fired::Signal(s.signo, s.count),
                Activation::Mail => Fired::Wake,
            });
        }
        fired
    }

    fn poll_outside(&mut self, ms: u64) -> bool {
        self.base.pollable().unwrap();
        let deadline = self.base.next_deadline();
        self.base.arm_pollable(deadline).unwrap();
        let fd = self.base.pollable().unwrap().as_raw_fd();
        let mut fds = [sys::PollFd::new(fd, What::READ)];
        sys::poll(&mut fds, Some(Duration::from_millis(ms))).unwrap() == 1
    }
}

conformance!(BaseLoop:
    epoll = "epoll",
    epoll_with_timerfd = "epoll with timerfd",
    poll = "poll",
    select = "select",
    kqueue = "kqueue",
    kqueue_model = "kqueue (model)",
    evport = "evport",
    evport_model = "evport (model)",
    devpoll = "devpoll",
    devpoll_model = "devpoll (model)",
    wepoll = "wepoll",
    wepoll_model = "wepoll (model)",
    win32 = "win32",
);

#[cfg(windows)]
mod on_handles {
    use super::*;

    handles!(BaseLoop: wepoll = "wepoll", win32 = "win32");
}

const READ: Interest = Interest { what: What::READ, mode: Mode::Level };

fn each_method(test: impl Fn(&str, Base)) {
    for method in backend::methods().iter().map(|m| m.name).chain(models::NAMES) {
        println!("method {method}");
        test(method, base(method).unwrap());
    }
}

fn wait(base: &mut Base) -> Vec<Activation> {
    let mut out = Vec::new();
    base.wait(Some(os::LOOK), &mut out).unwrap();
    out
}

#[test]
fn an_edge_is_refused_where_it_can_not_be_done() {
    each_method(|name, mut base| {
        let (r, _w) = os::pipe();
        let edge = Interest { what: What::READ, mode: Mode::Edge };
        let got = base.watch(r.as_fd(), 1, edge, Entry::New);
        match (base.features().contains(Features::ET), got) {
            (true, Ok(())) => {}
            (false, Err(WatchError::Unsupported(why))) => {
                assert!(why.contains(base.method()), "{name}: {why}")
            }
            (_, got) => panic!("{name}: {got:?}"),
        }
    });
}

#[test]
fn an_edge_that_is_set_anew_is_looked_at_again_also_after_another_mode() {
    each_method(|name, mut base| {
        if !base.features().contains(Features::ET) {
            return;
        }
        let (r, mut w) = os::pipe();
        w.write_all(b"x").unwrap();
        let ready = [Activation::Ready { token: 1, ready: What::READ }];
        for mode in [Mode::Edge, Mode::Edge, Mode::OneShot, Mode::Edge, Mode::Level, Mode::Edge] {
            let interest = Interest { what: What::READ, mode };
            base.watch(r.as_fd(), 1, interest, Entry::Known).unwrap();
            assert_eq!(wait(&mut base), ready, "{name}: {mode:?}");
            let again: &[Activation] = if mode == Mode::Level { &ready } else { &[] };
            assert_eq!(wait(&mut base), again, "{name}: {mode:?}");
        }
        w.write_all(b"x").unwrap();
        assert_eq!(wait(&mut base), ready, "{name}: a new edge");
    });
}

#[test]
fn what_was_read_before_the_wait_is_not_reported() {
    each_method(|name, mut base| {
        let (mut r, mut w) = os::pipe();
        for pollable in [false, true] {
            if pollable {
                base.pollable().unwrap();
            }
            for entry in [Entry::New, Entry::Known] {
                w.write_all(b"x").unwrap();
                base.watch(r.as_fd(), 1, READ, entry).unwrap();
                base.arm_pollable(None).unwrap();
                r.read_exact(&mut [0]).unwrap();
                assert_eq!(wait(&mut base), [], "{name}");
                w.write_all(b"x").unwrap();
                base.arm_pollable(None).unwrap();
                let ready = [Activation::Ready { token: 1, ready: What::READ }];
                assert_eq!(wait(&mut base), ready, "{name}");
                assert_eq!(wait(&mut base), ready, "{name}");
                r.read_exact(&mut [0]).unwrap();
                assert_eq!(wait(&mut base), [], "{name}");
            }
            base.unwatch(r.as_fd(), 1);
        }
    });
}

#[test]
fn what_became_ready_after_the_watch_is_reported_with_what_was_ready_before() {
    each_method(|name, mut base| {
        let (a, mut b) = os::connection();
        let both = Interest { what: What::READ | What::WRITE, mode: Mode::Level };
        for entry in [Entry::New, Entry::Known] {
            base.watch(a.as_fd(), 1, both, entry).unwrap();
            b.write_all(b"x").unwrap();
            sys::poll(&mut [sys::PollFd::new(a.as_raw_fd(), What::READ)], None).unwrap();
            let ready = What::READ | What::WRITE;
            assert_eq!(wait(&mut base), [Activation::Ready { token: 1, ready }], "{name}: {entry:?}");
            (&a).read_exact(&mut [0]).unwrap();
            let ready = What::WRITE;
            assert_eq!(wait(&mut base), [Activation::Ready { token: 1, ready }], "{name}: {entry:?}, read");
        }
    });
}

#[test]
fn wrong_hints_cost_nothing_but_a_call() {
    each_method(|name, mut base| {
        let (r, mut w) = os::pipe();
        w.write_all(b"x").unwrap();
        for (token, entry) in [(1, Entry::Known), (2, Entry::New), (3, Entry::New), (4, Entry::Known)] {
            base.watch(r.as_fd(), token, READ, entry).unwrap();
            assert_eq!(wait(&mut base), [Activation::Ready { token, ready: What::READ }], "{name}");
        }
        let nothing = Interest { what: What::empty(), mode: Mode::Level };
        base.watch(r.as_fd(), 5, nothing, Entry::Known).unwrap();
        assert_eq!(wait(&mut base), [], "{name}");
        base.unwatch(r.as_fd(), 5);
    });
}

#[test]
fn a_number_that_is_another_file_now_is_watched_though_nobody_ended_the_old_watch() {
    each_method(|name, mut base| {
        let (old, mut old_w) = os::pipe();
        let (new, mut new_w) = os::pipe();
        let number = OwnedFd::from(old);
        let once = Interest { what: What::READ, mode: Mode::OneShot };
        let ready = |token| [Activation::Ready { token, ready: What::READ }];
        base.watch(number.as_fd(), 1, once, Entry::New).unwrap();
        old_w.write_all(b"x").unwrap();
        assert_eq!(wait(&mut base), ready(1), "{name}");
        let number = os::exchange(number, new.as_fd());
        new_w.write_all(b"x").unwrap();
        base.watch(number.as_fd(), 2, once, Entry::Known).unwrap();
        assert_eq!(wait(&mut base), ready(2), "{name}");
        let number = os::exchange(number, os::pipe().0.as_fd());
        base.watch(number.as_fd(), 3, once, Entry::New).unwrap();
        let number = os::exchange(number, new.as_fd());
        base.watch(number.as_fd(), 4, READ, Entry::New).unwrap();
        assert!(wait(&mut base).contains(&ready(4)[0]), "{name}");
        base.unwatch(number.as_fd(), 4);
    });
}

#[test]
fn a_watch_that_rests_says_nothing_and_is_watched_again_for_less() {
    each_method(|name, mut base| {
        let (r, mut w) = os::pipe();
        w.write_all(b"x").unwrap();
        let ready = |token| [Activation::Ready { token, ready: What::READ }];
        base.watch(r.as_fd(), 1, READ, Entry::New).unwrap();
        assert_eq!(wait(&mut base), ready(1), "{name}");
        let added = base.added();
        base.rest(r.as_fd(), 1, false);
        base.watch(r.as_fd(), 2, READ, Entry::New).unwrap();
        assert_eq!(wait(&mut base), ready(2), "{name}");
        base.rest(r.as_fd(), 2, false);
        base.watch(r.as_fd(), 3, READ, Entry::New).unwrap();
        base.rest(r.as_fd(), 3, false);
        assert_eq!(wait(&mut base), [], "{name}");
        let once = Interest { what: What::READ, mode: Mode::OneShot };
        base.watch(r.as_fd(), 4, once, Entry::New).unwrap();
        for token in 4..8 {
            assert_eq!(wait(&mut base), ready(token), "{name}");
            base.rest(r.as_fd(), token, true);
            assert_eq!(wait(&mut base), [], "{name}");
            base.watch(r.as_fd(), token + 1, once, Entry::New).unwrap();
        }
        if name.starts_with("epoll") {
            assert_eq!(base.added(), added + 1, "{name}: only after the wait that it rested in");
        }
        base.unwatch(r.as_fd(), 8);
        assert_eq!(wait(&mut base), [], "{name}");
    });
}

#[test]
fn what_rested_and_is_forgotten_is_not_kept_alive_by_a_dup() {
    each_method(|name, mut base| {
        for spent in [false, true] {
            let (r, mut w) = os::pipe();
            let kept = os::dup_above(r.as_fd(), 0);
            let number = OwnedFd::from(r);
            let mode = if spent { Mode::OneShot } else { Mode::Level };
            let interest = Interest { what: What::READ, mode };
            w.write_all(b"x").unwrap();
            base.watch(number.as_fd(), 1, interest, Entry::New).unwrap();
            assert_eq!(wait(&mut base).len(), 1, "{name}");
            base.rest(number.as_fd(), 1, spent);
            base.forget(number.as_fd());
            let _number = os::exchange(number, os::pipe().0.as_fd());
            assert_eq!(wait(&mut base), [], "{name}");
            drop(kept);
        }
    });
}

#[test]
fn a_number_that_rested_and_is_another_file_now_is_watched() {
    each_method(|name, mut base| {
        for spent in [false, true] {
            let (old, mut old_w) = os::pipe();
            let (new, mut new_w) = os::pipe();
            let number = OwnedFd::from(old);
            let mode = if spent { Mode::OneShot } else { Mode::Level };
            let interest = Interest { what: What::READ, mode };
            old_w.write_all(b"x").unwrap();
            base.watch(number.as_fd(), 1, interest, Entry::New).unwrap();
            assert_eq!(wait(&mut base).len(), 1, "{name}");
            base.rest(number.as_fd(), 1, spent);
            let number = os::exchange(number, new.as_fd());
            base.watch(number.as_fd(), 2, interest, Entry::New).unwrap();
            assert_eq!(wait(&mut base), [], "{name}");
            new_w.write_all(b"x").unwrap();
            assert_eq!(wait(&mut base), [Activation::Ready { token: 2, ready: What::READ }], "{name}");
            base.unwatch(number.as_fd(), 2);
        }
    });
}

#[test]
fn an_fd_closed_while_watched_does_not_stop_the_others() {
    sys::raise_open_files().unwrap();
    each_method(|name, mut base| {
        let (r, mut w) = os::pipe();
        let (dead, _w) = os::pipe();
        // A number that no other test takes when it is free.
        let high = os::dup_above(dead.as_fd(), 9000);
        base.watch(high.as_fd(), 1, READ, Entry::New).unwrap();
        base.watch(r.as_fd(), 2, READ, Entry::New).unwrap();
        w.write_all(b"x").unwrap();
        drop((dead, high));
        for _ in 0..3 {
            let out = wait(&mut base);
            assert!(out.contains(&Activation::Ready { token: 2, ready: What::READ }), "{name}: {out:?}");
        }
    });
}

#[test]
fn a_muted_watch_is_heard_again_after_a_second() {
    for method in ["epoll", "poll"].into_iter().filter(|m| base(m).is_some()) {
        let ns = Arc::new(AtomicU64::new(5));
        let clock = Clock::Manual(Arc::clone(&ns));
        let config = Config { method: Some(method.into()), ignore_env: true, clock, ..Config::default() };
        let mut base = Base::new(&config).unwrap();
        let (r, w) = os::pipe();
        let closed = Interest { what: What::CLOSED, mode: Mode::Level };
        base.watch(r.as_fd(), 7, closed, Entry::New).unwrap();
        drop(w);
        let hang_up = [Activation::Ready { token: 7, ready: What::READ | What::WRITE }];
        for _ in 0..3 {
            assert_eq!(wait(&mut base), hang_up, "{method}");
            base.mute(r.as_fd(), 7, closed);
            assert_eq!((base.timers(), base.next_deadline()), (0, Some(base.now() + 1_000_000_000)));
            let mut out = Vec::new();
            for _ in 0..5 {
                out.extend(wait(&mut base));
                base.expire(&mut out);
            }
            assert_eq!(out, [], "{method}");
            ns.fetch_add(1_000_000_000, Ordering::SeqCst);
            base.refresh_now();
            base.expire(&mut out);
            assert_eq!((out, base.next_deadline()), (Vec::new(), None), "{method}");
        }
        base.mute(r.as_fd(), 7, closed);
        base.unwatch(r.as_fd(), 7);
        assert_eq!((wait(&mut base), base.next_deadline()), (vec![], None), "{method}");
    }
}

#[test]
fn muting_a_watch_that_has_what_it_wants_changes_nothing() {
    each_method(|name, mut base| {
        let (r, mut w) = os::pipe();
        base.watch(r.as_fd(), 7, READ, Entry::New).unwrap();
        base.mute(r.as_fd(), 7, READ);
        w.write_all(b"x").unwrap();
        base.mute(r.as_fd(), 7, READ);
        assert_eq!(base.next_deadline(), None, "{name}");
        assert_eq!(wait(&mut base), [Activation::Ready { token: 7, ready: What::READ }], "{name}");
    });
}

#[test]
fn kinds_come_in_their_order_and_timers_by_the_bases_clock() {
    let ns = Arc::new(AtomicU64::new(100));
    let config = Config { clock: Clock::Manual(Arc::clone(&ns)), ..Config::default() };
    let mut base = Base::new(&config).unwrap();
    let (r, mut w) = os::pipe();
    base.waker().unwrap().wake();
    base.add_signal(os::RARE_SIGNAL).unwrap();
    base.add_signal(os::RARE_SIGNAL).unwrap();
    assert_eq!(base.signals().collect::<Vec<_>>(), [os::RARE_SIGNAL]);
    os::raise(os::RARE_SIGNAL);
    w.write_all(b"x").unwrap();
    base.watch(r.as_fd(), 3, READ, Entry::New).unwrap();
    let out = wait(&mut base);
    assert!(
        matches!(out[..], [Activation::Ready { token: 3, .. }, Activation::Signal(s), Activation::Mail] if s.count == 1),
        "{out:?}"
    );
    let ids = [300, 200, 200, 200].map(|deadline| base.set_timer(None, deadline, deadline));
    assert_eq!(base.set_timer(Some(ids[1]), 200, 201), ids[1]);
    assert_eq!((base.timers(), base.until_next_timer()), (4, Some(Duration::from_nanos(100))));
    let mut out = Vec::new();
    base.expire(&mut out);
    assert_eq!(out, []);
    ns.store(250, Ordering::SeqCst);
    assert_eq!((base.now(), base.refresh_now()), (100, 250));
    base.expire(&mut out);
    let timer = |token| Activation::Timer { token, deadline: 200 };
    assert_eq!(out, [timer(200), timer(200), timer(201)], "the one set last is the last");
    base.cancel_timer(ids[0]);
    assert_eq!((base.timers(), base.until_next_timer()), (0, None));
    base.remove_signal(os::RARE_SIGNAL);
    assert_eq!(base.signals().count(), 0);
}

#[test]
fn a_wait_disarms_the_pollable_fd_so_that_the_same_deadline_counts_again() {
    each_method(|name, mut base| {
        base.arm_pollable(Some(0)).unwrap();
        base.pollable().unwrap();
        let readable = |base: &mut Base| {
            let mut fds = [sys::PollFd::new(base.pollable().unwrap().as_raw_fd(), What::READ)];
            sys::poll(&mut fds, Some(os::LOOK)).unwrap() == 1
        };
        assert!(!readable(&mut base), "{name}: not before it was asked for");
        for _ in 0..3 {
            base.arm_pollable(Some(0)).unwrap();
            assert!(readable(&mut base), "{name}");
            assert_eq!(wait(&mut base), [], "{name}");
            assert!(!readable(&mut base), "{name}");
        }
    });
}

#[test]
fn an_epoll_in_itself_is_refused() {
    let Some(mut base) = base("epoll") else { return };
    let own: OwnedFd = base.pollable().unwrap().try_clone_to_owned().unwrap();
    assert!(matches!(base.watch(own.as_fd(), 1, READ, Entry::New), Err(WatchError::Loop)));
}

#[test]
fn a_base_moves_to_its_thread() {
    let mut base = Base::new(&Config::default()).unwrap();
    let waker = base.waker().unwrap();
    let thread = std::thread::spawn(move || {
        let mut out = Vec::new();
        while out.is_empty() {
            base.wait(None, &mut out).unwrap();
        }
        out
    });
    waker.wake();
    assert_eq!(thread.join().unwrap(), [Activation::Mail]);
}
