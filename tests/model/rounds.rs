//! The model's loop: what a wait finds, and what runs then.

use super::{Check, Entry, Event, Model, Own, pending};
use crate::ops::{Act, EVENTS, GUARD, MS, SIGNAL};
use crate::real::{FAR, FINALIZE, MOST_CALLS, Seen};
use crate::system::PORTS;
use crate::wires::{Wire, wire};
use evd_client::{Ended, LoopFlags};
use evd_proto::What;

/// What a queue ran.
#[derive(Default)]
struct Ran {
    events: u64,
    callbacks: u64,
}

impl Model {
    pub(super) fn run_loop(&mut self, flags: LoopFlags) -> Check<(Ended, Option<u64>)> {
        let mut callbacks = 0;
        (self.running, self.exit, self.stop) = (true, false, false);
        (self.calls, self.waits) = (0, 0);
        self.now = self.clock;
        let ended = loop {
            self.again = false;
            if self.exit {
                break Ended::Exit;
            }
            if self.stop {
                break Ended::Break;
            }
            let is_idle = |e: &Event| !e.inserted && !e.active && (e.timer.is_none() || e.is_libevents());
            let empty = self.events.iter().flatten().all(is_idle);
            if empty && !flags.contains(LoopFlags::NO_EXIT_ON_EMPTY) {
                break Ended::Empty;
            }
            self.turn(!flags.contains(LoopFlags::NONBLOCK))?;
            if self.queues.iter().all(Vec::is_empty) {
                if flags.contains(LoopFlags::NONBLOCK) {
                    break Ended::Done;
                }
                continue;
            }
            let ran = self.process_active()?;
            callbacks += ran.callbacks;
            if flags.contains(LoopFlags::ONCE) && self.queues.iter().all(Vec::is_empty) && ran.events > 0 {
                break match (self.exit, self.stop) {
                    (true, _) => Ended::Exit,
                    (_, true) => Ended::Break,
                    _ => Ended::Done,
                };
            }
        };
        self.running = false;
        Ok((ended, (!self.libevent).then_some(callbacks)))
    }

    /// A wait, and what comes of it.
    fn turn(&mut self, may_wait: bool) -> Check {
        let watched = self.setup.watched || !self.local || self.libevent;
        let mut synced = true;
        let batch = self.new_batch();
        if watched {
            synced = self.prepare(may_wait, batch)?;
        }
        self.now = self.clock;
        let active = if watched {
            match self.seen.pop_front() {
                Some(Seen::Check { active }) => active,
                seen => return Err(format!("after a wait: seen was {seen:?}")),
            }
        } else {
            Vec::new()
        };
        for port in 0..PORTS {
            self.look_at(port, batch, &active, synced || self.local)?;
        }
        self.look_at_signal(batch);
        if watched {
            let model = self.events.iter().enumerate().take(usize::from(EVENTS) + 1);
            let of =
                |(id, e): (usize, &Option<Event>)| e.as_ref().filter(|e| e.active).map(|e| (id as u8, e.res));
            expect!("active after a wait", model.filter_map(of).collect::<Vec<_>>(), active);
        }
        let due = |(id, e): (usize, &Option<Event>)| {
            e.as_ref()
                .filter(|e| !e.is_common)
                .and_then(|e| e.timer)
                .filter(|t| t.0 <= self.now)
                .map(|t| (t, id))
        };
        let mut due: Vec<_> = self.events.iter().enumerate().filter_map(due).collect();
        due.sort_unstable();
        if !self.local && !synced {
            // Before an event is told that its time is over, its fd is looked at here if evd has not reported it.
            let batch = self.new_batch();
            for port in due.iter().filter_map(|(_, id)| self.events[*id].as_ref()?.port).collect::<Vec<_>>() {
                if port != SIGNAL && !self.watches[usize::from(port)].edge {
                    self.fire(port, self.ready(port), What::empty(), batch);
                }
            }
        }
        let mut last = (0, 0);
        for ((deadline, _), id) in due {
            if deadline != last.0 {
                last = (deadline, self.new_batch());
            }
            let e = self.e(id);
            e.timer = None;
            let stays = e.active || (e.what.contains(What::PERSIST) && e.interval > 0);
            if self.libevent {
                self.remove(id);
                self.deactivate(id);
            } else if !stays {
                self.remove(id);
            }
            // libevent's heap keeps those of the same time in no certain order.
            let batch = self.libevent.then_some((last.1, id));
            self.activate(id, What::TIMEOUT, batch);
            self.e(id).calls = self.e(id).calls.max(1);
        }
        Ok(())
    }

