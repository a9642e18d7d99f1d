//! kqueue(2): the method of choice on the BSDs and macOS.
//!
//! Kernel facts and defects:
//! - A knote is keyed by (number, filter), so an fd has up to two, and goes with the number: closing it removes its knotes without a word.
//! - `EV_ADD` on a knote that is there looks at the fd again and does not change the knote's shape (level, `EV_CLEAR`, `EV_DISPATCH`), nor does it enable it everywhere.
//!   So a change of shape is `EV_DELETE` and `EV_ADD`, and what is disabled is enabled by `EV_ENABLE` alone.
//! - A report names one filter: what came for both is put together here, and what is left of a one-shot is disabled with the next wait.
//! - `EV_EOF` comes with what is still unread. It tells CLOSED, on sockets and pipes alike, and that is more than libevent takes from it, whose features this method has:
//!   so CLOSED is reported and not promised. There is no filter for it alone: a watch of only CLOSED has an `EV_CLEAR` knote for reading, which is woken by data too,
//!   until `EV_EOF` was seen; that stays, so from then on the knote has the shape that was asked for.
//! - Only what has a filter is reported, so hang-ups and errors wake nobody in vain, except as follows.
//! - `EV_ADD` for writing to a pipe that nobody reads is refused with `EPIPE` (`EBADF` on NetBSD): it counts as ready, so that its owner finds out.
//! - A regular file is ready for reading until its end, and not at it. Some devices can't be watched (macOS: `/dev/null` and terminals, `EINVAL`, in old releases).
//! - Failed changes come as reports, as far as there is room for them; they are given room for all.
//! - A kqueue is not inherited by a fork, and does not pass a socket.
//!
//! New watches are told to the kernel at once, so that what can't be watched is refused, and ended ones too, as the number may soon be another file's. All that is
//! changed in between goes with the next wait: one call tells all changes and brings all reports.
//!
//! Source: kqueue(2) of FreeBSD, NetBSD, OpenBSD and macOS; libevent, kqueue.c.

mod calls;
mod rows;

pub use calls::{Calls, Filter, Flags, Kevent};

use super::{Backend, Entry, Features, Interest, Mode, Report, WatchError};
use evd_proto::What;
use evd_proto::sys::{Wake, is_open};
use rows::{Knote, Rows, Shape};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// As libevent's.
pub(super) const FEATURES: Features = Features::ET.union(Features::O1).union(Features::FDS);

const FEWEST: usize = 32;
const MOST: usize = 4096;

/// A kqueue. `C` is the kernel's, or a test's model of it.
#[derive(Debug)]
pub struct Kqueue<C> {
    calls: C,
    rows: Rows,
    /// Numbers of rows that the kernel is to be told of.
    dirty: Vec<RawFd>,
    changes: Vec<Kevent>,
    events: Vec<Kevent>,
    room: usize,
    waits: u64,
    /// Readable while there are broken watches that report.
    broken: Option<Wake>,
}

impl<C: Calls> Kqueue<C> {
    /// Watches nothing yet.
    pub fn on(calls: C) -> Kqueue<C> {
        Kqueue {
            calls,
            rows: Rows::default(),
            dirty: Vec::new(),
            changes: Vec::new(),
            events: Vec::new(),
            room: FEWEST,
            waits: 0,
            broken: None,
        }
    }

    fn row_of(&self, number: RawFd) -> Option<usize> {
        self.rows.find(number)
    }

    /// What is wanted of this row has changed.
    fn touch(&mut self, at: usize) {
        let row = &mut self.rows[at];
        if !row.dirty {
            row.dirty = true;
            self.dirty.push(row.number);
        }
        if self.rows[at].broken {
            self.show_broken();
        }
    }

    /// Appends to `changes` what the kernel is to be told of this row, and takes it for told.
    fn explain(&mut self, at: usize) {
        let row = &mut self.rows[at];
        let (number, again) = (row.number, std::mem::take(&mut row.again));
        let (read, write) = row.wanted();
        for (filter, wanted) in [(Filter::Read, read), (Filter::Write, write)] {
            let knote = self.rows[at].knote(filter);
            let mut change = |flags| self.changes.push(Kevent { ident: number, filter, flags, data: 0 });
            let (has, now) = (*knote, wanted.map_or(*knote, Knote::Enabled));
            match (has, wanted) {
                (Knote::None, None) | (Knote::Disabled(_), None) => {}
                (Knote::Enabled(shape), None) => {
                    change(Flags::DISABLE);
                    *knote = Knote::Disabled(shape);
                    continue;
                }
                (Knote::None, Some(shape)) => change(Flags::ADD | shape.flags()),
                (Knote::Disabled(was), Some(shape)) if was == shape => change(Flags::ENABLE),
                (Knote::Enabled(was), Some(shape)) if was == shape => {
                    if again && shape == Shape::Clear {
                        change(Flags::ADD | shape.flags());
                    }
                }
                (_, Some(shape)) => {
                    change(Flags::DELETE);
                    change(Flags::ADD | shape.flags());
                }
            }
            *knote = now;
        }
    }

