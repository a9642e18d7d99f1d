//! add, del, active, pending: libevent's state machine of one event.
//!
//! Source: libevent's event.c (`event_add_nolock_`, `event_del_nolock_`, `event_active_nolock_`), as described in its documentation.

use crate::Error;
use crate::state::{Bits, Call, Finalizer, NIL, Slot, Source, State, Timing};
use evd::base::TimerId;
use evd_proto::What;
use std::time::Duration;

/// An event between two bases.
pub(crate) struct Moved {
    call: Call,
    source: Source,
    what: What,
    count: u64,
    label: Option<String>,
    name: Option<String>,
    slack: Option<(u64, u64)>,
}

impl State {
    /// Makes an event that is not pending.
    pub fn new_event(&mut self, call: Call, source: Source, what: What) -> u32 {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let priority = (self.queues.priorities() / 2) as u8;
        let slot = Slot {
            call,
            source,
            watch: NIL,
            next: NIL,
            position: 0,
            count: 0,
            timer: None,
            generation,
            what,
            res: What::empty(),
            priority,
            bits: if source.is_counted() { Bits::COUNTED } else { Bits::empty() },
        };
        self.events.insert(slot) as u32
    }

    /// `event_free`, without the memory of the user.
    pub fn free_event(&mut self, id: u32) {
        self.take_off(id);
        if let Source::Fd(fd) = self.slot(id).source {
            self.forget_fd(fd);
        }
        self.events.remove(id as usize);
        self.forget_aside(id);
        self.park.forget_timer(id);
    }

    /// Neither pending nor active, nor about to be.
    pub fn is_idle(&self, id: u32) -> bool {
        let slot = self.slot(id);
        !slot.is(Bits::INSERTED | Bits::ACTIVE | Bits::LATER) && slot.timer.is_none()
    }

    /// Takes an idle event out, to be moved to another base.
    pub fn move_out(&mut self, id: u32) -> Moved {
        let slot = self.slot(id);
        let (source, what) = (slot.source, slot.what);
        let count = self.count(id);
        let call = std::mem::replace(&mut self.slot_mut(id).call, Call::Own(None));
        let (label, name) = (self.labels.remove(&id), self.named.remove(&id));
        let slack = self.slacks.remove(&id);
        self.free_event(id);
        if self.flow.current == id {
            // The next event with this index is not the one that runs.
            self.flow.current = NIL;
        }
        Moved { call, source, what, count, label, name, slack }
    }

    /// Takes in an event of another base.
    pub fn move_in(&mut self, moved: Moved) -> u32 {
        let id = self.new_event(moved.call, moved.source, moved.what);
        self.slot_mut(id).count = moved.count as u32;
        if moved.count >> 32 > 0 {
            self.counts.insert(id, (moved.count >> 32) as u32);
        }
        self.labels.extend(moved.label.map(|l| (id, l)));
        self.named.extend(moved.name.map(|n| (id, n)));
        self.slacks.extend(moved.slack.map(|s| (id, s)));
        id
    }

    /// `event_add`. On an error nothing has changed.
    pub fn add(&mut self, id: u32, timeout: Option<Duration>) -> Result<(), Error> {
        let slot = self.slot(id);
        if slot.is(Bits::FINALIZING) {
            return Err(Error::Finalizing);
        }
        if slot.source != Source::Nothing && !slot.is(Bits::ACTIVE | Bits::INSERTED) {
            self.insert(id)?;
        }
        if let Some(timeout) = timeout {
            self.add_timeout(id, nanos(timeout));
        }
        Ok(())
    }

    fn add_timeout(&mut self, id: u32, nanos: u64) {
        let now = self.time();
        let slot = &mut self.events[id as usize];
        let due = slot.is(Bits::ACTIVE) && slot.res.contains(What::TIMEOUT);
        if slot.what.contains(What::PERSIST) {
            slot.bits.set(Bits::INTERVAL, nanos != 0);
            self.timing_mut(id).interval = nanos;
        }
        if due {
            self.deactivate(id);
            // If its fd was reported as well, it is to be again.
            self.rearm(self.slot(id).watch);
        }
        self.start_timer(id, now, nanos);
    }

    /// `event_del`: out of everything. Never added is fine. One that is to be finalized is out of everything else already.
    pub fn del(&mut self, id: u32) {
        if !self.slot(id).is(Bits::FINALIZING) {
            self.take_off(id);
        }
    }

