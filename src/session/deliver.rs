//! Activations out: bits and counts by id, never a queue.
//!
//! What the base reports is or-ed into the watch it belongs to. When the socket takes something, each id that has something to say goes into the batch
//! once, and all of one wait leaves with one system call. While the socket is full nothing is written down twice: a client that never
//! reads costs what its tables cost, and one frame.

use super::{MAX_REPLIES, Session, State};
use evd_proto::What;
use evd_proto::frame::MAX_BODY;
use evd_proto::notice::{Active, Attend, Trace, TraceEntry, TraceSource};
use evd_proto::reply::{Code, Resource};
use evd_proto::sys::{self, SignalSet};
use std::io;

/// Bytes of an `Active` that we fill: what is left of the limit is room for the lengths and for all signals.
const ROOM: usize = MAX_BODY - 2048;
/// Bytes of an entry on the wire: watch, timer, name.
const ENTRY: (usize, usize, usize) = (9, 12, 8);
/// The same, and what may wait, where clients of this user have much to read already.
const TIGHT: (usize, usize) = (2048, 2048);
/// Beyond so many bytes that wait, no more pages are made.
const MAX_PAGES: u64 = 4 * MAX_BODY as u64;
/// A follower that does not read misses entries beyond this.
const MAX_TRACE: usize = 64 * 1024;

impl State {
    pub(super) fn reported(&mut self, token: u64, ready: What) {
        let now = self.base.now();
        let Some(id) = self.watches.report(&mut self.base, token, ready, now) else { return };
        self.meter.count(1, now);
        if let Some(trace) = &mut self.trace {
            let label = self.watches.told.get(&id).map(|t| t.label.clone()).unwrap_or_default();
            trace.push(TraceEntry { source: TraceSource::Parked, id, ready, count: 1, label });
        }
    }

    pub(super) fn due(&mut self, token: u64, deadline: u64) {
        let Some(id) = self.timers.fired(token, deadline) else { return };
        self.meter.count(1, self.base.now());
        if let Some(trace) = &mut self.trace {
            trace.push(entry(TraceSource::Timer, id, What::TIMEOUT, 1, String::new()));
        }
    }

    pub(super) fn signalled(&mut self, set: SignalSet) {
        if !self.signals.came(&set) {
            return;
        }
        self.meter.count(set.count, self.base.now());
        if let Some(trace) = &mut self.trace {
            let label = sys::signal_name(set.signo);
            trace.push(entry(TraceSource::Signal, set.signo as u32, What::SIGNAL, set.count, label));
        }
    }

    fn is_due(&self) -> bool {
        self.watches.is_due() || self.timers.is_due() || self.names.is_due() || self.signals.is_due()
    }

    fn fill(&mut self, batch: &mut Active, room: usize) {
        batch.watches.clear();
        batch.timers.clear();
        batch.names.clear();
        batch.signals.clear();
        self.watches.take_due(room / ENTRY.0, &mut batch.watches);
        let room = room - batch.watches.len() * ENTRY.0;
        self.timers.take_due(room / ENTRY.1, &mut batch.timers);
        let room = room - batch.timers.len() * ENTRY.1;
        self.names.take_due(room / ENTRY.2, &mut batch.names);
        self.signals.take_due(&mut batch.signals);
    }
}

pub(super) fn entry(source: TraceSource, id: u32, ready: What, count: u32, label: String) -> TraceEntry {
    TraceEntry { source, id, ready, count, label }
}

