//! Running what is active: the most urgent queue, event by event, and whatever else calls the user's code.
//!
//! Source: libevent's `event_process_active`, as described in its documentation. No borrow of the state and no lock lives while a callback, a posted closure, a
//! watcher or a link callback runs. A fork in any of them ends the child's loop.

use crate::mailbox::Mail;
use crate::state::{Call, Core, NIL, Source};
use crate::watchers::{Moment, Slow};
use crate::{EventBase, EventKey};
use evd_proto::What;
use evd_proto::sys;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Runs the most urgent queue; returns how many callbacks ran.
pub(crate) fn process_active(core: &Rc<Core>) -> u64 {
    let mut ran = 0;
    let (priority, limits) = {
        let mut state = core.state.borrow_mut();
        let Some(priority) = state.choose_queue() else { return 0 };
        state.flow.running_priority = priority;
        (priority, state.limits.clone())
    };
    let limited =
        priority >= limits.min_priority && (limits.callbacks < u64::MAX || limits.interval < u64::MAX);
    let until =
        if limited { core.state.borrow().base.now().saturating_add(limits.interval) } else { u64::MAX };
    loop {
        let next = {
            let state = core.state.borrow();
            if state.flow.stop || state.flow.again { None } else { state.queues.first(priority) }
        };
        let Some(id) = next else { break };
        let shared = core.shared();
        // Others can ask for something only through a handle.
        let asked = Arc::strong_count(&shared) > 1;
        if asked {
            let key = EventKey { id, generation: core.state.borrow().slot(id).generation };
            if !shared.begin(key, std::thread::current().id()) {
                drop(shared);
                read_mail(core);
                if core.check_fork().is_err() {
                    return ran;
                }
                continue;
            }
        }
        let running = asked.then(|| Running(Arc::clone(&shared)));
        drop(shared);
        ran += run_event(core, id);
        drop(running);
        if core.check_fork().is_err() {
            return ran;
        }
        if limited {
            // Others may be waiting in the kernel: look again. With a limit of time that is taken anew after each callback, as in libevent.
            let timed = limits.interval < u64::MAX;
            if ran >= limits.callbacks || (timed && core.state.borrow_mut().base.refresh_now() >= until) {
                break;
            }
        }
    }
    core.state.borrow_mut().flow.running_priority = 0;
    ran
}

/// Ends the note that an event's callback runs, also when it panics.
struct Running(Arc<crate::mailbox::Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Runs one active event; returns how many calls it had.
fn run_event(core: &Rc<Core>, id: u32) -> u64 {
    let (target, res, generation) = {
        let mut state = core.state.borrow_mut();
        let target = match &mut state.slot_mut(id).call {
            Call::User(target) => target.upgrade(),
            Call::Exit => {
                state.before_callback(id);
                state.free_event(id);
                state.flow.exit = true;
                return 1;
            }
            Call::Finalizer(_) => {
                let finalizer = state.take_finalizer(id);
                drop(state);
                if let Some(run) = finalizer {
                    run();
                }
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
        let timed = {
            let mut state = core.state.borrow_mut();
            let gone = state.events.get(id as usize).is_none_or(|s| s.generation != generation);
            // A break ends the repetition; so does a del of the event inside its own callback, and a fork in the child.
            let over = gone || state.flow.stop || core.check_fork().is_err();
            if state.flow.calls_left == 0 || (ran > 0 && over) {
                break;
            }
            state.flow.calls_left -= 1;
            state.callbacks += 1;
            state.timed_callbacks
        };
        if timed {
            let before = sys::monotonic_ns();
            Rc::clone(&target).run(res);
            took(core, EventKey { id, generation }, res, sys::monotonic_ns().saturating_sub(before));
        } else {
            Rc::clone(&target).run(res);
        }
        ran += 1;
    }
    core.state.borrow_mut().flow.current = NIL;
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

impl crate::state::State {
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
            Mail::Activate { key, what } if known(self, key) => self.activate(key.id, what, 1),
            Mail::Exit => self.flow.exit = true,
            Mail::Break => self.flow.stop = true,
            Mail::Continue => self.flow.again = true,
            Mail::Wake | Mail::Post(_) => {}
            // The event is gone meanwhile.
            Mail::Add { .. } | Mail::Del(_) | Mail::RemoveTimer(_) | Mail::Activate { .. } => {}
        }
    }

    /// The queue that is to run: the most urgent one that has something; but after `fairness` rounds in which others had to wait, one of those, in turn.
    fn choose_queue(&mut self) -> Option<usize> {
        let mut waiting = (0..self.queues.priorities()).filter(|p| self.queues.first(*p).is_some());
        let first = waiting.next()?;
        if self.limits.fairness == u32::MAX {
            return Some(first);
        }
        let others: Vec<usize> = waiting.collect();
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