    /// How long the wait may last. Nothing but a hang-up that nobody wants, which is looked at again after a while, or evd makes it shorter.
    fn prepare(&mut self, may_wait: bool, batch: usize) -> Check<bool> {
        let Some(Seen::Prepare { timeout, guard, synced }) = self.seen.pop_front() else {
            return Err("the loop did not wait once more".to_owned());
        };
        let idle = self.queues.iter().all(Vec::is_empty);
        let first =
            self.events.iter().flatten().filter(|e| !e.is_common).filter_map(|e| e.timer).map(|t| t.0).min();
        let model = match (may_wait && idle, first) {
            (false, _) => Some(0),
            // libevent reckons from the time that it took before the callbacks, and its poll sleeps no longer than it can say in milliseconds.
            (true, Some(at)) if self.libevent => {
                let most = if self.method == "poll" { i32::MAX as u64 * MS } else { u64::MAX };
                Some(at.saturating_sub(self.now).min(most))
            }
            (true, first) => first.map(|at| at.saturating_sub(self.clock)),
        };
        let seen = timeout.filter(|t| *t < FAR);
        let exact = self.libevent || self.local && !self.wires.iter().any(Wire::is_hung_up);
        if exact || model.is_some_and(|m| seen.is_none_or(|s| s > m)) {
            expect!("how long it may wait", model, seen);
        }
        self.waits += 1;
        if guard {
            let last = self.waits >= MOST_CALLS;
            expect!("whether it may wait for ever", may_wait && idle && first.is_none() || last, true);
            // A remote base has looked at some fds already.
            let batch = (!self.local).then_some((batch, usize::from(PORTS)));
            self.activate(usize::from(GUARD), What::empty(), batch);
        } else {
            self.clock += seen.unwrap_or(0);
        }
        Ok(synced)
    }

    /// Signals that came: the client reads them behind what evd has not told it, and libevent in a callback of its own.
    fn look_at_signal(&mut self, batch: usize) {
        if self.raised == 0 {
            return;
        }
        let batch = Some((batch, usize::MAX));
        if self.libevent {
            self.activate(self.own(Own::Signals), What::READ, batch);
        } else {
            let raised = std::mem::take(&mut self.raised);
            self.signal_came(raised, batch.filter(|_| !self.local));
        }
    }

    pub(super) fn new_batch(&mut self) -> usize {
        self.known.push(Vec::new());
        self.known.len() - 1
    }

    fn ready(&self, port: u8) -> What {
        let (at, kind) = wire(port);
        let mut what = self.wires[at].ready(kind, self.method);
        if self.libevent && self.method == "epoll" && self.wires[at].reset {
            // With an error libevent's epoll looks for nothing else.
            what.remove(What::CLOSED);
        }
        what
    }

    /// What the wait finds of an fd. `told`: all that is ready is known.
    fn look_at(&mut self, port: u8, batch: usize, active: &[(u8, What)], told: bool) -> Check {
        let ready = self.ready(port);
        let seen = |id: usize| active.iter().find(|(e, _)| usize::from(*e) == id).map(|(_, what)| *what);
        let watch = self.watches[usize::from(port)].clone();
        if watch.events.is_empty() {
            return Ok(());
        }
        // Whether somebody on it has got something: then it was reported.
        let is_active = |id: usize| self.events[id].as_ref().is_some_and(|e| e.active);
        let before = |id| if is_active(id) { self.events[id].as_ref().unwrap().res } else { What::empty() };
        let gained = |id: &usize| seen(*id).is_some_and(|what| what != before(*id) || !is_active(*id));
        let reported = watch.events.iter().any(gained);
        let must = !(watch.must & ready & self.interest(port)).is_empty();
        let bits = match watch.edge {
            false if told || reported => ready,
            true if self.local && reported && watch.may => ready,
            true if must && told => ready,
            _ => What::empty(),
        };
        if watch.edge && !self.local && reported && watch.may {
            // At evd an edge may be older than what was done to the fd since, and there may be several: so no order either.
            let news = |id: &usize| (seen(*id).unwrap_or_default() - before(*id)) & What::IO;
            let all = watch.events.iter().map(news).fold(bits, What::union);
            let fired: Vec<usize> = watch.events.iter().copied().filter(gained).collect();
            for id in fired {
                let what = self.e(id).what & all & What::IO;
                self.activate(id, what | What::ET, Some((batch, usize::from(PORTS) + 1 + id)));
            }
        }
        if told {
            let watch = &mut self.watches[usize::from(port)];
            (watch.must, watch.may) = (What::empty(), false);
        } else if reported {
            // Whether the report was older than the last edge, nobody knows.
            self.watches[usize::from(port)].must = What::empty();
        }
        let et = if watch.edge { What::ET } else { What::empty() };
        self.fire(port, bits, et, batch);
        Ok(())
    }

