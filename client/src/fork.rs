//! After a fork: the child's base made its own.

use crate::link::{PATIENCE, Phase};
use crate::mailbox::Shared;
use crate::state::{Bits, Call, Place, Slot};
use crate::{Error, EventBase, LinkState};
use evd_proto::sys::{self, generation};
use std::io;
use std::sync::Arc;

impl EventBase {
    /// Makes the base usable in the child of a fork, with all its events, timers and signals: libevent's `event_reinit`. The child gets a backend of its own, and
    /// if the base was at evd a session of its own; the parent goes on undisturbed. Until then everything but dropping gives [`Error::Forked`] there.
    ///
    /// Fds are shared with the parent, as after every fork: what both watch wakes both. A [`Handle`](crate::Handle) that was made before the fork stays the
    /// parent's; make new ones. In the parent itself it makes everything anew as well.
    ///
    /// # Errors
    /// `Os`: on Windows, where there is no fork, if the base's own fd was asked for: a number can't be made to mean another socket. `Method`, `Os`: nothing has changed, and it may be tried again. That evd can't be reached is no error: it is tried again later.
    pub fn reinit(&self) -> Result<(), Error> {
        let core = self.core();
        if core.pollable.get().is_some() && !sys::CAN_REPLACE {
            let text = "on this system the fd of a base, which was asked for, can't be made anew";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text).into());
        }
        let mut state = core.state.borrow_mut();
        state.base.reinit()?;
        let shared = Shared::new(state.base.waker()?);
        if let Some(own) = core.pollable.get() {
            // Under the number that the user's loop knows.
            sys::replace(own, state.base.pollable()?)?;
        }
        core.shared.replace(Arc::new(shared)).close();
        core.inbox.borrow_mut().clear();
        core.generation.set(generation());
        state.base.refresh_now();
        if state.take_along() {
            if let Err(e) = state.connect_now(PATIENCE) {
                log::info!("evd: {e}");
                state.connect_later();
                state.link.say(LinkState::Away { why: e.to_string() });
            }
        }
        state.after_change();
        Ok(())
    }
}

impl crate::state::State {
    /// Puts every watch into the new backend, and forgets the parent's session without a word to evd. `true`: there was one, or was to be one.
    fn take_along(&mut self) -> bool {
        let was_wanted = self.link.is_wanted();
        self.link.phase = Phase::Off;
        // Those that were dropped since the fork, when nothing of the base could be touched.
        let dead = |s: &Slot| matches!(&s.call, Call::User(target) if target.strong_count() == 0);
        let dropped: Vec<u32> =
            self.events.iter().filter(|(_, s)| dead(s)).map(|(id, _)| id as u32).collect();
        dropped.into_iter().for_each(|id| self.free_event(id));
        self.park.end_session();
        let all: Vec<u32> = self.watches.iter().map(|(w, _)| w as u32).collect();
        for w in all {
            if self.watch(w).place != Place::Always {
                self.set_place(w, Place::Out);
                self.watch_mut(w).pinned = false;
                self.fall_back(w);
            }
        }
        for (_, slot) in self.events.iter_mut() {
            slot.bits -= Bits::TIMER_DIRTY;
        }
        was_wanted
    }
}
