//! What a local base does in each role: call for call what `work.h` does with the peers.

use crate::calls::{self as own, spent};
use crate::floor::calls;
use crate::parts::{Control, Outcome, now};
use evd::base::{Activation, Base, Config, TimerId};
use evd_client::{Event, EventBase, LoopFlags, NoFd, What};
use std::cell::Cell;
use std::error::Error;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

/// The methods by their numbers, as in `work.h`.
pub const METHODS: [&str; 3] = ["epoll", "poll", "select"];

fn open(method: u64, flags: u64) -> Result<EventBase, Box<dyn Error>> {
    let name = METHODS.get(method as usize).ok_or("no such method")?;
    let builder = EventBase::builder().local().method(name);
    Ok(if flags & 1 == 0 { builder } else { builder.changelist() }.build()?)
}

/// One turn without waiting.
fn look(base: &EventBase) -> Outcome {
    base.loop_(LoopFlags::ONCE | LoopFlags::NONBLOCK)?;
    Ok(())
}

/// The same numbers as in `work.h`.
struct Random(u64);

impl Random {
    fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// What the callbacks of sockets share.
#[derive(Default)]
struct Pairs {
    writers: Vec<OwnedFd>,
    left: Cell<u64>,
    written: Cell<u64>,
    seen: Cell<u64>,
    failed: Cell<u64>,
}

impl Pairs {
    /// With the ends to read from.
    fn open(count: u64) -> Result<(Rc<Pairs>, Vec<OwnedFd>), Box<dyn Error>> {
        let mut pairs = Pairs::default();
        let mut readers = Vec::new();
        for _ in 0..count {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            writer.set_nonblocking(true)?;
            readers.push(reader.into());
            pairs.writers.push(writer.into());
        }
        Ok((Rc::new(pairs), readers))
    }

    fn put(&self, pair: usize) {
        if calls::send(self.writers[pair].as_raw_fd(), b"e").is_err() {
            self.failed.set(self.failed.get() + 1);
        }
        self.written.set(self.written.get() + 1);
    }

    fn on_read(&self, fd: RawFd, i: usize) {
        match calls::recv(fd, &mut [0]) {
            Ok(1) => self.seen.set(self.seen.get() + 1),
            _ => self.failed.set(self.failed.get() + 1),
        }
        if self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            self.put(if i + 1 == self.writers.len() { 0 } else { i + 1 });
        }
    }

    /// An event for each of `readers`.
    fn events(
        self: &Rc<Pairs>,
        base: &EventBase,
        readers: Vec<OwnedFd>,
        what: What,
    ) -> Result<Vec<Event<OwnedFd>>, Box<dyn Error>> {
        let mut events = Vec::new();
        for (i, reader) in readers.into_iter().enumerate() {
            let pairs = Rc::clone(self);
            let callback = move |event: &Event<OwnedFd>, _| pairs.on_read(event.source().as_raw_fd(), i);
            events.push(Event::new(base, reader, what, callback)?);
        }
        Ok(events)
    }
}

pub fn shapes(mut control: Control) -> Outcome {
    let [count, active, writes, method, flags] = control.hear()?[..] else {
        return Err("told nothing".into());
    };
    let base = open(method, flags)?;
    let (pairs, readers) = Pairs::open(count)?;
    let events = pairs.events(&base, readers, What::READ | What::PERSIST)?;
    events.iter().try_for_each(|e| e.add(None))?;
    control.say(&[])?;
    control.serve(|_, runs| {
        let mut took = vec![0; 3];
        for _ in 0..runs {
            let start = spent();
            for event in &events {
                event.del()?;
                event.add(None)?;
            }
            look(&base)?;
            pairs.seen.set(0);
            pairs.written.set(0);
            for i in 0..active {
                pairs.put((i * (count / active)) as usize);
            }
            pairs.left.set(writes);
            let begin = spent();
            loop {
                look(&base)?;
                took[2] += 1;
                if pairs.seen.get() >= pairs.written.get() {
                    break;
                }
            }
            let end = spent();
            took[0] += end - start;
            took[1] += end - begin;
        }
        if pairs.failed.get() > 0 { Err("a callback with nothing to read".into()) } else { Ok(took) }
    })
}

pub fn cascade(mut control: Control) -> Outcome {
    let [count, method] = control.hear()?[..] else { return Err("told nothing".into()) };
    let base = open(method, 0)?;
    let (pairs, readers) = Pairs::open(count)?;
    let events = pairs.events(&base, readers, What::READ)?;
    control.say(&[])?;
    control.serve(|_, runs| {
        let mut took = 0;
        for _ in 0..runs {
            let start = spent();
            for event in &events {
                event.add(Some(Duration::from_secs(60)))?;
            }
            pairs.seen.set(0);
            pairs.written.set(0);
            pairs.left.set(count - 1);
            pairs.put(0);
            base.dispatch()?;
            took += spent() - start;
            if pairs.failed.get() > 0 || pairs.seen.get() != count {
                return Err("the cascade has stopped".into());
            }
        }
        Ok(vec![took])
    })
}

