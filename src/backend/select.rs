//! select(2): the oldest method, and the only one with no idea of a hang-up. Every system has some form of it.
//!
//! Kernel facts and defects:
//! - The limit of 1024 is libc's `fd_set`, not the kernel's, which reads as many words as the number of fds says. The sets here are as long as the highest
//!   number needs and no `FD_SET` is used, so there is no limit (and no abort by a fortified libc).
//! - One closed fd in a set fails the whole wait with `EBADF` and does not say which. It is looked for, dropped, and the wait goes on; libevent's loop ends.
//! - Readable includes hang-up and error, writable includes error. CLOSED has no equivalent: accepted, never reported.
//! - Regular files are always ready.
//! - On macOS and Solaris libc itself refuses numbers from `FD_SETSIZE` on with `EINVAL`, so they are refused when they are watched.
//! - `select` counts microseconds and may change the timeout; `pselect` nanoseconds, and leaves it alone.

use super::table::Table;
use super::{Backend, Entry, Features, Interest, Mode, Report, SELECT_LIMIT, WatchError, cvt, timespec};
use evd_proto::What;
use evd_proto::sys::is_open;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// As libevent's.
pub(super) const FEATURES: Features = Features::FDS;

const BITS: usize = libc::c_ulong::BITS as usize;

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    Ok(Box::new(Select::new()))
}

/// Two sets of fds for `select`.
#[derive(Debug)]
pub struct Select {
    table: Table,
    read: Set,
    write: Set,
    start: usize,
}

/// A set of fds, and the copy of it that the kernel may overwrite. All sets of a backend have the same length.
#[derive(Debug, Default)]
struct Set {
    wanted: Vec<libc::c_ulong>,
    ready: Vec<libc::c_ulong>,
}

impl Set {
    fn write(&mut self, number: usize, on: bool) {
        let bit = 1 << (number % BITS);
        let word = &mut self.wanted[number / BITS];
        if on { *word |= bit } else { *word &= !bit }
    }

    fn resize(&mut self, words: usize) {
        self.wanted.resize(words, 0);
        self.ready.resize(words, 0);
    }

    fn copy(&mut self) -> *mut libc::fd_set {
        self.ready.copy_from_slice(&self.wanted);
        self.ready.as_mut_ptr().cast()
    }
}

impl Select {
    /// An empty one.
    #[allow(clippy::new_without_default)] // like the other methods, whose `new` can fail
    pub fn new() -> Select {
        let table = Table::new(What::READ.union(What::WRITE));
        Select { table, read: Set::default(), write: Set::default(), start: 0 }
    }

    /// Brings the bits of a number up to date, and the sets to the length that they need.
    fn write(&mut self, number: RawFd, live: What) {
        let number = number as usize;
        if number / BITS >= self.read.wanted.len() {
            self.resize(number / BITS + 1);
        }
        self.read.write(number, live.contains(What::READ));
        self.write.write(number, live.contains(What::WRITE));
        if number / BITS + 1 == self.read.wanted.len() {
            let used = |set: &Set| set.wanted.iter().rposition(|w| *w != 0).map_or(0, |at| at + 1);
            self.resize(used(&self.read).max(used(&self.write)));
        }
    }

    fn resize(&mut self, words: usize) {
        self.read.resize(words);
        self.write.resize(words);
    }

    fn pause(&mut self, at: usize) {
        let number = self.table.rows()[at].number;
        self.table.pause(at);
        self.write(number, What::empty());
    }

    fn remove(&mut self, number: RawFd) {
        if self.table.remove(number).is_some() {
            self.write(number, What::empty());
        }
    }

    /// Drops the watches whose fds were closed; tells whether there were any.
    fn drop_dead(&mut self) -> bool {
        let dead: Vec<RawFd> = self.table.rows().iter().map(|r| r.number).filter(|n| !is_open(*n)).collect();
        dead.iter().for_each(|n| self.remove(*n));
        !dead.is_empty()
    }
}

impl Backend for Select {
    fn method(&self) -> &'static str {
        "select"
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
            return Err(WatchError::Unsupported("select has no edge-triggered watches; ask for level"));
        }
        if SELECT_LIMIT.is_some_and(|limit| fd.as_raw_fd() >= limit) {
            return Err(WatchError::Unsupported("select takes no numbers that high on this system"));
        }
        self.table.set(fd, token, interest)?;
        self.write(fd.as_raw_fd(), interest.what);
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.remove(fd.as_raw_fd());
    }

    fn rest(&mut self, fd: BorrowedFd<'_>, _spent: bool) {
        if let Some(at) = self.table.row_of(fd.as_raw_fd()) {
            self.table.rest(at);
            self.write(fd.as_raw_fd(), What::empty());
        }
    }

    fn mute(&mut self, fd: BorrowedFd<'_>, _token: u64, _interest: Interest) {
        if let Some(at) = self.table.row_of(fd.as_raw_fd()) {
            self.pause(at);
        }
    }

    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        if self.table.resume(number, token, interest).is_some() {
            self.write(number, interest.what);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        while let Some(number) = self.table.next_resting() {
            self.remove(number);
        }
        let spec = timeout.map(timespec);
        let at = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let mut left = loop {
            let (read, write) = (self.read.copy(), self.write.copy());
            let limit = (self.read.wanted.len() * BITS) as libc::c_int;
            let none = std::ptr::null_mut();
            // SAFETY: `read` and `write` have `limit` bits each, all that the kernel touches; `at` is null or a live timespec; null sets and masks are allowed.
            match cvt(unsafe { libc::pselect(limit, read, write, none, at, std::ptr::null()) }) {
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::EBADF) => {
                    if !self.drop_dead() {
                        return Ok(());
                    }
                }
                Err(e) => return Err(e),
            }
        };
        let words = self.read.ready.len();
        self.start = if self.start + 1 < words { self.start + 1 } else { 0 };
        for place in (self.start..words).chain(0..self.start) {
            if left <= 0 {
                break;
            }
            // Pausing a one-shot may shorten the sets, but not below a word that is still to be looked at in them.
            let (read, write) = (word(&self.read, place), word(&self.write, place));
            let mut either = read | write;
            while either != 0 {
                let bit = either.trailing_zeros() as usize;
                either &= either - 1;
                let mut ready = What::empty();
                ready.set(What::READ, read >> bit & 1 != 0);
                ready.set(What::WRITE, write >> bit & 1 != 0);
                left -= ready.iter().count() as libc::c_int;
                let Some(at) = self.table.row_of((place * BITS + bit) as RawFd) else { continue };
                let row = &self.table.rows()[at];
                reports.push(Report { token: row.token, ready });
                if row.mode == Mode::OneShot {
                    self.pause(at);
                }
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

fn word(set: &Set, place: usize) -> libc::c_ulong {
    set.ready.get(place).copied().unwrap_or(0)
}
