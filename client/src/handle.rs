//! `Handle`: what other threads may do with a base.

use crate::mailbox::{Mail, Shared};
use crate::{EventBase, EventKey};
use evd_proto::What;
use std::sync::Arc;
use std::time::Duration;

/// A way to a base from any thread. It wakes the loop and asks; the loop's own thread does, between two callbacks. Requests of one thread are done in their
/// order; those that come while no loop runs are done when the next one begins. A key of an event that is gone names nothing, and is no error. In the child of
/// a fork it does nothing.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Wakes the loop, for nothing else.
    pub fn wake(&self) {
        self.shared.send(Mail::Wake);
    }

    /// Runs `closure` in the loop's thread. It stays queued while no loop runs.
    pub fn post(&self, closure: impl FnOnce(&EventBase) + Send + 'static) {
        self.shared.send(Mail::Post(Box::new(closure)));
    }

    /// Makes an event active with `what`, as [`Event::active`](crate::Event::active) does.
    pub fn active(&self, event: EventKey, what: What) {
        self.shared.send(Mail::Activate { key: event, what });
    }

    /// Adds an event, as [`Event::add`](crate::Event::add) does; the timeout counts from when the loop reads this. What `add` would return as an error is logged; to see
    /// it, [`Handle::post`] a closure that adds.
    pub fn add(&self, event: EventKey, timeout: Option<Duration>) {
        self.shared.send(Mail::Add { key: event, timeout });
    }

    /// Deletes an event, as [`Event::del`](crate::Event::del) does. When this returns, no callback of the event begins any more until it is added again; one that runs
    /// just now may go on: libevent's `event_del_noblock`.
    pub fn del(&self, event: EventKey) {
        self.shared.send(Mail::Del(event));
    }

    /// As [`Handle::del`], and waits until the callback that runs just now, if there is one, has returned: libevent's `event_del_block`. In the event's own
    /// callback it does not wait. No lock of the base is held meanwhile; what the callback itself waits for must not wait for the caller.
    pub fn del_wait(&self, event: EventKey) {
        self.del(event);
        self.shared.wait_for(event);
    }

    /// Drops an event's timeout and keeps the rest, as [`Event::remove_timer`](crate::Event::remove_timer) does.
    pub fn remove_timer(&self, event: EventKey) {
        self.shared.send(Mail::RemoveTimer(event));
    }

    /// Ends the loop after the callbacks that are active now: `loopexit` without a time. Without a loop it ends the next one.
    pub fn loopexit(&self) {
        self.shared.send(Mail::Exit);
    }

    /// Ends the loop after the callback that runs: `loopbreak`. Without a loop it ends the next one, as [`EventBase::stop`] does: from another thread nobody can know
    /// whether a loop has begun yet.
    pub fn loopbreak(&self) {
        self.shared.send(Mail::Break);
    }

    /// Lets the loop look for new events after the callback that runs: `loopcontinue`.
    pub fn loopcontinue(&self) {
        self.shared.send(Mail::Continue);
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
