//! The loop: one turn waits and fills the active queues, then the most urgent queue runs.
//!
//! Source: libevent's `event_base_loop` and `event_process_active`, as described in its documentation. No borrow of the state lives while a
//! callback, a posted closure or a link callback runs.

use crate::link::LINK_TOKEN;
use crate::park::GRACE;
use crate::state::{Call, Core, Flow, Mail, NIL, Place, Source, State};
use crate::{Error, EventBase};
use evd::base::Activation;
use evd_proto::sys::{PollFd, poll};
use std::rc::Rc;
use std::time::Duration;

bitflags::bitflags! {
    /// How a loop runs. None of them: until nothing is pending, or it is told to stop.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct LoopFlags: u32 {
        /// Wait until something is active, run it, and end.
        const ONCE = 1;
        /// Don't wait: run what is active, as long as something is, and end.
        const NONBLOCK = 2;
        /// Go on when nothing is pending: something may be added by another thread.
        const NO_EXIT_ON_EMPTY = 4;
    }
}

/// Why a loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// `loopexit`.
    Exit,
    /// `loopbreak`.
    Break,
    /// Nothing is pending or active any more.
    Empty,
    /// What its flags asked for is done.
    Done,
}

/// What a loop did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looped {
    /// Why it ended.
    pub ended: Ended,
    /// Callbacks that ran.
    pub callbacks: u64,
}

impl Looped {
    /// libevent's return value: 1 if nothing was left, else 0.
    pub fn code(&self) -> i32 {
        i32::from(self.ended == Ended::Empty)
    }
}

/// Tags the tokens of timers in the local base, apart from those of watches.
const TIMER: u64 = 1 << 61;

pub(crate) fn timer_token(id: u32) -> u64 {
    TIMER | u64::from(id)
}

impl State {
    /// One wait, and what came of it is active afterwards.
    fn turn(&mut self, may_wait: bool) -> Result<(), Error> {
        let mut may_wait = may_wait && self.always.is_empty();
        if may_wait {
            may_wait = !self.settle() && self.queues.is_empty();
        } else {
            self.look_at_outs();
            self.send_pending();
        }
        let timeout = if may_wait { self.longest_wait() } else { Some(Duration::ZERO) };
        let mut came = std::mem::take(&mut self.activations);
        let waited = self.base.wait(timeout, &mut came);
        self.wakeups += u64::from(!came.is_empty());
        self.take_activations(&mut came);
        self.fire_always();
        self.base.expire(&mut came);
        self.look_behind_timers(&came);
        for activation in came.drain(..) {
            if let Activation::Timer { token, .. } = activation {
                self.take_timer((token & !TIMER) as u32);
            }
        }
        self.activations = came;
        self.tend_link();
        waited.map_err(Error::Os)
    }

    /// How long the loop may sleep: to its next timer, or to what parking and the link want it awake for.
    fn longest_wait(&mut self) -> Option<Duration> {
        let mut deadline = self.base.next_deadline();
        if self.link.is_wanted() {
            // evd wakes us for a timer it has; if it does not, we are late by the grace and no more.
            if self.park.timers_at_evd >= self.timed && self.timed > 0 {
                deadline = deadline.map(|d| d.saturating_add(GRACE));
            }
            let relied_on = self.relies_on_evd();
            let park = if self.link.is_up() { self.park.deadline() } else { None };
            deadline = [deadline, self.link.deadline(relied_on), park].into_iter().flatten().min();
        }
        let deadline = deadline?;
        Some(Duration::from_nanos(deadline.saturating_sub(self.base.refresh_now())))
    }

    fn take_activations(&mut self, came: &mut Vec<Activation>) {
        let mut link = false;
        for activation in came.drain(..) {
            match activation {
                Activation::Ready { token: LINK_TOKEN, .. } => link = true,
                Activation::Ready { token, ready } => {
                    let w = token as u32;
                    if self.watches.contains(w as usize) && !self.fire(w, ready) {
                        self.mute(w);
                    }
                }
                Activation::Signal(signal) => {
                    if let Some(&first) = self.signals.get(&signal.signo) {
                        self.signal_came(first, signal.count);
                    }
                }
                // The mail is read after each turn.
                Activation::Mail | Activation::Timer { .. } => {}
            }
        }
        if link {
            self.read_link();
            self.look_at_outs();
            self.flush_link();
        }
    }

