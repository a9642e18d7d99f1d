//! The client's base, doing what a sequence says, and writing down what it sees.

use crate::ops::{Act, EVENTS, GUARD, MS, Op, SIGNAL, Setup};
use crate::system::PORTS;
use crate::wires::{Fds, wire};
use evd::base::Clock;
use evd_client::{
    Counted, Ended, Error, Event, EventBase, EventInfo, EventKey, LinkState, LoopFlags, NoFd, Watcher,
};
use evd_proto::What;
use evd_proto::sys::{CAN_REPLACE, FdNumber};
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many callbacks, or waits, end a loop.
pub const MOST_CALLS: u32 = 40;
/// A wait as long as this waits for no event.
pub const FAR: u64 = 1 << 60;
pub const START: u64 = 1_000_000_000;

/// What a finalizer is called with, here: libevent's EV_FINALIZE.
pub const FINALIZE: What = What::from_bits_retain(0x40);

/// Where and on what the base is.
#[derive(Clone, Debug)]
pub struct Setting {
    pub method: &'static str,
    pub changelist: bool,
    /// It is libevent's own.
    pub libevent: bool,
    /// evd's socket.
    pub remote: Option<PathBuf>,
}

/// What was seen, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Just before a wait. `guard`: it could last for ever, so the guard ends the loop; `synced`: evd has said all it knows.
    Prepare {
        timeout: Option<u64>,
        guard: bool,
        synced: bool,
    },
    /// Just after it: what is active.
    Check {
        active: Vec<(u8, What)>,
    },
    /// A callback, with what it found out of its own event: what is pending, and the time left.
    Call {
        event: u8,
        what: What,
        pending: What,
        left: Option<u64>,
        now: u64,
        got_exit: bool,
        /// How many events are active, of the whole base.
        all_active: usize,
        /// Whether callbacks of libevent's own are active: the one that reads which signals came, and that of the common timeout.
        own: [bool; 2],
    },
    Did(Outcome),
    Looped {
        ended: Ended,
        /// libevent does not say.
        callbacks: Option<u64>,
        /// As in a callback.
        own: [bool; 2],
    },
    State(Vec<EventState>, BaseState),
}

