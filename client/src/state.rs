//! What a base consists of: events, watches, queues, and the local `Base` under them.
//!
//! Everything here is plain data in one `RefCell`, which is never borrowed while a callback runs. Events and watches are known by their index; an event
//! that may be named from elsewhere (a `Handle`) also by its generation.

use crate::link::Link;
use crate::mailbox::{Mail, Shared};
use crate::park::Park;
use crate::queues::Queues;
use crate::watchers::{SlowCallback, Watchers};
use crate::{Error, EventKey};
use evd::base::{Activation, Base, Common, TimerId};
use evd_proto::What;
use evd_proto::sys::{Generation, OwnedFd, PollFd, RawFd, generation};
use slab::Slab;
use std::any::Any;
use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::SystemTime;

/// No index.
pub(crate) const NIL: u32 = u32::MAX;

/// What runs when an event fires.
pub(crate) trait Target {
    /// Calls the callback. The `Rc` keeps the event alive meanwhile, also if it is freed inside.
    fn run(self: Rc<Self>, what: What);
}

/// What an event does when it runs.
pub(crate) enum Call {
    /// A callback of the user.
    User(Weak<dyn Target>),
    /// What is to run when the event is finalized, and what it did before; `None`: it ends the loop, `loopexit`.
    Own(Option<Box<Finalizer>>),
}

/// See [`Call::Own`].
pub(crate) struct Finalizer {
    pub before: Weak<dyn Target>,
    pub run: Box<dyn FnOnce()>,
}

/// What an event waits for besides its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nothing: a timer, or a user event.
    Nothing,
    /// An fd.
    Fd(RawFd),
    /// A signal to this process.
    Signal(i32),
    /// A signal to evd.
    DaemonSignal(i32),
    /// A named user event.
    Name,
}

impl Source {
    /// Whether it matters how often it came.
    pub fn is_counted(self) -> bool {
        matches!(self, Source::Signal(_) | Source::DaemonSignal(_) | Source::Name)
    }
}

/// Who sent a signal: see [`Event::sender`](crate::Event::sender).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The process; 0: the kernel.
    pub pid: i32,
    /// The user of that process.
    pub uid: u32,
    /// `si_code`: how it was sent, see sigaction(2).
    pub code: i32,
}

/// libevent's `struct event`: what every event has. What only some have is kept beside, by index, as there may be very many events.
pub(crate) struct Slot {
    pub call: Call,
    pub source: Source,
    /// The watch of its fd while it is inserted.
    pub watch: u32,
    /// The next older event of the same fd or signal.
    pub next: u32,
    /// Where it stands in its active queue.
    pub position: u32,
    /// How often it fired; what does not fit is in [`State::counts`].
    pub count: u32,
    pub timer: Option<TimerId>,
    pub generation: u32,
    pub what: What,
    /// What it is active with.
    pub res: What,
    pub priority: u8,
    pub bits: Bits,
}

bitflags::bitflags! {
    /// How an event stands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Bits: u8 {
        /// In the list of its fd, signal or name.
        const INSERTED = 0x01;
        /// In an active queue.
        const ACTIVE = 0x02;
        /// It becomes active before the next wait.
        const LATER = 0x04;
        /// Its timer changed since evd was told.
        const TIMER_DIRTY = 0x08;
        /// It matters how often it came: a signal or a named event.
        const COUNTED = 0x10;
        /// It is to be finalized.
        const FINALIZING = 0x20;
        /// It has a timeout to start anew, see [`Timing`].
        const INTERVAL = 0x40;
    }
}

impl Slot {
    pub fn is(&self, bits: Bits) -> bool {
        self.bits.intersects(bits)
    }
}

/// The timeout of a persistent event, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Timing {
    /// When it was due the last time.
    pub was_due: u64,
    /// What to start anew when it runs; 0: nothing.
    pub interval: u64,
}

/// Where a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not decided yet: the next wait looks at it and then parks it or keeps it.
    Out,
    /// In the local backend.
    Local,
    /// evd waits for it.
    Parked,
    /// A file that is always ready.
    Always,
}

/// How a watch reports, and while it is in the local backend how it reports there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// As long as it is ready.
    Level,
    /// When it becomes ready.
    Edge,
    /// Level, but once is enough: it has one event, which goes when it runs.
    Once,
    /// As `Once`, and it has reported: the kernel says no more.
    Spent,
}

/// One fd with all its events.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    pub fd: RawFd,
    /// Its newest event.
    pub first: u32,
    pub interest: What,
    pub trigger: Trigger,
    pub place: Place,
    /// Not to be parked (again): evd refused it, or a number of the same file is parked.
    pub pinned: bool,
}

