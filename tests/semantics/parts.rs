//! What the suite shares: the settings that every test runs in, and small helpers.

pub use crate::os::Stream;

use crate::os;
use evd::base::Clock;
use evd_client::{Builder, Event, EventBase, LinkState, LoopFlags, Looped, What};
use evd_proto::sys::{AsRawFd, PollFd, poll};
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const MS: Duration = Duration::from_millis(1);
/// Long enough that what is to come before it does, on a real clock as well.
pub const SOON: Duration = Duration::from_millis(300);
/// Longer than any test takes.
pub const LONG: Duration = Duration::from_secs(600);
pub const READ: What = What::READ.union(What::PERSIST);
/// One round.
pub const ROUND: LoopFlags = LoopFlags::ONCE.union(LoopFlags::NONBLOCK);

/// One way to have a base.
pub struct Setting {
    pub remote: bool,
    pub method: &'static str,
}

const CHANGELIST: &str = "epoll (with changelist)";

#[cfg_attr(unix, path = "system/unix.rs")]
#[cfg_attr(windows, path = "system/windows.rs")]
mod system;
pub use system::*;

impl Setting {
    /// Parks whatever is quiet at once: no test is served in-process because it was busy.
    pub fn builder(&self) -> Builder {
        let path = if self.remote { Some(socket().as_path()) } else { None };
        self.builder_at(path)
    }

    /// As [`Setting::builder`], for a process that knows where evd is.
    pub fn builder_at(&self, socket: Option<&std::path::Path>) -> Builder {
        let b = EventBase::builder().ignore_env().name("semantics");
        let b = match self.method {
            CHANGELIST => b.method("epoll").changelist(),
            method => b.method(method),
        };
        match socket {
            Some(path) => b.socket(path).connect().linger(Duration::ZERO).patience(LONG),
            None => b.local(),
        }
    }

    pub fn is_as_asked(&self, base: &EventBase) {
        assert_eq!(base.method(), self.method);
        let up = matches!(base.link(), LinkState::Up { .. });
        assert_eq!(up, self.remote, "{:?}", base.link());
    }
}

/// Runs a test in every setting, and says in which one when it fails.
pub fn each(test: impl Fn(&Setting)) {
    for setting in &SETTINGS {
        let place = if setting.remote { "at evd" } else { "in-process" };
        println!("setting: {}, {place}", setting.method);
        test(setting);
    }
}

/// Runs a test with a base of every setting.
pub fn each_base(test: impl Fn(&EventBase)) {
    each_base_with(|builder| builder, test);
}

/// The same with a base that is made otherwise.
pub fn each_base_with(change: impl Fn(Builder) -> Builder, test: impl Fn(&EventBase)) {
    each(|setting| {
        let base = change(setting.builder()).build().unwrap();
        test(&base);
        setting.is_as_asked(&base);
    });
}

/// How a test lets time pass: in-process on a clock of its own, and at evd really.
#[derive(Clone)]
pub struct Time(Option<Arc<AtomicU64>>);

impl Time {
    pub fn pass(&self, time: Duration) {
        match &self.0 {
            Some(clock) => drop(clock.fetch_add(time.as_nanos() as u64, Ordering::SeqCst)),
            None => std::thread::sleep(time),
        }
    }
}

/// Runs a test with a base of every setting whose time passes when the test says so. A wait for a time does not wait for it there: run rounds.
pub fn each_timed(test: impl Fn(&EventBase, &Time)) {
    each_timed_with(|builder| builder, test);
}

pub fn each_timed_with(change: impl Fn(Builder) -> Builder, test: impl Fn(&EventBase, &Time)) {
    each(|setting| {
        let clock = Arc::new(AtomicU64::new(1_000_000_000));
        let builder = change(setting.builder());
        let (builder, time) = match setting.remote {
            true => (builder, Time(None)),
            false => (builder.clock(Clock::Manual(Arc::clone(&clock))), Time(Some(clock))),
        };
        let base = builder.build().unwrap();
        test(&base, &time);
        setting.is_as_asked(&base);
    });
}

/// One round: looks, runs what is active, and ends.
pub fn round(base: &EventBase) -> Looped {
    base.loop_(ROUND).unwrap()
}

/// Waits for something to run, and runs it.
pub fn once(base: &EventBase) -> Looped {
    base.loop_(LoopFlags::ONCE).unwrap()
}

/// Everything quiet is at evd now, and armed there: at least `least` watches. In-process there is nothing to do.
pub fn park(base: &EventBase, least: usize) {
    if matches!(base.link(), LinkState::Up { .. }) {
        base.sync().unwrap();
        assert!(base.watches().0 >= least, "not parked: {:?}", base.watches());
    }
}

/// Runs rounds until a fact holds.
pub fn until(base: &EventBase, what: &str, mut fact: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !fact() {
        assert!(Instant::now() < limit, "never: {what}");
        round(base);
        std::thread::yield_now();
    }
}

pub fn pair() -> (Stream, Stream) {
    let (a, b) = os::connection();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// A stream that nothing comes on.
pub struct Silent(Stream, #[allow(dead_code, reason = "it is open, that is all")] Stream);

pub fn silent() -> Silent {
    let (a, b) = pair();
    Silent(a, b)
}

/// A stream that can be read already, and its other end.
pub fn ready() -> (Stream, Stream) {
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    poll(&mut [PollFd::new(a.as_raw_fd(), What::READ)], None).unwrap();
    (a, b)
}

/// The other end is gone: the end, or a reset if it had not read everything.
pub fn is_closed(mut stream: &Stream) -> bool {
    poll(&mut [PollFd::new(stream.as_raw_fd(), What::READ)], Some(os::LOOK)).unwrap();
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

/// The other end is gone, if need be as soon as no process that another test is just starting has a copy of it any more.
pub fn closes(stream: &Stream) -> bool {
    let limit = Instant::now() + Duration::from_secs(30);
    while !is_closed(stream) {
        if Instant::now() >= limit {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Reads what is there.
pub fn drain(mut stream: &Stream) {
    while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
}

/// A stream that several events share.
#[derive(Clone)]
pub struct Shared(pub Rc<Stream>);

impl Shared {
    pub fn new(stream: Stream) -> Shared {
        Shared(Rc::new(stream))
    }
}

/// What ran, in order.
#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub fn add(&self, line: impl ToString) {
        self.0.borrow_mut().push(line.to_string());
    }

    /// A callback that says the name and what happened.
    pub fn says<F>(&self, name: &str) -> impl FnMut(&Event<F>, What) + use<F> {
        let (log, name) = (self.clone(), name.to_owned());
        move |_, what| log.add(format!("{name} {what}"))
    }

    /// Takes all lines.
    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }

    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

pub type Count = Rc<Cell<usize>>;

/// A callback that counts.
pub fn counts<F>(counter: &Count) -> impl FnMut(&Event<F>, What) + use<F> {
    let counter = Rc::clone(counter);
    move |_, _| counter.set(counter.get() + 1)
}

/// A user event that is active already.
pub fn active(base: &EventBase, callback: impl FnMut(&Event, What) + 'static) -> Event {
    let event = Event::user(base, callback).unwrap();
    event.active(What::empty()).unwrap();
    event
}
