//! Handles beside sockets: processes, events, semaphores, timers, watched by a method that knows only sockets.
//!
//! The thread pool waits for each handle (`pool.rs`), and makes a socket readable that the method watches like others. So this serves every method of Windows, nested in another loop
//! too. A wait completion packet of the kernel, posted to wepoll's port, would save that socket's round trip; Wine has none, so it could not be run.
//!
//! - A report is one satisfied wait: see `evd_proto::sys::WaitHandle` for what that takes of which handle.
//! - A wait of the pool is one-shot. What was reported is looked at again just before the next wait, and given to the pool if it is not signalled: that is level-triggered.
//! - What a wait does not take is looked at again before it is reported, as it may have been reset since.
//! - Here it is the object that is watched and not the number: there is a duplicate of the handle in each row.
//!
//! Source: libuv, src/win/process.c, which waits for the end of processes in the same way.

mod pool;

use super::{Backend, Entry, Features, Interest, Mode, Report, WatchError};
use evd_proto::What;
use evd_proto::sys::{AsFd, AsRawFd, BorrowedFd, RawFd, WaitEffect};
use pool::{Found, Wait};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::windows::io::OwnedHandle;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The token of the socket that tells of handles.
const OWN: u64 = u64::MAX;

/// A watch of a handle.
struct Row {
    token: u64,
    mode: Mode,
    /// Wanted right now: not once a one-shot has reported.
    live: bool,
    /// Nobody's watch; it goes before the next wait, unless it has something to report.
    resting: bool,
    /// A wait was satisfied, and was not reported.
    signalled: bool,
    effect: WaitEffect,
    /// Before the handle that it waits for, as fields are dropped in this order.
    wait: Option<Wait>,
    handle: OwnedHandle,
}

impl Row {
    /// Ends the pool's wait; what it took counts.
    fn end_wait(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.signalled |= wait.end();
        }
    }

    /// Whether there is something to report.
    fn is_ready(&mut self) -> bool {
        // It may have been reset since.
        if self.signalled && self.effect == WaitEffect::None {
            self.signalled = pool::look(&self.handle).unwrap_or(false);
        }
        self.live && self.signalled
    }
}

/// `B`, with handles.
pub(super) struct Handles<B> {
    sockets: B,
    rows: BTreeMap<RawFd, Row>,
    /// To be looked at before the next wait.
    again: BTreeSet<RawFd>,
    /// Once there was a handle.
    found: Option<Arc<Found>>,
}

impl<B: Backend> Handles<B> {
    pub(super) fn beside(sockets: B) -> Handles<B> {
        Handles { sockets, rows: BTreeMap::new(), again: BTreeSet::new(), found: None }
    }

    fn watch_handle(&mut self, number: RawFd, token: u64, interest: Interest) -> Result<(), WatchError> {
        let (handle, effect) = pool::open(number)?;
        if interest.mode == Mode::Edge {
            return Err(WatchError::Unsupported("handles have no edge-triggered watches; ask for level"));
        }
        if self.found.is_none() {
            let found = Found::new().map_err(WatchError::Os)?;
            let read = Interest { what: What::READ, mode: Mode::Level };
            self.sockets.watch(found.wake.as_fd(), OWN, read, Entry::New)?;
            self.found = Some(found);
        }
        let signalled = self.rows.remove(&number).is_some_and(|mut old| {
            old.end_wait();
            old.signalled
        });
        let (mode, live) = (interest.mode, interest.what.contains(What::READ));
        let row = Row { token, mode, live, resting: false, signalled, effect, wait: None, handle };
        self.rows.insert(number, row);
        self.again.insert(number);
        Ok(())
    }

