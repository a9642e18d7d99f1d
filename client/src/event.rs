//! `Event`: libevent's `event_new`, `event_add`, `event_del`.

use crate::state::{Bits, Call, Core, Sender, Source, State, Target};
use crate::{Error, EventBase};
use evd_proto::What;
use evd_proto::sys::{AsFd, AsRawFd, BorrowedFd};
use std::any::Any;
use std::cell::{RefCell, RefMut};
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
    home: RefCell<Home>,
    source: F,
    call: RefCell<C>,
}

/// The base of an event, and its index there.
struct Home {
    core: Rc<Core>,
    id: u32,
}

impl Home {
    /// The base's state, unless this is the child of a fork.
    fn state(&self) -> Result<RefMut<'_, State>, Error> {
        self.core.check_fork()?;
        Ok(self.core.state.borrow_mut())
    }
}

impl<F: 'static, C: FnMut(&Event<F>, What) + 'static> Target for Inner<F, C> {
    fn run(self: Rc<Self>, what: What) {
        let event: Event<F> = Event { inner: self };
        // Loops don't nest, so the callback is not running already.
        (event.inner.call.borrow_mut())(&event, what);
    }
}

impl<F: 'static, C: ?Sized> Drop for Inner<F, C> {
    fn drop(&mut self) {
        let home = self.home.get_mut();
        // In the child of a fork the kernel's objects are the parent's: leave them alone.
        let Ok(mut state) = home.state() else { return };
        state.free_event(home.id);
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
        drop(state);
        Inner { home: RefCell::new(Home { core, id }), source, call: RefCell::new(callback) }
    });
    Event { inner }
}