    /// Before an event with an fd is told that its time is over, its fd is looked at, if that was not done just now: data that came in time is not
    /// to be reported as a timeout.
    fn look_behind_timers(&mut self, came: &[Activation]) {
        if self.park.parked == 0 {
            return;
        }
        let mut asked: Vec<u32> = Vec::new();
        for activation in came {
            let Activation::Timer { token, .. } = activation else { continue };
            let Some(slot) = self.events.get((token & !TIMER) as usize) else { continue };
            let Some(watch) = self.watches.get(slot.watch as usize) else { continue };
            if watch.place == Place::Parked && !watch.edge && !asked.contains(&slot.watch) {
                asked.push(slot.watch);
            }
        }
        let mut polls: Vec<PollFd> =
            asked.iter().map(|w| PollFd::new(self.watch(*w).fd, self.watch(*w).interest)).collect();
        if asked.is_empty() || poll(&mut polls, Some(Duration::ZERO)).is_err() {
            return;
        }
        for (&w, poll) in asked.iter().zip(&polls) {
            if !poll.ready().is_empty() {
                self.set_place(w, Place::Out);
                self.fire(w, poll.ready());
            }
        }
    }

    fn take_timer(&mut self, id: u32) {
        let Some(slot) = self.events.get(id as usize) else { return };
        if slot.timer.is_none() {
            return;
        }
        // evd had it and did not wake us in time: it may be stuck.
        let late = self.base.now().saturating_sub(slot.deadline) >= GRACE;
        if late && self.link.is_up() && self.evd_has_timer(id, slot.deadline) {
            self.suspect();
        }
        self.timer_due(id);
    }

    /// What is needed outside of a loop after an event was changed there: what evd must know is sent at once, and the base's fd stays truthful.
    pub fn after_change(&mut self) {
        if self.flow.running {
            return;
        }
        self.send_pending();
        if self.nested {
            self.arm_nested();
        }
    }

    /// For a loop of the user's own that polls the base's fd: everything as before a wait, but the waiting.
    pub fn arm_nested(&mut self) {
        self.base.refresh_now();
        // Nothing becomes active here: by the time the loop runs it may have been read already.
        let ready = !self.queues.is_empty() || !self.always.is_empty() || self.has_ready_out();
        if !ready {
            self.settle();
        }
        let deadline = if ready {
            Some(0)
        } else {
            self.longest_wait().map(|d| self.base.now().saturating_add(d.as_nanos() as u64))
        };
        if let Err(e) = self.base.arm_pollable(deadline) {
            log::warn!("the base's fd can't be armed: {e}");
        }
    }
}

/// Ends the loop's state also when a callback panics: the base stays usable, and what is active stays active.
struct Running<'a>(&'a Core);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let forked = self.0.check_fork().is_err();
        let mut state = self.0.state.borrow_mut();
        let flow = &mut state.flow;
        *flow = Flow { got_exit: flow.exit, got_break: flow.stop, current: NIL, ..Flow::default() };
        if state.nested && !forked {
            state.arm_nested();
        }
    }
}

pub(crate) fn run_loop(core: &Rc<Core>, flags: LoopFlags) -> Result<Looped, Error> {
    core.check_fork()?;
    {
        let mut state = core.state.borrow_mut();
        if state.flow.running {
            return Err(Error::Reentrant);
        }
        state.base.refresh_now();
        state.flow = Flow { running: true, current: NIL, ..Flow::default() };
    }
    let running = Running(core);
    let mut callbacks = 0;
    let ended = loop {
        tell_news(core);
        // Whatever runs may fork, and this may be the child: here, and below.
        core.check_fork()?;
        {
            let mut state = core.state.borrow_mut();
            state.flow.again = false;
            if state.flow.exit {
                break Ended::Exit;
            }
            if state.flow.stop {
                break Ended::Break;
            }
            let may_wait = state.queues.is_empty() && !flags.contains(LoopFlags::NONBLOCK);
            if !flags.contains(LoopFlags::NO_EXIT_ON_EMPTY)
                && state.is_empty()
                && core.shared.mail().is_empty()
            {
                // Somebody polls the base's fd: what made it readable must be read, though nothing here waits for it.
                if state.nested {
                    state.turn(false)?;
                }
                if state.is_empty() {
                    break Ended::Empty;
                }
            }
            state.turn(may_wait)?;
        }
        let posted = read_mail(core);
        callbacks += posted;
        tell_news(core);
        core.check_fork()?;
        if core.state.borrow().queues.is_empty() {
            let done = flags.contains(LoopFlags::NONBLOCK) || (flags.contains(LoopFlags::ONCE) && posted > 0);
            if done && !core.state.borrow().flow.stop && !core.state.borrow().flow.exit {
                break Ended::Done;
            }
            continue;
        }
        let ran = process_active(core);
        callbacks += ran;
        core.check_fork()?;
        let state = core.state.borrow();
        if flags.contains(LoopFlags::ONCE) && state.queues.is_empty() && ran > 0 {
            break if state.flow.exit {
                Ended::Exit
            } else if state.flow.stop {
                Ended::Break
            } else {
                Ended::Done
            };
        }
    };
    drop(running);
    Ok(Looped { ended, callbacks })
}