impl Session {
    /// Sends what waits: replies, then activations, as far as the socket takes them. `true`: all of it has left, for a client that hears it.
    ///
    /// # Errors
    /// The socket is dead; the session must end.
    pub fn deliver(&mut self) -> io::Result<bool> {
        loop {
            // While the socket is full, activations stay bits and counts. Where much waits already for clients of this user, little is added.
            let (room, most) = if self.account().is_tight() { TIGHT } else { (ROOM, MAX_BODY) };
            while self.unread == 0 && self.state.is_due() && self.channel.output.len() < most {
                self.state.fill(&mut self.batch, room);
                let b = &self.batch;
                let empty =
                    b.watches.is_empty() && b.timers.is_empty() && b.names.is_empty() && b.signals.is_empty();
                if !empty {
                    self.channel.output.push(0, &self.batch).map_err(io::Error::other)?;
                }
            }
            let before = self.channel.output.len();
            if before == 0 || self.flush()? {
                (self.unread, self.stalled, self.owed, self.full_since) = (0, 0, 0, 0);
                if !self.state.is_due() {
                    break;
                }
            } else {
                let now = sys::monotonic_ns();
                if self.unread == 0 || self.channel.output.len() < before {
                    self.stalled = now;
                }
                if self.unread == 0 {
                    self.unread = now;
                }
                // Its time begins when there are so many answers, however long activations have waited. A few may wait for a client that is stopped.
                if self.owed.min(self.channel.output.len()) <= MAX_REPLIES {
                    self.full_since = 0;
                } else if self.full_since == 0 {
                    self.full_since = now;
                }
                break;
            }
        }
        let waiting = self.channel.output.len();
        if waiting as u64 != self.output.amount() {
            self.output.set_anyway(waiting as u64);
        }
        let mut want = What::empty();
        want.set(What::READ, self.may_ask());
        want.set(What::WRITE, waiting > 0);
        self.watch_socket(want)?;
        Ok(waiting == 0 && !self.state.is_due() && !self.is_deaf)
    }

    /// Sends what waits, as far as the client takes it. `true`: nothing is left. A client that hears nothing any more may have asked for something before it left: that is
    /// still to be read, and its end is the session's.
    fn flush(&mut self) -> io::Result<bool> {
        match self.channel.flush() {
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.is_deaf = true;
                self.channel.output.clear();
                Ok(true)
            }
            other => other,
        }
    }

    /// Whether the client may ask for more, or must read first what waits for it.
    pub(super) fn may_ask(&self) -> bool {
        let waiting = self.channel.output.len();
        waiting == 0 || (waiting <= MAX_REPLIES && !self.account().is_tight())
    }

    /// Whether there is room for one more answer of many pages. If not, the client is told that it must read first.
    pub fn has_room(&mut self, serial: u64) -> bool {
        let (waiting, left) = (self.channel.output.len() as u64, self.account().left(Resource::Output));
        // What this session has queued in this turn is not counted yet.
        let fresh = waiting.saturating_sub(self.output.amount());
        let more = MAX_BODY as u64;
        let (limit, value) = if waiting > MAX_PAGES {
            (MAX_PAGES, waiting)
        } else if fresh + more > left {
            (self.output.amount() + left, waiting)
        } else {
            return true;
        };
        let text = format!("{value} bytes of answers wait to be read, at most {limit} may; read them first");
        self.refuse(serial, Code::Limit, limit, value, text);
        false
    }

    /// Counts an activation of a named user event. `false`: there is no such subscription (any more). [`Session::deliver`] tells whether it has left.
    pub fn trigger(&mut self, id: u32, name: &str) -> bool {
        if !self.state.names.triggered(id, name) {
            return false;
        }
        self.state.meter.count(1, sys::monotonic_ns());
        if let Some(trace) = &mut self.state.trace {
            trace.push(entry(TraceSource::Name, id, What::empty(), 1, name.to_owned()));
        }
        true
    }

    /// Whether somebody follows the base from now on: then what happens is written down for [`Session::take_trace`], and the client is asked for what
    /// it does itself.
    pub fn attend(&mut self, on: bool) {
        if self.state.trace.is_some() == on {
            return;
        }
        self.state.trace = on.then(Vec::new);
        self.reply(0, &Attend { on });
    }

    /// What happened since the last call, for the followers; `None`: nothing, or nobody follows.
    pub fn take_trace(&mut self) -> Option<Vec<TraceEntry>> {
        match &mut self.state.trace {
            Some(trace) if !trace.is_empty() => Some(std::mem::take(trace)),
            _ => None,
        }
    }

    /// To a follower: what happened in a base it follows. One that does not read misses entries, and is told how many.
    pub fn show_trace(&mut self, base: u64, name: &str, at: u64, entries: &[TraceEntry]) {
        // An entry is at most 17 bytes and a label; a name is at most 64.
        for part in entries.chunks(512) {
            if self.channel.output.len() > MAX_TRACE {
                self.trace_lost = self.trace_lost.saturating_add(part.len() as u32);
                continue;
            }
            let lost = std::mem::take(&mut self.trace_lost);
            self.reply(0, &Trace { base, name: name.to_owned(), at, entries: part.to_vec(), lost });
        }
    }
}
