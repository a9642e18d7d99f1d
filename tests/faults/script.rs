//! A session, as a client process plays it: all that evd does for a client occurs in it, and it counts what came.
//!
//! It goes on whatever happens to evd, and fails if an event is lost, a timer is early or fires twice, or a held fd is another file than was given.

use crate::parts::*;
use crate::process::{hear, say};
use crate::wire::PATIENCE;
use evd_client::{Error, Event, EventBase, LinkState, What};
use evd_proto::sys::Wake;
use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long it waits for what a broken evd may never do.
const A_WHILE: Duration = Duration::from_millis(60);
const SOCKETS: usize = 4;
/// How long evd holds what nobody takes.
const HELD: Duration = Duration::from_secs(5);

/// Runs the loop in short pieces until `fact` holds; `false` when that takes too long.
fn comes(base: &EventBase, limit: Duration, mut fact: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while !fact() {
        if Instant::now() > until {
            return false;
        }
        run_for(base, 2 * MS);
    }
    true
}

fn must_come(base: &EventBase, what: &str, fact: impl FnMut() -> bool) {
    assert!(comes(base, PATIENCE, fact), "{what}; {:?}, {:?}", base.link(), base.watches());
}

/// A base that has, or wants, an evd: one that found nobody would not look again.
fn enter(socket: &Path, method: &str) -> EventBase {
    let until = Instant::now() + PATIENCE;
    loop {
        let builder = EventBase::builder().socket(socket).name("session").method(method).ignore_env();
        let base = builder.linger(MS).liveness(50 * MS).patience(4 * A_WHILE).build().unwrap();
        if base.link() != LinkState::Local {
            return base;
        }
        assert!(Instant::now() < until, "nobody is there");
        std::thread::sleep(MS);
    }
}

/// Sockets that the base reads, and what was sent to them.
struct Sockets {
    events: Vec<(Event<UnixStream>, Count)>,
    peers: Vec<UnixStream>,
    sent: usize,
}

impl Sockets {
    fn new(base: &EventBase) -> Sockets {
        let (near, peers): (Vec<_>, Vec<_>) = (0..SOCKETS).map(|_| pair()).unzip();
        Sockets { events: near.into_iter().map(|s| reader(base, s)).collect(), peers, sent: 0 }
    }

    fn all_get_a_byte(&mut self, base: &EventBase) {
        self.peers.iter_mut().for_each(|p| p.write_all(b"x").unwrap());
        self.sent += 1;
        let (events, sent) = (&self.events, self.sent);
        must_come(base, "a byte is lost", || events.iter().all(|(_, got)| got.get() == sent));
    }
}

/// Timers that must fire once, and not early.
fn timers(base: &EventBase, fired: &Count) -> Vec<Event> {
    let timer = |n: u32| {
        let (of, start, due) = (Rc::clone(fired), Instant::now(), n * 15 * MS);
        let timer = Event::timer(base, What::empty(), move |event, _| {
            assert!(start.elapsed() >= due && event.count() == 1);
            count(&of);
        });
        let timer = timer.unwrap();
        timer.add(Some(due)).unwrap();
        timer
    };
    (1..=3).map(timer).collect()
}

/// A wish that evd may be unable to grant just now.
fn may_fail<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Lost | Error::NeedsEvd | Error::Refused(_)) => None,
        Err(e) => panic!("{e:?}"),
    }
}

/// What is taken must be what was given.
fn hold_and_take(base: &EventBase) {
    let (kept, mut peer) = pair();
    if may_fail(base.hold_anew("kept", &kept, b"attached", Some(HELD))).is_some() {
        may_fail(base.list_held());
        for held in [may_fail(base.take_copy("kept")), may_fail(base.take("kept"))].into_iter().flatten() {
            assert_eq!(held.attachment, b"attached");
            peer.write_all(b"x").unwrap();
            assert_eq!(UnixStream::from(held.fd).read(&mut [0; 2]).unwrap(), 1);
        }
    }
    may_fail(base.hold_anew("dropped", std::io::stdin().as_fd(), b"", None));
    may_fail(base.drop_held("dropped"));
}