    fn take_off(&mut self, id: u32) {
        if self.flow.current == id {
            self.flow.calls_left = 0;
        }
        self.remove_timeout(id);
        self.remove_inserted(id);
        if self.slot(id).is(Bits::ACTIVE) {
            self.deactivate(id);
        }
        self.no_longer_later(id);
    }

    fn no_longer_later(&mut self, id: u32) {
        let slot = self.slot_mut(id);
        if slot.is(Bits::LATER) {
            slot.bits -= Bits::LATER;
            self.laters.retain(|l| *l != id);
        }
    }

    /// Makes an event active before the next wait: libevent's ACTIVE_LATER.
    pub fn activate_later(&mut self, id: u32, res: What) {
        let slot = self.slot_mut(id);
        if slot.is(Bits::ACTIVE | Bits::LATER) {
            slot.res |= res;
        } else if !slot.is(Bits::FINALIZING) {
            slot.bits |= Bits::LATER;
            slot.res = res;
            self.laters.push(id);
        }
    }

    /// The wait has come that [`State::activate_later`] meant.
    pub fn activate_now(&mut self, id: u32) {
        let slot = self.slot_mut(id);
        slot.bits -= Bits::LATER;
        let res = slot.res;
        self.activate(id, res, 1);
    }

    /// Calls `run` at the event's priority when all that runs now is over; until then the event can't be added or made active. If it is to be finalized already, `run`
    /// comes back: what it owns may be an event, which is to be dropped when nothing is borrowed.
    pub fn finalize(&mut self, id: u32, run: Box<dyn FnOnce()>) -> Option<Box<dyn FnOnce()>> {
        let Call::User(before) = &self.slot(id).call else { return Some(run) };
        let call = Call::Own(Some(Box::new(Finalizer { before: before.clone(), run })));
        self.del(id);
        let slot = self.slot_mut(id);
        slot.call = call;
        slot.bits |= Bits::FINALIZING;
        // What it was last active with is over.
        slot.res = What::empty();
        self.queues.push(&mut self.events, id);
        self.look_at_priority(id);
        None
    }

    /// Gives the event back what it did before it was to be finalized, and returns what is to run.
    pub fn take_finalizer(&mut self, id: u32) -> Option<Box<dyn FnOnce()>> {
        let slot = self.events.get_mut(id as usize)?;
        let Call::Own(finalizer) = &mut slot.call else { return None };
        let finalizer = finalizer.take()?;
        slot.call = Call::User(finalizer.before);
        slot.bits -= Bits::FINALIZING;
        if slot.is(Bits::ACTIVE) {
            self.queues.remove(&mut self.events[id as usize]);
        }
        Some(finalizer.run)
    }

    /// `event_remove_timer`: the timeout goes, the rest stays.
    pub fn remove_timeout(&mut self, id: u32) {
        self.remove_timer(id);
        self.slot_mut(id).bits -= Bits::INTERVAL;
        if let Some(timing) = self.timings.get_mut(id as usize) {
            timing.interval = 0;
        }
    }

    /// `event_active`.
    pub fn activate(&mut self, id: u32, res: What, calls: u32) {
        self.activate_quietly(id, res, calls);
        self.note_most();
    }

    /// The user asks for it. Of a signal only those that came add up while it is active: what is asked for is as in libevent.
    pub fn activate_by_hand(&mut self, id: u32, res: What, calls: u32) {
        let slot = self.slot_mut(id);
        let signal = matches!(slot.source, Source::Signal(_) | Source::DaemonSignal(_));
        if signal && slot.is(Bits::ACTIVE) && !slot.is(Bits::FINALIZING) {
            slot.res |= res;
        } else {
            self.activate(id, res, calls);
        }
    }

    /// As [`State::activate`], and the caller keeps the high-water marks: while a wait's reports are taken in, activations only add up.
    #[inline]
    pub fn activate_quietly(&mut self, id: u32, res: What, calls: u32) {
        let slot = &mut self.events[id as usize];
        if slot.is(Bits::ACTIVE | Bits::LATER | Bits::COUNTED | Bits::FINALIZING) {
            return self.activate_more(id, res, calls);
        }
        slot.res = res;
        self.queues.push(&mut self.events, id);
        if self.flow.running_priority > 0 {
            self.look_at_priority(id);
        }
    }

