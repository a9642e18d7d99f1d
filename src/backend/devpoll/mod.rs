//! /dev/poll: a set of fds that the kernel keeps, on Solaris since 7 and on illumos.
//!
//! Kernel facts and defects:
//! - Entries are keyed by number. What is written for a number that is in the set is added to its events, so fewer are `POLLREMOVE` and then the rest.
//! - A number that was closed in the set is NVAL with every wait until it is removed; opened again it is polled as the new file. So it is removed when its watch ends,
//!   at once; all other changes go in one write before the next wait.
//! - HUP and ERR are reported whatever the events are; one-shots and muted watches are removed to rest. illumos has `POLLONESHOT` and `POLLET` there, Solaris has not.
//! - CLOSED has no equivalent that both have: accepted, never reported.
//! - `DP_POLL` counts milliseconds. A set belongs to the process that wrote to it first (`EACCES` in a child), and is itself pollable on illumos only.
//! - More entries at a time than `RLIMIT_NOFILE` are `EINVAL`.
//! - Regular files are always ready.
//!
//! Source: poll(7D), illumos uts/common/io/devpoll.c; libevent, devpoll.c.

mod calls;

pub use calls::{Calls, Entry as PollEntry, POLLREMOVE};

use super::table::Table;
use super::{Backend, Entry, Features, Interest, Mode, Report, WatchError};
use evd_proto::What;
use evd_proto::sys;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// As libevent's.
pub(super) const FEATURES: Features = Features::O1.union(Features::FDS);

const FEWEST: usize = 32;
const MOST: usize = 4096;

/// What the kernel was told of a row.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The events that it has; `None` = it is not in the set.
    events: Option<libc::c_short>,
    dirty: bool,
}

/// A /dev/poll set. `C` is the kernel's, or a test's model of it.
#[derive(Debug)]
pub struct Devpoll<C> {
    calls: C,
    table: Table,
    /// As long as the table's rows and in the same order.
    told: Vec<Told>,
    dirty: Vec<RawFd>,
    changes: Vec<PollEntry>,
    found: Vec<PollEntry>,
    room: usize,
}

impl<C: Calls> Devpoll<C> {
    /// Watches nothing yet.
    pub fn on(calls: C) -> Devpoll<C> {
        Devpoll {
            calls,
            table: Table::new(What::READ.union(What::WRITE)),
            told: Vec::new(),
            dirty: Vec::new(),
            changes: Vec::new(),
            found: Vec::new(),
            room: FEWEST,
        }
    }

    fn touch(&mut self, at: usize) {
        if !std::mem::replace(&mut self.told[at].dirty, true) {
            self.dirty.push(self.table.rows()[at].number);
        }
    }

    fn pause(&mut self, at: usize) {
        self.table.pause(at);
        self.touch(at);
    }

    /// Tells the kernel all that has changed.
    fn tell(&mut self) -> io::Result<()> {
        self.changes.clear();
        while let Some(number) = self.dirty.pop() {
            let Some(at) = self.table.row_of(number) else { continue };
            if !std::mem::take(&mut self.told[at].dirty) {
                continue;
            }
            let live = self.table.rows()[at].live;
            let wanted = (!live.is_empty()).then(|| events_of(live));
            let has = std::mem::replace(&mut self.told[at].events, wanted);
            if let Some(has) = has {
                if wanted.is_none_or(|w| w & has != has) {
                    self.changes.push(PollEntry { number, events: POLLREMOVE });
                } else if wanted == Some(has) {
                    continue;
                }
            }
            if let Some(events) = wanted {
                self.changes.push(PollEntry { number, events });
            }
        }
        if self.changes.is_empty() {
            return Ok(());
        }
        let most = (sys::most_open_files() as usize).clamp(1, MOST);
        self.changes.chunks(most).try_for_each(|some| self.calls.write(some))
    }
}

impl<C: Calls> Backend for Devpoll<C> {
    fn method(&self) -> &'static str {
        "devpoll"
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
        _entry: Entry,
    ) -> Result<(), WatchError> {
        if interest.mode == Mode::Edge {
            return Err(WatchError::Unsupported("devpoll has no edge-triggered watches; ask for level"));
        }
        let at = self.table.set(fd, token, interest)?;
        if at == self.told.len() {
            self.told.push(Told::default());
        }
        self.touch(at);
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        let number = fd.as_raw_fd();
        let Some(at) = self.table.remove(number) else { return };
        if self.told.swap_remove(at).events.is_some() {
            // The number may be another file's at the next wait.
            if let Err(e) = self.calls.write(&[PollEntry { number, events: POLLREMOVE }]) {
                log::warn!("fd {number} stays in a set of /dev/poll: {e}");
            }
        }
    }

    fn mute(&mut self, fd: BorrowedFd<'_>, _token: u64, _interest: Interest) {
        if let Some(at) = self.table.row_of(fd.as_raw_fd()) {
            self.pause(at);
        }
    }

    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        if let Some(at) = self.table.resume(number, token, interest) {
            self.touch(at);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        self.tell()?;
        self.found.clear();
        match self.calls.poll(&mut self.found, self.room, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for i in 0..self.found.len() {
            let PollEntry { number, events } = self.found[i];
            let Some(at) = self.table.row_of(number) else { continue };
            let row = &self.table.rows()[at];
            reports.push(Report { token: row.token, ready: ready_of(events) });
            if row.mode == Mode::OneShot {
                self.pause(at);
            }
        }
        if self.found.len() == self.room {
            self.room = (self.room * 2).min(MOST).min(sys::most_open_files().max(1) as usize);
        }
        Ok(())
    }

    fn apply(&mut self) {
        self.table.apply();
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.table.pollable()
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        self.table.make_pollable()
    }
}

pub(super) fn events_of(what: What) -> libc::c_short {
    let mut bits = 0;
    if what.contains(What::READ) {
        bits |= libc::POLLIN;
    }
    if what.contains(What::WRITE) {
        bits |= libc::POLLOUT;
    }
    bits
}

/// libevent's mapping.
fn ready_of(bits: libc::c_short) -> What {
    let mut what = What::empty();
    if bits & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
        what |= What::READ | What::WRITE;
    }
    if bits & libc::POLLIN != 0 {
        what |= What::READ;
    }
    if bits & libc::POLLOUT != 0 {
        what |= What::WRITE;
    }
    what
}
