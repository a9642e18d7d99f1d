//! The acceptor: takes connections, asks who they are, and hands them on. It never reads from one, and never closes one.

use super::mail::lock;
use super::registry::Shared;
use super::reject::Reject;
use super::service::Service;
use super::starts::{LIVES, Starts};
use crate::backend::{Entry, Interest, Mode};
use crate::base::{Activation, Base};
use evd_proto::What;
use evd_proto::reply::Code;
use evd_proto::sys::{self, Listener, signal_name};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long nothing is accepted when evd is out of fds, in nanoseconds.
const PAUSE: u64 = 50_000_000;
/// So many fds, or a quarter of what evd may open, are not for connections.
const RESERVE: RawFd = 1024;
const OUT_OF_FDS: &str = "evd is out of file descriptors; try later";
/// Connections taken in one turn.
const MOST: usize = 64;
/// How long workers that do not end are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The timer of [`Acceptor::settles`].
const SETTLED: u64 = 1;
const READ: Interest = Interest { what: What::READ, mode: Mode::Level };

/// The acceptor.
pub(super) struct Acceptor {
    base: Base,
    listener: Listener,
    shared: Arc<Shared>,
    reject: Reject,
    /// Given up to have an fd for saying that there are none.
    spare: Option<OwnedFd>,
    service: Service,
    /// Emptied when evd has read what it inherited and goes on.
    starts: Option<Starts>,
    is_paused: bool,
    /// A connection with this number or a greater one is turned away: the rest is for the fds that those who are here already pass.
    most: RawFd,
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
        service: Service,
    ) -> io::Result<Acceptor> {
        base.watch(listener.as_fd(), 0, READ, Entry::New).map_err(io::Error::other)?;
        let spare = Some(sys::reserve_fd()?);
        let most = sys::most_open_files();
        let most = most - (most / 4).min(RESERVE);
        let reject = Reject::default();
        Ok(Acceptor { base, listener, shared, reject, spare, service, starts: None, is_paused: false, most })
    }

    /// Counts this start as a good one a moment after all that was inherited is read.
    pub fn settles(&mut self, starts: Starts) {
        self.starts = Some(starts);
        let at = self.base.refresh_now().saturating_add(LIVES);
        self.base.set_timer(None, at, SETTLED);
    }

    fn settled(&mut self) {
        let Some(starts) = self.starts.take() else { return };
        if self.shared.holds.is_settled() {
            starts.forget();
        } else {
            self.settles(starts);
        }
    }

    /// Accepts until evd is told to stop; then ends all sessions. Failures of the wait go to `failed`.
    pub fn run(mut self, failed: &Mutex<Option<io::Error>>) {
        self.service.ready();
        let mut acts = Vec::new();
        while !self.shared.is_stopping() {
            let timeout = self.base.until_next_timer();
            if let Err(e) = self.base.wait(timeout, &mut acts) {
                *lock(failed) = Some(e);
                break;
            }
            self.base.expire(&mut acts);
            for act in acts.drain(..) {
                match act {
                    Activation::Ready { .. } => self.accept(),
                    Activation::Timer { token: SETTLED, .. } => self.settled(),
                    Activation::Timer { .. } => self.resume(),
                    Activation::Signal(set) => {
                        log::info!("{} from process {}", signal_name(set.signo), set.pid);
                        self.shared.stop();
                    }
                    Activation::Mail => self.service.sessions(self.shared.counts()),
                }
            }
        }
        self.end();
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
                Err(e) if is_out_of_fds(&e) => return self.turn_away(&e),
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
                let text = format!("evd can't tell who connects: {e}");
                return self.reject.refuse(socket, Code::System, text);
            }
        };
        if !self.shared.access.allows(&peer, socket.as_fd()) {
            log::info!("refused process {} of user {}", peer.pid, peer.uid);
            let text = self.shared.access.refusal(peer.uid);
            return self.reject.refuse(socket, Code::NotAllowed, text);
        }
        if let Err((socket, e)) = self.shared.assign(socket, peer) {
            log::warn!("no worker for user {}: {e}", peer.uid);
            let code = if is_out_of_fds(&e) { Code::OutOfFds } else { Code::System };
            self.reject.refuse(socket, code, format!("evd can't serve user {} now: {e}", peer.uid));
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

    fn pause(&mut self) {
        if !self.is_paused {
            self.is_paused = true;
            self.base.unwatch(self.listener.as_fd(), 0);
            let at = self.base.now().saturating_add(PAUSE);
            self.base.set_timer(None, at, 0);
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
        log::info!("stopped; {bases} bases were told");
    }
}

fn is_out_of_fds(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}