    /// The unusual cases: active already, or about to be; counted; to be finalized.
    #[cold]
    fn activate_more(&mut self, id: u32, res: What, calls: u32) {
        let slot = self.slot_mut(id);
        if slot.is(Bits::FINALIZING) {
            return;
        }
        let (active, counted) = (slot.is(Bits::ACTIVE), slot.is(Bits::COUNTED));
        // Its timeout alone does not count as once.
        let adds_up = active && slot.res != What::TIMEOUT;
        if active {
            slot.res |= res;
        } else {
            slot.res = if slot.is(Bits::LATER) { slot.res | res } else { res };
        }
        if counted {
            let known = self.calls.entry(id).or_insert(0);
            *known = if adds_up { known.saturating_add(calls) } else { calls };
        }
        if active {
            return;
        }
        self.no_longer_later(id);
        self.queues.push(&mut self.events, id);
        self.look_at_priority(id);
    }

    /// Something more urgent than the queue that runs became active: look again after this callback.
    fn look_at_priority(&mut self, id: u32) {
        if usize::from(self.slot(id).priority) < self.flow.running_priority {
            self.flow.again = true;
        }
    }

    /// Takes an event off its active queue.
    pub fn deactivate(&mut self, id: u32) {
        self.queues.remove(&mut self.events[id as usize]);
        if self.flow.current == id {
            self.flow.calls_left = 0;
        }
    }

    /// `event_pending`: what of `asked` the event waits for or is active with.
    pub fn pending(&self, id: u32, asked: What) -> What {
        let slot = self.slot(id);
        let mut what = What::empty();
        if slot.is(Bits::INSERTED) {
            what |= slot.what & (What::IO | What::SIGNAL);
        }
        if slot.is(Bits::ACTIVE | Bits::LATER) {
            what |= slot.res;
        }
        if slot.timer.is_some() {
            what |= What::TIMEOUT;
        }
        what & asked & (What::IO | What::SIGNAL | What::TIMEOUT)
    }

    fn set_timer(&mut self, id: u32, deadline: u64) {
        let deadline = self.with_slack(id, deadline);
        let slot = &self.events[id as usize];
        let timer = self.base.set_timer(slot.timer, deadline, crate::turn::timer_token(id));
        self.timer_is_set(id, timer);
    }

    /// Sets its timer to `nanos` after `now`, as one of many if that is a common timeout.
    fn start_timer(&mut self, id: u32, now: u64, nanos: u64) {
        let common = self.common.iter().find(|(interval, _)| *interval == nanos);
        let Some(&(_, common)) = common.filter(|_| self.slacks.is_empty() || !self.slacks.contains_key(&id))
        else {
            return self.set_timer(id, now.saturating_add(nanos));
        };
        let slot = &self.events[id as usize];
        let timer = self.base.set_common_timer(slot.timer, common, now, crate::turn::timer_token(id));
        self.timer_is_set(id, timer);
    }

    /// Within its slack a deadline goes to the roundest time there is, so that deadlines of several timers, and of several programs, fall together.
    #[inline]
    fn with_slack(&mut self, id: u32, deadline: u64) -> u64 {
        if self.slacks.is_empty() { deadline } else { self.rounded(id, deadline) }
    }

    #[cold]
    fn rounded(&mut self, id: u32, deadline: u64) -> u64 {
        let Some((slack, due)) = self.slacks.get_mut(&id) else { return deadline };
        *due = deadline;
        roundest(deadline, deadline.saturating_add(*slack))
    }

    #[inline]
    fn timer_is_set(&mut self, id: u32, timer: TimerId) {
        if self.events[id as usize].timer.replace(timer).is_none() {
            self.timed += 1;
            self.note_most();
        }
        self.mark_timer(id);
    }

    fn remove_timer(&mut self, id: u32) {
        let slot = &mut self.events[id as usize];
        if let Some(timer) = slot.timer.take() {
            self.base.cancel_timer(timer);
            self.timed -= 1;
            self.mark_timer(id);
        }
    }

    /// evd must hear of this timer before the next sleep.
    #[inline]
    fn mark_timer(&mut self, id: u32) {
        if self.link.is_up() && !self.slot(id).is(Bits::TIMER_DIRTY) {
            self.slot_mut(id).bits |= Bits::TIMER_DIRTY;
            self.park.timer_changed(id);
        }
    }

