//! `Event`: libevent's `event_new`, `event_add`, `event_del`.

use crate::state::{Call, Core, Source, Target};
use crate::{Error, EventBase};
use evd_proto::What;
use std::any::Any;
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// The source of an event that waits for no fd: a timer, a signal, a user event.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFd;

/// Something a base waits for, with the callback to run when it happens.
///
/// It owns its source `F` (an `OwnedFd`, a `TcpListener`, an `Rc` or `Arc` of one, a `BorrowedFd<'static>`), so that the event is always deleted before the
/// fd is closed. Dropping it deletes it; a callback may drop its own event. To leave an event to its base, see [`Event::detach`].
///
/// An event is made with [`Event::new`] and its kin, and waits for nothing until [`Event::add`].
pub struct Event<F: 'static = NoFd> {
    inner: Rc<Inner<F, Callback<F>>>,
}

type Callback<F> = dyn FnMut(&Event<F>, What);

struct Inner<F: 'static, C: ?Sized> {
    core: Rc<Core>,
    id: u32,
    generation: u32,
    source: F,
    call: RefCell<C>,
}

impl<F: 'static, C: FnMut(&Event<F>, What) + 'static> Target for Inner<F, C> {
    fn run(self: Rc<Self>, what: What) {
        let event = Event { inner: Rc::clone(&self) as Rc<Inner<F, Callback<F>>> };
        // Loops don't nest, so the callback is not running already.
        (self.call.borrow_mut())(&event, what);
    }
}

impl<F: 'static, C: ?Sized> Drop for Inner<F, C> {
    fn drop(&mut self) {
        // In the child of a fork the kernel's objects are the parent's: leave them alone.
        if self.core.check_fork().is_err() {
            return;
        }
        let mut state = self.core.state.borrow_mut();
        state.free_event(self.id);
        state.after_change();
    }
}

fn new_event<F: 'static>(
    base: &EventBase,
    source: F,
    waits_for: Source,
    what: What,
    callback: impl FnMut(&Event<F>, What) + 'static,
) -> Event<F> {
    let core = Rc::clone(base.core());
    let inner = Rc::new_cyclic(|me: &Weak<Inner<F, _>>| {
        let target: Weak<dyn Target> = me.clone();
        let mut state = core.state.borrow_mut();
        let id = state.new_event(Call::User(target), waits_for, what);
        let generation = state.slot(id).generation;
        drop(state);
        Inner { core, id, generation, source, call: RefCell::new(callback) }
    });
    Event { inner }
}

impl<F: AsFd + 'static> Event<F> {
    /// libevent's `event_new` for an fd: `what` is READ, WRITE, CLOSED, or several, with PERSIST and ET if wanted.
    ///
    /// The callback gets the event itself and what happened: bits that the event asked for, TIMEOUT, and whatever was given to [`Event::active`].
    /// CLOSED never fires on methods without the EARLY_CLOSE feature; ET is level-triggered on methods without ET.
    ///
    /// # Errors
    /// `Combination`: SIGNAL together with an fd. `Forked`.
    pub fn new(
        base: &EventBase,
        source: F,
        what: What,
        callback: impl FnMut(&Event<F>, What) + 'static,
    ) -> Result<Event<F>, Error> {
        base.core().check_fork()?;
        if what.contains(What::SIGNAL) {
            return Err(Error::Combination("an fd is no signal; see Event::signal"));
        }
        let fd = source.as_fd().as_raw_fd();
        Ok(new_event(base, source, Source::Fd(fd), what, callback))
    }
}

impl Event<NoFd> {
    /// A timer: libevent's `evtimer_new`. `what` may have PERSIST, to fire again and again.
    ///
    /// # Errors
    /// `Forked`.
    pub fn timer(
        base: &EventBase,
        what: What,
        callback: impl FnMut(&Event<NoFd>, What) + 'static,
    ) -> Result<Event<NoFd>, Error> {
        base.core().check_fork()?;
        Ok(new_event(base, NoFd, Source::Nothing, what & What::PERSIST, callback))
    }

    /// A user event, which only [`Event::active`] or a [`Handle`](crate::Handle) makes active: libevent's `evuser_new`.
    ///
    /// # Errors
    /// `Forked`.
    pub fn user(
        base: &EventBase,
        callback: impl FnMut(&Event<NoFd>, What) + 'static,
    ) -> Result<Event<NoFd>, Error> {
        Event::timer(base, What::PERSIST, callback)
    }

