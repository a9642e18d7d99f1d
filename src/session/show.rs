//! What a session shows of itself to evctl. Nothing here runs before somebody asks, but for a few counters.

use super::Session;
use super::watches::Flags;
use evd_proto::name::printable;
use evd_proto::reply::{BaseInfo, EventsPage, NameInfo, Place, SignalInfo, TimerInfo, WatchInfo};
use evd_proto::request::Report;
use evd_proto::{What, sys};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Bytes of a page of events, with room to the limit of a frame.
const PAGE: usize = 48 * 1024;
/// Bytes of names that a page of bases has room for, in each base.
const NAMES: usize = 400;

/// Counters of a session.
#[derive(Debug, Default)]
pub(super) struct Meter {
    activations: u64,
    pub wakeups: u64,
    callbacks: u64,
    signals: u64,
    /// The second that is running, and how much came in it and in the one before.
    second: u64,
    running: u32,
    before: u32,
}

impl Meter {
    /// Counts activations, at `now` in nanoseconds.
    pub fn count(&mut self, n: u32, now: u64) {
        self.roll(now);
        self.activations += u64::from(n);
        self.running = self.running.saturating_add(n);
    }

    pub fn told(&mut self, report: &Report) {
        self.callbacks = report.callbacks;
        self.signals = report.signals;
    }

    fn roll(&mut self, now: u64) {
        let second = now / SECOND;
        if second != self.second {
            self.before = if second == self.second + 1 { self.running } else { 0 };
            (self.second, self.running) = (second, 0);
        }
    }

    /// Activations in the last whole second before `now`.
    fn per_second(&mut self, now: u64) -> u32 {
        self.roll(now);
        self.before
    }
}

impl Session {
    /// The base, as evctl shows it.
    pub fn base_info(&mut self, worker: u32) -> BaseInfo {
        let now = sys::monotonic_ns();
        let (mut parked, mut local) = (0, 0);
        for (_, watch) in self.state.watches.table.iter_from(0) {
            if watch.flags.contains(Flags::LOCAL) {
                local += 1;
            } else if watch.flags.contains(Flags::ARMED) {
                parked += 1;
            }
        }
        let mut names = Vec::new();
        let mut room = NAMES;
        for n in self.state.names.table.values() {
            let Some(left) = room.checked_sub(n.name.len() + 8) else { break };
            room = left;
            names.push(n.name.clone());
        }
        let daemon_signals =
            self.state.signals.counts.keys().fold(0, |bits, signo| bits | 1u64 << (signo % 64));
        BaseInfo {
            id: self.who.id,
            name: self.who.name.clone(),
            pid: self.who.peer.pid,
            uid: self.who.peer.uid,
            worker,
            age: now.saturating_sub(self.who.since),
            method: self.state.base.method().to_owned(),
            features: self.state.base.features().bits(),
            parked,
            local,
            timers: u32::try_from(self.state.base.timers()).unwrap_or(u32::MAX),
            signals: self.state.meter.signals,
            daemon_signals,
            names,
            activations: self.state.meter.activations,
            per_second: self.state.meter.per_second(now),
            wakeups: self.state.meter.wakeups,
            callbacks: self.state.meter.callbacks,
            unread: if self.unread == 0 { 0 } else { now.saturating_sub(self.unread).max(1) },
        }
    }

    /// A page of what the base waits for: watches, timers, names, signals (sections 0 to 3), from `from` on.
    pub fn events_page(&mut self, from: (u8, u32)) -> EventsPage {
        let now = sys::monotonic_ns();
        let mut page = EventsPage {
            base: self.who.id,
            name: self.who.name.clone(),
            watches: Vec::new(),
            timers: Vec::new(),
            names: Vec::new(),
            signals: Vec::new(),
            next: None,
        };
        let mut room = PAGE;
        let start = |section: u8| if from.0 == section { from.1 } else { 0 };
        if from.0 == 0 {
            page.next = self.watches_page(start(0), now, &mut room, &mut page.watches);
        }
        if page.next.is_none() && from.0 <= 1 {
            for (id, timer) in self.state.timers.table.iter_from(start(1)) {
                if timer.set.is_none() {
                    continue;
                }
                if !take(&mut room, 12) {
                    page.next = Some((1, id));
                    break;
                }
                page.timers.push(TimerInfo { id, left: timer.deadline.saturating_sub(now) });
            }
        }
        if page.next.is_none() && from.0 <= 2 {
            for (&id, n) in self.state.names.table.range(start(2)..) {
                if !take(&mut room, 20 + n.name.len()) {
                    page.next = Some((2, id));
                    break;
                }
                page.names.push(NameInfo { id, name: n.name.clone(), count: n.count });
            }
        }
        if page.next.is_none() {
            // At most 64, for which there is room beyond the page's.
            let signals = self.state.signals.counts.iter();
            page.signals = signals.map(|(&signo, &count)| SignalInfo { signo, count }).collect();
        }
        page
    }

    fn watches_page(
        &mut self,
        from: u32,
        now: u64,
        room: &mut usize,
        page: &mut Vec<WatchInfo>,
    ) -> Option<(u8, u32)> {
        let files = self.state.watches.identities(&mut self.state.base);
        let watches = &self.state.watches;
        for (id, watch) in watches.table.iter_from(from) {
            if !watch.flags.contains(Flags::KNOWN) {
                continue;
            }
            let told = watches.told.get(&id);
            let label = told.map(|t| printable(&t.label)).unwrap_or_default();
            if !take(room, 48 + label.len()) {
                return Some((0, id));
            }
            let place = if watch.flags.contains(Flags::LOCAL) {
                Place::Local
            } else if watch.flags.contains(Flags::ARMED) {
                Place::Parked
            } else {
                Place::Between
            };
            let told = told.map_or((None, 0), |t| (t.kind, t.ino));
            let (kind, ino) = match files.get(&id) {
                Some((kind, ino)) if place == Place::Parked => (kind.or(told.0), *ino),
                _ => told,
            };
            let mut interest = watch.interest;
            if watch.flags.contains(Flags::EDGE) {
                interest |= What::ET;
            }
            let last = if watch.last == 0 { 0 } else { now.saturating_sub(watch.last).max(1) };
            page.push(WatchInfo { id, place, interest, kind, ino, label, count: watch.count, last });
        }
        None
    }

    /// Whether it ever asked for a held fd.
    pub fn has_taken(&self) -> bool {
        self.state.takes
    }
}

/// Takes `bytes` from `room` if there are so many.
fn take(room: &mut usize, bytes: usize) -> bool {
    match room.checked_sub(bytes) {
        Some(left) => {
            *room = left;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_second_is_counted_without_ticks() {
        let mut m = Meter::default();
        m.count(3, 10 * SECOND);
        m.count(2, 10 * SECOND + 5);
        assert_eq!(m.per_second(10 * SECOND + 6), 0);
        assert_eq!(m.per_second(11 * SECOND), 5);
        assert_eq!(m.per_second(12 * SECOND), 0);
        m.count(1, 20 * SECOND);
        assert_eq!((m.per_second(21 * SECOND), m.activations), (1, 6));
    }
}
