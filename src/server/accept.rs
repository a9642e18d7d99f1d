//! The acceptor: takes connections, asks who they are, and hands them on. It never reads from one, and never closes one.

use super::access::{Rules, Standing};
use super::log::{info_of, warn_of};
use super::mail::lock;
use super::registry::{Shared, Unassigned};
use super::reject::Reject;
use super::service::Service;
use super::starts::{LIVES, Starts};
use super::watchdog::Watchdog;
use crate::backend::{Entry, Interest, Mode};
use crate::base::{Activation, Base, TimerId};
use crate::session::Shares;
use evd_proto::What;
use evd_proto::reply::Code;
use evd_proto::sys::{self, Listener, signal_name};
use evd_proto::sys::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long nothing is accepted when evd is out of fds, in nanoseconds.
const PAUSE: u64 = 50_000_000;
const OUT_OF_FDS: &str = "evd is out of file descriptors; try later";
/// Connections taken in one turn.
const MOST: usize = 64;
/// How long workers that do not end are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The timer after which connections are accepted again, the watchdog's, and that of [`Acceptor::settles`].
const RESUME: u64 = 0;
const LOOK: u64 = 1;
/// That after which who is refused is told again, where there was no thread for it.
const TELL: u64 = 3;
const SETTLED: u64 = 2;
/// That after which the memory of sessions that have ended is given back.
const RETURN: u64 = 4;
/// That after which somebody may try again who was short of fds for what he holds.
const TURN: u64 = 5;
/// How long after the first of them, in nanoseconds: so often at most.
const CALM: u64 = 1_000_000_000;
const READ: Interest = Interest { what: What::READ, mode: Mode::Level };

/// The acceptor.
pub(super) struct Acceptor {
    base: Base,
    listener: Listener,
    shared: Arc<Shared>,
    reject: Reject,
    /// Given up to have an fd for saying that there are none.
    spare: Option<OwnedFd>,
    /// Looked up again by a reload.
    rules: Rules,
    service: Service,
    /// Emptied when evd has read what it inherited and goes on.
    starts: Option<Starts>,
    /// `None`: there is no service manager that wants to hear that evd lives.
    watchdog: Option<Watchdog>,
    is_paused: bool,
    /// Somebody waits to be refused, and the timer for it is set.
    tells_later: bool,
    /// A connection with this number or a greater one is turned away: the rest is for the fds that those who are here already pass.
    most: RawFd,
    /// The process and its allocator are evd's, and no host's.
    owns_process: bool,
    /// The timer for what ended sessions had is set.
    returns_later: bool,
    /// The timer of [`Acceptor::give_turn`].
    turn: Option<TimerId>,
}

