//! Floor 3: a base: watches, timers, signals and a mailbox on one backend.
//!
//! Everything is named by the owner's tokens, and what becomes active is returned, never called. The client runs one of these in-process; evd runs one for
//! each session. One thread uses a base; only a [`Waker`] is for others.
//!
//! **Hang-ups and errors can't be masked.** The kernel reports them whatever was asked for, and a base does not know what was: it keeps nothing for a watch.
//! So the owner, who has the interest at hand, compares: `let hit = ready & wanted`. If nothing is left it calls [`Base::mute`], and the watch does not report
//! again in vain for a second. Nothing else is to be done: the base gives it its interest back by itself (a timer of its own, run by [`Base::expire`]), and
//! `watch` and `unwatch` end the muting at once.
//!
//! Deadlines are absolute, in ns of the base's clock.

mod config;
mod timers;

pub use config::{BaseError, Clock, Config};
pub use timers::TimerId;

use crate::backend::{ALARM_IS_CHEAP, Alarm, Backend, Entry, Features, Interest, Mode, Report, WatchError};
use evd_proto::What;
use evd_proto::sys::{self, AsFd, AsRawFd, BorrowedFd, RawFd, SignalSet, Signals, Wake};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use timers::Timers;

/// Set in the base's own tokens, so never in an owner's.
const OWN: u64 = 1 << 63;
const MAIL: u64 = OWN | 1;
const SIGNALS: u64 = OWN | 2;
const ALARM: u64 = OWN | 3;
/// How long a watch is muted, in ns.
const MUTED_NS: u64 = 1_000_000_000;
/// A deadline that is farther off is left to the alarm.
const FAR_NS: u64 = 10_000_000;
const READ: Interest = Interest { what: What::READ, mode: Mode::Level };

/// Something became active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// A watch's fd is ready.
    Ready {
        /// The watch's token.
        token: u64,
        /// What is ready; may hold more than was asked for, see [`Base::mute`].
        ready: What,
    },
    /// A signal came.
    Signal(SignalSet),
    /// A timer was due; it is gone.
    Timer {
        /// The timer's token.
        token: u64,
        /// When it was due, in ns of the base's clock.
        deadline: u64,
    },
    /// A [`Waker`] was used.
    Mail,
}

/// Wakes a base from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Mailbox>);

#[derive(Debug)]
struct Mailbox {
    wake: Wake,
    /// Whether the base has yet to see the last wake-up.
    pending: AtomicBool,
}

impl Waker {
    /// Makes the base's current or next wait return [`Activation::Mail`]. Many calls before it is seen are one activation and one system call; what was
    /// written before the call is visible to the base's thread after the activation.
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            self.0.wake.notify();
        }
    }
}

impl Mailbox {
    fn watched_by(backend: &mut dyn Backend) -> io::Result<Arc<Mailbox>> {
        let mailbox = Arc::new(Mailbox { wake: Wake::new()?, pending: AtomicBool::new(false) });
        backend.watch(mailbox.wake.as_fd(), MAIL, READ, Entry::New).map_err(as_fault)?;
        Ok(mailbox)
    }

    /// The fd first: a wake-up between the two lines is part of the mail that is about to be read, and the next one notifies again. The other way round it
    /// would lose its notification and keep `pending` for ever.
    fn take(&self) {
        self.wake.drain();
        self.pending.store(false, Ordering::SeqCst);
    }
}

/// A common timeout of one base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common(u8);

/// A watch that was reported in vain.
#[derive(Debug)]
struct Muted {
    number: RawFd,
    token: u64,
    interest: Interest,
    timer: TimerId,
}

/// An event base: one backend with its watches, timers, signals and a mailbox.
pub struct Base {
    backend: Box<dyn Backend + Send>,
    clock: Clock,
    now: u64,
    timers: Timers,
    reports: Vec<Report>,
    mailbox: Option<Arc<Mailbox>>,
    signals: Option<Signals>,
    taken: Vec<SignalSet>,
    /// Nearly always empty.
    muted: Vec<Muted>,
    /// Whether `pollable` was asked for.
    nested: bool,
    /// Once the pollable fd was armed, or a deadline was far off.
    alarm: Option<Alarm>,
    armed: Option<u64>,
    /// The alarm was seen and is still readable.
    rang: bool,
}

impl Base {
    /// A base of the method that `config` leads to.
    ///
    /// # Errors
    /// See [`BaseError`].
    ///
    /// Source: libevent, `event_base_new_with_config`.
    pub fn new(config: &Config) -> Result<Base, BaseError> {
        Ok(Base::on(config::open(config)?, config.clock.clone()))
    }