    /// Into the list of its fd, signal or name, if it is not there.
    fn insert(&mut self, id: u32) -> Result<(), Error> {
        let slot = self.slot(id);
        if slot.is(Bits::INSERTED) {
            return Ok(());
        }
        match slot.source {
            Source::Fd(fd) if slot.what.intersects(What::IO) => self.insert_fd(id, fd)?,
            Source::Signal(signo) => self.insert_signal(id, signo)?,
            Source::DaemonSignal(signo) => self.insert_daemon_signal(id, signo)?,
            Source::Name => self.insert_name(id),
            Source::Fd(_) | Source::Nothing => {}
        }
        Ok(())
    }

    /// Out of the list of its fd, signal or name.
    fn remove_inserted(&mut self, id: u32) {
        let slot = self.slot(id);
        if !slot.is(Bits::INSERTED) {
            return;
        }
        match slot.source {
            Source::Fd(_) => self.remove_fd(id),
            Source::Signal(signo) => self.remove_signal(id, signo),
            Source::DaemonSignal(signo) => self.remove_daemon_signal(id, signo),
            Source::Name => self.remove_name(id),
            Source::Nothing => {}
        }
        self.slot_mut(id).bits -= Bits::INSERTED;
        self.inserted -= 1;
    }

    /// What running an event does to it before its callback: a one-time event is gone from everything, a persistent one with a timeout is added anew with
    /// that: one that was made active before it was added waits for its fd from now on.
    #[inline]
    pub fn before_callback(&mut self, id: u32) -> (What, u32) {
        let slot = &mut self.events[id as usize];
        self.queues.remove(slot);
        slot.count = slot.count.wrapping_add(1);
        let (res, bits, what, full) = (slot.res, slot.bits, slot.what, slot.count == 0);
        let mut calls = 1;
        if full || bits.contains(Bits::COUNTED) {
            calls = self.count_more(id, full);
        }
        if !what.contains(What::PERSIST) {
            self.del(id);
        } else if bits.contains(Bits::INTERVAL) && self.insert(id).is_ok() {
            self.restart(id, res);
        }
        (res, calls)
    }

    /// What only few events have counted: as often as it came; and as often as it fired, if that is `full`.
    #[cold]
    fn count_more(&mut self, id: u32, full: bool) -> u32 {
        if full {
            *self.counts.entry(id).or_insert(0) += 1;
        }
        let counted = self.slot(id).is(Bits::COUNTED);
        if counted { self.calls.get(&id).copied().unwrap_or(1) } else { 1 }
    }

    /// Starts the timeout of a persistent event anew. Due by its timeout: the next one counts from when it was due; by anything else: from now. Missed ones
    /// are not made up for.
    fn restart(&mut self, id: u32, res: What) {
        let now = self.time();
        let Timing { interval, was_due } = self.timing(id);
        // Made active with TIMEOUT by somebody: it is still to be due.
        let was_due = self.deadline(id).unwrap_or(was_due);
        let was_due = self.slacks.get(&id).map_or(was_due, |(_, due)| *due);
        let next = was_due.saturating_add(interval);
        if res.contains(What::TIMEOUT) && next >= now {
            self.set_timer(id, next);
        } else {
            self.start_timer(id, now, interval);
        }
    }

    /// A timer is due: it is gone already from the timers.
    pub fn timer_due(&mut self, id: u32, deadline: u64) {
        let slot = &mut self.events[id as usize];
        slot.timer = None;
        let (inserted, bits) = (slot.is(Bits::INSERTED), slot.bits);
        self.timed -= 1;
        self.mark_timer(id);
        if bits.contains(Bits::INTERVAL) {
            self.timing_mut(id).was_due = deadline;
        }
        // Ready by its fd at the same time: keep both. Otherwise a one-time event is gone from now on, as in libevent.
        if inserted && !bits.intersects(Bits::ACTIVE | Bits::INTERVAL) {
            self.remove_inserted(id);
        }
        if bits.contains(Bits::ACTIVE) {
            // It is told with what else is told, and is no signal that came once more.
            self.slot_mut(id).res |= What::TIMEOUT;
            if let Some(calls) = self.calls.get_mut(&id) {
                *calls = (*calls).max(1);
            }
        } else {
            self.activate_quietly(id, What::TIMEOUT, 1);
        }
    }