    /// The events of an fd become active, newest first.
    pub(super) fn fire(&mut self, port: u8, ready: What, et: What, batch: usize) {
        for id in self.watches[usize::from(port)].events.clone() {
            let what = self.e(id).what & ready & What::IO;
            if !what.is_empty() {
                self.activate(id, what | et, Some((batch, usize::from(port))));
            }
        }
    }

    /// Runs the most urgent queue; behind one in which nothing but libevent's own ran the next one.
    fn process_active(&mut self) -> Check<Ran> {
        let mut ran = Ran::default();
        for priority in 0..self.queues.len() {
            if !self.queues[priority].is_empty() {
                ran = self.process(priority)?;
            }
            if ran.events > 0 {
                break;
            }
        }
        Ok(ran)
    }

    fn process(&mut self, priority: usize) -> Check<Ran> {
        self.running_priority = priority;
        let limited = priority >= self.setup.limited_from;
        let most = self.setup.most_calls.filter(|_| limited).unwrap_or(u64::MAX);
        let until = self.setup.most_time.filter(|_| limited).map(|t| self.now + t * MS);
        let mut ran = Ran::default();
        while !self.queues[priority].is_empty() {
            let next = self.run_next(priority)?;
            ran = Ran { events: ran.events + next.events, callbacks: ran.callbacks + next.callbacks };
            if self.stop || ran.events >= most {
                break;
            }
            if let Some(until) = until.filter(|_| ran.events > 0) {
                self.now = self.clock;
                if self.now >= until {
                    break;
                }
            }
            if self.again {
                break;
            }
        }
        Ok(ran)
    }

    fn run_next(&mut self, priority: usize) -> Check<Ran> {
        if let Some(unseen) = self.next_unseen(priority) {
            return self.run_unseen(priority, unseen);
        }
        let Some(Seen::Call { event, what, .. }) = self.seen.front() else {
            let first = self.queues[priority][0].event;
            return Err(format!("event {first}, or another of its queue, is not called"));
        };
        let (id, seen) = (usize::from(*event), *what);
        self.take(priority, id)?;
        let res = self.begin(id);
        expect!(format!("event {id} is called with"), res, seen);
        let mut ran = Ran { events: 1, callbacks: 0 };
        self.calls_left =
            if self.e(id).port == Some(SIGNAL) && res != FINALIZE { self.e(id).calls } else { 1 };
        self.current = Some(id);
        let script = if res == FINALIZE { [None, None] } else { self.e(id).script };
        while self.calls_left > 0 && (ran.callbacks == 0 || !self.stop) {
            self.calls_left -= 1;
            if let (true, true, Some(e)) = (self.libevent, ran.callbacks > 0, self.events[id].as_mut()) {
                // Nobody but its callback knows how often it was called.
                e.count += 1;
            }
            self.call(id, res, &script)?;
            ran.callbacks += 1;
        }
        self.current = None;
        Ok(ran)
    }

    /// What is done with an event before its callback. Returns what that gets.
    fn begin(&mut self, id: usize) -> What {
        let e = self.e(id);
        if e.finalizing {
            (e.finalizing, e.active, e.interval) = (false, false, 0);
            return FINALIZE;
        }
        let (persist, interval, res) = (e.what.contains(What::PERSIST), e.interval, e.res);
        e.count += 1;
        e.active = false;
        if !persist {
            self.del(id);
        } else if interval > 0 {
            self.restart(id);
        }
        res
    }

    fn call(&mut self, id: usize, res: What, script: &[Option<Act>; 2]) -> Check {
        let Some(Seen::Call { event, what, pending: seen_pending, left, now, got_exit, all_active, .. }) =
            self.seen.pop_front()
        else {
            return Err(format!("event {id} is not called once more"));
        };
        expect!("which is called", id, usize::from(event));
        expect!(format!("event {id} is called with"), res, what);
        let model = self.e(id).clone();
        expect!(format!("pending in the callback of event {id}"), pending(&model), seen_pending);
        expect!(format!("time left in the callback of event {id}"), self.left(&model), left);
        expect!(format!("the time in the callback of event {id}"), self.now, now);
        expect!(format!("got_exit in the callback of event {id}"), self.exit, got_exit);
        expect!(format!("active events in the callback of event {id}"), self.all_active(), all_active);
        for act in script.iter().flatten() {
            let outcome = self.act(*act);
            let name = format!("the result of {act:?} in the callback of event {id}");
            expect!(name, Some(Seen::Did(outcome)), self.seen.pop_front());
        }
        self.calls += 1;
        if self.calls >= MOST_CALLS {
            self.stop = true;
        }
        Ok(())
    }