    /// Takes what the pool has found, looks at those that are to be looked at, and gives them to the pool; `true`: there is something to report.
    fn prepare(&mut self) -> bool {
        let Some(found) = &self.found else { return false };
        for number in found.take() {
            let Some(row) = self.rows.get_mut(&number) else { continue };
            if row.wait.as_ref().is_some_and(Wait::is_satisfied) {
                row.end_wait();
                self.again.insert(number);
            }
        }
        let mut any = false;
        // Those with something to report stay in it.
        self.again.retain(|number| {
            let Some(row) = self.rows.get_mut(number) else { return false };
            if row.resting || !row.live {
                row.end_wait();
                if row.resting && !(row.signalled && row.effect == WaitEffect::Takes) {
                    self.rows.remove(number);
                }
                return false;
            }
            if row.is_ready() {
                any = true;
                return true;
            }
            if row.wait.is_some() {
                return false;
            }
            let looked = pool::look(&row.handle).and_then(|signalled| {
                row.signalled = signalled;
                if !signalled {
                    row.wait = Some(Wait::new(&row.handle, *number, found)?);
                }
                Ok(signalled)
            });
            match looked {
                Ok(signalled) => {
                    any |= signalled;
                    signalled
                }
                Err(e) => {
                    log::warn!("handle {number} can't be watched any more: {e}");
                    false
                }
            }
        });
        any
    }

    /// Reports each of `again` that is ready.
    fn report(&mut self, reports: &mut Vec<Report>) {
        for number in &self.again {
            let Some(row) = self.rows.get_mut(number) else { continue };
            if row.is_ready() {
                reports.push(Report { token: row.token, ready: What::READ });
                row.signalled = false;
                row.live = row.mode != Mode::OneShot;
            }
        }
    }
}

impl<B: Backend> Backend for Handles<B> {
    fn method(&self) -> &'static str {
        self.sockets.method()
    }

    fn features(&self) -> Features {
        self.sockets.features()
    }

    fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
        entry: Entry,
    ) -> Result<(), WatchError> {
        let number = fd.as_raw_fd();
        let is_handle = !self.rows.is_empty() && self.rows.contains_key(&number);
        if is_handle && entry == Entry::Known {
            return self.watch_handle(number, token, interest);
        }
        match self.sockets.watch(fd, token, interest, entry) {
            Err(WatchError::BadFd) => self.watch_handle(number, token, interest),
            Ok(()) if is_handle => {
                // It was closed, and a socket has come to its number.
                self.rows.remove(&number);
                Ok(())
            }
            result => result,
        }
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        if self.rows.remove(&fd.as_raw_fd()).is_none() {
            self.sockets.unwatch(fd);
        }
    }

    fn rest(&mut self, fd: BorrowedFd<'_>, spent: bool) {
        let number = fd.as_raw_fd();
        match self.rows.get_mut(&number) {
            Some(row) => {
                (row.live, row.resting) = (false, true);
                self.again.insert(number);
            }
            None => self.sockets.rest(fd, spent),
        }
    }

    fn forget(&mut self, fd: BorrowedFd<'_>) {
        if self.rows.remove(&fd.as_raw_fd()).is_none() {
            self.sockets.forget(fd);
        }
    }

    /// A handle reports nothing but what was asked for.
    fn mute(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) {
        if !self.rows.contains_key(&fd.as_raw_fd()) {
            self.sockets.mute(fd, token, interest);
        }
    }

    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        if !self.rows.contains_key(&number) {
            self.sockets.unmute(number, token, interest);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        if self.found.is_none() {
            return self.sockets.wait(timeout, reports);
        }
        let before = reports.len();
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            let left = if self.prepare() {
                Some(Duration::ZERO)
            } else {
                deadline.map(|at| at.saturating_duration_since(Instant::now()))
            };
            let waited = self.sockets.wait(left, reports);
            if let Some(at) = reports[before..].iter().position(|r| r.token == OWN) {
                reports.remove(before + at);
                self.prepare();
            }
            self.report(reports);
            let is_over = deadline.is_some_and(|at| at <= Instant::now());
            if waited.is_err() || reports.len() > before || is_over {
                return waited;
            }
        }
    }

    /// As what is due is known only by looking, the socket says so.
    fn apply(&mut self) {
        if self.prepare() {
            if let Some(found) = &self.found {
                found.show();
            }
        }
        self.sockets.apply();
    }

    fn added(&self) -> u64 {
        self.sockets.added()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.sockets.pollable()
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        self.sockets.make_pollable()
    }
}
