//! What evd is told beside what it waits for.
//!
//! Timers are told lazily: only a new or an earlier deadline, or a cancel. Counts of local watches are told once a second at most, and the count of
//! callbacks goes along with other messages.

use super::BATCH;
use crate::state::{Bits, Place, State};
use evd_proto::What;
use evd_proto::notice::ActiveTimer;
use evd_proto::request::{LocalWatch, Report, SetTimer, Timers};
use evd_proto::sys::{self, AsFd, FdNumber, FileKind};

/// Local counts are reported at most so often.
const REPORT_EVERY: u64 = 1_000_000_000;

impl State {
    pub(super) fn send_timers(&mut self) {
        if self.park.dirty_timers.is_empty() {
            return;
        }
        let Some((offset, limit)) = self.link.up().map(|up| (up.clock_offset, up.welcome.limits.timers))
        else {
            return;
        };
        // evd's clock is the real one: for a clock that a test sets it can't wait.
        let limit = if self.base.has_set_clock() { 0 } else { limit };
        let mut body = Timers { set: Vec::new(), cancel: Vec::new() };
        let paused = self.base.now() < self.park.paused_until;
        for id in std::mem::take(&mut self.park.dirty_timers) {
            let mut wanted = 0;
            if let Some(slot) = self.events.get_mut(id as usize) {
                slot.bits -= Bits::TIMER_DIRTY;
                let deadline = slot.timer.and_then(|timer| self.base.deadline_of(timer));
                wanted = deadline.filter(|_| id < limit).map_or(0, |d| d.max(1));
            }
            let known = self.park.known(id);
            let before = *known;
            if wanted == 0 && before != 0 {
                body.cancel.push(id);
                *known = 0;
                self.park.timers_at_evd -= 1;
            } else if wanted != 0 && (if before == 0 { !paused } else { wanted < before }) {
                body.set.push(SetTimer { id, deadline: wanted.saturating_add_signed(offset) });
                *known = wanted;
                self.park.timers_at_evd += usize::from(before == 0);
            }
            if body.set.len() + body.cancel.len() == BATCH {
                self.post_timers(&mut body);
            }
        }
        self.post_timers(&mut body);
    }

    fn post_timers(&mut self, body: &mut Timers) {
        if body.set.is_empty() && body.cancel.is_empty() {
            return;
        }
        if let Some(up) = self.link.up() {
            let _ = up.line.post(body);
        }
        body.set.clear();
        body.cancel.clear();
    }

    /// evd has no room for a timer: it fires here, as all do, and evd is told when it is set anew.
    pub fn refused_timer(&mut self, id: u32) {
        // The number is evd's word: nothing is made for it.
        if self.park.known.get_mut(id as usize).is_some_and(|known| std::mem::take(known) != 0) {
            self.park.timers_at_evd -= 1;
        }
    }

    /// evd's timer is due; whether ours is, our own clock says. One that moved later is sent anew with the next sleep.
    pub fn timer_reported(&mut self, timer: &ActiveTimer) {
        let offset = self.link.up().map_or(0, |up| up.clock_offset);
        // As above.
        let Some(known) = self.park.known.get_mut(timer.id as usize) else { return };
        if *known == 0 || known.saturating_add_signed(offset) != timer.deadline {
            return;
        }
        *known = 0;
        self.park.timers_at_evd -= 1;
        if let Some(slot) = self.events.get_mut(timer.id as usize) {
            if slot.timer.is_some() && !slot.is(Bits::TIMER_DIRTY) {
                slot.bits |= Bits::TIMER_DIRTY;
                self.park.timer_changed(timer.id);
            }
        }
    }

    /// Whether evd was to wake us for this timer.
    pub fn evd_has_timer(&self, id: u32, deadline: u64) -> bool {
        self.park.known.get(id as usize).is_some_and(|known| *known != 0 && *known <= deadline)
    }

