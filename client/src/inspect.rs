//! What a base consists of, for whoever wants to know: listing, counts, what runs.

use crate::state::{Bits, NIL, Source};
use crate::{EventBase, EventKey};
use evd_proto::What;
use evd_proto::sys::RawFd;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;

bitflags::bitflags! {
    /// What is counted; several are added up. Source: libevent, `EVENT_BASE_COUNT_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Counted: u32 {
        /// Active events.
        const ACTIVE = 1;
        /// What keeps the loop going without an event: [`EventBase::keep_going`].
        const VIRTUAL = 2;
        /// Memberships: an event that waits for an fd and has a timeout counts twice, and once more while it is active.
        const ADDED = 4;
    }
}

/// An event as [`EventBase::for_each_event`] shows it: libevent's getters.
#[derive(Clone, Debug)]
pub struct EventInfo {
    /// Names it.
    pub key: EventKey,
    /// The fd it waits for: `event_get_fd`.
    pub fd: Option<RawFd>,
    /// The signal it waits for, of this process or of evd: `event_get_signal`.
    pub signo: Option<i32>,
    /// The name of a named event.
    pub name: Option<String>,
    /// What it was made to wait for: `event_get_events`.
    pub what: What,
    /// Whether it waits for its fd, signal or name.
    pub inserted: bool,
    /// What it waits for now, or is active with: `event_pending`.
    pub pending: What,
    /// What it is active with, if it is.
    pub active: Option<What>,
    /// Its priority: `event_get_priority`.
    pub priority: usize,
    /// Time left of its timeout.
    pub time_left: Option<Duration>,
    /// What its user calls it.
    pub label: String,
    /// How often it fired.
    pub count: u64,
}

/// Keeps a loop from ending as empty; see [`EventBase::keep_going`].
#[must_use = "the loop may end when this is dropped"]
#[derive(Debug)]
pub struct KeepGoing {
    base: EventBase,
}

impl Drop for KeepGoing {
    fn drop(&mut self) {
        self.base.core().state.borrow_mut().virtuals -= 1;
    }
}

impl EventBase {
    /// Calls `each` with every event that is pending or active: those with an fd by fd and then those with a signal, newest first on each, then those with
    /// a timeout only, then those that are only active. It stops when `each` breaks, and returns that. libevent's `event_base_foreach_event`; `each` gets copies, so it
    /// may do anything.
    pub fn for_each_event<B>(&self, mut each: impl FnMut(&EventInfo) -> ControlFlow<B>) -> Option<B> {
        let ids = {
            let state = self.core().state.borrow();
            let mut ids: Vec<u32> = Vec::new();
            for &w in state.by_fd.iter().filter(|w| **w != NIL) {
                ids.extend(state.newest_first(state.watch(w).first));
            }
            for &first in state.signals.values().chain(state.daemon_signals.values()) {
                ids.extend(state.newest_first(first));
            }
            ids.extend(state.names.keys());
            let rest = |want: fn(&crate::state::Slot) -> bool| {
                let fits = state.events.iter().filter(move |(_, s)| !s.is(Bits::INSERTED) && want(s));
                fits.map(|(id, _)| id as u32).collect::<Vec<u32>>()
            };
            ids.extend(rest(|s| s.timer.is_some()));
            ids.extend(rest(|s| s.timer.is_none() && s.is(Bits::ACTIVE)));
            ids
        };
        for id in ids {
            let Some(info) = self.event_info(id) else { continue };
            if let ControlFlow::Break(b) = each(&info) {
                return Some(b);
            }
        }
        None
    }

    fn event_info(&self, id: u32) -> Option<EventInfo> {
        let state = self.core().state.borrow();
        let now = state.base.look_at_clock();
        let slot = state.events.get(id as usize)?;
        let (mut fd, mut signo) = (None, None);
        match slot.source {
            Source::Fd(number) => fd = Some(number),
            Source::Signal(number) | Source::DaemonSignal(number) => signo = Some(number),
            Source::Nothing | Source::Name => {}
        }
        Some(EventInfo {
            key: EventKey { id, generation: slot.generation },
            fd,
            signo,
            name: state.named.get(&id).cloned(),
            what: slot.what,
            inserted: slot.is(Bits::INSERTED),
            pending: state.pending(id, What::all()),
            active: slot.is(Bits::ACTIVE).then_some(slot.res),
            priority: usize::from(slot.priority),
            time_left: state.deadline(id).map(|at| Duration::from_nanos(at.saturating_sub(now))),
            label: state.labels.get(&id).cloned().unwrap_or_default(),
            count: state.count(id),
        })
    }

