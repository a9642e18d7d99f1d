//! The model: libevent's event core, written plainly, and led through what a base was seen to do: the client's, or libevent's own.
//!
//! It knows what must happen, save for what the kernel chooses: in which order it reports several fds of one wait, and when an edge is one. There it
//! takes what was seen, if that is one of the things that may be. All else must be exactly as seen.
//!
//! Source: libevent's documentation. Where evd differs from libevent 2.1 on purpose the model asks for `self.libevent`, and nowhere else; client/SEMANTICS.md
//! has the reasons.

use crate::ops::{Act, EVENTS, GUARD, MS, Op, SIGNAL, Setup};
use crate::real::{BaseState, EventState, Outcome, START, Seen, Setting};
use crate::system::PORTS;
use crate::wires::{WIRES, Wire};
use evd_client::LoopFlags;
use evd_proto::What;
use std::collections::VecDeque;

type Check<T = ()> = Result<T, String>;

/// Both must be the same.
macro_rules! expect {
    ($name:expr, $model:expr, $seen:expr) => {
        let (model, seen) = (&$model, &$seen);
        if model != seen {
            return Err(format!("{}: the model has {model:?}, seen was {seen:?}", $name));
        }
    };
}

// Behind the macro, which it uses.
#[path = "acts.rs"]
mod acts;
#[path = "rounds.rs"]
mod rounds;

/// `struct event`.
#[derive(Clone, Default)]
struct Event {
    port: Option<u8>,
    what: What,
    priority: usize,
    script: [Option<Act>; 2],
    inserted: bool,
    active: bool,
    res: What,
    /// When it is due, and as the how manieth timer it was set.
    timer: Option<(u64, u64)>,
    deadline: u64,
    interval: u64,
    count: u64,
    /// Of a signal's: how often its callback is to be called.
    calls: u32,
    /// In libevent: its timeout is a common one.
    is_common: bool,
    /// Its finalizer is to run.
    finalizing: bool,
    /// What no test made.
    own: Option<Own>,
}

/// What is active without a callback that is seen.
#[derive(Clone, Copy, PartialEq)]
enum Own {
    /// A `loopexit`.
    Exit,
    /// In libevent: reads which signals came, and makes their events active.
    Signals,
    /// In libevent: makes events active whose common timeout is over.
    Common,
}

/// An fd that somebody waits for.
#[derive(Clone, Default)]
struct Watch {
    /// Newest first.
    events: Vec<usize>,
    edge: bool,
    /// What changed since the last look, so that an edge must be reported, or may be.
    must: What,
    may: bool,
}

/// An active event. Of one batch those of different ports came in an order that nobody knows.
#[derive(Clone, Copy)]
struct Entry {
    event: usize,
    batch: Option<(usize, usize)>,
}

/// The model.
pub struct Model {
    setup: Setup,
    method: &'static str,
    local: bool,
    /// The base is libevent's own: it is to be as that is, where evd is not.
    libevent: bool,
    has_edges: bool,
    wires: [Wire; WIRES],
    clock: u64,
    /// The time that was taken with the last wait.
    now: u64,
    /// By number; `loopexit`s behind the others.
    events: Vec<Option<Event>>,
    watches: Vec<Watch>,
    queues: Vec<Vec<Entry>>,
    /// By batch: pairs of ports, of which the first is known to have come before the second.
    known: Vec<Vec<(usize, usize)>>,
    timers_set: u64,
    /// How often the signal came that was not told yet.
    raised: u32,
    /// How often the callback that runs is still to be called.
    calls_left: u32,
    running: bool,
    current: Option<usize>,
    running_priority: usize,
    exit: bool,
    stop: bool,
    again: bool,
    calls: u32,
    waits: u32,
    seen: VecDeque<Seen>,
}

impl Event {
    /// libevent does not count its own.
    fn is_libevents(&self) -> bool {
        self.own.is_some_and(|own| own != Own::Exit)
    }
}