impl Watch {
    pub fn is_edge(&self) -> bool {
        self.trigger == Trigger::Edge
    }
}

/// How much a loop runs before it looks for new events: `event_config_set_max_dispatch_interval`.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// In nanoseconds.
    pub interval: u64,
    pub callbacks: u64,
    /// More urgent queues have no limits.
    pub min_priority: usize,
    /// So often a less urgent queue may be passed over; `u32::MAX`: always.
    pub fairness: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { interval: u64::MAX, callbacks: u64::MAX, min_priority: 1, fairness: u32::MAX }
    }
}

/// How the loop stands.
#[derive(Default)]
pub(crate) struct Flow {
    pub running: bool,
    pub exit: bool,
    pub stop: bool,
    pub again: bool,
    pub got_exit: bool,
    pub got_break: bool,
    /// The event whose callback runs, and how many more calls it has.
    pub current: u32,
    pub calls_left: u32,
    /// Priority of the queue that runs; 0 if none does: nothing is more urgent.
    pub running_priority: usize,
}

pub(crate) struct State {
    pub base: Base,
    pub events: Slab<Slot>,
    /// By event, as far as persistent events have had timeouts.
    pub timings: Vec<Timing>,
    /// Of events that fired very often: how many times 2^32.
    pub counts: HashMap<u32, u32>,
    /// Of signals and named events that are active: how often each came.
    pub calls: HashMap<u32, u32>,
    pub watches: Slab<Watch>,
    /// By fd: index of its watch, or `NIL`.
    pub by_fd: Vec<u32>,
    /// By signal: its newest event.
    pub signals: BTreeMap<i32, u32>,
    pub daemon_signals: BTreeMap<i32, u32>,
    /// Named events that are added: the event's index is the subscription's id.
    pub names: BTreeMap<u32, String>,
    /// The name of each named event, added or not.
    pub named: HashMap<u32, String>,
    /// What the user calls his events, for evctl.
    pub labels: HashMap<u32, String>,
    pub queues: Queues,
    /// Events that are inserted, and that have a timeout: the loop ends when neither is left.
    pub inserted: usize,
    pub timed: usize,
    /// Common timeouts, in nanoseconds.
    pub common: Vec<(u64, Common)>,
    /// Of events whose timeout may be late: by how much, and when it should be due, in nanoseconds.
    pub slacks: HashMap<u32, (u64, u64)>,
    /// Who sent each signal the last time.
    pub senders: BTreeMap<i32, Sender>,
    /// Events that become active before the next wait.
    pub laters: Vec<u32>,
    pub limits: Limits,
    /// Rounds in which a less urgent queue was passed over, and the one that was helped the last time.
    pub passed_over: u32,
    pub last_helped: usize,
    /// The next loop ends before it runs anything.
    pub stop_next: bool,
    /// Whoever keeps the loop going without an event.
    pub virtuals: usize,
    pub most_virtuals: usize,
    pub most_active: usize,
    pub most_added: usize,
    /// The wall clock's time at a time of the base's clock.
    pub wall: Option<(u64, SystemTime)>,
    /// The clock is looked at whenever the time is asked for.
    pub no_cache_time: bool,
    /// Callbacks are timed, and these are too long, in nanoseconds.
    pub timed_callbacks: bool,
    pub slow_limit: u64,
    /// By event: how long its callbacks ran, in all and at most, in nanoseconds.
    pub times: Vec<(u64, u64)>,
    pub outs: Vec<u32>,
    pub always: Vec<u32>,
    pub flow: Flow,
    pub link: Link,
    pub park: Park,
    pub next_generation: u32,
    /// Somebody waits for the base's fd in a loop of their own.
    pub nested: bool,
    pub callbacks: u64,
    pub wakeups: u64,
    /// Scratch of a turn.
    pub activations: Vec<Activation>,
    pub polls: Vec<PollFd>,
}

/// One base, shared by its handles, events and callbacks.
pub(crate) struct Core {
    pub state: RefCell<State>,
    pub shared: RefCell<Arc<Shared>>,
    /// Mail that was taken out of the mailbox and is not done yet.
    pub inbox: RefCell<VecDeque<Mail>>,
    pub generation: Cell<Generation>,
    /// The event that runs is noted in the mailbox.
    pub noted: Cell<bool>,
    /// `EventBase` values that name this base.
    pub handles: Cell<usize>,
    /// Events that the base owns itself.
    pub detached: RefCell<HashMap<u32, Rc<dyn Any>>>,
    pub pollable: OnceCell<OwnedFd>,
    pub on_link: RefCell<Option<LinkCallback>>,
    pub watchers: RefCell<Watchers>,
    pub on_slow: RefCell<Option<SlowCallback>>,
}