/// Sends a byte to and fro without a pause, so that it stays here.
fn is_busy(base: &EventBase) {
    let (near, mut far) = pair();
    let echo = Event::new(base, near, READ, |event, _| {
        let mut byte = [0];
        if event.source().read(&mut byte).is_ok_and(|n| n == 1) {
            event.source().write_all(&byte).unwrap();
        }
    });
    let echo = echo.unwrap();
    echo.add(None).unwrap();
    far.set_nonblocking(true).unwrap();
    for _ in 0..10 {
        far.write_all(b"x").unwrap();
        let mut came = 0;
        must_come(base, "an echo is lost", || {
            came += drain(&far).0;
            came == 1
        });
    }
}

fn again<F>(event: &Event<F>) {
    event.del().unwrap();
    event.add(None).unwrap();
}

/// A role: waits until it is told to go, does it all, waits until it is told to return to evd, and leaves.
pub fn session(socket: &Path, args: &[&str]) {
    say("ready");
    assert_eq!(hear(), "go");
    let base = enter(socket, args[0]);
    let mut sockets = Sockets::new(&base);
    let woken = Count::default();
    let of = Rc::clone(&woken);
    let wake = Event::new(&base, Wake::new().unwrap(), READ, move |event, _| {
        assert!(event.source().drain());
        count(&of);
    });
    let wake = wake.unwrap();
    wake.add(None).unwrap();
    wake.label("wake");
    let (fired, ticks, triggered) = (Count::default(), Count::default(), Rc::new(Cell::new(0)));
    let timers = timers(&base, &fired);
    let of = Rc::clone(&ticks);
    let tick = Event::timer(&base, What::PERSIST, move |_, _| count(&of)).unwrap();
    tick.add(Some(7 * MS)).unwrap();
    let of = Rc::clone(&triggered);
    let named = Event::named(&base, "named", move |event, _| of.set(of.get() + event.times())).unwrap();
    named.add(None).unwrap();
    let signal = Event::daemon_signal(&base, libc::SIGUSR1, |_, _| {}).unwrap();
    signal.add(None).unwrap();
    let is_parked = || base.watches() == (SOCKETS + 1, 0);

    comes(&base, A_WHILE, is_parked);
    may_fail(base.sync());
    sockets.all_get_a_byte(&base);
    let (mut sure, mut maybe) = (0, 0);
    for _ in 0..3 {
        match may_fail(base.trigger("named")) {
            Some(t) => (sure, maybe) = (sure + t.reached, maybe + t.queued),
            None => maybe += 1,
        }
    }
    hold_and_take(&base);
    wake.source().notify();
    must_come(&base, "a wake-up is lost", || woken.get() == 1);
    is_busy(&base);
    again(&wake);
    comes(&base, A_WHILE, is_parked);
    sockets.all_get_a_byte(&base);
    must_come(&base, "a timer is lost", || fired.get() == timers.len());
    must_come(&base, "an activation that was promised is lost", || triggered.get() >= sure);
    assert!(triggered.get() <= sure + maybe, "{} activations of {sure} + {maybe}", triggered.get());
    let before = ticks.get();
    must_come(&base, "it does not tick any more", || ticks.get() > before);
    say("worked");

    assert_eq!(hear(), "return");
    must_come(&base, "it does not return to evd", || {
        let waits = comes(&base, A_WHILE, || is_up(&base) && is_parked());
        if !waits {
            // What was refused is asked for again when it is added again.
            sockets.events.iter().for_each(|(event, _)| again(event));
            again(&wake);
        }
        // A loss that was not noticed yet is by this.
        waits && may_fail(base.sync()).is_some() && is_parked()
    });
    sockets.all_get_a_byte(&base);
    wake.source().notify();
    must_come(&base, "a wake-up is lost", || woken.get() == 2);
    assert_eq!(fired.get(), timers.len());
    may_fail(base.drop_held("dropped"));
    may_fail(base.drop_held("kept"));
    drop((sockets, wake, timers, tick, named, signal, base));
    say("left");
}