impl<F: AsFd + 'static> Event<F> {
    /// libevent's `event_new` for an fd: `what` is READ, WRITE, CLOSED, or several, with PERSIST and ET if wanted.
    ///
    /// The callback gets the event itself and what happened: bits that the event asked for, TIMEOUT, and whatever was given to [`Event::active`].
    /// CLOSED never fires on methods without the EARLY_CLOSE feature; ET is level-triggered on methods without ET. Without READ, WRITE and CLOSED it waits for its
    /// timeout only.
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
        base.core().state.borrow_mut().named.insert(event.id(), name.to_owned());
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
    /// `BadFd`, `NotWatchable`, `Combination` (ET beside level on one fd), `Os`; for signals `Os` if it is not caught (KILL and STOP can't be; who returns from the
    /// handler of SEGV, ILL or FPE meets it again at once; the C library keeps some for itself). Nothing has changed then.
    /// What only evd could refuse leaves the watch local, and is no error.
    pub fn add(&self, timeout: Option<Duration>) -> Result<(), Error> {
        self.change(|state, id| state.add(id, timeout))?
    }

    /// libevent's `event_del`: waits for nothing any more, and an activation that is queued is dropped. Never added is fine.
    ///
    /// # Errors
    /// `Forked`.
    pub fn del(&self) -> Result<(), Error> {
        self.change(State::del)
    }

    /// libevent's `event_remove_timer`: drops the timeout and keeps the rest.
    ///
    /// # Errors
    /// `Forked`.
    pub fn remove_timer(&self) -> Result<(), Error> {
        self.change(State::remove_timeout)
    }

    /// libevent's `event_active`: makes it active with `what`, pending or not. Several calls before it runs are one.
    ///
    /// # Errors
    /// `Forked`.
    pub fn active(&self, what: What) -> Result<(), Error> {
        self.active_times(what, 1)
    }

    /// As [`Event::active`], and the callback of a signal event runs `times` times, also none: the third argument of libevent's `event_active`. For a named
    /// event [`Event::times`] says so; for others it means nothing. While a signal event is active the number stays as it is, as in libevent.
    ///
    /// # Errors
    /// `Forked`.
    pub fn active_times(&self, what: What, times: u32) -> Result<(), Error> {
        self.change(|state, id| state.activate_by_hand(id, what, times))
    }

    /// Makes it active with `what` when the loop is about to wait the next time, and not in the queue that runs now, so that the loop looks for what is more urgent
    /// in between: libevent's `event_callback_activate_later_`.
    ///
    /// # Errors
    /// `Forked`.
    pub fn active_later(&self, what: What) -> Result<(), Error> {
        self.change(|state, id| state.activate_later(id, what))
    }

    /// How late its timeouts may be, so that they can fall together with others and wake the machine less often. Zero, as at first: precise. It counts from the
    /// next time that its timeout is set; a persistent one does not drift.
    pub fn set_slack(&self, slack: Duration) {
        let nanos = crate::events::nanos(slack);
        self.read(|state, id| match nanos {
            0 => drop(state.slacks.remove(&id)),
            _ => {
                let due = state.deadline(id).unwrap_or(0);
                state.slacks.insert(id, (nanos, due));
            }
        });
    }

    /// libevent's `event_pending`: which bits of `asked` it waits for, or is active with: READ, WRITE, CLOSED, SIGNAL and TIMEOUT, and no others.
    pub fn pending(&self, asked: What) -> What {
        self.read(|state, id| state.pending(id, asked))
    }

    /// When its timeout is due, if it has one, on the clock of [`EventBase::time`]: what libevent's `event_pending` tells besides.
    pub fn deadline(&self) -> Option<Duration> {
        self.read(|state, id| state.deadline(id).map(Duration::from_nanos))
    }

    /// Time left of its timeout, if it has one.
    pub fn time_left(&self) -> Option<Duration> {
        self.read(|state, id| {
            // Not the loop's time, which this must not change either.
            let now = state.base.look_at_clock();
            state.deadline(id).map(|at| Duration::from_nanos(at.saturating_sub(now)))
        })
    }

    /// libevent's `event_priority_set`: 0 is the most urgent. New events have the middle one.
    ///
    /// # Errors
    /// `OutOfRange`: not below the base's number of priorities, or the event is active.
    pub fn set_priority(&self, priority: usize) -> Result<(), Error> {
        self.read(|state, id| {
            if priority >= state.queues.priorities() {
                return Err(Error::OutOfRange("the base has fewer priorities"));
            }
            let slot = state.slot_mut(id);
            if slot.is(Bits::ACTIVE) {
                return Err(Error::OutOfRange("the priority of an active event can't be changed"));
            }
            slot.priority = priority as u8;
            Ok(())
        })
    }

    /// Its priority.
    pub fn priority(&self) -> usize {
        self.read(|state, id| usize::from(state.slot(id).priority))
    }

    /// What it was made to wait for.
    pub fn what(&self) -> What {
        self.read(|state, id| state.slot(id).what)
    }

    /// Makes it wait for something else from its next [`Event::add`] on, as libevent's `event_assign` does with an event that exists. TIMEOUT means nothing here,
    /// as with [`Event::new`].
    ///
    /// # Errors
    /// `Pending`: it waits, or is active. `Combination`: bits that its kind can't have.
    pub fn set_what(&self, what: What) -> Result<(), Error> {
        self.read(|state, id| {
            if !state.is_idle(id) {
                return Err(Error::Pending);
            }
            let allowed = match state.slot(id).source {
                Source::Fd(_) => What::IO | What::PERSIST | What::ET,
                Source::Signal(_) | Source::DaemonSignal(_) => What::SIGNAL | What::PERSIST,
                Source::Nothing | Source::Name => What::PERSIST,
            };
            if !allowed.contains(what - What::TIMEOUT) {
                return Err(Error::Combination("bits that this kind of event can't have"));
            }
            let kind = state.slot(id).what & What::SIGNAL;
            state.slot_mut(id).what = what | kind;
            Ok(())
        })
    }

    /// Moves it to another base of this thread, where it has the middle priority: libevent's `event_base_set`. Its label goes with it.
    ///
    /// # Errors
    /// `Pending`: it waits, or is active. `Forked`. It stays where it is then.
    pub fn move_to(&self, base: &EventBase) -> Result<(), Error> {
        base.core().check_fork()?;
        let mut home = self.inner.home.borrow_mut();
        let moved = {
            let mut state = home.state()?;
            if !state.is_idle(home.id) {
                return Err(Error::Pending);
            }
            state.move_out(home.id)
        };
        let id = base.core().state.borrow_mut().move_in(moved);
        let share = home.core.detached.borrow_mut().remove(&home.id);
        if let Some(share) = share {
            base.core().detached.borrow_mut().insert(id, share);
        }
        *home = Home { core: Rc::clone(base.core()), id };
        Ok(())
    }

    /// Inside its callback: how often what is being reported has happened (of named events and signals).
    pub fn times(&self) -> u32 {
        self.read(|state, id| state.calls.get(&id).copied().unwrap_or(1))
    }

    /// How often it has fired.
    pub fn count(&self) -> u64 {
        self.read(|state, id| state.count(id))
    }

    /// How long its callbacks ran, in all and at most, while the base timed them: see [`EventBase::on_slow`].
    pub fn callback_times(&self) -> (Duration, Duration) {
        let (total, longest) =
            self.read(|state, id| state.times.get(id as usize).copied().unwrap_or_default());
        (Duration::from_nanos(total), Duration::from_nanos(longest))
    }

    /// Of a signal event: who sent the signal the last time.
    pub fn sender(&self) -> Option<Sender> {
        self.read(|state, id| match state.slot(id).source {
            Source::Signal(signo) | Source::DaemonSignal(signo) => state.senders.get(&signo).copied(),
            _ => None,
        })
    }

    /// What `evctl events` calls it: at most 64 bytes are shown.
    pub fn label(&self, text: &str) {
        self.read(|state, id| {
            state.labels.insert(id, text.to_owned());
            let watch = state.slot(id).watch;
            if watch != crate::state::NIL {
                state.park.label(watch);
            }
        });
    }

    /// The source that it owns.
    pub fn source(&self) -> &F {
        &self.inner.source
    }

    /// The base that it belongs to.
    pub fn base(&self) -> EventBase {
        EventBase::from_core(&self.inner.home.borrow().core)
    }

    /// Names it for other threads: see [`Handle::active`](crate::Handle::active).
    pub fn key(&self) -> EventKey {
        self.read(|state, id| EventKey { id, generation: state.slot(id).generation })
    }

    /// Leaves the event to its base: it lives until [`Event::free`] is called in its callback, or the base's last handle is dropped.
    pub fn detach(self) {
        let me: Rc<dyn Any> = Rc::new(self.share());
        let home = self.inner.home.borrow();
        home.core.detached.borrow_mut().insert(home.id, me);
    }

    /// Deletes the event, and gives up the base's share in it if it was detached: inside its own callback it is gone when that returns.
    ///
    /// # Errors
    /// `Forked`.
    pub fn free(&self) -> Result<(), Error> {
        self.del()?;
        // Dropped only after the borrows have ended: the last share deletes the event.
        let share = {
            let home = self.inner.home.borrow();
            home.core.detached.borrow_mut().remove(&home.id)
        };
        drop(share);
        Ok(())
    }

    /// The same event once more: it lives until the last share is gone.
    pub(crate) fn share(&self) -> Event<F> {
        Event { inner: Rc::clone(&self.inner) }
    }

    fn id(&self) -> u32 {
        self.inner.home.borrow().id
    }

    /// Looks at its state, or changes what has no effect outside of this process.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&mut State, u32) -> T) -> T {
        let home = self.inner.home.borrow();
        let mut state = home.core.state.borrow_mut();
        look(&mut state, home.id)
    }

    /// Changes it, unless this is the child of a fork.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State, u32) -> T) -> Result<T, Error> {
        let home = self.inner.home.borrow();
        let mut state = home.state()?;
        let result = change(&mut state, home.id);
        state.after_change();
        Ok(result)
    }
}

impl<F: AsFd + 'static> AsFd for Event<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.source.as_fd()
    }
}

impl<F: 'static> std::fmt::Debug for Event<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Names an event of a base for other threads; a key of an event that is gone names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKey {
    pub(crate) id: u32,
    pub(crate) generation: u32,
}
