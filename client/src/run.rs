//! Running what is active: the most urgent queue, event by event, and whatever else calls the user's code.
//!
//! Source: libevent's `event_process_active`, as described in its documentation. No borrow of the state and no lock lives while a callback, a posted closure, a
//! watcher or a link callback runs. A fork in any of them ends the child's loop.

use crate::mailbox::Mail;
use crate::state::{Bits, Call, Core, Limits, NIL, Source, State, Target};
use crate::watchers::{Moment, Slow};
use crate::{EventBase, EventKey};
use evd_proto::What;
use evd_proto::sys;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What ran of a queue.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ran {
    pub events: u64,
    /// Of a signal's event as many as it came, also none; and closures that were posted meanwhile.
    pub callbacks: u64,
}

/// Runs the most urgent queue.
pub(crate) fn process_active(core: &Rc<Core>) -> Ran {
    let mut ran = Ran::default();
    let mut state = core.state.borrow_mut();
    let Some(priority) = state.choose_queue() else { return ran };
    state.flow.running_priority = priority;
    let Limits { interval, callbacks, min_priority, .. } = state.limits;
    let limited = priority >= min_priority && (callbacks < u64::MAX || interval < u64::MAX);
    let timed = limited && interval < u64::MAX;
    let until = if timed { state.base.refresh_now().saturating_add(interval) } else { u64::MAX };
    while !(state.flow.stop || state.flow.again) {
        let Some(id) = state.first_of(priority) else { break };
        // Others can ask for something only through a handle.
        let note = if core.has_handles() {
            let key = EventKey { id, generation: state.slot(id).generation };
            let shared = Arc::clone(&core.shared());
            if !shared.begin(key, std::thread::current().id()) {
                drop(state);
                ran.callbacks += read_mail(core);
                if core.check_fork().is_err() {
                    return ran;
                }
                state = core.state.borrow_mut();
                continue;
            }
            Some(Running(shared))
        } else {
            None
        };
        let job = state.begin(id);
        drop(state);
        ran.callbacks += run(core, id, job);
        ran.events += 1;
        drop(note);
        if core.check_fork().is_err() {
            return ran;
        }
        state = core.state.borrow_mut();
        state.flow.current = NIL;
        // Others may be waiting in the kernel: look again. With a limit of time that is taken anew after each callback, as in libevent.
        if limited && (ran.events >= callbacks || (timed && state.base.refresh_now() >= until)) {
            break;
        }
    }
    state.flow.running_priority = 0;
    ran
}

