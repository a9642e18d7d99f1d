//! poll(2): every Unix has it; each wait hands all watches to the kernel.
//!
//! Kernel facts and defects:
//! - HUP, ERR and NVAL are reported whatever `events` holds; only a negative number silences an entry. That is how one-shots and muted watches rest.
//! - A number that was closed while watched is NVAL with every wait: it counts as ready, so that its owner finds out.
//! - Regular files are always ready.
//! - More entries than `RLIMIT_NOFILE` are `EINVAL`, also where the limit was lowered afterwards.
//! - `poll` counts milliseconds; `ppoll` nanoseconds, and so is used.
//! - Reports come in the order of the array. The scan starts one further each time, so that no watch is always the last.

use super::table::Table;
use super::{Backend, Entry, Features, Interest, Mode, Report, WatchError, cvt, timespec};
use evd_proto::What;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// As libevent's.
pub(super) const FEATURES: Features = Features::FDS.union(Features::EARLY_CLOSE);

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    Ok(Box::new(Poll::new()))
}

/// A set of fds for `poll`.
#[derive(Debug)]
pub struct Poll {
    table: Table,
    /// As long as the table's rows and in the same order.
    fds: Vec<libc::pollfd>,
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
        let entry = libc::pollfd { fd, events: events_of(row.live), revents: 0 };
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
        if (interest.what & What::IO).is_empty() {
            self.unwatch(fd);
            return Ok(());
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
        let spec = timeout.map(timespec);
        let at = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let (fds, len) = (self.fds.as_mut_ptr(), self.fds.len());
        // SAFETY: `fds` is `len` live, writable entries; `at` is null or a live timespec; a null mask is allowed.
        let mut left = match cvt(unsafe { libc::ppoll(fds, len as libc::nfds_t, at, std::ptr::null()) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        if left == 0 {
            return Ok(());
        }
        self.start = if self.start + 1 < len { self.start + 1 } else { 0 };
        for i in (self.start..len).chain(0..self.start) {
            let revents = self.fds[i].revents;
            if revents == 0 {
                continue;
            }
            let row = &self.table.rows()[i];
            reports.push(Report { token: row.token, ready: ready_of(revents) });
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

fn events_of(what: What) -> libc::c_short {
    let mut bits = 0;
    if what.contains(What::READ) {
        bits |= libc::POLLIN;
    }
    if what.contains(What::WRITE) {
        bits |= libc::POLLOUT;
    }
    if what.contains(What::CLOSED) {
        bits |= libc::POLLRDHUP;
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
    if bits & libc::POLLRDHUP != 0 {
        what |= What::CLOSED;
    }
    what
}