impl Acceptor {
    /// Takes over `listener`. `base` has the waker that `shared` wakes.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new(
        mut base: Base,
        listener: Listener,
        shared: Arc<Shared>,
        rules: Rules,
        service: Service,
    ) -> io::Result<Acceptor> {
        base.watch(listener.as_fd(), 0, READ, Entry::New).map_err(io::Error::other)?;
        let spare = Some(sys::reserve_fd()?);
        let most = Shares::now().connections;
        let reject = Reject::default();
        let watchdog = service.watchdog().map(Watchdog::new);
        let (is_paused, tells_later, starts) = (false, false, None);
        let (owns_process, returns_later) = (false, false);
        Ok(Acceptor {
            base,
            listener,
            shared,
            reject,
            spare,
            rules,
            service,
            starts,
            watchdog,
            is_paused,
            tells_later,
            most,
            owns_process,
            returns_later,
            turn: None,
        })
    }

    /// There is no host who has other ideas about the process's memory.
    pub fn owns_process(&mut self) {
        self.owns_process = true;
    }

    /// Counts this start as a good one a moment after all that was inherited is read.
    pub fn settles(&mut self, starts: Starts) {
        self.starts = Some(starts);
        self.settle_in(LIVES);
    }

    fn settle_in(&mut self, nanos: u64) {
        let at = self.base.refresh_now().saturating_add(nanos);
        self.base.set_timer(None, at, SETTLED);
    }

    fn settled(&mut self) {
        match &self.starts {
            Some(starts) if self.shared.holds.is_settled() => starts.forget(),
            // Somebody's holds are not read yet: that may take long.
            _ => self.settle_in(10 * LIVES),
        }
    }

    /// Accepts until evd is told to stop; then ends all sessions. Failures of the wait go to `failed`.
    pub fn run(mut self, failed: &Mutex<Option<io::Error>>) {
        self.service.ready();
        self.look();
        let mut acts = Vec::new();
        while !self.shared.is_stopping() {
            let timeout = self.base.until_next_timer();
            if let Err(e) = self.base.wait(timeout, &mut acts) {
                *lock(failed) = Some(e);
                break;
            }
            self.base.expire(&mut acts);
            let mut gives_turn = false;
            for act in acts.drain(..) {
                match act {
                    Activation::Ready { .. } => self.accept(),
                    Activation::Timer { token: SETTLED, .. } => self.settled(),
                    Activation::Timer { token: LOOK, .. } => self.look(),
                    Activation::Timer { token: TELL, .. } => self.tells_later = false,
                    Activation::Timer { token: RETURN, .. } => self.return_memory(),
                    Activation::Timer { token: TURN, .. } => {
                        self.turn = None;
                        gives_turn = true;
                    }
                    Activation::Timer { .. } => self.resume(),
                    Activation::Signal(set) => {
                        log::info!("{} from process {}", signal_name(set.signo), set.pid);
                        if sys::RELOAD_SIGNAL == Some(set.signo) { self.reload() } else { self.shared.stop() }
                    }
                    Activation::Mail => {
                        self.return_memory_later();
                        gives_turn = true;
                        self.show();
                    }
                }
            }
            if gives_turn {
                // Only now: its timer may have been behind that which asked for this.
                self.give_turn();
            }
            self.tell_refused();
        }
        if let Some(starts) = &self.starts {
            // Who ends by himself has not crashed.
            starts.forget();
        }
        self.end();
    }

    /// Tells the watchdog that evd lives, if it does.
    fn look(&mut self) {
        let Some(watchdog) = &mut self.watchdog else { return };
        let now = self.base.refresh_now();
        let (is_well, next) = watchdog.look(&self.shared, now);
        if is_well {
            self.service.alive();
        }
        self.base.set_timer(None, now.saturating_add(next), LOOK);
        self.show();
    }

    fn show(&mut self) {
        let stuck = self.watchdog.as_ref().map(Watchdog::quarantined).unwrap_or_default();
        self.service.status(self.shared.counts(), &stuck);
    }

    /// Looks up again who may connect. Who is connected stays so.
    fn reload(&mut self) {
        self.service.reloading();
        match self.rules.look_up().map(|allowed| self.shared.access.replace(allowed)) {
            Ok(true) => log::info!("reloaded: others may connect than before"),
            Ok(false) => log::info!("reloaded: nothing has changed"),
            Err(e) => log::error!("who may connect stays as it was: {e}"),
        }
        self.service.reloaded();
    }

    fn give_turn(&mut self) {
        let now = self.base.refresh_now();
        if let Some(at) = self.shared.give_turn(now) {
            self.turn = Some(self.base.set_timer(self.turn, at, TURN));
        }
    }

    fn accept(&mut self) {
        for _ in 0..MOST {
            if self.reject.is_full() {
                return self.pause();
            }
            match self.listener.accept() {
                Ok(socket) if socket.as_raw_fd() >= self.most => {
                    log::warn!("can't serve one more: {} fds are open", socket.as_raw_fd());
                    self.reject.refuse(socket, Code::OutOfFds, OUT_OF_FDS.to_owned());
                    return self.pause();
                }
                Ok(socket) => self.admit(socket),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if sys::is_shortage(&e) => return self.turn_away(&e),
                // The connection is gone again, or a network error of it: the next one is another one.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    log::warn!("can't accept: {e}");
                    return self.pause();
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        let peer = match sys::peer(socket.as_fd()) {
            Ok(peer) => peer,
            Err(e) => {
                let denied = e.kind() == io::ErrorKind::PermissionDenied;
                let code = if denied { Code::NotAllowed } else { Code::System };
                return self.reject.refuse(socket, code, format!("evd can't tell who connects: {e}"));
            }
        };
        let inspects = match self.shared.access.standing(&peer, socket.as_fd()) {
            Standing::Refused(text) => {
                info_of!(peer.uid, "refused process {} of user {}", peer.pid, peer.uid);
                return self.reject.refuse(socket, Code::NotAllowed, text);
            }
            Standing::User => false,
            Standing::Inspector => true,
        };
        match self.shared.assign(socket, peer, inspects) {
            Ok(()) => {}
            Err((socket, Unassigned::Refused(why))) => {
                info_of!(peer.uid, "refused process {}: {}", peer.pid, why.text);
                self.reject.tell(socket, why);
            }
            Err((socket, Unassigned::Os(e))) => {
                warn_of!(peer.uid, "no worker for user {}: {e}", peer.uid);
                let code = if sys::is_shortage(&e) { Code::OutOfFds } else { Code::System };
                self.reject.refuse(socket, code, format!("evd can't serve user {} now: {e}", peer.uid));
            }
        }
    }

    /// Takes one connection with the fd that was kept for this, says why it can't stay, and lets the others wait for a moment: a listener that can't be
    /// accepted from stays ready, and would be asked without end.
    fn turn_away(&mut self, why: &io::Error) {
        log::warn!("can't accept: {why}");
        self.spare = None;
        if let Ok(socket) = self.listener.accept() {
            self.reject.refuse(socket, Code::OutOfFds, OUT_OF_FDS.to_owned());
        }
        self.pause();
    }

    /// Has those told that are refused. Without a thread for it they wait, and evd goes on.
    fn tell_refused(&mut self) {
        if !self.tells_later && !self.reject.hand_over() {
            self.tells_later = true;
            let at = self.base.now().saturating_add(PAUSE);
            self.base.set_timer(None, at, TELL);
        }
    }

    /// Not for each session that ends: all workers wait for it that allocate just then.
    fn return_memory_later(&mut self) {
        if self.owns_process && !self.returns_later && self.shared.leaves_memory.load(Ordering::Relaxed) {
            self.returns_later = true;
            let at = self.base.now().saturating_add(CALM);
            self.base.set_timer(None, at, RETURN);
        }
    }

    fn return_memory(&mut self) {
        self.returns_later = false;
        self.shared.leaves_memory.store(false, Ordering::Relaxed);
        sys::return_memory();
    }

    fn pause(&mut self) {
        if !self.is_paused {
            self.is_paused = true;
            self.base.unwatch(self.listener.as_fd(), 0);
            let at = self.base.now().saturating_add(PAUSE);
            self.base.set_timer(None, at, RESUME);
        }
    }

    fn resume(&mut self) {
        self.is_paused = false;
        if self.spare.is_none() {
            self.spare = sys::reserve_fd().ok();
        }
        if let Err(e) = self.base.watch(self.listener.as_fd(), 0, READ, Entry::New) {
            log::error!("can't watch the listening socket: {e}");
            self.pause();
        }
    }

    fn end(self) {
        let Acceptor { listener, shared, service, .. } = self;
        service.stopping();
        // First the socket: who is told to go must not find it.
        drop(listener);
        let (bases, _) = shared.counts();
        let stuck = shared.stop_workers(PATIENCE);
        if stuck > 0 {
            log::warn!("stopped without {stuck} workers that did not end in {} s", PATIENCE.as_secs());
        }
        let even = stuck > 0 || shared.holds.count(None) > 0 || shared.books.is_even();
        debug_assert!(even, "all are gone, and somebody is still charged: {:?}", shared.books.shown(None, 9));
        super::log::end();
        log::info!("stopped; {bases} bases were told");
    }
}