    /// Writes all events as text, a line each, in libevent's form: `event_base_dump_events`. In place of an address there is the event's number, and of a deadline
    /// the time left.
    ///
    /// # Errors
    /// What `to` gave.
    pub fn dump(&self, to: &mut impl Write) -> io::Result<()> {
        let (mut inserted, mut active) = (Vec::new(), Vec::new());
        let _ = self.for_each_event(|e| {
            if e.inserted || e.time_left.is_some() {
                inserted.push(e.clone());
            }
            if e.active.is_some() {
                active.push(e.clone());
            }
            ControlFlow::<()>::Continue(())
        });
        writeln!(to, "Inserted events:")?;
        for e in inserted {
            write!(to, "  {} [{}]{}", e.key.id, source(&e), flags(e.what))?;
            match e.time_left {
                Some(left) => writeln!(to, " Timeout={}.{:06}", left.as_secs(), left.subsec_micros())?,
                None => writeln!(to)?,
            }
        }
        writeln!(to, "Active events:")?;
        for e in active {
            let res = flags(e.active.unwrap_or(What::empty()));
            writeln!(to, "  {} [{}, priority={}]{res} active", e.key.id, source(&e), e.priority)?;
        }
        Ok(())
    }

    /// How many events there are of the kinds asked for: `event_base_get_num_events`.
    pub fn num_events(&self, counted: Counted) -> usize {
        let state = self.core().state.borrow();
        sum(counted, state.queues.len(), state.virtuals, state.added())
    }

    /// The most there ever were, each kind for itself; `clear` forgets those asked for: `event_base_get_max_events`.
    pub fn max_events(&self, counted: Counted, clear: bool) -> usize {
        let mut state = self.core().state.borrow_mut();
        let most = sum(counted, state.most_active, state.most_virtuals, state.most_added);
        if clear {
            if counted.contains(Counted::ACTIVE) {
                state.most_active = 0;
            }
            if counted.contains(Counted::VIRTUAL) {
                state.most_virtuals = 0;
            }
            if counted.contains(Counted::ADDED) {
                state.most_added = 0;
            }
        }
        most
    }

    /// The event whose callback runs: `event_base_get_running_event`.
    pub fn running_event(&self) -> Option<EventKey> {
        let state = self.core().state.borrow();
        let slot = state.events.get(state.flow.current as usize)?;
        Some(EventKey { id: state.flow.current, generation: slot.generation })
    }

    /// Keeps loops of this base from ending because nothing is pending, until the value is dropped: for work that other threads will bring.
    /// libevent's virtual events.
    pub fn keep_going(&self) -> KeepGoing {
        let mut state = self.core().state.borrow_mut();
        state.virtuals += 1;
        state.most_virtuals = state.most_virtuals.max(state.virtuals);
        drop(state);
        KeepGoing { base: self.clone() }
    }
}

fn sum(counted: Counted, active: usize, virtuals: usize, added: usize) -> usize {
    let of = |flag, n| if counted.contains(flag) { n } else { 0 };
    of(Counted::ACTIVE, active) + of(Counted::VIRTUAL, virtuals) + of(Counted::ADDED, added)
}

fn source(e: &EventInfo) -> String {
    match (e.fd, e.signo) {
        (Some(fd), _) => format!("fd {fd:2}"),
        (_, Some(signo)) => format!("sig {signo}"),
        _ => "fd -1".to_owned(),
    }
}

fn flags(what: What) -> String {
    let names = [
        (What::READ, " Read"),
        (What::WRITE, " Write"),
        (What::CLOSED, " EOF"),
        (What::SIGNAL, " Signal"),
        (What::PERSIST, " Persist"),
        (What::ET, " ET"),
        (What::TIMEOUT, " Timeout"),
    ];
    names.iter().filter(|(bit, _)| what.contains(*bit)).map(|(_, name)| *name).collect()
}