    pub(super) fn send_report(&mut self) {
        let now = self.base.now();
        let park = &mut self.park;
        let news = !park.reports.is_empty()
            || !park.gone.is_empty()
            || !park.labels.is_empty()
            || park.report_signals;
        // Counts are no reason to say something, but go along with what is said anyway.
        let is_along =
            self.callbacks != park.told_callbacks && self.link.up().is_some_and(|up| up.line.unsent);
        if !(news || is_along) || (now < park.next_report && !park.attended) {
            return;
        }
        park.next_report = now + REPORT_EVERY;
        park.told_callbacks = self.callbacks;
        let signals = self.signals.keys().fold(0u64, |bits, s| bits | 1 << (s % 64));
        let mut reports = std::mem::take(&mut self.park.reports);
        let mut labels = std::mem::take(&mut self.park.labels);
        let mut gone = std::mem::take(&mut self.park.gone);
        self.park.report_signals = false;
        labels.sort_unstable();
        labels.dedup();
        loop {
            let mut body =
                Report { signals, callbacks: self.callbacks, wakeups: self.wakeups, ..Report::default() };
            body.gone = gone.split_off(gone.len().saturating_sub(BATCH));
            // An index that is in use again is not gone.
            body.gone.retain(|w| !self.watches.contains(*w as usize));
            for w in reports.split_off(reports.len().saturating_sub(BATCH)) {
                body.local.extend(self.local_report(w));
            }
            for w in labels.split_off(labels.len().saturating_sub(BATCH / 4)) {
                body.labels.extend(self.label_report(w));
            }
            let Some(up) = self.link.up() else { return };
            let _ = up.line.post(&body);
            if reports.is_empty() && labels.is_empty() && gone.is_empty() {
                break;
            }
        }
    }

    fn local_report(&mut self, w: u32) -> Option<LocalWatch> {
        let info = self.park.infos.of(w);
        info.dirty = false;
        let fired = std::mem::take(&mut info.unreported);
        let ready = std::mem::take(&mut info.unreported_ready);
        let watch = self.watches.get(w as usize)?;
        let (fd, place, edge, interest) = (watch.fd, watch.place, watch.is_edge(), watch.interest);
        if place == Place::Parked && fired == 0 {
            return None;
        }
        let file = self.park.info(w).file.or_else(|| sys::identify(FdNumber(fd).as_fd()).ok());
        self.park.info(w).file = file;
        let interest = match place {
            // What it did before it was parked again: evd knows by the Arm where it is.
            Place::Parked => What::empty(),
            _ if edge => interest | What::ET,
            _ => interest,
        };
        let (kind, ino) = file.map_or((FileKind::Other, 0), |f| (f.kind, f.ino));
        Some(LocalWatch { id: w, interest, kind, ino, fired, ready })
    }

    fn label_report(&self, w: u32) -> Option<(u32, String)> {
        let watch = self.watches.get(w as usize)?;
        let mut labels: Vec<&str> =
            self.newest_first(watch.first).filter_map(|e| self.labels.get(&e)).map(String::as_str).collect();
        labels.reverse();
        let mut text = labels.join(",");
        while text.len() > evd_proto::name::MAX_LABEL {
            text.pop();
        }
        Some((w, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::park::Park;
    use crate::{Event, EventBase};
    use std::net::UdpSocket;

    #[test]
    fn timers_that_nobody_told_evd_of_are_not_made_room_for() {
        let base = EventBase::local().unwrap();
        let mut state = base.core().state.borrow_mut();
        state.timer_reported(&ActiveTimer { id: 10_000_000, deadline: 1 });
        state.refused_timer(10_000_000);
        assert!(state.park.known.is_empty());
    }

    #[test]
    fn what_is_to_be_told_does_not_grow_with_the_changes() {
        const MANY: usize = 10_000;
        let mut park = Park::new(0);
        park.infos.of(1);
        for _ in 0..MANY {
            park.gone(1, Place::Local, false);
        }
        assert!(park.gone.is_empty(), "nobody is there to be told");
        for i in 0..MANY {
            park.gone(1, Place::Local, true);
            park.label(i as u32 % 3);
            park.timer_changed(i as u32 % 100);
        }
        for list in [&park.gone, &park.labels, &park.dirty_timers] {
            assert!(list.capacity() <= 500, "{}", list.capacity());
        }
        (0..100).for_each(|id| assert!(park.dirty_timers.contains(&id)));
    }

    #[test]
    fn labels_of_a_base_without_evd_are_told_nobody() {
        let base = EventBase::local().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let event = Event::new(&base, socket, What::READ, |_, _| {}).unwrap();
        event.label("a label");
        for _ in 0..100 {
            event.add(None).unwrap();
            event.label("another");
            event.del().unwrap();
        }
        assert!(base.core().state.borrow().park.labels.is_empty());
    }
}