    /// A base on a backend that was made otherwise; for tests.
    #[doc(hidden)]
    pub fn on(backend: Box<dyn Backend + Send>, clock: Clock) -> Base {
        let mut base = Base {
            backend,
            clock,
            now: 0,
            timers: Timers::new(),
            reports: Vec::new(),
            mailbox: None,
            signals: None,
            taken: Vec::new(),
            muted: Vec::new(),
            nested: false,
            alarm: None,
            armed: None,
            rang: false,
        };
        base.refresh_now();
        base
    }

    /// Makes the kernel's part anew: in the child of a fork the old one is the parent's, who must not be disturbed. Timers stay. **All watches must be set again by
    /// the owner**, as new ones; signals are by this. Wakers that were made before wake nobody any more.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`; nothing has changed then.
    ///
    /// Source: libevent, `event_reinit`.
    pub fn reinit(&mut self) -> io::Result<()> {
        let mut backend = config::open_again(&*self.backend)?;
        if self.nested {
            backend.make_pollable()?;
        }
        let mailbox = match self.mailbox {
            Some(_) => Some(Mailbox::watched_by(&mut *backend)?),
            None => None,
        };
        let mut signals = None;
        if let Some(old) = &self.signals {
            let mut new = Signals::new()?;
            old.wanted().try_for_each(|signo| new.add(signo))?;
            backend.watch(new.as_fd(), SIGNALS, READ, Entry::New).map_err(as_fault)?;
            signals = Some(new);
        }
        (self.backend, self.mailbox, self.signals) = (backend, mailbox, signals);
        (self.alarm, self.armed, self.rang) = (None, None, false);
        for muted in std::mem::take(&mut self.muted) {
            self.timers.cancel(muted.timer);
        }
        Ok(())
    }

