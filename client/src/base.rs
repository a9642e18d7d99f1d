//! `EventBase`: libevent's event base, in-process or with its quiet watches at evd.

use crate::builder::Builder;
use crate::hold::{Held, HoldTarget, ToHold};
use crate::line::Reply;
use crate::link::LinkState;
use crate::once::take_finalizers;
use crate::queues::Queues;
use crate::state::{Call, Core, Source, State};
use crate::turn::{self, LoopFlags, Looped};
use crate::{Error, Handle};
use evd::backend::Features;
use evd_proto::What;
use evd_proto::reply::{Code, HoldInfo, Refused};
use evd_proto::request::Trigger;
use evd_proto::sys::{self, AsFd, BorrowedFd, RawFd};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// An event base. Cheap to clone: all clones are the same base. It belongs to its thread; other threads use a [`Handle`].
pub struct EventBase {
    core: Rc<Core>,
}

/// How many subscribers a [`EventBase::trigger`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triggered {
    /// Subscribers that have the event now, in their socket or as active: it survives evd.
    pub reached: u32,
    /// Subscribers that get it when they read again; 1 if there are none, and a held name has counted it.
    pub queued: u32,
}

impl EventBase {
    /// A base at evd if evd is there, else a local one; [`EventBase::link`] says which.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new() -> Result<EventBase, Error> {
        EventBase::builder().build()
    }

    /// A base whose quiet watches are at evd.
    ///
    /// # Errors
    /// As [`Builder::build`] with [`Builder::connect`].
    pub fn connect() -> Result<EventBase, Error> {
        EventBase::builder().connect().build()
    }

    /// A base without evd.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn local() -> Result<EventBase, Error> {
        EventBase::builder().local().build()
    }

    /// What a base is to be like.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_core(core: &Rc<Core>) -> EventBase {
        core.handles.set(core.handles.get() + 1);
        EventBase { core: Rc::clone(core) }
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// The name of its method: `epoll`, `poll`, `select`.
    pub fn method(&self) -> &'static str {
        self.core.state.borrow().base.method()
    }

    /// The methods of this build that the environment does not disable, best first: libevent's `event_get_supported_methods`.
    pub fn supported_methods() -> Vec<&'static str> {
        evd::backend::supported(false)
    }

    /// The features of its method: libevent's EV_FEATURE bits.
    pub fn features(&self) -> Features {
        self.core.state.borrow().base.features()
    }

    /// Runs until nothing is pending, or it is told to stop: libevent's `event_base_dispatch`.
    ///
    /// # Errors
    /// `Reentrant`, `Os` if the method fails, `Forked`: also in the child of a fork in a callback, when that returns.
    pub fn dispatch(&self) -> Result<Looped, Error> {
        self.loop_(LoopFlags::empty())
    }

    /// Runs as `flags` say: libevent's `event_base_loop`. A panic in a callback goes on to the caller, and the base stays usable.
    ///
    /// # Errors
    /// As [`EventBase::dispatch`].
    pub fn loop_(&self, flags: LoopFlags) -> Result<Looped, Error> {
        turn::run_loop(&self.core, flags)
    }

    /// Ends the loop after `after`, or, without it or with zero, after the callbacks that are active now. Also one that has not started yet.
    ///
    /// # Errors
    /// `Forked`.
    pub fn loopexit(&self, after: Option<Duration>) -> Result<(), Error> {
        self.core.check_fork()?;
        let mut state = self.core.state.borrow_mut();
        let id = state.new_event(Call::Own(None), Source::Nothing, What::empty());
        match after {
            // No time at all is now, as in libevent.
            Some(after) if !after.is_zero() => state.add(id, Some(after))?,
            _ => state.activate(id, What::TIMEOUT, 1),
        }
        state.after_change();
        Ok(())
    }

    /// Ends the running loop after the callback that runs. What is active stays active for the next loop. Without a running loop it does nothing, as
    /// libevent's does.
    pub fn loopbreak(&self) {
        self.core.state.borrow_mut().flow.stop = true;
    }

    /// As [`EventBase::loopbreak`], and without a running loop it ends the next one before that runs anything. libevent has no such call: a break that comes just
    /// before the loop is lost there.
    pub fn stop(&self) {
        let mut state = self.core.state.borrow_mut();
        if state.flow.running {
            state.flow.stop = true;
        } else {
            state.stop_next = true;
        }
    }

    /// After the callback that runs, the loop looks for new events before it runs what else is active: libevent's `event_base_loopcontinue`. Without a running
    /// loop it does nothing.
    pub fn loopcontinue(&self) {
        let flow = &mut self.core.state.borrow_mut().flow;
        flow.again = flow.running;
    }

    /// Whether the last loop ended by [`EventBase::loopexit`].
    pub fn got_exit(&self) -> bool {
        let flow = &self.core.state.borrow().flow;
        flow.got_exit || flow.exit
    }

    /// Whether the last loop ended by [`EventBase::loopbreak`].
    pub fn got_break(&self) -> bool {
        let flow = &self.core.state.borrow().flow;
        flow.got_break || flow.stop
    }

    /// Sets the number of priorities: libevent's `event_base_priority_init`. Events that exist keep theirs.
    ///
    /// # Errors
    /// `OutOfRange`: not 1 to 255, or an event is active.
    pub fn set_priorities(&self, count: usize) -> Result<(), Error> {
        let mut state = self.core.state.borrow_mut();
        if !(1..=255).contains(&count) {
            return Err(Error::OutOfRange("1 to 255 priorities"));
        }
        if !state.queues.is_empty() {
            return Err(Error::OutOfRange("priorities can't be changed while an event is active"));
        }
        state.queues = Queues::new(count);
        Ok(())
    }

    /// The number of priorities.
    pub fn priorities(&self) -> usize {
        self.core.state.borrow().queues.priorities()
    }

    /// Declares a timeout that many events will have: libevent's `event_base_init_common_timeout`. From then on adding any number of events with exactly
    /// this timeout costs the same, a few nanoseconds. There is no magic value to be passed: the duration itself is recognised.
    ///
    /// # Errors
    /// `OutOfRange`: the base has 256 of them already, as libevent's limit is; such events are ordinary ones.
    pub fn common_timeout(&self, timeout: Duration) -> Result<(), Error> {
        let mut state = self.core.state.borrow_mut();
        let nanos = crate::events::nanos(timeout);
        if state.common.iter().any(|(known, _)| *known == nanos) {
            return Ok(());
        }
        let common = state.base.common_timeout(nanos);
        let common = common.ok_or(Error::OutOfRange("a base has at most 256 common timeouts"))?;
        state.common.push((nanos, common));
        Ok(())
    }

    /// Makes pending events on `fd` active as if it were ready for `what`; with TIMEOUT in `what`, those of its events that have a timeout, with TIMEOUT, and no
    /// others. No edge is told: ET is not in what their callbacks get. libevent's `event_base_active_by_fd`. In the child of a fork it does nothing.
    pub fn active_by_fd(&self, fd: RawFd, what: What) {
        if self.core.check_fork().is_err() {
            return;
        }
        let mut state = self.core.state.borrow_mut();
        state.active_by_fd(fd, what);
        state.after_change();
    }

    /// Makes each event of a signal of this process active, as if the signal had come once: libevent's `event_base_active_by_signal`. In the child of
    /// a fork it does nothing.
    pub fn active_by_signal(&self, signo: i32) {
        if self.core.check_fork().is_err() {
            return;
        }
        let mut state = self.core.state.borrow_mut();
        if let Some(&first) = state.signals.get(&signo) {
            state.activate_signal(first, 1);
        }
        state.after_change();
    }

    /// The time that deadlines are counted from, of the clock that never jumps: inside a loop that of its last wait, else now. Counted from an arbitrary start.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.core.state.borrow_mut().time())
    }

    /// As [`EventBase::time`], on the wall clock: libevent's `event_base_gettimeofday_cached`. Between two waits it is the same each time.
    pub fn wall_time(&self) -> SystemTime {
        let mut state = self.core.state.borrow_mut();
        let then = state.time();
        if let Some((_, known)) = state.wall.filter(|(at, _)| *at == then) {
            return known;
        }
        let ago = state.base.look_at_clock().saturating_sub(then);
        let wall = SystemTime::now() - Duration::from_nanos(ago);
        state.wall = Some((then, wall));
        wall
    }

    /// Takes the time anew, for a callback that has run long: libevent's `event_base_update_cache_time`.
    pub fn update_time(&self) {
        self.core.state.borrow_mut().base.refresh_now();
    }

    /// A way to this base from any thread.
    pub fn handle(&self) -> Handle {
        self.core.note_running();
        Handle { shared: Arc::clone(&self.core.shared()) }
    }

    /// Whether its quiet watches are at evd.
    pub fn link(&self) -> LinkState {
        self.core.state.borrow().link.state.clone()
    }

    /// Calls `callback` whenever the link changes, between other callbacks. It replaces one that was set before.
    pub fn on_link(&self, callback: impl FnMut(&EventBase, &LinkState) + 'static) {
        let before = self.core.on_link.borrow_mut().replace(Rc::new(RefCell::new(callback)));
        // Its own drop may come back to the base: no borrow lives here.
        drop(before);
    }

    /// How many watches are parked at evd now, and how many this process serves itself.
    pub fn watches(&self) -> (usize, usize) {
        let state = self.core.state.borrow();
        (state.park.parked, state.watches.len() - state.park.parked)
    }

    /// Tells evd what is new, and waits until all of it has taken effect there: then every parked watch is armed and every name subscribed. Outside
    /// a loop it first parks what is quiet, as a wait would. The calling thread waits for evd's answer, at most 2 s, and its loop with it.
    ///
    /// # Errors
    /// `NeedsEvd`, `Lost`, `Forked`.
    pub fn sync(&self) -> Result<(), Error> {
        self.with_evd(|state| {
            if state.has_ready_out() {
                state.send_at_once();
            } else {
                state.settle();
            }
            state.ask(|line| line.post_sync().map(Some)).map(drop)
        })
    }

    /// Makes the named user event active, for every subscriber of this user, in whatever process. It answers when they have it, and until then the calling thread
    /// and its loop wait: at most 2 s, then the link is lost.
    ///
    /// Without evd it reaches this base's own events only, and waits for nobody.
    ///
    /// # Errors
    /// `BadName`; `Refused`, with [`Code::Unknown`](evd_proto::reply::Code::Unknown), if nobody has subscribed to it, and it is not held: at evd and without it. `Lost`: evd may
    /// have done it or not, see [`Error::Lost`]. `Forked`.
    pub fn trigger(&self, name: &str) -> Result<Triggered, Error> {
        evd_proto::name::check(name).map_err(|e| Error::BadName(e.to_string()))?;
        let body = Trigger { name: name.to_owned() };
        match self.with_evd(|state| state.ask(|line| line.post(&body).map(Some))) {
            Ok(Reply::Triggered(t)) => Ok(Triggered { reached: t.reached, queued: t.queued }),
            Ok(_) => Err(Error::Lost),
            Err(Error::NeedsEvd) => {
                let mut state = self.core.state.borrow_mut();
                let ids: Vec<u32> =
                    state.names.iter().filter(|(_, n)| *n == name).map(|(id, _)| *id).collect();
                if ids.is_empty() {
                    return Err(unknown_name(name).into());
                }
                for &id in &ids {
                    state.activate(id, What::empty(), 1);
                }
                state.after_change();
                Ok(Triggered { reached: ids.len() as u32, queued: 0 })
            }
            Err(e) => Err(e),
        }
    }

    /// Gives evd a copy of `fd` to keep for whoever of this user takes it by `name`, also after this process has died. After `ttl` it is let go: `None` means never,
    /// zero at once.
    ///
    /// This and all that follows up to [`EventBase::drop_held`] waits for evd's answer, at most 2 s, and the loop of this thread waits with it; without an answer the link is lost.
    ///
    /// Where evd holds in memory only (`evctl status` says so), what it held is gone when evd ends, also if this process still has it. Nothing is held again by itself: do
    /// it in [`EventBase::on_link`] when the link is up again.
    ///
    /// # Errors
    /// `NeedsEvd`, `BadName`, `Refused` (the name is taken, a limit), `Forked`. `Lost`: it may be held or not, or be held later, see [`Error::Lost`].
    ///
    /// # Examples
    /// ```no_run
    /// use evd_client::{EventBase, LinkState};
    /// use std::net::TcpListener;
    ///
    /// let base = EventBase::connect()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// base.hold_anew("web", &listener, b"", None)?;
    /// base.on_link(move |base, link| {
    ///     if let LinkState::Up { .. } = link {
    ///         // Perhaps a new evd, which knows nothing of it.
    ///         if let Err(e) = base.hold_anew("web", &listener, b"", None) {
    ///             eprintln!("the listener is not held: {e}");
    ///         }
    ///     }
    /// });
    /// # Ok::<(), evd_client::Error>(())
    /// ```
    pub fn hold(
        &self,
        name: &str,
        fd: impl AsFd,
        attachment: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        self.with_evd(|state| state.hold(name, fd.as_fd(), attachment, ttl, false))
    }

    /// As [`EventBase::hold`], and replaces what is held under this name.
    ///
    /// # Errors
    /// As [`EventBase::hold`].
    pub fn hold_anew(
        &self,
        name: &str,
        fd: impl AsFd,
        attachment: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        self.with_evd(|state| state.hold(name, fd.as_fd(), attachment, ttl, true))
    }

    /// Takes a held fd. If this process dies before it has arrived, it is still held. Waits for evd as [`EventBase::hold`] does.
    ///
    /// # Errors
    /// `NeedsEvd`, `Refused` (nothing is held under this name, or somebody is just taking it), `Forked`. `Lost`, and `Os` if this process has no fd left for it: it is still held.
    pub fn take(&self, name: &str) -> Result<Held, Error> {
        self.with_evd(|state| state.take(name, false))
    }

    /// Has evd hold a name: as long as nobody subscribes to it, each [`EventBase::trigger`] of it is counted, also while no program of this user runs. Whoever takes it
    /// (or a copy) has an fd that is readable once it was triggered, and [`Held::take_count`].
    ///
    /// # Errors
    /// As [`EventBase::hold`]. `Unsupported` elsewhere than on Linux.
    ///
    /// # Examples
    /// ```no_run
    /// use evd_client::EventBase;
    ///
    /// let base = EventBase::new()?;
    /// base.hold_name("mail", None)?;
    /// // ... and after a crash:
    /// let mail = base.take_copy("mail")?;
    /// println!("{} came meanwhile", mail.take_count()?);
    /// # Ok::<(), evd_client::Error>(())
    /// ```
    pub fn hold_name(&self, name: &str, ttl: Option<Duration>) -> Result<(), Error> {
        self.hold(name, evd_proto::sys::counter()?, b"", ttl)
    }

    /// Has evd hold a timer: due `first` from now, and then `every` so often, whether a program of this user runs or not. Whoever takes it (or a copy) has an fd that is
    /// readable once it was due, and [`Held::take_count`] tells how often. It goes by the monotonic clock.
    ///
    /// # Errors
    /// As [`EventBase::hold`]. `Unsupported` elsewhere than on Linux.
    pub fn hold_timer(
        &self,
        name: &str,
        first: Duration,
        every: Option<Duration>,
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        self.hold(name, evd_proto::sys::counting_timer(first, every)?, b"", ttl)
    }

    /// Gives evd copies of many fds to keep, as [`EventBase::hold`] does with one, in batches of up to 253: a whole set of connections goes in fast. With `replace` what is
    /// held under these names is replaced.
    ///
    /// # Errors
    /// As [`EventBase::hold`]. Each batch is held as a whole or not at all; those before the one that failed are held.
    pub fn hold_all<'a>(
        &self,
        all: impl IntoIterator<Item = ToHold<'a>>,
        replace: bool,
    ) -> Result<(), Error> {
        let all: Vec<ToHold<'_>> = all.into_iter().collect();
        self.with_evd(|state| state.hold_all(&all, replace))
    }

    /// Takes all that is held under names that begin with `prefix`, in batches, those that can be read first: a program that has just started serves what waits
    /// for it while the rest is still coming. `each` is called for each as it comes, and may use the base. Returns how many came.
    ///
    /// # Errors
    /// `NeedsEvd`, `Lost`, `Os` (no fd left for them), `Forked`. What came before is the caller's; the rest is still held.
    pub fn take_all(&self, prefix: &str, mut each: impl FnMut(String, Held)) -> Result<usize, Error> {
        let mut count = 0;
        loop {
            let (batch, more) = self.with_evd(|state| state.take_batch(prefix))?;
            count += batch.len();
            batch.into_iter().for_each(|(name, held)| each(name, held));
            if !more {
                return Ok(count);
            }
        }
    }

    /// A copy of a held fd, which stays held.
    ///
    /// # Errors
    /// As [`EventBase::take`].
    pub fn take_copy(&self, name: &str) -> Result<Held, Error> {
        self.with_evd(|state| state.take(name, true))
    }

    /// What is held for this user. Waits for evd as [`EventBase::hold`] does.
    ///
    /// # Errors
    /// `NeedsEvd`, `Lost`, `Forked`.
    pub fn list_held(&self) -> Result<Vec<HoldInfo>, Error> {
        self.with_evd(HoldTarget::list)
    }

    /// Lets a held fd go. Waits for evd as [`EventBase::hold`] does.
    ///
    /// # Errors
    /// `NeedsEvd`, `Refused` (nothing is held under this name), `Forked`. `Lost`: it may still be held or not, see [`Error::Lost`].
    pub fn drop_held(&self, name: &str) -> Result<(), Error> {
        self.with_evd(|state| state.drop_held(name))
    }

    fn with_evd<T>(&self, act: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        self.core.check_fork()?;
        let result = {
            let mut state = self.core.state.borrow_mut();
            if !state.link.is_up() {
                return Err(Error::NeedsEvd);
            }
            state.base.refresh_now();
            let result = act(&mut state);
            state.after_change();
            result
        };
        // A loss that was noticed here is told with the next loop: no callback runs inside a call.
        result
    }

    /// The base's fd: readable when the base has something to do, so that it nests in another loop. Then call [`EventBase::loop_`] with ONCE and
    /// NONBLOCK, which is one round.
    ///
    /// # Errors
    /// `Os`: out of fds. `Forked`.
    pub fn pollable(&self) -> Result<BorrowedFd<'_>, Error> {
        self.core.check_fork()?;
        if self.core.pollable.get().is_none() {
            let mut state = self.core.state.borrow_mut();
            let fd = sys::duplicate(state.base.pollable()?)?;
            // So that a lack of fds shows here, and not when there is a time to wait for.
            state.base.arm_pollable(Some(0))?;
            state.nested = true;
            if !state.flow.running {
                state.arm_nested();
            }
            let _ = self.core.pollable.set(fd);
        }
        self.core.pollable.get().map(AsFd::as_fd).ok_or(Error::Lost)
    }
}

/// What evd says of a name that nobody has.
fn unknown_name(name: &str) -> Refused {
    let text = format!("nobody subscribed to the name {name:?}");
    Refused { code: Code::Unknown, limit: 0, value: 0, text, ids: Vec::new() }
}

impl AsFd for EventBase {
    /// # Panics
    /// If there is no fd left for it: [`EventBase::pollable`] returns that as an error.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pollable()
            .expect("no fd is left for the base's own; ask pollable() first to get this as an error")
    }
}

impl Clone for EventBase {
    fn clone(&self) -> EventBase {
        EventBase::from_core(&self.core)
    }
}

impl Drop for EventBase {
    fn drop(&mut self) {
        let left = self.core.handles.get() - 1;
        self.core.handles.set(left);
        if left == 0 {
            // Nobody can run it any more. What is to be finalized is, as in libevent; what it owns itself would keep it alive for ever.
            for run in take_finalizers(&self.core) {
                run();
            }
            let owned = std::mem::take(&mut *self.core.detached.borrow_mut());
            drop(owned);
        }
    }
}

impl std::fmt::Debug for EventBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventBase")
            .field("method", &self.method())
            .field("link", &self.link())
            .finish_non_exhaustive()
    }
}
