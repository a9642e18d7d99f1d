//! What poll, select and devpoll share: the watches by number, and an instance of another method that stands in for them in somebody else's loop.
//!
//! A row for each watch, dense, and an index by fd number. `live` is what is waited for right now: empty once a one-shot has reported and while a watch is
//! muted. The mirror is made when it is first asked for; from then on it watches, level-triggered, what the rows have live. It is only ever asked whether it
//! is readable. What it refuses as always ready keeps it readable through a wake-up of its own.

use super::{Backend, Entry, Interest, Mode, WatchError};
use evd_proto::What;
use evd_proto::sys::{AsFd, AsRawFd, BorrowedFd, FdNumber, RawFd, Wake, is_open};
use std::io;

/// One watch.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) number: RawFd,
    pub(super) token: u64,
    pub(super) mode: Mode,
    pub(super) live: What,
    shown: Shown,
    /// Nobody's watch; it goes before the next wait.
    resting: bool,
}

/// How the mirror shows a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    No,
    Yes,
    AlwaysReady,
}

/// The watches of one backend.
#[derive(Debug)]
pub(super) struct Table {
    /// What the method can report.
    reports: What,
    rows: Vec<Row>,
    /// By number: the row plus one, 0 for none.
    index: Vec<u32>,
    /// Numbers of rows that are, or were, resting.
    resting: Vec<RawFd>,
    shadow: Option<Shadow>,
}

struct Shadow {
    mirror: Box<dyn Backend + Send>,
    ready: Wake,
    always: usize,
}

impl Table {
    pub(super) fn new(reports: What) -> Table {
        Table { reports, rows: Vec::new(), index: Vec::new(), resting: Vec::new(), shadow: None }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn row_of(&self, number: RawFd) -> Option<usize> {
        let at = *self.index.get(usize::try_from(number).ok()?)?;
        (at as usize).checked_sub(1)
    }

    /// Replaces the watch of `fd`; returns its row, which is the last one if it is new.
    ///
    /// # Errors
    /// `BadFd`, and what the mirror refuses; nothing has changed then.
    pub(super) fn set(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> Result<usize, WatchError> {
        let number = fd.as_raw_fd();
        let live = interest.what & What::IO;
        let known = self.row_of(number);
        if known.is_none() && !is_open(number) {
            return Err(WatchError::BadFd);
        }
        let was = known.map_or(Shown::No, |at| self.rows[at].shown);
        let shown = self.show(number, was, live)?;
        let row = Row { number, token, mode: interest.mode, live, shown, resting: false };
        if let Some(at) = known {
            self.rows[at] = row;
            return Ok(at);
        }
        let place = number as usize;
        if self.index.len() <= place {
            self.index.resize(place + 1, 0);
        }
        self.rows.push(row);
        self.index[place] = self.rows.len() as u32;
        Ok(self.rows.len() - 1)
    }

    /// Takes a watch out; the last row takes its place, which is returned.
    pub(super) fn remove(&mut self, number: RawFd) -> Option<usize> {
        let at = self.row_of(number)?;
        self.pause(at);
        self.rows.swap_remove(at);
        self.index[number as usize] = 0;
        if let Some(moved) = self.rows.get(at) {
            self.index[moved.number as usize] = at as u32 + 1;
        }
        Some(at)
    }

    /// Waits for nothing of this row, which goes before the next wait unless it is set again. Watching the number again needs no look whether it is open then.
    pub(super) fn rest(&mut self, at: usize) {
        self.pause(at);
        self.rows[at].resting = true;
        self.resting.push(self.rows[at].number);
    }

    /// A number whose row rests still: the caller removes it.
    pub(super) fn next_resting(&mut self) -> Option<RawFd> {
        while let Some(number) = self.resting.pop() {
            if self.row_of(number).is_some_and(|at| self.rows[at].resting) {
                return Some(number);
            }
        }
        None
    }

    /// Waits for nothing of this row until it is set or resumed.
    pub(super) fn pause(&mut self, at: usize) {
        self.change(at, What::empty());
    }

    /// Waits for `interest` again, if the watch of `number` is still the one of `token`. Returns its row.
    pub(super) fn resume(&mut self, number: RawFd, token: u64, interest: Interest) -> Option<usize> {
        let at = self.row_of(number).filter(|at| self.rows[*at].token == token)?;
        self.change(at, interest.what & What::IO);
        Some(at)
    }

    fn change(&mut self, at: usize, live: What) {
        let (number, was) = (self.rows[at].number, self.rows[at].shown);
        // A mirror that can't be told is out of memory or the file is gone: the row counts, and the next change tells it again.
        let shown = self.show(number, was, live).unwrap_or(Shown::No);
        self.rows[at].shown = shown;
        self.rows[at].live = live;
    }

    fn show(&mut self, number: RawFd, was: Shown, live: What) -> Result<Shown, WatchError> {
        let what = live & self.reports;
        match &mut self.shadow {
            Some(shadow) => shadow.show(number, was, what),
            None => Ok(Shown::No),
        }
    }

    /// Makes the mirror, once.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`, `ENOSPC`.
    pub(super) fn make_pollable(&mut self) -> io::Result<()> {
        if self.shadow.is_some() {
            return Ok(());
        }
        let mut shadow = Shadow { mirror: super::mirror()?, ready: Wake::new()?, always: 0 };
        shadow.mirror.make_pollable()?;
        let fault = |e| if let WatchError::Os(e) = e { e } else { io::Error::other(e) };
        let read = Interest { what: What::READ, mode: Mode::Level };
        shadow.mirror.watch(shadow.ready.as_fd(), 0, read, Entry::New).map_err(fault)?;
        for row in &mut self.rows {
            match shadow.show(row.number, Shown::No, row.live & self.reports) {
                Ok(shown) => row.shown = shown,
                // Closed while watched; the next wait deals with it.
                Err(WatchError::BadFd) => {}
                Err(e) => {
                    self.rows.iter_mut().for_each(|r| r.shown = Shown::No);
                    return Err(fault(e));
                }
            }
        }
        self.shadow = Some(shadow);
        Ok(())
    }

    /// Brings the mirror up to date, before somebody sleeps on it: it may have told already what is not so any more, or not yet what it was told itself.
    pub(super) fn apply(&mut self) {
        if let Some(shadow) = &mut self.shadow {
            shadow.mirror.apply();
        }
    }

    pub(super) fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.shadow.as_ref()?.mirror.pollable()
    }
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow").field("always", &self.always).finish_non_exhaustive()
    }
}

impl Shadow {
    fn show(&mut self, number: RawFd, was: Shown, what: What) -> Result<Shown, WatchError> {
        let shown = if what.is_empty() {
            if was == Shown::Yes {
                self.mirror.unwatch(FdNumber(number).as_fd());
            }
            Shown::No
        } else {
            let entry = if was == Shown::Yes { Entry::Known } else { Entry::New };
            match self.mirror.watch(FdNumber(number).as_fd(), 0, Interest { what, mode: Mode::Level }, entry)
            {
                Ok(()) => Shown::Yes,
                Err(WatchError::AlwaysReady) => Shown::AlwaysReady,
                Err(e) => return Err(e),
            }
        };
        if shown != was {
            self.always += usize::from(shown == Shown::AlwaysReady);
            self.always -= usize::from(was == Shown::AlwaysReady);
            if self.always > 0 {
                self.ready.notify();
            } else {
                self.ready.drain();
            }
        }
        Ok(shown)
    }
}