    /// libevent's name of the method.
    pub fn method(&self) -> &'static str {
        self.backend.method()
    }

    /// What the method can do.
    pub fn features(&self) -> Features {
        self.backend.features()
    }

    /// Replaces the whole interest of `fd`'s watch and its token; an empty interest ends the watch. Takes effect with the next wait. Ends a muting.
    ///
    /// `token` is free below 2^63. Several watches may have the same one. `entry` is a hint: see [`Entry`].
    ///
    /// # Errors
    /// See [`WatchError`].
    pub fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
        entry: Entry,
    ) -> Result<(), WatchError> {
        debug_assert_eq!(token & OWN, 0, "the top bit is the base's own");
        self.end_muting(token);
        if (interest.what & What::IO).is_empty() {
            self.backend.unwatch(fd);
            return Ok(());
        }
        self.backend.watch(fd, token, interest, entry)
    }

    /// Ends the watch of `fd`; one that is not there is not an error. To be called before the fd is closed.
    pub fn unwatch(&mut self, fd: BorrowedFd<'_>, token: u64) {
        self.end_muting(token);
        self.backend.unwatch(fd);
    }

    /// As [`Base::unwatch`] for an fd that stays open, so that watching it again costs less: see [`Backend::rest`]. Before it is closed: [`Base::forget`].
    pub fn rest(&mut self, fd: BorrowedFd<'_>, token: u64, spent: bool) {
        self.end_muting(token);
        self.backend.rest(fd, spent);
    }

    /// Ends what [`Base::rest`] left of the watch of an fd that is about to be closed; nothing if there is nothing left.
    pub fn forget(&mut self, fd: BorrowedFd<'_>) {
        self.backend.forget(fd);
    }

    /// To be called when what was reported for a watch held nothing that `interest` wants: a hang-up or an error that can't be masked. The watch then does
    /// not report that again for a second, or until `watch` or `unwatch`; what is wanted and becomes ready is still reported, by epoll at once, by other methods
    /// when the second is over.
    ///
    /// A one-shot watch is armed again when the second is over, if `fd` is still open then. An edge-triggered one needs none of this and is left alone.
    /// `token` must be this watch's alone. The second counts among [`Base::next_deadline`] and ends in [`Base::expire`].
    pub fn mute(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) {
        if interest.mode == Mode::Edge || self.muted.iter().any(|m| m.token == token) {
            return;
        }
        if interest.mode == Mode::Level {
            // A report may be older than the interest: then there is nothing to be muted.
            let mut look = [sys::PollFd::new(fd.as_raw_fd(), interest.what)];
            let in_vain = sys::poll(&mut look, Some(Duration::ZERO)).is_ok_and(|n| n == 1)
                && (look[0].ready() & interest.what).is_empty();
            if !in_vain {
                return;
            }
            self.backend.mute(fd, token, interest);
        }
        let timer = self.timers.set(None, self.now.saturating_add(MUTED_NS), OWN | token);
        self.muted.push(Muted { number: fd.as_raw_fd(), token, interest, timer });
    }

    fn end_muting(&mut self, token: u64) -> Option<Muted> {
        let at = self.muted.iter().position(|m| m.token == token)?;
        let muted = self.muted.swap_remove(at);
        self.timers.cancel(muted.timer);
        Some(muted)
    }

    /// Sets a timer to `deadline` (ns of the base's clock), or moves the one given, whose id stays. Among equal deadlines the one set last is the last.
    ///
    /// An id is dead once its timer has expired or was cancelled, and may come back for another timer: the owner forgets it then.
    pub fn set_timer(&mut self, timer: Option<TimerId>, deadline: u64, token: u64) -> TimerId {
        debug_assert_eq!(token & OWN, 0, "the top bit is the base's own");
        self.timers.set(timer, deadline, token)
    }

    /// Declares a time that many timers are set to; from then on timers set to it cost the same however many there are. `None`: there are 256 already, and
    /// such timers are ordinary ones.
    ///
    /// Source: libevent, `event_base_init_common_timeout`.
    pub fn common_timeout(&mut self, interval: u64) -> Option<Common> {
        self.timers.common(interval).map(Common)
    }

    /// As [`Base::set_timer`] to a common timeout after `now` (ns of the base's clock).
    pub fn set_common_timer(
        &mut self,
        timer: Option<TimerId>,
        common: Common,
        now: u64,
        token: u64,
    ) -> TimerId {
        debug_assert_eq!(token & OWN, 0, "the top bit is the base's own");
        self.timers.set_common(timer, common.0, now, token)
    }

    /// When a timer is due; `None`: it is not set. A dead id may have come back for another timer.
    pub fn deadline_of(&self, timer: TimerId) -> Option<u64> {
        self.timers.deadline_of(timer)
    }

    /// Cancels a timer; a dead id that has not come back is harmless.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.timers.cancel(timer);
    }

    /// The earliest deadline, those of muted watches included.
    pub fn next_deadline(&mut self) -> Option<u64> {
        self.timers.next()
    }

    /// How long it is to [`Base::next_deadline`] by a fresh look at the clock; zero if it is due.
    pub fn until_next_timer(&mut self) -> Option<Duration> {
        let next = self.timers.next()?;
        Some(Duration::from_nanos(next.saturating_sub(self.look_at_clock())))
    }

    /// Whether there is anything for [`Base::expire`] to look at.
    pub fn has_timers(&self) -> bool {
        self.timers.len() > 0
    }

    /// How many entries the kernel has made for the watches so far, see [`Backend::added`].
    pub fn added(&self) -> u64 {
        self.backend.added()
    }

    /// How many timers are set.
    pub fn timers(&self) -> usize {
        self.timers.len() - self.muted.len()
    }

    /// The time in ns, as of the last wait or [`Base::refresh_now`].
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Reads the clock.
    pub fn refresh_now(&mut self) -> u64 {
        self.now = self.look_at_clock();
        self.now
    }

    /// The time now, which [`Base::now`] does not learn of.
    pub fn look_at_clock(&self) -> u64 {
        match &self.clock {
            Clock::Monotonic => sys::monotonic_ns(),
            Clock::Manual(ns) => ns.load(Ordering::SeqCst),
        }
    }

    /// Whether a test sets the clock: then its times mean nothing to others.
    pub fn has_set_clock(&self) -> bool {
        matches!(self.clock, Clock::Manual(_))
    }

    /// Catches a signal of this process; adding it again changes nothing.
    ///
    /// # Errors
    /// `InvalidInput`: not a signal, or one that can't be caught. `EMFILE`, `ENFILE` with the first.
    pub fn add_signal(&mut self, signo: i32) -> io::Result<()> {
        if let Some(signals) = &mut self.signals {
            return signals.add(signo);
        }
        let mut signals = Signals::new()?;
        signals.add(signo)?;
        self.backend.watch(signals.as_fd(), SIGNALS, READ, Entry::New).map_err(as_fault)?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Stops catching a signal; what came of it and was not yet returned is forgotten.
    pub fn remove_signal(&mut self, signo: i32) {
        if let Some(signals) = &mut self.signals {
            signals.remove(signo);
        }
    }

    /// The signals that are caught, in the order of their numbers.
    pub fn signals(&self) -> impl Iterator<Item = i32> {
        self.signals.iter().flat_map(Signals::wanted)
    }

    /// What other threads wake this base with. The first one costs an fd, others are clones.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn waker(&mut self) -> io::Result<Waker> {
        if let Some(mailbox) = &self.mailbox {
            return Ok(Waker(Arc::clone(mailbox)));
        }
        let mailbox = Mailbox::watched_by(&mut *self.backend)?;
        self.mailbox = Some(Arc::clone(&mailbox));
        Ok(Waker(mailbox))
    }

    /// As [`Base::wait`], until `deadline` at the latest (ns of the base's clock; `None` = for ever).
    ///
    /// A deadline that is not near is left to a timerfd (or the system's like, if it has one), which is set only when it becomes earlier: to give each of many short waits a timeout of its own
    /// would start and stop a timer of the kernel each time. So the wait may return once in vain, when a deadline has moved later.
    ///
    /// # Errors
    /// As [`Base::wait`].
    pub fn wait_until(&mut self, deadline: Option<u64>, out: &mut Vec<Activation>) -> io::Result<()> {
        self.wait_for_reports(deadline, out)?;
        self.reports_to(out);
        Ok(())
    }

    /// As [`Base::wait_until`], for an owner with very many reports: what became ready is not in `out` but waits to be taken by [`Base::take_reports`].
    ///
    /// # Errors
    /// As [`Base::wait`].
    pub fn wait_for_reports(&mut self, deadline: Option<u64>, out: &mut Vec<Activation>) -> io::Result<()> {
        let Some(deadline) = deadline else { return self.collect(None, out) };
        let far = ALARM_IS_CHEAP
            && deadline.saturating_sub(self.now) > FAR_NS
            && matches!(self.clock, Clock::Monotonic);
        if self.rings_before(deadline) || (far && self.set_alarm(Some(deadline)).is_ok()) {
            return self.collect(None, out);
        }
        let left = deadline.saturating_sub(if deadline == 0 { 0 } else { self.look_at_clock() });
        self.collect(Some(Duration::from_nanos(left)), out)
    }

    /// What the last [`Base::wait_for_reports`] found ready, in the backend's order. The room goes back by [`Base::give_back`], when all of it was looked at.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Gives the room of [`Base::take_reports`] back.
    pub fn give_back(&mut self, mut reports: Vec<Report>) {
        reports.clear();
        self.reports = reports;
    }

    fn reports_to(&mut self, out: &mut Vec<Activation>) {
        out.extend(self.reports.drain(..).map(|Report { token, ready }| Activation::Ready { token, ready }));
    }

    /// Whether the alarm rings at `deadline` at the latest.
    fn rings_before(&self, deadline: u64) -> bool {
        !self.rang && self.armed.is_some_and(|at| at <= deadline)
    }

    /// The next deadline has become later, or is gone (`None`), and that for long: the timerfd that [`Base::wait_until`] left set for an earlier one is put right, so that
    /// nobody is woken in vain. A system call if there is something to be put right.
    ///
    /// # Errors
    /// None that the kernel documents.
    pub fn put_alarm_right(&mut self, deadline: Option<u64>) -> io::Result<()> {
        match self.armed {
            Some(at) if !self.rang && deadline.is_none_or(|d| at < d) => self.set_alarm(deadline),
            _ => Ok(()),
        }
    }

    /// Waits for at most `timeout` (`None` = for ever), refreshes [`Base::now`], and appends what became active: watches in the backend's order, then
    /// signals, then mail.
    ///
    /// Timers do not bound the wait: an owner who wants that passes [`Base::until_next_timer`], and calls [`Base::expire`] after. It may return early with nothing.
    ///
    /// # Errors
    /// What the backend's wait gave (`ENOMEM`).
    pub fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Activation>) -> io::Result<()> {
        let first = out.len();
        self.collect(timeout, out)?;
        // Watches come before signals and mail.
        let rest = out.split_off(first);
        self.reports_to(out);
        out.extend(rest);
        Ok(())
    }

    /// Waits, takes in what is the base's own, and leaves the rest in `reports`.
    fn collect(&mut self, timeout: Option<Duration>, out: &mut Vec<Activation>) -> io::Result<()> {
        let timeout = match self.clock {
            Clock::Manual(_) => timeout.map(|_| Duration::ZERO),
            Clock::Monotonic => timeout,
        };
        if self.rang {
            self.set_alarm(None)?;
        }
        self.reports.clear();
        let waited = self.backend.wait(timeout, &mut self.reports);
        self.refresh_now();
        waited?;
        let is_own = |report: &Report| report.token & OWN != 0;
        if self.muted.is_empty() && !self.reports.iter().any(is_own) {
            return Ok(());
        }
        let (mut mail, mut signals, mut alarm) = (false, false, false);
        let mut reports = std::mem::take(&mut self.reports);
        reports.retain(|&Report { token, ready }| {
            match token {
                MAIL => mail = true,
                SIGNALS => signals = true,
                ALARM => alarm = true,
                _ => return self.muted.is_empty() || self.is_heard(token, ready),
            }
            false
        });
        self.reports = reports;
        if alarm {
            if self.nested {
                // Somebody who waits for the pollable fd must not find it readable for this any more.
                self.set_alarm(None)?;
                self.backend.apply();
            } else {
                // The next deadline will silence it.
                self.rang = true;
            }
        }
        if signals {
            if let Some(signals) = &self.signals {
                signals.take(&mut self.taken);
                out.extend(self.taken.drain(..).map(Activation::Signal));
            }
        }
        if mail {
            if let Some(mailbox) = &self.mailbox {
                mailbox.take();
                out.push(Activation::Mail);
            }
        }
        Ok(())
    }

    /// Whether a report is passed on: not if its watch is muted and it holds nothing new.
    fn is_heard(&mut self, token: u64, ready: What) -> bool {
        let Some(muted) = self.muted.iter().find(|m| m.token == token) else { return true };
        if (ready & muted.interest.what).is_empty() {
            return false;
        }
        if let Some(muted) = self.end_muting(token) {
            self.backend.unmute(muted.number, token, muted.interest);
        }
        true
    }

    /// Appends all timers that are due at [`Base::now`], by deadline and then in the order of setting; they are gone from the base.
    pub fn expire(&mut self, out: &mut Vec<Activation>) {
        while let Some((token, deadline)) = self.timers.pop_due(self.now) {
            if token & OWN == 0 {
                out.push(Activation::Timer { token, deadline });
            } else if let Some(at) = self.muted.iter().position(|m| m.token == token & !OWN) {
                let muted = self.muted.swap_remove(at);
                self.backend.unmute(muted.number, muted.token, muted.interest);
            }
        }
    }

    /// An fd that is readable when this base has something to do, for nesting it in another loop: an epoll. When it is readable, call `wait` with no time
    /// and then `expire`; it is readable for timers only as far as [`Base::arm_pollable`] says so.
    ///
    /// With epoll it is the backend itself and costs nothing; other methods have an epoll kept alongside from the first call on.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`, `ENOSPC` with the first call.
    pub fn pollable(&mut self) -> io::Result<BorrowedFd<'_>> {
        if !self.nested {
            self.backend.make_pollable()?;
            self.nested = true;
        }
        self.backend.pollable().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Makes the pollable fd readable from `deadline` on: usually [`Base::next_deadline`], before going to sleep in the outer loop. `Some(0)` or a time that has
    /// passed: at once; `None`: not because of a timer. A system call only if it differs from the last one. Nothing happens before the first
    /// [`Base::pollable`]. A wait that sees the deadline passed disarms it. The first one that has a deadline costs an fd.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM` with the first deadline; after it none that the kernel documents.
    pub fn arm_pollable(&mut self, deadline: Option<u64>) -> io::Result<()> {
        if !self.nested {
            return Ok(());
        }
        let real = match self.clock {
            Clock::Monotonic => deadline,
            Clock::Manual(_) => deadline.filter(|d| *d <= self.look_at_clock()).map(|_| 0),
        };
        let set = if self.armed == real && !self.rang { Ok(()) } else { self.set_alarm(real) };
        // Last, as the alarm is a watch too.
        self.backend.apply();
        set
    }

    fn set_alarm(&mut self, at: Option<u64>) -> io::Result<()> {
        if self.alarm.is_none() {
            let alarm = Alarm::new()?;
            self.backend.watch(alarm.as_fd(), ALARM, READ, Entry::New).map_err(as_fault)?;
            self.alarm = Some(alarm);
        }
        if let Some(alarm) = &self.alarm {
            alarm.set(at)?;
            (self.armed, self.rang) = (at, false);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base")
            .field("method", &self.method())
            .field("timers", &self.timers())
            .field("muted", &self.muted.len())
            .finish_non_exhaustive()
    }
}

/// For the base's own fds, where a refusal has no other meaning than that the kernel is out of something.
fn as_fault(e: WatchError) -> io::Error {
    match e {
        WatchError::Os(e) => e,
        other => io::Error::other(other),
    }
}
