//! The loop: one turn waits and fills the active queues, then the most urgent queue runs (in [`run`]).
//!
//! Source: libevent's `event_base_loop` and `event_process_active`, as described in its documentation. No borrow of the state lives while a
//! callback, a posted closure or a link callback runs.

use crate::Error;
use crate::link::LINK_TOKEN;
use crate::park::GRACE;
use crate::run;
use crate::state::{Core, Flow, NIL, Place, Sender, State};
use crate::watchers::Moment;
use evd::base::Activation;
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
    /// Gets ready for a wait, and says until when it may last; 0: it is only a look. `asks_now`: the loop never waits, and asks what is ready this moment.
    fn before_wait(&mut self, may_wait: bool, asks_now: bool) -> Option<u64> {
        if !self.laters.is_empty() {
            for id in std::mem::take(&mut self.laters) {
                self.activate_now(id);
            }
        }
        let mut may_wait = may_wait && !self.is_always_ready() && self.queues.is_empty();
        if may_wait {
            may_wait = !self.settle() && self.queues.is_empty();
        } else {
            self.look_at_outs();
            if asks_now {
                self.look_at_parked();
            }
            self.send_at_once();
        }
        if may_wait {
            self.park.was_asked = false;
            self.longest_wait()
        } else {
            Some(0)
        }
    }

    /// Waits; what came is active afterwards, timers excepted.
    fn wait(&mut self, deadline: Option<u64>) -> Result<(), Error> {
        let mut came = std::mem::take(&mut self.activations);
        let waited = self.base.wait_for_reports(deadline, &mut came);
        let reports = self.base.take_reports();
        self.wakeups += u64::from(!came.is_empty() || !reports.is_empty());
        let mut link = false;
        for report in &reports {
            if report.token == LINK_TOKEN {
                link = true;
                continue;
            }
            self.reported(report.token as u32, report.ready);
        }
        self.base.give_back(reports);
        self.take_activations(&mut came);
        self.activations = came;
        if link {
            self.read_link();
            if self.look_at_outs() {
                self.look_beside_reports();
            }
            self.flush_link();
        }
        if !self.always.is_empty() {
            self.fire_always();
        }
        self.note_most();
        waited.map_err(Error::Os)
    }

    /// Makes active what is due.
    fn run_timers(&mut self) {
        if !self.base.has_timers() {
            return self.tend_link();
        }
        let mut came = std::mem::take(&mut self.activations);
        self.base.expire(&mut came);
        self.look_behind_timers(&came);
        for activation in came.drain(..) {
            if let Activation::Timer { token, deadline } = activation {
                self.take_timer((token & !TIMER) as u32, deadline);
            }
        }
        self.note_most();
        self.activations = came;
        self.tend_link();
    }

    /// Until when the loop may sleep: to its next timer, or to what parking and the link want it awake for.
    fn longest_wait(&mut self) -> Option<u64> {
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
        deadline
    }

    fn take_activations(&mut self, came: &mut Vec<Activation>) {
        // The mail is read after each turn.
        for activation in came.drain(..) {
            let Activation::Signal(signal) = activation else { continue };
            if let Some(&first) = self.signals.get(&signal.signo) {
                let sender = Sender { pid: signal.pid, uid: signal.uid, code: signal.code };
                self.signal_came(first, signal.signo, signal.count, sender);
            }
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
            if watch.place == Place::Parked && !watch.is_edge() && !asked.contains(&slot.watch) {
                asked.push(slot.watch);
            }
        }
        self.look_at(&asked);
    }

    fn take_timer(&mut self, id: u32, deadline: u64) {
        let Some(slot) = self.events.get(id as usize) else { return };
        if slot.timer.is_none() {
            return;
        }
        // evd had it and did not wake us in time: it may be stuck.
        let late = self.base.now().saturating_sub(deadline) >= GRACE;
        if late && self.link.is_up() && self.evd_has_timer(id, deadline) {
            self.suspect();
        }
        self.timer_due(id, deadline);
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
        let ready = !self.queues.is_empty() || self.is_always_ready() || self.has_ready_out();
        if !ready {
            self.park_quiet();
        }
        // If evd is lost with that, what it had said before is active now.
        let deadline = if ready || !self.queues.is_empty() { Some(0) } else { self.longest_wait() };
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
        if !forked {
            // What the last callbacks deleted is not to stay at evd until there is a next loop.
            state.after_change();
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
        let stop = std::mem::take(&mut state.stop_next);
        state.flow = Flow { running: true, stop, current: NIL, ..Flow::default() };
    }
    let running = Running(core);
    let (mut callbacks, mut looked) = (0, false);
    let ended = loop {
        let mut may_wait = !flags.contains(LoopFlags::NONBLOCK);
        run::tell_news(core);
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
            if !flags.contains(LoopFlags::NO_EXIT_ON_EMPTY) && state.is_empty() && !core.has_mail() {
                // In a loop of the user's own the base's fd must not stay readable for what evd still says to a base that has nothing any more.
                if !state.nested || looked {
                    break Ended::Empty;
                }
                (looked, may_wait) = (true, false);
            }
        }
        // Mail that is left of a closure that panicked is in no mailbox that would end the wait.
        turn(core, may_wait && core.inbox.borrow().is_empty(), flags.contains(LoopFlags::NONBLOCK))?;
        if looked && core.state.borrow().is_empty() {
            continue;
        }
        let posted = run::read_mail(core);
        callbacks += posted;
        run::tell_news(core);
        core.check_fork()?;
        if core.state.borrow().queues.is_empty() {
            let done = flags.contains(LoopFlags::NONBLOCK) || (flags.contains(LoopFlags::ONCE) && posted > 0);
            if done && !core.state.borrow().flow.stop && !core.state.borrow().flow.exit {
                break Ended::Done;
            }
            continue;
        }
        let ran = run::process_active(core);
        callbacks += ran.callbacks;
        core.check_fork()?;
        let state = core.state.borrow();
        if flags.contains(LoopFlags::ONCE) && state.queues.is_empty() && ran.events > 0 {
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

/// One wait with its watchers, and what came of it is active afterwards.
fn turn(core: &Rc<Core>, may_wait: bool, asks_now: bool) -> Result<(), Error> {
    let mut deadline = core.state.borrow_mut().before_wait(may_wait, asks_now);
    if core.watchers.borrow().watch(Moment::Prepare) {
        let now = core.state.borrow().base.look_at_clock();
        let timeout = deadline.map(|d| Duration::from_nanos(d.saturating_sub(now)));
        run::watchers(core, Moment::Prepare, timeout);
        core.check_fork()?;
        // They may have made something active, or due earlier.
        deadline = core.state.borrow_mut().before_wait(may_wait, false);
    }
    let waited = core.state.borrow_mut().wait(deadline);
    if core.watchers.borrow().watch(Moment::Check) {
        run::watchers(core, Moment::Check, None);
        core.check_fork()?;
    }
    core.state.borrow_mut().run_timers();
    waited
}
