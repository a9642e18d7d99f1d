//! The file map: fds to watches, and each watch to its place.
//!
//! A watch is one fd with the whole interest of all its events. It is in exactly one place: in the local backend, parked at evd, or (just added, or
//! just reported by evd) in neither until the next wait looks at it. Without evd it goes straight into the local backend.

use crate::Error;
use crate::state::{NIL, Place, Source, State, Trigger, Watch};
use evd::backend::{Entry, Features, Interest, Mode, WatchError};
use evd_proto::What;
use evd_proto::sys::{self, AsFd, FdNumber, FileKind, PollFd, RawFd};
use std::time::Duration;

/// The token of a watch in the local base.
pub(crate) fn watch_token(w: u32) -> u64 {
    u64::from(w)
}

impl State {
    fn watch_of(&self, fd: RawFd) -> Option<u32> {
        self.by_fd.get(fd as usize).copied().filter(|w| *w != NIL)
    }

    /// Adds an event to the watch of its fd. A negative fd is only book-keeping.
    pub fn insert_fd(&mut self, id: u32, fd: RawFd) -> Result<(), Error> {
        if fd < 0 {
            self.link_newest(id, NIL);
            return Ok(());
        }
        let what = self.slot(id).what;
        let edge = what.contains(What::ET) && self.base.features().contains(Features::ET);
        let w = match self.watch_of(fd) {
            Some(w) => {
                if self.watch(w).is_edge() != edge {
                    return Err(Error::Combination("edge-triggered and level-triggered events on one fd"));
                }
                self.change_interest(w, self.watch(w).interest | (what & What::IO))?;
                w
            }
            None => {
                // With both directions the kernel is to tell of the second one even when the first was reported and the event has not run yet.
                let once = !what.contains(What::PERSIST) && (what & What::IO).bits().is_power_of_two();
                let trigger = match (edge, once) {
                    (true, _) => Trigger::Edge,
                    (_, true) => Trigger::Once,
                    _ => Trigger::Level,
                };
                self.new_watch(fd, what & What::IO, trigger)?
            }
        };
        let first = self.watch(w).first;
        self.link_newest(id, first);
        self.watch_mut(w).first = id;
        self.slot_mut(id).watch = w;
        self.tell_label(id);
        Ok(())
    }

    /// evd is to hear what the user calls the event, if it has a label and a watch.
    pub fn tell_label(&mut self, id: u32) {
        let w = self.slot(id).watch;
        if w != NIL && self.link.is_up() && self.labels.contains_key(&id) {
            self.park.label(w);
        }
    }

    /// Takes an event from the watch of its fd, which goes with its last event.
    pub fn remove_fd(&mut self, id: u32) {
        let w = std::mem::replace(&mut self.slot_mut(id).watch, NIL);
        if w == NIL {
            return;
        }
        let first = self.unlink(id, self.watch(w).first);
        self.watch_mut(w).first = first;
        if first == NIL {
            self.drop_watch(w);
            return;
        }
        let interest =
            self.newest_first(first).fold(What::empty(), |all, e| all | (self.slot(e).what & What::IO));
        // Only ever smaller here, and a smaller interest on an open fd can't be refused.
        let _ = self.change_interest(w, interest);
    }

    fn new_watch(&mut self, fd: RawFd, interest: What, trigger: Trigger) -> Result<u32, Error> {
        let watch = Watch { fd, first: NIL, interest, trigger, place: Place::Out, pinned: false };
        let w = self.watches.insert(watch) as u32;
        if let Err(e) = self.place_new(w) {
            self.watches.remove(w as usize);
            return Err(e);
        }
        if self.by_fd.len() <= fd as usize {
            self.by_fd.resize(fd as usize + 1, NIL);
        }
        self.by_fd[fd as usize] = w;
        Ok(w)
    }

