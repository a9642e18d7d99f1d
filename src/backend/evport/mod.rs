//! Event ports: the method of choice on Solaris (since 10) and illumos.
//!
//! Kernel facts and defects:
//! - An association is one-shot: it ends with its event. So what is still wanted after a report is associated again just before the next wait, which looks at the
//!   file anew: that is level-triggered, and an edge can't be had.
//! - Closing a number ends its association without a word, and drops its event.
//! - An event is as old as its being queued: what was read since is still reported by it. So what comes is looked at again with one poll(2) before it is passed on, else
//!   somebody would be told to read what is not there.
//! - HUP and ERR are reported whatever the events are; a one-shot that has reported and a muted watch are not associated, and rest.
//! - CLOSED has no equivalent that both systems have: accepted, never reported.
//! - `port_getn` may time out (`ETIME`) and bring events all the same.
//! - A child of a fork has the port and none of the associations.
//! - Regular files are always ready.
//!
//! As part of another loop: the port is an fd that is readable while an event is queued. What was reported is associated again with `apply`, so that has to be called before
//! the outer loop sleeps, which `Base::arm_pollable` does.
//!
//! Source: port_associate(3C), port_get(3C), illumos uts/common/fs/portfs/port_fd.c; libevent, evport.c.

mod calls;

pub use calls::Calls;

use super::devpoll::events_of;
use super::table::Table;
use super::{Backend, Entry, Features, Interest, Mode, Report, WatchError};
use evd_proto::What;
use evd_proto::sys::{self, PollFd};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// libevent's are none; these are there all the same.
pub(super) const FEATURES: Features = Features::O1.union(Features::FDS);

const FEWEST: usize = 32;
const MOST: usize = 4096;

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The kernel has an association, or its event.
    there: bool,
    dirty: bool,
}

/// An event port. `C` is the kernel's, or a test's model of it.
#[derive(Debug)]
pub struct Evport<C> {
    calls: C,
    table: Table,
    /// As long as the table's rows and in the same order.
    told: Vec<Told>,
    dirty: Vec<RawFd>,
    came: Vec<RawFd>,
    looks: Vec<PollFd>,
    room: usize,
}

impl<C: Calls> Evport<C> {
    /// Watches nothing yet.
    pub fn on(calls: C) -> Evport<C> {
        Evport {
            calls,
            table: Table::new(What::READ.union(What::WRITE)),
            told: Vec::new(),
            dirty: Vec::new(),
            came: Vec::new(),
            looks: Vec::new(),
            room: FEWEST,
        }
    }

    fn touch(&mut self, at: usize) {
        if !std::mem::replace(&mut self.told[at].dirty, true) {
            self.dirty.push(self.table.rows()[at].number);
        }
    }

    fn tell(&mut self, at: usize) -> io::Result<()> {
        let row = &self.table.rows()[at];
        let there = !row.live.is_empty();
        if there {
            self.calls.associate(row.number, events_of(row.live))?;
        } else if self.told[at].there {
            let _ = self.calls.dissociate(row.number);
        }
        self.told[at].there = there;
        Ok(())
    }

    fn tell_all(&mut self) {
        while let Some(number) = self.dirty.pop() {
            let Some(at) = self.table.row_of(number) else { continue };
            if std::mem::take(&mut self.told[at].dirty) {
                if let Err(e) = self.tell(at) {
                    log::warn!("fd {number} can't be watched any more: {e}");
                }
            }
        }
    }
}

impl<C: Calls> Backend for Evport<C> {
    fn method(&self) -> &'static str {
        "evport"
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
            return Err(WatchError::Unsupported("evport has no edge-triggered watches; ask for level"));
        }
        let at = self.table.set(fd, token, interest)?;
        if at < self.told.len() {
            self.touch(at);
            return Ok(());
        }
        // A new one at once, so that it can be refused.
        self.told.push(Told::default());
        self.tell(at).map_err(|e| {
            self.table.remove(fd.as_raw_fd());
            self.told.pop();
            match e.raw_os_error() {
                Some(libc::EBADF) => WatchError::BadFd,
                Some(libc::EAGAIN) => WatchError::Full,
                _ => WatchError::Os(e),
            }
        })
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        if let Some(at) = self.table.remove(fd.as_raw_fd()) {
            if self.told.swap_remove(at).there {
                let _ = self.calls.dissociate(fd.as_raw_fd());
            }
        }
    }

    fn mute(&mut self, fd: BorrowedFd<'_>, _token: u64, _interest: Interest) {
        if let Some(at) = self.table.row_of(fd.as_raw_fd()) {
            self.table.pause(at);
            self.touch(at);
        }
    }

    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        if let Some(at) = self.table.resume(number, token, interest) {
            self.touch(at);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        self.tell_all();
        self.came.clear();
        match self.calls.take(&mut self.came, self.room, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        if self.came.len() == self.room && self.room < MOST {
            self.room *= 2;
        }
        self.came.retain(|number| self.table.row_of(*number).is_some());
        self.looks.clear();
        for number in &self.came {
            let live = self.table.row_of(*number).map_or(What::empty(), |at| self.table.rows()[at].live);
            self.looks.push(PollFd::new(*number, live & (What::READ | What::WRITE)));
        }
        sys::poll(&mut self.looks, Some(Duration::ZERO))?;
        for i in 0..self.came.len() {
            let Some(at) = self.table.row_of(self.came[i]) else { continue };
            let (row, ready) = (&self.table.rows()[at], self.looks[i].ready());
            self.told[at].there = false;
            if ready.is_empty() || row.mode == Mode::Level {
                self.touch(at);
            } else {
                self.table.pause(at);
            }
            if !ready.is_empty() {
                reports.push(Report { token: self.table.rows()[at].token, ready });
            }
        }
        Ok(())
    }

    /// What is queued may not be so any more, and then would keep the port readable: it is asked for anew.
    fn apply(&mut self) {
        let mut came = std::mem::take(&mut self.came);
        loop {
            came.clear();
            if self.calls.take(&mut came, MOST, Some(Duration::ZERO)).is_err() || came.is_empty() {
                break;
            }
            for number in &came {
                let Some(at) = self.table.row_of(*number) else { continue };
                self.told[at].there = false;
                self.touch(at);
            }
        }
        self.came = came;
        self.tell_all();
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.calls.as_fd())
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        self.apply();
        Ok(())
    }
}