/// Runs the most urgent queue; returns how many callbacks ran.
fn process_active(core: &Rc<Core>) -> u64 {
    let mut ran = 0;
    let priority = {
        let mut state = core.state.borrow_mut();
        let first = (0..state.queues.priorities()).find(|p| state.queues.first(*p).is_some());
        let Some(priority) = first else { return 0 };
        state.flow.running_priority = priority;
        priority
    };
    loop {
        let next = {
            let state = core.state.borrow();
            if state.flow.stop || state.flow.again { None } else { state.queues.first(priority) }
        };
        let Some(id) = next else { break };
        ran += run_event(core, id);
        if core.check_fork().is_err() {
            return ran;
        }
        read_mail(core);
    }
    core.state.borrow_mut().flow.running_priority = 0;
    ran
}

/// Runs one active event; returns how many calls it had.
fn run_event(core: &Rc<Core>, id: u32) -> u64 {
    let (target, res, generation) = {
        let mut state = core.state.borrow_mut();
        let target = match &state.slot(id).call {
            Call::User(target) => target.upgrade(),
            Call::Exit => {
                state.before_callback(id);
                state.free_event(id);
                state.flow.exit = true;
                return 1;
            }
        };
        let (res, calls) = state.before_callback(id);
        let slot = state.slot_mut(id);
        let generation = slot.generation;
        let repeats = matches!(slot.source, Source::Signal(_) | Source::DaemonSignal(_));
        slot.calls = calls;
        state.flow.current = id;
        state.flow.calls_left = if repeats { calls } else { 1 };
        (target, res, generation)
    };
    let Some(target) = target else { return 0 };
    let mut ran = 0;
    loop {
        {
            let mut state = core.state.borrow_mut();
            let gone = state.events.get(id as usize).is_none_or(|s| s.generation != generation);
            // A break ends the repetition; so does a del of the event inside its own callback, and a fork in the child.
            let over = gone || state.flow.stop || core.check_fork().is_err();
            if state.flow.calls_left == 0 || (ran > 0 && over) {
                break;
            }
            state.flow.calls_left -= 1;
            state.callbacks += 1;
        }
        Rc::clone(&target).run(res);
        ran += 1;
    }
    core.state.borrow_mut().flow.current = NIL;
    ran
}

/// What other threads asked for. Posted closures run here; returns how many.
fn read_mail(core: &Rc<Core>) -> u64 {
    let mail = {
        let mut mail = core.shared.mail();
        if mail.is_empty() {
            return 0;
        }
        std::mem::take(&mut *mail)
    };
    let mut posted = 0;
    for one in mail {
        match one {
            Mail::Wake => {}
            Mail::Post(closure) => {
                posted += 1;
                core.state.borrow_mut().callbacks += 1;
                closure(&EventBase::from_core(core));
                if core.check_fork().is_err() {
                    return posted;
                }
            }
            Mail::Activate { id, generation, what } => {
                let mut state = core.state.borrow_mut();
                if state.events.get(id as usize).is_some_and(|s| s.generation == generation) {
                    state.activate(id, what, 1);
                }
            }
            Mail::Exit => core.state.borrow_mut().flow.exit = true,
            Mail::Break => core.state.borrow_mut().flow.stop = true,
        }
    }
    posted
}

/// Tells the user how the link has changed.
pub(crate) fn tell_news(core: &Rc<Core>) {
    loop {
        let news = std::mem::take(&mut core.state.borrow_mut().link.news);
        if news.is_empty() {
            return;
        }
        // Taken out meanwhile, so that the callback may set another one.
        let Some(mut callback) = core.on_link.borrow_mut().take() else { return };
        let base = EventBase::from_core(core);
        for state in &news {
            callback(&base, state);
        }
        core.on_link.borrow_mut().get_or_insert(callback);
    }
}