    fn place_new(&mut self, w: u32) -> Result<(), Error> {
        if !self.link.is_up() {
            return self.go_local(w);
        }
        // What can be checked here fails here, at once.
        let Ok(file) = sys::identify(FdNumber(self.watch(w).fd).as_fd()) else { return self.go_local(w) };
        self.park.learn(w, file);
        match file.kind {
            // Nobody can look at it without taking its signal, so it is nowhere else, not even for a moment.
            FileKind::SignalFd if file.is_pulled() => {
                self.watch_mut(w).pinned = true;
                return self.go_local(w);
            }
            FileKind::Regular => self.set_place(w, Place::Always),
            _ => self.enlist(w),
        }
        Ok(())
    }

    /// The event of a watch waits for its fd still, or again, and whatever the watch has reported counts no more.
    pub fn rearm(&mut self, w: u32) {
        if self
            .watches
            .get(w as usize)
            .is_some_and(|x| x.trigger == Trigger::Spent && x.place == Place::Local)
        {
            // It was accepted before.
            let _ = self.watch_locally(w, Entry::Known);
        }
    }

    /// Replaces the whole interest of a watch that has several events, or is to have: once is not enough then. On an error nothing has changed.
    fn change_interest(&mut self, w: u32, interest: What) -> Result<(), Error> {
        let Watch { interest: before, trigger, place, .. } = *self.watch(w);
        let once = matches!(trigger, Trigger::Once | Trigger::Spent);
        if interest == before && !once {
            return Ok(());
        }
        let watch = self.watch_mut(w);
        watch.interest = interest;
        if once {
            watch.trigger = Trigger::Level;
        }
        match place {
            Place::Local => {
                if let Err(e) = self.watch_locally(w, Entry::Known) {
                    let watch = self.watch_mut(w);
                    (watch.interest, watch.trigger) = (before, trigger);
                    return Err(e.into());
                }
            }
            // Moving it would make a false edge; evd replaces the interest of its entry instead. What was wanted once and is wanted again is new too: what is ready
            // of it would not be told otherwise.
            Place::Parked if self.watch(w).is_edge() && !before.contains(interest) => {
                self.park.rearm_edge.push(w);
            }
            Place::Parked if self.watch(w).is_edge() => {}
            // What evd waits for is a part of what is wanted now: its report is ignored, and no message is needed. A smaller interest stays
            // parked: a report that nobody wants any more brings it back once.
            Place::Parked if !self.park.armed(w).contains(interest) => self.set_place(w, Place::Out),
            _ => {}
        }
        Ok(())
    }

    fn watch_locally(&mut self, w: u32, entry: Entry) -> Result<(), WatchError> {
        let watch = &mut self.watches[w as usize];
        let mode = match watch.trigger {
            Trigger::Level => Mode::Level,
            Trigger::Edge => Mode::Edge,
            Trigger::Once | Trigger::Spent => {
                watch.trigger = Trigger::Once;
                Mode::OneShot
            }
        };
        let interest = Interest { what: watch.interest, mode };
        self.base.watch(FdNumber(watch.fd).as_fd(), watch_token(w), interest, entry)
    }