pub(crate) type LinkCallback = Rc<RefCell<dyn FnMut(&crate::EventBase, &crate::LinkState)>>;

impl Core {
    /// Refuses in the child of a fork: what the parent has registered must not be disturbed.
    pub fn check_fork(&self) -> Result<(), Error> {
        if self.generation.get() == generation() { Ok(()) } else { Err(Error::Forked) }
    }

    /// Whether somebody else has asked for something that is not done yet.
    pub fn has_mail(&self) -> bool {
        self.shared.borrow().has_mail() || !self.inbox.borrow().is_empty()
    }

    /// Whether anybody else may ask for something, or has and is gone.
    pub fn may_have_mail(&self) -> bool {
        let shared = self.shared.borrow();
        if Arc::strong_count(&shared) > 1 {
            return true;
        }
        // The count says that a handle is gone, and then its last request is to be seen as well.
        fence(Ordering::Acquire);
        shared.has_mail()
    }

    /// A handle is made: if that is in a callback, that one is noted as running, as others may wait for its end from now on.
    pub fn note_running(&self) {
        let state = self.state.borrow();
        if let Some(slot) = state.events.get(state.flow.current as usize) {
            let key = EventKey { id: state.flow.current, generation: slot.generation };
            self.shared.borrow().note(key, std::thread::current().id());
            self.noted.set(true);
        }
    }

    pub fn shared(&self) -> Ref<'_, Arc<Shared>> {
        self.shared.borrow()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.shared.get_mut().close();
    }
}

impl State {
    pub fn slot(&self, id: u32) -> &Slot {
        &self.events[id as usize]
    }

    pub fn slot_mut(&mut self, id: u32) -> &mut Slot {
        &mut self.events[id as usize]
    }

    pub fn timing(&self, id: u32) -> Timing {
        self.timings.get(id as usize).copied().unwrap_or_default()
    }

    pub fn timing_mut(&mut self, id: u32) -> &mut Timing {
        let at = id as usize;
        if self.timings.len() <= at {
            self.timings.resize_with(at + 1, Timing::default);
        }
        &mut self.timings[at]
    }

    /// Forgets what the last event with this index had.
    pub fn forget_aside(&mut self, id: u32) {
        let at = id as usize;
        if let Some(timing) = self.timings.get_mut(at) {
            *timing = Timing::default();
        }
        self.counts.remove(&id);
        if let Some(times) = self.times.get_mut(at) {
            *times = (0, 0);
        }
        // Nearly always empty, and then no hash is made.
        self.calls.remove(&id);
        self.slacks.remove(&id);
        self.labels.remove(&id);
        self.named.remove(&id);
    }

    /// How often an event fired.
    pub fn count(&self, id: u32) -> u64 {
        let high = self.counts.get(&id).copied().unwrap_or(0);
        u64::from(high) << 32 | u64::from(self.slot(id).count)
    }

    /// When an event's timeout is due, if it has one.
    pub fn deadline(&self, id: u32) -> Option<u64> {
        self.slot(id).timer.and_then(|timer| self.base.deadline_of(timer))
    }

    pub fn watch(&self, w: u32) -> &Watch {
        &self.watches[w as usize]
    }

    pub fn watch_mut(&mut self, w: u32) -> &mut Watch {
        &mut self.watches[w as usize]
    }

    /// The time that deadlines are counted from: of the last wait inside a loop, else now.
    pub fn time(&mut self) -> u64 {
        if self.flow.running && !self.no_cache_time { self.base.now() } else { self.base.refresh_now() }
    }

    /// Whether nothing is pending or active.
    pub fn is_empty(&self) -> bool {
        self.inserted == 0
            && self.timed == 0
            && self.virtuals == 0
            && self.queues.is_empty()
            && self.laters.is_empty()
    }

    /// Memberships: inserted, with a timeout, active. An event may count three times, as in libevent.
    pub fn added(&self) -> usize {
        self.inserted + self.timed + self.queues.len()
    }

    /// Keeps the high-water marks.
    pub fn note_most(&mut self) {
        self.most_active = self.most_active.max(self.queues.len());
        self.most_added = self.most_added.max(self.added());
    }

    /// The events of a list (of a fd or a signal), newest first, collected so that the state is free while they are used.
    pub fn newest_first(&self, first: u32) -> NewestFirst<'_> {
        NewestFirst { state: self, at: first }
    }
}

/// Walks the events of one fd or signal.
pub(crate) struct NewestFirst<'a> {
    state: &'a State,
    at: u32,
}

impl Iterator for NewestFirst<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.at == NIL {
            return None;
        }
        let id = self.at;
        self.at = self.state.slot(id).next;
        Some(id)
    }
}