/// In microseconds.
const HOUR: u64 = 3_600_000_000;
/// The common timeouts, far and near.
const COMMON: [Duration; 2] = [Duration::from_micros(20 * HOUR), Duration::from_micros(5000)];

thread_local! {
    static FIRED: Cell<u64> = const { Cell::new(0) };
}

fn on_timer() {
    FIRED.set(FIRED.get() + 1);
}

/// What a role does with timers: those of a client's base, or of a base without a client.
trait Timers {
    fn set(&mut self, i: usize, after: Duration);
    fn cancel(&mut self, i: usize);
}

/// How it does it.
struct Work {
    many: u64,
    some: u64,
    common: bool,
    random: Random,
}

impl Work {
    fn set_far(&mut self, timers: &mut impl Timers, i: u64, from: u64) {
        let after =
            if self.common { COMMON[0] } else { Duration::from_micros(from + self.random.below(20 * HOUR)) };
        timers.set(i as usize, after);
    }

    fn fill(&mut self, timers: &mut impl Timers) {
        for i in 0..self.many {
            self.set_far(timers, i, HOUR);
        }
    }

    fn use_them(&mut self, timers: &mut impl Timers) -> Vec<u64> {
        let (many, some) = (self.many, self.some);
        let mut at = vec![spent()];
        for i in many..many + some {
            self.set_far(timers, i, HOUR);
        }
        at.push(spent());
        for _ in 0..some {
            let i = self.random.below(many);
            self.set_far(timers, i, HOUR);
        }
        at.push(spent());
        for _ in 0..some {
            let i = self.random.below(many);
            self.set_far(timers, i, 21 * HOUR);
        }
        at.push(spent());
        for i in 0..some {
            timers.cancel((many + i * 7919 % some) as usize);
        }
        at.push(spent());
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn set_near(&mut self, timers: &mut impl Timers) {
        for i in self.many..self.many + self.some {
            let after =
                if self.common { COMMON[1] } else { Duration::from_micros(1 + self.random.below(10_000)) };
            timers.set(i as usize, after);
        }
    }

    /// Until all that was set near is due.
    fn let_time_pass() {
        let start = now();
        while now() < start + 20_000_000 {
            std::hint::spin_loop();
        }
    }
}

fn timer_work(control: &mut Control) -> Result<Work, Box<dyn Error>> {
    let [many, some, common] = control.hear()?[..] else { return Err("told nothing".into()) };
    Ok(Work { many, some, common: common != 0, random: Random::new() })
}

struct Events(Vec<Event<NoFd>>);

impl Timers for Events {
    fn set(&mut self, i: usize, after: Duration) {
        assert!(self.0[i].add(Some(after)).is_ok(), "a timer that can't be set");
    }

    fn cancel(&mut self, i: usize) {
        assert!(self.0[i].del().is_ok(), "a timer that can't be cancelled");
    }
}

/// Calls `what` in a callback.
fn inside(base: &EventBase, what: impl FnOnce() + 'static) -> Outcome {
    let mut what = Some(what);
    let event = Event::user(base, move |_, _| {
        if let Some(what) = what.take() {
            what();
        }
    })?;
    event.active(What::READ)?;
    look(base)
}

pub fn timers(mut control: Control) -> Outcome {
    let work = timer_work(&mut control)?;
    let base = open(0, 0)?;
    if work.common {
        COMMON.iter().try_for_each(|c| base.common_timeout(*c))?;
    }
    let mut events = Events(Vec::new());
    for _ in 0..work.many + work.some {
        events.0.push(Event::timer(&base, What::empty(), |_, _| on_timer())?);
    }
    let some = work.some;
    let all = Rc::new(std::cell::RefCell::new((work, events, Vec::new())));
    let doing = |what: fn(&mut Work, &mut Events) -> Vec<u64>| {
        let all = Rc::clone(&all);
        inside(&base, move || {
            let (work, events, took) = &mut *all.borrow_mut();
            *took = what(work, events);
        })
    };
    doing(|work, events| {
        work.fill(events);
        Vec::new()
    })?;
    control.say(&[])?;
    control.serve(|_, _| {
        doing(Work::use_them)?;
        let mut took = std::mem::take(&mut all.borrow_mut().2);
        FIRED.set(0);
        doing(|work, events| {
            work.set_near(events);
            Vec::new()
        })?;
        if FIRED.get() > 0 {
            return Err("a timer that came too early".into());
        }
        Work::let_time_pass();
        let start = spent();
        while FIRED.get() < some {
            look(&base)?;
        }
        took.push(spent() - start);
        Ok(took)
    })
}

struct Bare {
    base: Base,
    timers: Vec<Option<TimerId>>,
}

impl Timers for Bare {
    fn set(&mut self, i: usize, after: Duration) {
        let deadline = self.base.now() + after.as_nanos() as u64;
        self.timers[i] = Some(self.base.set_timer(self.timers[i], deadline, i as u64));
    }