    /// Puts a watch that is nowhere into the local backend.
    pub fn go_local(&mut self, w: u32) -> Result<(), Error> {
        match self.watch_locally(w, Entry::New) {
            Ok(()) => self.set_place(w, Place::Local),
            Err(WatchError::AlwaysReady) => self.set_place(w, Place::Always),
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// As [`State::go_local`] for a watch that was accepted before: what the backend refuses now is treated as ready, so that its owner finds out.
    pub fn fall_back(&mut self, w: u32) {
        if let Err(e) = self.go_local(w) {
            log::warn!("fd {}: {e}", self.watch(w).fd);
            self.set_place(w, Place::Always);
        }
    }

    /// Moves a watch from the list of its place to another. The backend is the caller's.
    pub fn set_place(&mut self, w: u32, place: Place) {
        self.delist(w);
        self.watch_mut(w).place = place;
        self.enlist(w);
    }

    pub fn delist(&mut self, w: u32) {
        let list = match self.watches[w as usize].place {
            Place::Out => &mut self.outs,
            Place::Local => &mut self.park.locals,
            Place::Parked => return self.park.unparked(w),
            Place::Always => return self.always.retain(|x| *x != w),
        };
        let Some(position) = self.park.infos.take_position(w) else { return };
        list.swap_remove(position);
        if let Some(moved) = list.get(position) {
            self.park.infos.of(*moved).position = position as u32;
        }
    }

    fn enlist(&mut self, w: u32) {
        let watch = &self.watches[w as usize];
        let list = match watch.place {
            Place::Out => &mut self.outs,
            // An edge-triggered watch stays where it is, a pinned one too.
            Place::Local if watch.is_edge() || watch.pinned || !self.link.is_wanted() => {
                return self.park.note_local(w);
            }
            Place::Local => &mut self.park.locals,
            Place::Parked => return,
            Place::Always => return self.always.push(w),
        };
        self.park.infos.of(w).position = list.len() as u32;
        list.push(w);
        if watch.place == Place::Local {
            self.park.note_local(w);
        }
    }

    fn drop_watch(&mut self, w: u32) {
        let Watch { fd, place, trigger, .. } = *self.watch(w);
        self.delist(w);
        match place {
            // evd may have a copy still, on its way to it: then closing the fd would not take it out of the kernel's table.
            Place::Local if !self.park.armed(w).is_empty() => {
                self.base.unwatch(FdNumber(fd).as_fd(), watch_token(w));
            }
            Place::Local => {
                self.base.rest(FdNumber(fd).as_fd(), watch_token(w), trigger == Trigger::Spent);
            }
            Place::Parked => self.disarm(w, (trigger == Trigger::Edge).then_some(fd)),
            _ => {}
        }
        let is_up = self.link.is_up();
        self.park.gone(w, place, is_up);
        self.by_fd[fd as usize] = NIL;
        self.watches.remove(w as usize);
    }

    /// An fd may be closed from now on. What watches it still has other events.
    pub fn forget_fd(&mut self, fd: RawFd) {
        if fd >= 0 && self.watch_of(fd).is_none() {
            self.base.forget(FdNumber(fd).as_fd());
        }
    }

    /// The local backend says that a watch is ready.
    pub fn reported(&mut self, w: u32, ready: What) {
        let Some(watch) = self.watches.get_mut(w as usize) else { return };
        if watch.trigger == Trigger::Once {
            watch.trigger = Trigger::Spent;
        }
        if !self.fire(w, ready) {
            self.mute(w);
        }
    }

    /// A watch is ready: its events become active, newest first. One that nobody wants anything of is muted for a while.
    ///
    /// The caller keeps the high-water marks.
    pub fn fire(&mut self, w: u32, ready: What) -> bool {
        let et = if self.watches[w as usize].trigger == Trigger::Edge { What::ET } else { What::empty() };
        self.fire_with(w, ready, et)
    }

    /// `et` is told besides what of `ready` each event asked for.
    fn fire_with(&mut self, w: u32, ready: What, et: What) -> bool {
        let Watch { first, place, .. } = self.watches[w as usize];
        let mut matched = What::empty();
        let mut at = first;
        while at != NIL {
            let slot = &self.events[at as usize];
            let (next, bits) = (slot.next, slot.what & ready & What::IO);
            if !bits.is_empty() {
                matched |= bits;
                self.activate_quietly(at, bits | et, 1);
            }
            at = next;
        }
        if matched.is_empty() {
            return false;
        }
        if self.park.linger != u64::MAX {
            self.park.fired(w, place, matched, self.base.now());
        }
        true
    }

    /// As if `fd` were ready; or, with TIMEOUT, as if the timeouts of its events were over.
    pub fn active_by_fd(&mut self, fd: RawFd, what: What) {
        let watch = usize::try_from(fd).ok().and_then(|at| self.by_fd.get(at).copied()).unwrap_or(NIL);
        if what.contains(What::TIMEOUT) {
            let timed = |s: &crate::state::Slot| s.timer.is_some() && s.source == Source::Fd(fd);
            let ids: Vec<u32> =
                self.events.iter().filter(|(_, s)| timed(s)).map(|(id, _)| id as u32).collect();
            ids.into_iter().for_each(|id| self.activate(id, What::TIMEOUT, 1));
        } else if watch != NIL {
            // No edge was seen: as in libevent, it is not told as one.
            self.fire_with(watch, what & What::IO, What::empty());
            self.note_most();
        }
    }

    /// Leaves a watch alone for a second that reports only what nobody wants: HUP and ERR can't be masked. It stays here: evd could do no more.
    pub fn mute(&mut self, w: u32) {
        if self.watch(w).place == Place::Out {
            self.watch_mut(w).pinned = true;
            self.fall_back(w);
        }
        let watch = &mut self.watches[w as usize];
        if watch.place == Place::Local {
            if matches!(watch.trigger, Trigger::Once | Trigger::Spent) {
                watch.trigger = Trigger::Level;
                // It was accepted before.
                let _ = self.watch_locally(w, Entry::Known);
            }
            let watch = &self.watches[w as usize];
            let mode = if watch.is_edge() { Mode::Edge } else { Mode::Level };
            let interest = Interest { what: watch.interest, mode };
            self.base.mute(FdNumber(watch.fd).as_fd(), watch_token(w), interest);
        }
    }

    /// Asks the kernel, without waiting, about the watches that are nowhere. `polls` has an entry for each of `outs`, in order.
    fn poll_outs(&mut self) -> usize {
        let mut polls = std::mem::take(&mut self.polls);
        polls.clear();
        for &w in &self.outs {
            let watch = &self.watches[w as usize];
            // An edge-triggered one is told of its first edge when it is armed.
            polls.push(PollFd::new(if watch.is_edge() { -1 } else { watch.fd }, watch.interest));
        }
        let found = sys::poll(&mut polls, Some(Duration::ZERO));
        self.polls = polls;
        match found {
            Ok(n) => n,
            Err(e) => {
                // More entries than the limit on fds, or no memory: the local backend decides instead.
                log::debug!("poll: {e}");
                while let Some(&w) = self.outs.last() {
                    self.fall_back(w);
                }
                0
            }
        }
    }

    /// Whether one of the watches that are nowhere is ready.
    pub fn has_ready_out(&mut self) -> bool {
        !self.outs.is_empty() && self.poll_outs() > 0
    }

    /// Fires those of the watches that are nowhere that are ready. One that fired twice within the linger goes into the local backend.
    pub fn look_at_outs(&mut self) -> bool {
        if self.outs.is_empty() || self.poll_outs() == 0 {
            return false;
        }
        let polls = std::mem::take(&mut self.polls);
        let list = self.outs.clone();
        for (&w, poll) in list.iter().zip(&polls) {
            let ready = poll.ready();
            if ready.is_empty() {
                continue;
            }
            let (before, now) = (self.park.infos.of(w).fired_at, self.base.now());
            if !self.fire(w, ready & self.known_bits()) {
                self.mute(w);
            } else if before != 0 && self.park.linger > 0 && now.saturating_sub(before) <= self.park.linger {
                self.fall_back(w);
            }
        }
        self.polls = polls;
        true
    }

    /// The bits that this base's method can report.
    pub fn known_bits(&self) -> What {
        if self.base.features().contains(Features::EARLY_CLOSE) { What::IO } else { What::READ | What::WRITE }
    }

    /// Whether a file that is always ready is waited for: for reading or writing, as it is never closed.
    pub fn is_always_ready(&self) -> bool {
        self.always.iter().any(|w| self.watch(*w).interest.intersects(What::READ | What::WRITE))
    }

    /// Files that are always ready fire in every iteration.
    pub fn fire_always(&mut self) {
        for i in 0..self.always.len() {
            if let Some(&w) = self.always.get(i) {
                self.fire(w, What::READ | What::WRITE);
            }
        }
    }
}