    /// Runs what has no callback that is seen.
    fn run_unseen(&mut self, priority: usize, id: usize) -> Check<Ran> {
        self.take(priority, id)?;
        match self.e(id).own {
            Some(Own::Exit) => {
                self.free(id);
                self.exit = true;
                return Ok(Ran { events: 1, callbacks: 1 });
            }
            Some(Own::Signals) => {
                self.e(id).active = false;
                let raised = std::mem::take(&mut self.raised);
                self.signal_came(raised, None);
            }
            Some(Own::Common) => {
                self.e(id).active = false;
                while let Some(first) = self.first_common() {
                    let deadline = self.e(first).deadline;
                    if deadline > self.now {
                        self.await_common(deadline);
                        break;
                    }
                    self.e(first).timer = None;
                    self.remove(first);
                    if self.e(first).active {
                        self.deactivate(first);
                    }
                    self.activate(first, What::TIMEOUT, None);
                }
            }
            // A signal's event that was made active for no call.
            None => {
                self.begin(id);
                if self.libevent {
                    self.e(id).count -= 1;
                }
                return Ok(Ran { events: 1, callbacks: 0 });
            }
        }
        Ok(Ran::default())
    }

    /// A persistent event with a timeout is added again before its callback. Missed ones are not made up for.
    fn restart(&mut self, id: usize) {
        if !self.e(id).inserted && !self.insert(id) {
            return;
        }
        let now = self.now;
        let e = self.e(id);
        let next = if e.res.contains(What::TIMEOUT) { e.deadline + e.interval } else { now + e.interval };
        let next = if next < now { now + e.interval } else { next };
        self.set_timer(id, next);
    }

    /// What runs now without being seen. The callback behind it finds that it is not active any more.
    fn next_unseen(&self, priority: usize) -> Option<usize> {
        let queue = &self.queues[priority];
        let e = |at: usize| self.events[queue[at].event].as_ref().unwrap();
        let is_unseen = |at: &usize| {
            let e = e(*at);
            self.may_be_next(queue, *at)
                && (e.own.is_some() || e.port == Some(SIGNAL) && e.calls == 0 && !e.finalizing)
        };
        let unseen: Vec<usize> = (0..queue.len()).filter(is_unseen).collect();
        let (call, own) = match self.seen.front() {
            Some(Seen::Call { event, all_active, own, .. }) => {
                (Some((usize::from(*event), *all_active)), own)
            }
            Some(Seen::Looped { own, .. }) => (None, own),
            _ => return unseen.first().map(|at| queue[*at].event),
        };
        let at = call.and_then(|(event, _)| queue.iter().position(|entry| entry.event == event));
        let is_next = call.is_none() || at.is_some_and(|at| self.may_be_next(queue, at));
        for (own, seen) in [Own::Signals, Own::Common].into_iter().zip(*own) {
            let at = unseen.iter().find(|at| e(**at).own == Some(own));
            if let (Some(at), false) = (at, seen && is_next) {
                return Some(queue[*at].event);
            }
        }
        let others = unseen.iter().find(|at| !e(**at).is_libevents())?;
        let is_now = !is_next || call.is_none_or(|(_, all_active)| all_active + 1 != self.all_active());
        is_now.then_some(queue[*others].event)
    }

    /// Whether an entry of a queue is the first, or may be.
    fn may_be_next(&self, queue: &[Entry], at: usize) -> bool {
        queue[..at].iter().all(|other| match (queue[at].batch, other.batch) {
            (Some((batch, port)), Some((b, p))) if batch == b && port != p => {
                !before(&self.known[batch], p, port)
            }
            _ => false,
        })
    }

    /// Takes an event out of its queue, if it may be the next.
    fn take(&mut self, priority: usize, id: usize) -> Check {
        let queue = &self.queues[priority];
        let at = queue.iter().position(|entry| entry.event == id);
        let Some(at) = at.filter(|at| self.may_be_next(queue, *at)) else {
            let names: Vec<usize> = queue.iter().map(|e| e.event).collect();
            return Err(format!("event {id} is called, of {names:?}"));
        };
        let entry = self.queues[priority].remove(at);
        let Some((batch, port)) = entry.batch else { return Ok(()) };
        for (_, other) in
            self.queues[priority].iter().filter_map(|e| e.batch).filter(|b| b.0 == batch && b.1 != port)
        {
            if before(&self.known[batch], other, port) {
                return Err(format!("event {id} is called, and one of its batch was to be before it"));
            }
            self.known[batch].push((port, other));
        }
        Ok(())
    }
}

/// Whether `a` is known to have come before `b`.
fn before(known: &[(usize, usize)], a: usize, b: usize) -> bool {
    known.iter().any(|(x, y)| *x == a && (*y == b || before(known, *y, b)))
}
