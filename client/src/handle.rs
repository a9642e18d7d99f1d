//! `Handle`: what other threads may do with a base.

use crate::state::{Mail, Shared};
use crate::{EventBase, EventKey};
use evd_proto::What;
use evd_proto::sys::generation;
use std::sync::Arc;

/// A way to a base from any thread. It wakes the loop and asks; the loop's own thread does. In the child of a fork it does nothing.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    fn send(&self, mail: Mail) {
        // In the child of a fork what wakes the loop is the parent's.
        if self.shared.generation != generation() {
            return;
        }
        // The lock is gone before the wake-up, so that the woken thread finds it free.
        self.shared.mail().push(mail);
        self.shared.waker.wake();
    }

    /// Wakes the loop, for nothing else.
    pub fn wake(&self) {
        self.send(Mail::Wake);
    }

    /// Runs `closure` in the loop's thread. It stays queued while no loop runs.
    pub fn post(&self, closure: impl FnOnce(&EventBase) + Send + 'static) {
        self.send(Mail::Post(Box::new(closure)));
    }

    /// Makes an event active with `what`, as [`Event::active`](crate::Event::active) does. An event that is gone meanwhile is passed over.
    pub fn active(&self, event: EventKey, what: What) {
        self.send(Mail::Activate { id: event.id, generation: event.generation, what });
    }

    /// Ends the loop after the callbacks that are active now: `loopexit` without a time.
    pub fn loopexit(&self) {
        self.send(Mail::Exit);
    }

    /// Ends the loop after the callback that runs: `loopbreak`.
    pub fn loopbreak(&self) {
        self.send(Mail::Break);
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