/// Ends the note that an event's callback runs, also when it panics.
struct Running(Arc<crate::mailbox::Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What is to be run of an active event.
enum Job {
    Call(Rc<dyn Target>, What),
    /// Of a signal: as often as it came.
    Calls(Rc<dyn Target>, What, u32),
    Timed(Rc<dyn Target>, What, u32),
    Finalizer(Box<dyn FnOnce()>),
    Exit,
    Nothing,
}

impl State {
    /// Takes an active event off its queue.
    #[inline]
    fn begin(&mut self, id: u32) -> Job {
        let slot = self.slot(id);
        let repeats = slot.is(Bits::COUNTED) && slot.source != Source::Name;
        let target = match &slot.call {
            Call::User(target) => target.upgrade(),
            Call::Own(None) => {
                self.before_callback(id);
                self.free_event(id);
                self.flow.exit = true;
                return Job::Exit;
            }
            Call::Own(Some(_)) => return self.take_finalizer(id).map_or(Job::Nothing, Job::Finalizer),
        };
        let (res, calls) = self.before_callback(id);
        let Some(target) = target else { return Job::Nothing };
        self.flow.current = id;
        self.flow.calls_left = if repeats { calls } else { 1 };
        if self.timed_callbacks {
            return Job::Timed(target, res, self.slot(id).generation);
        }
        if repeats {
            return Job::Calls(target, res, self.slot(id).generation);
        }
        self.callbacks += 1;
        Job::Call(target, res)
    }

    /// Whether an event's callback is to be called (once more), the `ran`th time.
    fn calls_again(&mut self, core: &Core, id: u32, generation: u32, ran: u64) -> bool {
        let gone = self.events.get(id as usize).is_none_or(|s| s.generation != generation);
        // A break ends the repetition; so does a del of the event inside its own callback, and a fork in the child.
        let over = gone || self.flow.stop || core.check_fork().is_err();
        if self.flow.calls_left == 0 || (ran > 0 && over) {
            return false;
        }
        self.flow.calls_left -= 1;
        self.callbacks += 1;
        true
    }
}

/// Runs it; returns how many calls it had.
fn run(core: &Rc<Core>, id: u32, job: Job) -> u64 {
    let mut ran = 0;
    match job {
        Job::Call(target, res) => {
            target.run(res);
            return 1;
        }
        Job::Calls(target, res, generation) => {
            while core.state.borrow_mut().calls_again(core, id, generation, ran) {
                Rc::clone(&target).run(res);
                ran += 1;
            }
        }
        Job::Timed(target, res, generation) => {
            while core.state.borrow_mut().calls_again(core, id, generation, ran) {
                let before = sys::monotonic_ns();
                Rc::clone(&target).run(res);
                let ns = sys::monotonic_ns().saturating_sub(before);
                took(core, EventKey { id, generation }, res, ns);
                ran += 1;
            }
        }
        Job::Finalizer(run) => {
            run();
            return 1;
        }
        Job::Exit => return 1,
        Job::Nothing => {}
    }
    ran
}

/// Notes how long a callback ran, in nanoseconds, and says so if that was too long.
fn took(core: &Rc<Core>, key: EventKey, what: What, ns: u64) {
    let label = {
        let mut state = core.state.borrow_mut();
        if state.events.get(key.id as usize).is_some_and(|s| s.generation == key.generation) {
            let at = key.id as usize;
            if state.times.len() <= at {
                state.times.resize(at + 1, (0, 0));
            }
            let (total, longest) = &mut state.times[at];
            *total = total.saturating_add(ns);
            *longest = ns.max(*longest);
        }
        if ns < state.slow_limit {
            return;
        }
        state.labels.get(&key.id).cloned().unwrap_or_default()
    };
    // Taken out meanwhile, so that the callback may set another one.
    let Some(mut callback) = core.on_slow.borrow_mut().take() else { return };
    callback(&EventBase::from_core(core), &Slow { event: key, label, what, took: Duration::from_nanos(ns) });
    core.on_slow.borrow_mut().get_or_insert(callback);
}

/// What other threads asked for. Posted closures run here; returns how many.
pub(crate) fn read_mail(core: &Rc<Core>) -> u64 {
    let mut posted = 0;
    if core.shared().has_mail() {
        core.shared().take(&mut *core.inbox.borrow_mut());
    } else if core.inbox.borrow().is_empty() {
        return 0;
    }
    // One by one: if a closure panics the rest is still there.
    while let Some(mail) = take_first(core) {
        match mail {
            Mail::Post(closure) => {
                posted += 1;
                core.state.borrow_mut().callbacks += 1;
                closure(&EventBase::from_core(core));
                if core.check_fork().is_err() {
                    return posted;
                }
            }
            other => core.state.borrow_mut().take_mail(other),
        }
    }
    posted
}

fn take_first(core: &Core) -> Option<Mail> {
    core.inbox.borrow_mut().pop_front()
}

impl State {
    fn take_mail(&mut self, mail: Mail) {
        let known = |state: &Self, key: EventKey| {
            state.events.get(key.id as usize).is_some_and(|s| s.generation == key.generation)
        };
        match mail {
            Mail::Add { key, timeout } if known(self, key) => {
                if let Err(e) = self.add(key.id, timeout) {
                    log::warn!("an event could not be added for another thread: {e}");
                }
            }
            Mail::Del(key) if known(self, key) => self.del(key.id),
            Mail::RemoveTimer(key) if known(self, key) => self.remove_timeout(key.id),
            Mail::Activate { key, what } if known(self, key) => self.activate_by_hand(key.id, what, 1),
            Mail::Exit => self.flow.exit = true,
            Mail::Break => self.flow.stop = true,
            Mail::Continue => self.flow.again = true,
            Mail::Wake | Mail::Post(_) => {}
            // The event is gone meanwhile.
            Mail::Add { .. } | Mail::Del(_) | Mail::RemoveTimer(_) | Mail::Activate { .. } => {}
        }
    }

    fn first_of(&mut self, priority: usize) -> Option<u32> {
        self.queues.first(&self.events, priority)
    }

    /// The queue that is to run: the most urgent one that has something; but after `fairness` rounds in which others had to wait, one of those, in turn.
    fn choose_queue(&mut self) -> Option<usize> {
        let all = self.queues.priorities();
        let first = (0..all).find(|p| self.first_of(*p).is_some())?;
        if self.limits.fairness == u32::MAX {
            return Some(first);
        }
        let others: Vec<usize> = (first + 1..all).filter(|p| self.first_of(*p).is_some()).collect();
        if others.is_empty() {
            self.passed_over = 0;
            return Some(first);
        }
        self.passed_over += 1;
        if self.passed_over <= self.limits.fairness {
            return Some(first);
        }
        self.passed_over = 0;
        let last = self.last_helped;
        let next = others.iter().copied().find(|p| *p > last).unwrap_or(others[0]);
        self.last_helped = next;
        Some(next)
    }
}

/// Runs the watchers of one moment, in the order in which they were made. One that is made meanwhile waits for the next time.
pub(crate) fn watchers(core: &Rc<Core>, moment: Moment, timeout: Option<Duration>) {
    let ids = core.watchers.borrow().ids(moment);
    let base = EventBase::from_core(core);
    for id in ids {
        let Some(watcher) = core.watchers.borrow().get(id) else { continue };
        // It can't be running already: loops don't nest.
        (watcher.borrow_mut())(&base, timeout);
        if core.check_fork().is_err() {
            return;
        }
    }
}

/// Tells the user how the link has changed.
pub(crate) fn tell_news(core: &Rc<Core>) {
    while !core.state.borrow().link.news.is_empty() {
        let news = std::mem::take(&mut core.state.borrow_mut().link.news);
        // Taken out meanwhile, so that the callback may set another one.
        let Some(mut callback) = core.on_link.borrow_mut().take() else { return };
        let base = EventBase::from_core(core);
        for state in &news {
            callback(&base, state);
        }
        core.on_link.borrow_mut().get_or_insert(callback);
    }
}
