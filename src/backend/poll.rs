//! poll(2): every Unix has it; each wait hands all watches to the kernel.
//!
//! Kernel facts and defects:
//! - HUP, ERR and NVAL are reported whatever `events` holds; only a negative number silences an entry. That is how one-shots and muted watches rest.
//! - A number that was closed while watched is NVAL with every wait: it counts as ready, so that its owner finds out.
//! - Regular files are always ready.
//! - More entries than `RLIMIT_NOFILE` are `EINVAL`, also where the limit was lowered afterwards.
//! - `poll` counts milliseconds; `ppoll` nanoseconds, and is used where there is one (not on macOS and Solaris).
//! - macOS' poll says that some devices are invalid, which is reported as ready.
//! - Reports come in the order of the array. The scan starts one further each time, so that no watch is always the last.

use super::table::Table;
use super::{Backend, Entry, Features, Interest, Mode, Report, WatchError};
use evd_proto::What;
use evd_proto::sys::{self, FdNumber, POLL_SEES_CLOSED, PollFd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// As libevent's: `POLLRDHUP` is there on Linux and FreeBSD.
pub(super) const FEATURES: Features =
    if POLL_SEES_CLOSED { Features::FDS.union(Features::EARLY_CLOSE) } else { Features::FDS };

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    Ok(Box::new(Poll::new()))
}

/// A set of fds for `poll`.
#[derive(Debug)]
pub struct Poll {
    table: Table,
    /// As long as the table's rows and in the same order.
    fds: Vec<PollFd>,
    start: usize,
}

impl Poll {
    /// An empty one.
    #[allow(clippy::new_without_default)] // like the other methods, whose `new` can fail
    pub fn new() -> Poll {
        Poll { table: Table::new(What::IO), fds: Vec::new(), start: 0 }
    }

    /// Brings the entry of a row up to date.
    fn write(&mut self, at: usize) {
        let row = &self.table.rows()[at];
        let fd = if row.live.is_empty() { !row.number } else { row.number };
        let entry = PollFd::new(fd, row.live);
        match self.fds.get_mut(at) {
            Some(place) => *place = entry,
            None => self.fds.push(entry),
        }
    }
}

impl Backend for Poll {
    fn method(&self) -> &'static str {
        "poll"
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
            return Err(WatchError::Unsupported("poll has no edge-triggered watches; ask for level"));
        }
        let at = self.table.set(fd, token, interest)?;
        self.write(at);
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        if let Some(at) = self.table.remove(fd.as_raw_fd()) {
            self.fds.swap_remove(at);
        }
    }

    fn rest(&mut self, fd: BorrowedFd<'_>, _spent: bool) {
        if let Some(at) = self.table.row_of(fd.as_raw_fd()) {
            self.table.rest(at);
            self.write(at);
        }
    }

    fn mute(&mut self, fd: BorrowedFd<'_>, _token: u64, _interest: Interest) {
        if let Some(at) = self.table.row_of(fd.as_raw_fd()) {
            self.table.pause(at);
            self.write(at);
        }
    }

    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        if let Some(at) = self.table.resume(number, token, interest) {
            self.write(at);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        while let Some(number) = self.table.next_resting() {
            self.unwatch(FdNumber(number).as_fd());
        }
        let mut left = sys::poll(&mut self.fds, timeout)?;
        let len = self.fds.len();
        if left == 0 {
            return Ok(());
        }
        self.start = if self.start + 1 < len { self.start + 1 } else { 0 };
        for i in (self.start..len).chain(0..self.start) {
            let ready = self.fds[i].ready();
            if ready.is_empty() {
                continue;
            }
            let row = &self.table.rows()[i];
            reports.push(Report { token: row.token, ready });
            if row.mode == Mode::OneShot {
                self.table.pause(i);
                self.write(i);
            }
            left -= 1;
            if left == 0 {
                break;
            }
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