    fn cancel(&mut self, i: usize) {
        if let Some(timer) = self.timers[i].take() {
            self.base.cancel_timer(timer);
        }
    }
}

/// The timers of a base without a client: no events and no callbacks, only tokens.
pub fn timers_of_base(mut control: Control) -> Outcome {
    let mut work = timer_work(&mut control)?;
    let base = Base::new(&Config::default())?;
    let mut bare = Bare { base, timers: vec![None; (work.many + work.some) as usize] };
    work.fill(&mut bare);
    control.say(&[])?;
    let mut came = Vec::new();
    control.serve(|_, _| {
        bare.base.refresh_now();
        let mut took = work.use_them(&mut bare);
        bare.base.refresh_now();
        work.set_near(&mut bare);
        Work::let_time_pass();
        let start = spent();
        let mut fired = 0;
        while fired < work.some {
            bare.base.wait(Some(Duration::ZERO), &mut came)?;
            bare.base.expire(&mut came);
            for activation in came.drain(..) {
                if let Activation::Timer { token, .. } = activation {
                    bare.timers[token as usize] = None;
                    fired += 1;
                }
            }
        }
        took.push(spent() - start);
        Ok(took)
    })
}

/// What is in use: what malloc has given out, and what is resident of this process alone, in bytes.
fn in_use() -> Result<[u64; 2], Box<dyn Error>> {
    let resident = evd_proto::sys::resident_bytes(std::process::id()).ok_or("no memory in /proc")?;
    Ok([own::given_out(), resident.1])
}

/// Says what `work.h` says; then what malloc has given out before and after the same events are made again in a base that had as many before; then the same
/// before and after as many timers are set in a base without a client.
pub fn weigh(mut control: Control) -> Outcome {
    let [fds, timers] = control.hear()?[..] else { return Err("told nothing".into()) };
    let base = open(0, 0)?;
    let (_writer, reader) = UnixStream::pair()?;
    let copies =
        |count| (0..count).map(|_| reader.try_clone().map(OwnedFd::from)).collect::<Result<Vec<_>, _>>();
    let seen = Rc::new(Cell::new(0));
    let fd_event = |fd| {
        let seen = Rc::clone(&seen);
        Event::new(&base, fd, What::READ | What::PERSIST, move |_, _| seen.set(seen.get() + 1))
    };
    let timer = || Event::timer(&base, What::empty(), |_, _| on_timer());
    let mut random = Random::new();
    let numbers = copies(fds)?;
    let mut fd_events = Vec::with_capacity(fds as usize);
    let mut timer_events = Vec::with_capacity(timers as usize);
    // The first one brings what a base costs anyway.
    let first = (fd_event(copies(1)?.remove(0))?, timer()?);
    first.0.add(None)?;
    first.1.add(Some(Duration::from_micros(HOUR)))?;
    look(&base)?;
    control.say(&[])?;

    let mut said = in_use()?.to_vec();
    for fd in numbers {
        fd_events.push(fd_event(fd)?);
    }
    for _ in 0..timers {
        timer_events.push(timer()?);
    }
    said.extend(in_use()?);
    fd_events.iter().try_for_each(|e| e.add(None))?;
    for event in &timer_events {
        event.add(Some(Duration::from_micros(HOUR + random.below(HOUR))))?;
    }
    look(&base)?;
    said.extend(in_use()?);

    fd_events.clear();
    timer_events.clear();
    let numbers = copies(fds)?;
    said.push(in_use()?[0]);
    for fd in numbers {
        fd_events.push(fd_event(fd)?);
    }
    for _ in 0..timers {
        timer_events.push(timer()?);
    }
    said.push(in_use()?[0]);

    let mut bare = Base::new(&Config::default())?;
    said.push(in_use()?[0]);
    for i in 0..timers {
        bare.set_timer(None, HOUR + random.below(HOUR), i);
    }
    said.push(in_use()?[0]);
    control.say(&said)?;
    control.hear().map(drop).or(Ok(()))
}