    /// A user event with a name: while it is added, `trigger` of that name, by any process of this user or by `evctl`, makes it active. [`Event::times`]
    /// says how often since the last callback. Without evd only this base's own [`EventBase::trigger`] reaches it.
    ///
    /// # Errors
    /// `BadName`, `Forked`.
    pub fn named(
        base: &EventBase,
        name: &str,
        callback: impl FnMut(&Event<NoFd>, What) + 'static,
    ) -> Result<Event<NoFd>, Error> {
        base.core().check_fork()?;
        evd_proto::name::check(name).map_err(|e| Error::BadName(e.to_string()))?;
        let event = new_event(base, NoFd, Source::Name, What::PERSIST, callback);
        base.core().state.borrow_mut().named.insert(event.inner.id, name.to_owned());
        Ok(event)
    }

    /// A signal to this process: libevent's `evsignal_new`. It stays pending; every base that asks for a signal gets it, and the callback is called as
    /// often as the signal came.
    ///
    /// # Errors
    /// `OutOfRange`: not a signal. (That it can't be caught is told by `add`.) `Forked`.
    pub fn signal(
        base: &EventBase,
        signo: i32,
        callback: impl FnMut(&Event<NoFd>, What) + 'static,
    ) -> Result<Event<NoFd>, Error> {
        Event::signal_with(base, signo, What::PERSIST, callback)
    }

    /// As [`Event::signal`], with or without PERSIST.
    ///
    /// # Errors
    /// As [`Event::signal`].
    pub fn signal_with(
        base: &EventBase,
        signo: i32,
        what: What,
        callback: impl FnMut(&Event<NoFd>, What) + 'static,
    ) -> Result<Event<NoFd>, Error> {
        base.core().check_fork()?;
        if !evd_proto::sys::is_signal(signo) {
            return Err(Error::OutOfRange("not a signal's number"));
        }
        let what = (what & What::PERSIST) | What::SIGNAL;
        Ok(new_event(base, NoFd, Source::Signal(signo), what, callback))
    }

    /// A signal that somebody sends to evd: USR1, USR2, WINCH, or a real-time one. Without evd it never comes.
    ///
    /// # Errors
    /// `OutOfRange`: evd does not pass this signal on. `Forked`.
    pub fn daemon_signal(
        base: &EventBase,
        signo: i32,
        callback: impl FnMut(&Event<NoFd>, What) + 'static,
    ) -> Result<Event<NoFd>, Error> {
        base.core().check_fork()?;
        if !evd_proto::sys::daemon_scope_allowed(signo) {
            return Err(Error::OutOfRange("evd passes on USR1, USR2, WINCH and real-time signals only"));
        }
        Ok(new_event(base, NoFd, Source::DaemonSignal(signo), What::SIGNAL | What::PERSIST, callback))
    }
}