impl Model {
    pub fn new(setting: &Setting, setup: &Setup) -> Model {
        let mut model = Model {
            setup: *setup,
            method: setting.method,
            local: setting.remote.is_none(),
            libevent: setting.libevent,
            has_edges: setting.method == "epoll",
            wires: Default::default(),
            clock: START,
            now: START,
            events: vec![None; usize::from(EVENTS) + 1],
            watches: vec![Watch::default(); usize::from(PORTS) + 1],
            queues: vec![Vec::new(); usize::from(setup.priorities)],
            known: Vec::new(),
            timers_set: 0,
            raised: 0,
            calls_left: 0,
            running: false,
            current: None,
            running_priority: 0,
            exit: false,
            stop: false,
            again: false,
            calls: 0,
            waits: 0,
            seen: VecDeque::new(),
        };
        let mut guard = model.event(None, What::PERSIST);
        guard.script = [Some(Act::Break), None];
        model.events[usize::from(GUARD)] = Some(guard);
        if model.libevent {
            for own in [Own::Signals, Own::Common] {
                model.events.push(Some(Event { own: Some(own), ..Event::default() }));
            }
        }
        model
    }

    fn event(&self, port: Option<u8>, what: What) -> Event {
        Event { port, what, priority: self.queues.len() / 2, ..Event::default() }
    }

    /// Goes through one operation, and compares.
    pub fn op(&mut self, op: &Op, seen: Vec<Seen>) -> Check {
        self.seen = seen.into();
        match *op {
            Op::New { event, .. }
                if self.events[usize::from(event)].as_ref().is_some_and(|e| e.finalizing) => {}
            Op::New { event, port, what, priority, script } => {
                self.free(usize::from(event));
                let mut new = self.event(port, What::from_bits_retain(what));
                new.script = script;
                self.events[usize::from(event)] = Some(new);
                if let Some(priority) = priority {
                    let outcome = self.act(Act::SetPriority(event, priority));
                    expect!("its priority", Some(Seen::Did(outcome)), self.seen.pop_front());
                }
            }
            Op::Do(act) => {
                let outcome = self.act(act);
                expect!("the result", Some(Seen::Did(outcome)), self.seen.pop_front());
            }
            Op::Loop(flags) => {
                let (ended, callbacks) = self.run_loop(LoopFlags::from_bits_retain(flags))?;
                let Some(Seen::Looped { ended: seen_ended, callbacks: seen_callbacks, .. }) =
                    self.seen.pop_front()
                else {
                    return Err(format!("the loop did not end with {ended:?}"));
                };
                expect!("the loop's end", (ended, callbacks), (seen_ended, seen_callbacks));
            }
        }
        let Some(Seen::State(events, base)) = self.seen.pop_front() else { unreachable!() };
        for (model, seen) in self.states().iter().zip(&events) {
            expect!("the state of an event after it", *model, *seen);
        }
        let active = self.all_active();
        let all = self.events.iter().flatten().filter(|e| !e.is_libevents());
        let lists =
            |e: &Event| usize::from(e.inserted) + usize::from(e.timer.is_some()) + usize::from(e.active);
        let added = all.map(lists).sum::<usize>();
        let model = BaseState { active, added, got_exit: self.exit, got_break: self.stop };
        expect!("the base after it", model, base);
        Ok(())
    }

    fn all_active(&self) -> usize {
        self.queues.iter().map(Vec::len).sum()
    }

    fn states(&self) -> Vec<EventState> {
        let all = self.events.iter().take(usize::from(EVENTS) + 1).enumerate();
        let state = |(number, e): (usize, &Option<Event>)| {
            let e = e.as_ref()?;
            Some(EventState {
                event: number as u8,
                pending: pending(e),
                left: self.left(e),
                priority: e.priority,
                count: e.count,
            })
        };
        all.filter_map(state).collect()
    }

    fn left(&self, e: &Event) -> Option<u64> {
        e.timer.map(|(deadline, _)| deadline.saturating_sub(self.clock))
    }

    fn e(&mut self, id: usize) -> &mut Event {
        self.events[id].as_mut().unwrap()
    }

    fn time(&self) -> u64 {
        if self.running { self.now } else { self.clock }
    }

    // What can be done with an event.

    fn add(&mut self, id: usize, timeout: Option<u64>) -> Outcome {
        let e = self.e(id);
        if e.finalizing || !e.inserted && !e.active && !self.insert(id) {
            return Outcome::Refused;
        }
        if let Some(timeout) = timeout {
            let at = self.time() + timeout;
            let (libevent, common) = (self.libevent, self.setup.common.map(|t| t * MS));
            let e = self.e(id);
            e.is_common = libevent && e.own.is_none() && common == Some(timeout);
            if e.what.contains(What::PERSIST) && !(libevent && e.port == Some(SIGNAL)) {
                e.interval = timeout;
            }
            if e.active && e.res.contains(What::TIMEOUT) {
                self.deactivate(id);
            }
            self.set_timer(id, at);
        }
        Outcome::Done
    }