    /// Puts `id` before the list that begins with `first`.
    pub fn link_newest(&mut self, id: u32, first: u32) {
        let slot = self.slot_mut(id);
        slot.next = first;
        slot.bits |= Bits::INSERTED;
        self.inserted += 1;
        self.note_most();
    }

    /// Takes `id` out of a list that begins with `first`; returns the new beginning.
    pub fn unlink(&mut self, id: u32, first: u32) -> u32 {
        let next = self.slot(id).next;
        if first == id {
            return next;
        }
        let mut at = first;
        while at != NIL {
            let after = self.slot(at).next;
            if after == id {
                self.slot_mut(at).next = next;
                break;
            }
            at = after;
        }
        first
    }

    fn insert_signal(&mut self, id: u32, signo: i32) -> Result<(), Error> {
        if !self.signals.contains_key(&signo) {
            self.base.add_signal(signo)?;
            self.park.report_signals = true;
        }
        let first = self.signals.insert(signo, id).unwrap_or(NIL);
        self.link_newest(id, first);
        Ok(())
    }

    fn remove_signal(&mut self, id: u32, signo: i32) {
        let first = self.signals.get(&signo).copied().unwrap_or(NIL);
        match self.unlink(id, first) {
            NIL => {
                self.signals.remove(&signo);
                self.base.remove_signal(signo);
                self.park.report_signals = true;
            }
            first => drop(self.signals.insert(signo, first)),
        }
    }

    fn insert_daemon_signal(&mut self, id: u32, signo: i32) -> Result<(), Error> {
        if !evd_proto::sys::daemon_scope_allowed(signo) {
            return Err(Error::OutOfRange("evd passes on USR1, USR2, WINCH and real-time signals only"));
        }
        let first = self.daemon_signals.insert(signo, id);
        self.link_newest(id, first.unwrap_or(NIL));
        if first.is_none() {
            self.link.want_signal(signo, true);
        }
        Ok(())
    }

    fn remove_daemon_signal(&mut self, id: u32, signo: i32) {
        let first = self.daemon_signals.get(&signo).copied().unwrap_or(NIL);
        match self.unlink(id, first) {
            NIL => {
                self.daemon_signals.remove(&signo);
                self.link.want_signal(signo, false);
            }
            first => drop(self.daemon_signals.insert(signo, first)),
        }
    }

    fn insert_name(&mut self, id: u32) {
        self.link_newest(id, NIL);
        if let Some(name) = self.named.get(&id).cloned() {
            self.link.subscribe(id, &name);
            self.names.insert(id, name);
        }
    }

    fn remove_name(&mut self, id: u32) {
        self.names.remove(&id);
        self.link.unsubscribe(id);
    }
}

/// In nanoseconds, as far as they can be counted: for 584 years.
pub(crate) fn nanos(d: Duration) -> u64 {
    let whole = d.as_secs().checked_mul(1_000_000_000);
    whole.and_then(|n| n.checked_add(u64::from(d.subsec_nanos()))).unwrap_or(u64::MAX)
}

/// The time `d` after `now`, or as late as can be counted.
pub(crate) fn after(now: u64, d: Duration) -> u64 {
    now.saturating_add(nanos(d))
}

/// The number from `low` to `high` that ends in the most zeros in binary.
fn roundest(low: u64, high: u64) -> u64 {
    if low == 0 || low >= high {
        return low;
    }
    // All numbers of the range have the bits above the first one in which its ends differ; `low - 1`, so that `low` itself may be the one.
    let first = 63 - ((low - 1) ^ high).leading_zeros();
    (high >> first) << first
}

#[cfg(test)]
mod tests {
    use super::roundest;

    #[test]
    fn the_roundest_number_of_a_range_is_in_it_and_the_roundest() {
        for low in 0..130u64 {
            for high in low..140 {
                let round = roundest(low, high);
                assert!((low..=high).contains(&round), "{low}..={high}: {round}");
                let most = (low.max(1)..=high).map(u64::trailing_zeros).max();
                assert!(low == 0 || Some(round.trailing_zeros()) == most, "{low}..={high}: {round}");
            }
        }
    }
}
