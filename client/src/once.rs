//! Events that end by themselves: `event_base_once`, `event_finalize`.

use crate::state::Core;
use crate::{Error, Event, EventBase, NoFd};
use evd_proto::What;
use evd_proto::sys::AsFd;
use std::rc::Rc;
use std::time::Duration;

impl EventBase {
    /// Calls `callback` once, when `source` is ready for `what` (READ, WRITE, CLOSED) or the timeout is over, whichever is first. The base owns the source
    /// until then: libevent's `event_base_once` for an fd.
    ///
    /// # Errors
    /// `Combination`: PERSIST, SIGNAL, or nothing to wait for. What [`Event::add`] gives; the source is closed then.
    pub fn once<F: AsFd + 'static>(
        &self,
        source: F,
        what: What,
        timeout: Option<Duration>,
        callback: impl FnOnce(&F, What) + 'static,
    ) -> Result<(), Error> {
        if (what & What::IO).is_empty() || what.intersects(What::PERSIST | What::SIGNAL) {
            return Err(Error::Combination("once is for READ, WRITE and CLOSED, and without PERSIST"));
        }
        let mut callback = Some(callback);
        let event = Event::new(self, source, what, move |event, what| {
            // First, so that it is gone also if the callback panics. In the child of a fork it stays: it is the parent's.
            let _ = event.free();
            if let Some(callback) = callback.take() {
                callback(event.source(), what);
            }
        })?;
        event.add(timeout)?;
        event.detach();
        Ok(())
    }

    /// Calls `callback` once after `timeout`; with a timeout of zero it is active at once, behind what is active already: libevent's `event_base_once`
    /// with EV_TIMEOUT.
    ///
    /// # Errors
    /// `Forked`.
    pub fn once_after(
        &self,
        timeout: Duration,
        callback: impl FnOnce(&EventBase) + 'static,
    ) -> Result<(), Error> {
        let mut callback = Some(callback);
        let event = Event::<NoFd>::timer(self, What::empty(), move |event, _| {
            let _ = event.free();
            if let Some(callback) = callback.take() {
                callback(&event.base());
            }
        })?;
        if timeout.is_zero() {
            event.active(What::TIMEOUT)?;
        } else {
            event.add(Some(timeout))?;
        }
        event.detach();
        Ok(())
    }

    /// Ends the base without running the finalizers that are still queued: libevent's `event_base_free_nofinalize`. They are dropped; other handles to the
    /// base go on.
    pub fn free_nofinalize(self) {
        drop(take_finalizers(self.core()));
    }
}

impl<F: 'static> Event<F> {
    /// Deletes the event and calls `callback` once, in the loop, at the event's priority, when everything that runs now is over: then nobody uses it any
    /// more. Until then adding it is an error, and activating and deleting it do nothing. The event lives until then. libevent's `event_finalize`.
    ///
    /// With the base's last handle what is still queued is run. A second call before the first has run changes nothing.
    ///
    /// # Errors
    /// `Forked`.
    pub fn finalize(&self, callback: impl FnOnce(&Event<F>) + 'static) -> Result<(), Error> {
        let me = self.share();
        let refused = self.change(|state, id| state.finalize(id, Box::new(move || callback(&me))))?;
        drop(refused);
        Ok(())
    }

    /// As [`Event::finalize`], and the event is gone after it: libevent's `event_free_finalize`.
    ///
    /// # Errors
    /// `Forked`.
    pub fn free_finalize(self, callback: impl FnOnce(&Event<F>) + 'static) -> Result<(), Error> {
        self.finalize(move |event| {
            let _ = event.free();
            callback(event);
        })
    }
}

/// Takes the finalizers that are queued out of a base.
pub(crate) fn take_finalizers(core: &Rc<Core>) -> Vec<Box<dyn FnOnce()>> {
    let mut state = core.state.borrow_mut();
    let ids: Vec<u32> = state.events.iter().map(|(id, _)| id as u32).collect();
    ids.into_iter().filter_map(|id| state.take_finalizer(id)).collect()
}