    fn set_timer(&mut self, id: usize, deadline: u64) {
        self.timers_set += 1;
        let order = self.timers_set;
        let e = self.e(id);
        (e.timer, e.deadline) = (Some((deadline, order)), deadline);
        if e.is_common && self.first_common() == Some(id) {
            self.await_common(deadline);
        }
    }

    /// Into the list of its fd. `false`: edge-triggered and not, on one fd.
    fn insert(&mut self, id: usize) -> bool {
        let e = self.e(id);
        let (Some(port), what) = (e.port, e.what) else { return true };
        let edge = what.contains(What::ET) && self.has_edges;
        if port == SIGNAL && !self.libevent && self.watches[usize::from(port)].events.is_empty() {
            self.raised = 0;
        }
        let before = self.interest(port);
        let watch = &mut self.watches[usize::from(port)];
        if watch.events.is_empty() {
            watch.edge = edge;
        } else if watch.edge != edge {
            return false;
        }
        watch.events.insert(0, id);
        if !before.contains(what & What::IO) {
            (watch.must, watch.may) = (What::IO, true);
        }
        self.e(id).inserted = true;
        true
    }

    /// The event whose common timeout is over first.
    fn first_common(&self) -> Option<usize> {
        let timed = |(id, e): (usize, &Option<Event>)| {
            e.as_ref().filter(|e| e.is_common).and_then(|e| e.timer).map(|timer| (timer, id))
        };
        self.events.iter().enumerate().filter_map(timed).min().map(|first| first.1)
    }

    /// One timer stands for all of a common timeout.
    fn await_common(&mut self, deadline: u64) {
        let id = self.own(Own::Common);
        if self.e(id).active {
            self.deactivate(id);
        }
        self.set_timer(id, deadline);
    }

    fn own(&self, own: Own) -> usize {
        self.events.iter().position(|e| e.as_ref().is_some_and(|e| e.own == Some(own))).unwrap()
    }

    fn interest(&self, port: u8) -> What {
        let what = |id: &usize| self.events[*id].as_ref().unwrap().what & What::IO;
        self.watches[usize::from(port)].events.iter().map(what).fold(What::empty(), What::union)
    }

    fn remove(&mut self, id: usize) {
        let e = self.e(id);
        if let (true, Some(port)) = (e.inserted, e.port) {
            e.inserted = false;
            let watch = &mut self.watches[usize::from(port)];
            watch.events.retain(|x| *x != id);
            // The kernel is told of the smaller interest, and looks anew.
            watch.may = true;
        }
    }

    fn del(&mut self, id: usize) {
        if self.e(id).finalizing {
            return;
        }
        self.e(id).timer = None;
        // In libevent the timeout of a persistent event comes back with its next activation.
        if !self.libevent {
            self.e(id).interval = 0;
        }
        self.remove(id);
        self.deactivate(id);
    }

    fn free(&mut self, id: usize) {
        if self.events[id].is_some() {
            self.del(id);
            self.events[id] = None;
        }
    }

    fn deactivate(&mut self, id: usize) {
        let e = self.e(id);
        e.active = false;
        let priority = e.priority;
        self.queues[priority].retain(|entry| entry.event != id);
        if self.current == Some(id) {
            self.calls_left = 0;
        }
    }

    fn activate(&mut self, id: usize, res: What, batch: Option<(usize, usize)>) {
        self.activate_times(id, res, 1, batch);
    }

    fn activate_times(&mut self, id: usize, res: What, calls: u32, batch: Option<(usize, usize)>) {
        let e = self.e(id);
        if e.finalizing {
            return;
        }
        if e.active {
            e.res |= res;
            return;
        }
        (e.active, e.res, e.calls) = (true, res, calls);
        let priority = e.priority;
        self.queues[priority].push(Entry { event: id, batch });
        if self.current.is_some() && priority < self.running_priority {
            self.again = true;
        }
    }
}

fn pending(e: &Event) -> What {
    let mut what = What::empty();
    if e.inserted {
        what |= e.what & (What::IO | What::SIGNAL);
    }
    if e.active {
        what |= e.res;
    }
    what.set(What::TIMEOUT, e.timer.is_some() || what.contains(What::TIMEOUT));
    what & (What::IO | What::SIGNAL | What::TIMEOUT)
}