impl<F: 'static> Event<F> {
    /// libevent's `event_add`: waits from now on, with a timeout if one is given.
    ///
    /// On an event that is pending already, `None` keeps the timeout it has and `Some` replaces it. A persistent event starts its timeout anew each
    /// time it fires.
    ///
    /// # Errors
    /// `BadFd`, `NotWatchable`, `Combination` (ET beside level on one fd), `Os`; for signals `Os` if it can't be caught. Nothing has changed then.
    /// What only evd could refuse leaves the watch local, and is no error.
    pub fn add(&self, timeout: Option<Duration>) -> Result<(), Error> {
        let core = &self.inner.core;
        core.check_fork()?;
        let mut state = core.state.borrow_mut();
        let result = state.add(self.inner.id, timeout);
        state.after_change();
        result
    }

    /// libevent's `event_del`: waits for nothing any more, and an activation that is queued is dropped. Never added is fine.
    ///
    /// # Errors
    /// `Forked`.
    pub fn del(&self) -> Result<(), Error> {
        let core = &self.inner.core;
        core.check_fork()?;
        let mut state = core.state.borrow_mut();
        state.del(self.inner.id);
        state.after_change();
        Ok(())
    }

    /// libevent's `event_remove_timer`: drops the timeout and keeps the rest.
    ///
    /// # Errors
    /// `Forked`.
    pub fn remove_timer(&self) -> Result<(), Error> {
        let core = &self.inner.core;
        core.check_fork()?;
        let mut state = core.state.borrow_mut();
        state.remove_timeout(self.inner.id);
        state.after_change();
        Ok(())
    }

    /// libevent's `event_active`: makes it active with `what`, pending or not. Several calls before it runs are one.
    ///
    /// # Errors
    /// `Forked`.
    pub fn active(&self, what: What) -> Result<(), Error> {
        let core = &self.inner.core;
        core.check_fork()?;
        let mut state = core.state.borrow_mut();
        state.activate(self.inner.id, what, 1);
        state.after_change();
        Ok(())
    }

    /// libevent's `event_pending`: which bits of `asked` it waits for, or is active with.
    pub fn pending(&self, asked: What) -> What {
        self.inner.core.state.borrow().pending(self.inner.id, asked)
    }

    /// Time left of its timeout, if it has one.
    pub fn time_left(&self) -> Option<Duration> {
        let mut state = self.inner.core.state.borrow_mut();
        let now = state.base.refresh_now();
        let slot = state.slot(self.inner.id);
        slot.timer.map(|_| Duration::from_nanos(slot.deadline.saturating_sub(now)))
    }

    /// libevent's `event_priority_set`: 0 is the most urgent. New events have the middle one.
    ///
    /// # Errors
    /// `OutOfRange`: not below the base's number of priorities, or the event is active.
    pub fn set_priority(&self, priority: usize) -> Result<(), Error> {
        let mut state = self.inner.core.state.borrow_mut();
        if priority >= state.queues.priorities() {
            return Err(Error::OutOfRange("the base has fewer priorities"));
        }
        let slot = state.slot_mut(self.inner.id);
        if slot.active {
            return Err(Error::OutOfRange("the priority of an active event can't be changed"));
        }
        slot.priority = priority as u8;
        Ok(())
    }

    /// Its priority.
    pub fn priority(&self) -> usize {
        usize::from(self.inner.core.state.borrow().slot(self.inner.id).priority)
    }

    /// What it was made to wait for.
    pub fn what(&self) -> What {
        self.inner.core.state.borrow().slot(self.inner.id).what
    }

    /// Inside its callback: how often what is being reported has happened (of named events and signals).
    pub fn times(&self) -> u32 {
        self.inner.core.state.borrow().slot(self.inner.id).calls
    }

    /// How often it has fired.
    pub fn count(&self) -> u64 {
        self.inner.core.state.borrow().slot(self.inner.id).count
    }

    /// What `evctl events` calls it: at most 64 bytes are shown.
    pub fn label(&self, text: &str) {
        let mut state = self.inner.core.state.borrow_mut();
        state.labels.insert(self.inner.id, text.to_owned());
        let watch = state.slot(self.inner.id).watch;
        if watch != crate::state::NIL {
            state.park.label(watch);
        }
    }

    /// The source that it owns.
    pub fn source(&self) -> &F {
        &self.inner.source
    }

    /// The base that it belongs to.
    pub fn base(&self) -> EventBase {
        EventBase::from_core(&self.inner.core)
    }

    /// Names it for other threads: see [`Handle::active`](crate::Handle::active).
    pub fn key(&self) -> EventKey {
        EventKey { id: self.inner.id, generation: self.inner.generation }
    }

    /// Leaves the event to its base: it lives until [`Event::free`] is called in its callback, or the base's last handle is dropped.
    pub fn detach(self) {
        let me: Rc<dyn Any> = Rc::new(Event { inner: Rc::clone(&self.inner) });
        self.inner.core.detached.borrow_mut().insert(self.inner.id, me);
    }

    /// Deletes the event, and gives up the base's share in it if it was detached: inside its own callback it is gone when that returns.
    ///
    /// # Errors
    /// `Forked`.
    pub fn free(&self) -> Result<(), Error> {
        self.del()?;
        // Dropped only after the borrow has ended: the last share deletes the event.
        let share = self.inner.core.detached.borrow_mut().remove(&self.inner.id);
        drop(share);
        Ok(())
    }
}

impl<F: AsFd + 'static> AsFd for Event<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.source.as_fd()
    }
}

impl<F: 'static> std::fmt::Debug for Event<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

/// Names an event of a base for other threads; a key of an event that is gone names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKey {
    pub(crate) id: u32,
    pub(crate) generation: u32,
}