/// What an act returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Done,
    Refused,
    /// There is no such event.
    Nothing,
    Bytes(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EventState {
    pub event: u8,
    pub pending: What,
    pub left: Option<u64>,
    pub priority: usize,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BaseState {
    pub active: usize,
    pub added: usize,
    pub got_exit: bool,
    pub got_break: bool,
}

enum Any {
    /// The numbers of `Fds` are open for as long as there are events.
    Fd(Event<FdNumber>),
    NoFd(Event<NoFd>),
}

macro_rules! each {
    ($any:expr, $event:ident => $do:expr) => {
        match $any {
            Any::Fd($event) => $do,
            Any::NoFd($event) => $do,
        }
    };
}

/// A base at work.
pub struct Real {
    base: EventBase,
    world: Rc<RefCell<World>>,
    watchers: Vec<Watcher>,
}

struct World {
    base: EventBase,
    clock: Arc<AtomicU64>,
    fds: Rc<RefCell<Fds>>,
    events: Vec<Option<(Any, EventKey, Option<u8>)>>,
    /// Of those a finalizer is still to run.
    finalizing: Vec<bool>,
    me: Weak<RefCell<World>>,
    seen: Vec<Seen>,
    may_wait: bool,
    calls: u32,
    waits: u32,
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn has_timer(base: &EventBase) -> bool {
    let look = |info: &EventInfo| match info.time_left {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    };
    base.for_each_event(look).is_some()
}

/// Makes the base of a sequence. One at evd is made again as long as evd has not noticed that others have gone.
fn build(setting: &Setting, setup: &Setup, clock: &Arc<AtomicU64>) -> EventBase {
    let make = || {
        let mut builder = EventBase::builder()
            .method(setting.method)
            .ignore_env()
            .priorities(usize::from(setup.priorities))
            .clock(Clock::Manual(Arc::clone(clock)));
        if setup.most_calls.is_some() || setup.most_time.is_some() {
            builder = builder.max_dispatch(setup.most_time.map(ms), setup.most_calls, setup.limited_from);
        }
        if setting.changelist {
            builder = builder.changelist();
        }
        builder = match &setting.remote {
            None => builder.local(),
            Some(path) => builder
                .socket(path)
                .connect()
                .patience(Duration::from_secs(60))
                .linger(Duration::ZERO)
                // The set clock jumps: by it evd would be found missing.
                .liveness(Duration::from_nanos(4 * FAR)),
        };
        builder.build()
    };
    for _ in 0..1_000_000 {
        match make() {
            Ok(base) => return base,
            Err(Error::Refused(_) | Error::Lost) => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
    panic!("evd refuses a base: {}", make().unwrap_err());
}

impl Real {
    pub fn new(setting: &Setting, setup: &Setup, fds: &Rc<RefCell<Fds>>) -> Real {
        let clock = Arc::new(AtomicU64::new(START));
        let base = build(setting, setup, &clock);
        if let Some(common) = setup.common {
            base.common_timeout(ms(common)).unwrap();
        }
        let world = Rc::new_cyclic(|me| {
            RefCell::new(World {
                base: base.clone(),
                clock,
                fds: Rc::clone(fds),
                events: (0..=EVENTS).map(|_| None).collect(),
                finalizing: vec![false; usize::from(EVENTS) + 1],
                me: me.clone(),
                seen: Vec::new(),
                may_wait: false,
                calls: 0,
                waits: 0,
            })
        });
        let mut real = Real { base, world, watchers: Vec::new() };
        real.new_event(GUARD, None, What::PERSIST, None, [Some(Act::Break), None]);
        let remote = setting.remote.is_some();
        if setup.watched || remote {
            real.watch(remote, setup.lazy && setup.watched);
        }
        real
    }

    /// Looks at each wait. Time passes as far as a wait may last; where it would last for ever, the guard ends the loop.
    ///
    /// A remote base asks evd twice, before it waits, to say what it has done. With the first answer all that is quiet is armed, with the second all that
    /// was ready then is reported: evd puts what its wait found into its answer's message, and what it was told before is in that wait.
    fn watch(&mut self, remote: bool, lazy: bool) {
        let world = Rc::clone(&self.world);
        let prepare = self.base.prepare(move |base, timeout| {
            let timeout = timeout.map(nanos);
            let mut w = world.borrow_mut();
            w.waits += 1;
            // What evd is to be told may wake the loop before the wait that lasts for ever.
            let for_ever =
                remote && w.may_wait && w.base.num_events(Counted::ACTIVE) == 0 && !has_timer(base);
            let guard = for_ever || w.waits >= MOST_CALLS || timeout.is_none_or(|t| t >= FAR);
            if guard {
                w.act(Act::Activate(GUARD, 0));
            } else {
                w.clock.fetch_add(timeout.unwrap_or(0), Ordering::SeqCst);
            }
            // Under Wine what the kernel knows comes to evd with a message of its own, whenever that is.
            let synced = remote && cfg!(unix) && (!lazy || w.waits % 3 == 0);
            w.seen.push(Seen::Prepare { timeout, guard, synced });
            drop(w);
            if synced {
                // Without evd the base goes on by itself, and this holds all the more.
                let _ = base.sync().and_then(|()| base.sync());
            }
        });
        let world = Rc::clone(&self.world);
        let check = self.base.check(move |base| {
            let mut active = Vec::new();
            let mut w = world.borrow_mut();
            let _ = base.for_each_event(|info| {
                let number = w.events.iter().position(|e| e.as_ref().is_some_and(|e| e.1 == info.key));
                if let (Some(number), Some(what)) = (number, info.active) {
                    active.push((number as u8, what));
                }
                ControlFlow::<()>::Continue(())
            });
            active.sort_unstable_by_key(|(number, _)| *number);
            w.seen.push(Seen::Check { active });
        });
        self.watchers = vec![prepare, check];
    }

    /// Whether the base is where it is to be.
    pub fn is_where(&self, setting: &Setting) -> bool {
        matches!(self.base.link(), LinkState::Up { .. }) == setting.remote.is_some()
    }

    /// Does one thing, and returns what was seen.
    pub fn op(&mut self, op: &Op) -> Vec<Seen> {
        match *op {
            Op::New { event, port, what, priority, script } => {
                self.new_event(event, port, What::from_bits_retain(what), priority, script);
            }
            Op::Do(act) => {
                let outcome = self.world.borrow_mut().act(act);
                self.world.borrow_mut().seen.push(Seen::Did(outcome));
            }
            Op::Loop(flags) => {
                let flags = LoopFlags::from_bits_retain(flags);
                {
                    let mut world = self.world.borrow_mut();
                    (world.calls, world.waits) = (0, 0);
                    world.may_wait = !flags.contains(LoopFlags::NONBLOCK);
                }
                let looped = self.base.loop_(flags).unwrap();
                assert_eq!(looped.code(), i32::from(looped.ended == Ended::Empty));
                let seen =
                    Seen::Looped { ended: looped.ended, callbacks: Some(looped.callbacks), own: [false; 2] };
                self.world.borrow_mut().seen.push(seen);
            }
        }
        let mut world = self.world.borrow_mut();
        let state = world.state();
        world.seen.push(state);
        std::mem::take(&mut world.seen)
    }

    fn new_event(
        &mut self,
        number: u8,
        port: Option<u8>,
        what: What,
        priority: Option<u8>,
        script: [Option<Act>; 2],
    ) {
        if self.world.borrow().finalizing[usize::from(number)] {
            return;
        }
        let world = Rc::downgrade(&self.world);
        let any = match port {
            Some(SIGNAL) => {
                let signo = self.world.borrow().fds.borrow().signal.0;
                let run = move |e: &Event<NoFd>, what| called(&world, number, &script, e, what);
                Any::NoFd(Event::signal_with(&self.base, signo, what & What::PERSIST, run).unwrap())
            }
            Some(port) => {
                let source = FdNumber(self.world.borrow().fds.borrow().number(port));
                let run = move |e: &Event<FdNumber>, what| called(&world, number, &script, e, what);
                Any::Fd(Event::new(&self.base, source, what, run).unwrap())
            }
            None => {
                let run = move |e: &Event<NoFd>, what| called(&world, number, &script, e, what);
                Any::NoFd(Event::timer(&self.base, what, run).unwrap())
            }
        };
        if let Some(priority) = priority {
            let result = each!(&any, e => e.set_priority(usize::from(priority)));
            self.world.borrow_mut().seen.push(Seen::Did(outcome(result)));
        }
        let key = each!(&any, e => e.key());
        let old = self.world.borrow_mut().events[usize::from(number)].replace((any, key, port));
        drop(old);
    }
}

fn outcome<T>(result: Result<T, Error>) -> Outcome {
    if result.is_ok() { Outcome::Done } else { Outcome::Refused }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.watchers.clear();
        let events = std::mem::take(&mut self.world.borrow_mut().events);
        drop(events);
    }
}

fn called<F: 'static>(
    world: &Weak<RefCell<World>>,
    number: u8,
    script: &[Option<Act>; 2],
    event: &Event<F>,
    what: What,
) {
    let Some(world) = world.upgrade() else { return };
    let mut world = world.borrow_mut();
    let world = &mut *world;
    world.is_called(number, event, what);
    for act in script.iter().flatten() {
        let outcome = world.act_in(*act, number, event);
        world.seen.push(Seen::Did(outcome));
    }
    world.calls += 1;
    if world.calls >= MOST_CALLS {
        world.base.loopbreak();
    }
}

/// Its finalizer.
fn finalized<F: 'static>(world: &Weak<RefCell<World>>, number: u8, event: &Event<F>) {
    let Some(world) = world.upgrade() else { return };
    let mut world = world.borrow_mut();
    world.finalizing[usize::from(number)] = false;
    world.is_called(number, event, FINALIZE);
    world.calls += 1;
    if world.calls >= MOST_CALLS {
        world.base.loopbreak();
    }
}

impl World {
    fn is_called<F: 'static>(&mut self, number: u8, event: &Event<F>, what: What) {
        let (pending, left) = (event.pending(What::all()), event.time_left().map(nanos));
        let now = nanos(self.base.time());
        let (got_exit, all_active) = (self.base.got_exit(), self.base.num_events(Counted::ACTIVE));
        let own = [false; 2];
        self.seen.push(Seen::Call { event: number, what, pending, left, now, got_exit, all_active, own });
    }

    /// In the callback of `me`.
    fn act_in<F: 'static>(&mut self, act: Act, me: u8, event: &Event<F>) -> Outcome {
        match act {
            // Dropped alone it would be pending until the callback returns.
            Act::Free(number)
                if number == me
                    && self.events[usize::from(me)].is_some()
                    && !self.finalizing[usize::from(me)] =>
            {
                event.del().unwrap();
                self.act(act)
            }
            act => self.act(act),
        }
    }

    fn act(&mut self, act: Act) -> Outcome {
        let mut fds = self.fds.borrow_mut();
        match act {
            Act::Add(..)
            | Act::Del(_)
            | Act::RemoveTimer(_)
            | Act::Activate(..)
            | Act::ActivateTimes(..)
            | Act::SetPriority(..)
            | Act::Finalize(_)
            | Act::Free(_) => {
                drop(fds);
                return self.act_on_event(act);
            }
            Act::ActiveByFd(port, what) => {
                let number = fds.number(port);
                self.base.active_by_fd(number, What::from_bits_retain(what));
            }
            Act::ActiveBySignal => self.base.active_by_signal(fds.signal.0),
            Act::Raise(times) => fds.signal.raise(times),
            Act::Write(port, n) => fds.write(port, n),
            Act::Read(port, n) => return Outcome::Bytes(fds.read(port, n)),
            Act::Fill(port) => fds.fill(port),
            Act::Drain(port) => fds.drain(port),
            Act::HalfClose(port) => fds.half_close(port),
            Act::Close(port) => fds.close(port),
            Act::Reopen(port) => {
                for p in (0..PORTS).filter(|p| wire(*p).0 == wire(port).0) {
                    for event in &mut self.events {
                        let Some((any, _, at)) = event else { continue };
                        if *at == Some(p) {
                            each!(any, e => e.del().unwrap());
                            if !CAN_REPLACE {
                                *event = None;
                            }
                        }
                    }
                }
                fds.reopen(port);
            }
            Act::Advance(by) => drop(self.clock.fetch_add(by * MS, Ordering::SeqCst)),
            Act::UpdateTime => self.base.update_time(),
            Act::Break => self.base.loopbreak(),
            Act::Exit(after) => self.base.loopexit(after.map(ms)).unwrap(),
            Act::Continue => self.base.loopcontinue(),
        }
        Outcome::Done
    }

    fn act_on_event(&mut self, act: Act) -> Outcome {
        let (Act::Add(number, _)
        | Act::Del(number)
        | Act::RemoveTimer(number)
        | Act::Activate(number, _)
        | Act::ActivateTimes(number, _)
        | Act::SetPriority(number, _)
        | Act::Finalize(number)
        | Act::Free(number)) = act
        else {
            unreachable!()
        };
        let Some((any, ..)) = &self.events[usize::from(number)] else { return Outcome::Nothing };
        match act {
            Act::Add(_, timeout) => outcome(each!(any, e => e.add(timeout.map(ms)))),
            Act::Finalize(_) => {
                self.finalizing[usize::from(number)] = true;
                let me = self.me.clone();
                outcome(each!(any, e => e.finalize(move |e| finalized(&me, number, e))))
            }
            Act::Free(_) if self.finalizing[usize::from(number)] => Outcome::Nothing,
            Act::Del(_) => outcome(each!(any, e => e.del())),
            Act::RemoveTimer(_) => outcome(each!(any, e => e.remove_timer())),
            Act::Activate(_, what) => outcome(each!(any, e => e.active(What::from_bits_retain(what)))),
            Act::ActivateTimes(_, times) => outcome(each!(any, e => e.active_times(What::SIGNAL, times))),
            Act::SetPriority(_, p) => outcome(each!(any, e => e.set_priority(usize::from(p)))),
            _ => {
                self.events[usize::from(number)] = None;
                Outcome::Done
            }
        }
    }

    fn state(&self) -> Seen {
        let events = self.events.iter().enumerate().filter_map(|(number, e)| {
            let (any, ..) = e.as_ref()?;
            Some(each!(any, e => EventState {
                event: number as u8,
                pending: e.pending(What::all()),
                left: e.time_left().map(nanos),
                priority: e.priority(),
                count: e.count(),
            }))
        });
        let base = BaseState {
            active: self.base.num_events(Counted::ACTIVE),
            added: self.base.num_events(Counted::ADDED),
            got_exit: self.base.got_exit(),
            got_break: self.base.got_break(),
        };
        Seen::State(events.collect(), base)
    }
}