    /// Puts all that the kernel is to be told into `changes`.
    fn explain_dirty(&mut self) {
        self.changes.clear();
        while let Some(number) = self.dirty.pop() {
            let Some(at) = self.row_of(number) else { continue };
            if std::mem::take(&mut self.rows[at].dirty) {
                self.explain(at);
            }
        }
    }

    /// Tells `changes` at once, without looking for reports. Returns the first refusal.
    fn tell(&mut self) -> Result<(), WatchError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let mut changes = std::mem::take(&mut self.changes);
        let mut result = Ok(());
        // One by one only if together they did not go: the changes after a failed one were not applied.
        if self.now(&changes).is_err() {
            for change in &changes {
                let Err(e) = self.now(std::slice::from_ref(change)) else { continue };
                let refusal = self.refused(*change, e);
                if result.is_ok() {
                    result = refusal;
                }
            }
        }
        changes.clear();
        self.changes = changes;
        result
    }

    fn now(&mut self, changes: &[Kevent]) -> io::Result<()> {
        match self.calls.kevent(changes, &mut Vec::new(), 0, Some(Duration::ZERO)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// Deals with a change that failed.
    fn refused(&mut self, change: Kevent, e: io::Error) -> Result<(), WatchError> {
        let Some(at) = self.row_of(change.ident) else { return Ok(()) };
        let errno = e.raw_os_error();
        if change.flags.contains(Flags::DELETE)
            || (change.flags.contains(Flags::ADD) && errno == Some(libc::ENOENT))
        {
            // What is to be deleted is not there, which is what was wanted. Before an `EV_ADD` of the same knote only that can be meant.
            return Ok(());
        }
        *self.rows[at].knote(change.filter) = Knote::None;
        if !change.flags.contains(Flags::ADD) {
            // The number was closed and opened again, without a word to us: what is to be enabled is added.
            if errno == Some(libc::ENOENT) && change.flags.contains(Flags::ENABLE) {
                self.touch(at);
            }
            return Ok(());
        }
        let is_broken = match errno {
            Some(libc::EPIPE | libc::EPERM) => true,
            Some(libc::EBADF) => is_open(change.ident),
            _ => false,
        };
        if change.filter == Filter::Write && is_broken {
            self.rows[at].broken = true;
            self.touch(at);
            return Ok(());
        }
        Err(match errno {
            Some(libc::EBADF) => WatchError::BadFd,
            Some(libc::ELOOP) => WatchError::Loop,
            _ => WatchError::Os(e),
        })
    }

    /// Keeps the kqueue readable while a broken watch reports, and no longer.
    fn show_broken(&mut self) {
        if !(0..self.rows.len()).any(|at| self.rows[at].broken && self.rows[at].live) {
            if let Some(wake) = &self.broken {
                wake.drain();
            }
            return;
        }
        if self.broken.is_none() {
            let made = Wake::new().and_then(|wake| {
                let (ident, filter) = (wake.as_fd().as_raw_fd(), Filter::Read);
                self.now(&[Kevent { ident, filter, flags: Flags::ADD, data: 0 }])?;
                Ok(wake)
            });
            match made {
                Ok(wake) => self.broken = Some(wake),
                Err(e) => return log::warn!("a pipe that nobody reads can't be reported: {e}"),
            }
        }
        if let Some(wake) = &self.broken {
            wake.notify();
        }
    }

    /// Reports `ready` for a row, together with what this wait has reported for it already.
    fn report(&mut self, at: usize, ready: What, reports: &mut Vec<Report>) {
        let row = &mut self.rows[at];
        if row.wait == self.waits {
            reports[row.place].ready |= ready;
            return;
        }
        (row.wait, row.place) = (self.waits, reports.len());
        reports.push(Report { token: row.token, ready });
    }

    fn take(&mut self, event: Kevent, reports: &mut Vec<Report>) {
        let Some(at) = self.row_of(event.ident) else {
            if self.broken.as_ref().is_some_and(|w| w.as_fd().as_raw_fd() == event.ident) {
                for at in 0..self.rows.len() {
                    if self.rows[at].broken && self.rows[at].live {
                        self.report(at, What::READ | What::WRITE, reports);
                        self.rest(at);
                    }
                }
            }
            return;
        };
        let row = &mut self.rows[at];
        if let Knote::Enabled(Shape::Dispatch) = *row.knote(event.filter) {
            *row.knote(event.filter) = Knote::Disabled(Shape::Dispatch);
        }
        let ready = match event.filter {
            Filter::Write => What::WRITE,
            Filter::Read if event.flags.contains(Flags::EOF) => {
                if !std::mem::replace(&mut row.eof, true) {
                    // A watch of only CLOSED has its own shape from now on.
                    self.touch(at);
                }
                What::READ | What::CLOSED
            }
            // Data that a watch of only CLOSED does not wait for; a FIFO has ends that come back.
            Filter::Read if !row.interest.what.contains(What::READ) => {
                if std::mem::take(&mut row.eof) {
                    self.touch(at);
                }
                return;
            }
            Filter::Read => What::READ,
        };
        self.report(at, ready, reports);
        self.rest(at);
    }

    /// Waits for `interest` from now on.
    fn resume(&mut self, at: usize, interest: Interest) {
        let row = &mut self.rows[at];
        (row.interest, row.live) = (interest, true);
        // A FIFO may be read by somebody again.
        let was_broken = std::mem::take(&mut row.broken);
        self.touch(at);
        if was_broken {
            self.show_broken();
        }
    }

    /// After a report: a one-shot rests, in both directions.
    fn rest(&mut self, at: usize) {
        if self.rows[at].interest.mode == Mode::OneShot {
            self.rows[at].live = false;
            self.touch(at);
        }
    }
}

impl<C: Calls> Backend for Kqueue<C> {
    fn method(&self) -> &'static str {
        "kqueue"
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
        entry: Entry,
    ) -> Result<(), WatchError> {
        let number = fd.as_raw_fd();
        if entry == Entry::New {
            // Who says so without having ended the old watch may have closed the number: nothing that is known of it counts.
            self.unwatch(fd);
        }
        if let Some(at) = self.row_of(number) {
            self.rows[at].token = token;
            self.resume(at, interest);
            self.rows[at].again = true;
            return Ok(());
        }
        if !self.rows.has_room_for(number) && !is_open(number) {
            // The index is not to grow for a number that nobody has.
            return Err(WatchError::BadFd);
        }
        let at = self.rows.insert(number, token, interest);
        self.changes.clear();
        self.explain(at);
        self.tell().inspect_err(|_| self.unwatch(fd))
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        let Some(at) = self.row_of(fd.as_raw_fd()) else { return };
        self.changes.clear();
        for filter in [Filter::Read, Filter::Write] {
            if *self.rows[at].knote(filter) != Knote::None {
                self.changes.push(Kevent { ident: fd.as_raw_fd(), filter, flags: Flags::DELETE, data: 0 });
            }
        }
        let _ = self.tell();
        if self.rows.remove(at).broken {
            self.show_broken();
        }
    }

    fn mute(&mut self, fd: BorrowedFd<'_>, _token: u64, _interest: Interest) {
        if let Some(at) = self.row_of(fd.as_raw_fd()) {
            self.rows[at].live = false;
            self.touch(at);
        }
    }

    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        if let Some(at) = self.row_of(number).filter(|at| self.rows[*at].token == token) {
            self.resume(at, interest);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        self.waits += 1;
        loop {
            self.explain_dirty();
            self.events.clear();
            let room = self.room.max(self.changes.len());
            match self.calls.kevent(&self.changes, &mut self.events, room, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
                other => other?,
            }
            let events = std::mem::take(&mut self.events);
            let mut failed = 0;
            for event in &events {
                if !event.flags.contains(Flags::ERROR) {
                    self.take(*event, reports);
                    continue;
                }
                failed += 1;
                let change = self.changes.iter().rev();
                let change = change.copied().find(|c| c.ident == event.ident && c.filter == event.filter);
                let Some(change) = change else { continue };
                let e = io::Error::from_raw_os_error(event.data as i32);
                if let Err(e) = self.refused(change, e) {
                    log::warn!("fd {} can't be watched any more: {e}", event.ident);
                }
            }
            let came = events.len();
            self.events = events;
            if came == room && self.room < MOST {
                self.room *= 2;
            }
            // The kernel has not waited if a change has failed; what is added in its stead may be ready.
            if failed == 0 || failed < came {
                return Ok(());
            }
        }
    }

    fn apply(&mut self) {
        while !self.dirty.is_empty() {
            self.explain_dirty();
            if let Err(e) = self.tell() {
                log::warn!("an fd can't be watched any more: {e}");
            }
        }
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.calls.as_fd())
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        self.apply();
        Ok(())
    }
}
