//! What is known of each watched fd, and what its knotes are to be.

use super::super::{Interest, Mode};
use super::{Filter, Flags};
use evd_proto::What;
use std::ops::{Index, IndexMut};
use std::os::fd::RawFd;

/// How a knote reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Level,
    Clear,
    Dispatch,
}

/// What the kernel has for one filter of an fd, with all that it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knote {
    None,
    Enabled(Shape),
    Disabled(Shape),
}

/// One watch.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) number: RawFd,
    pub(super) token: u64,
    pub(super) interest: Interest,
    /// Not a one-shot that has reported, nor muted.
    pub(super) live: bool,
    pub(super) read: Knote,
    pub(super) write: Knote,
    /// `EV_EOF` came for reading.
    pub(super) eof: bool,
    /// The kernel refuses it, and a write would tell why.
    pub(super) broken: bool,
    /// An edge that was set anew is looked at again.
    pub(super) again: bool,
    /// It is in the list of what is to be told.
    pub(super) dirty: bool,
    /// Its report is the one at `place`, if this is the number of the wait that goes on.
    pub(super) wait: u64,
    pub(super) place: usize,
}

impl Row {
    /// What the kernel is to have for reading and for writing; `None` = nothing that reports.
    pub(super) fn wanted(&self) -> (Option<Shape>, Option<Shape>) {
        if !self.live || self.broken {
            return (None, None);
        }
        let shape = match self.interest.mode {
            Mode::Level => Shape::Level,
            Mode::Edge => Shape::Clear,
            Mode::OneShot => Shape::Dispatch,
        };
        let what = self.interest.what;
        let read = match (what.contains(What::READ), what.contains(What::CLOSED)) {
            (true, _) => Some(shape),
            (false, true) => Some(if self.eof { shape } else { Shape::Clear }),
            (false, false) => None,
        };
        (read, what.contains(What::WRITE).then_some(shape))
    }

    pub(super) fn knote(&mut self, filter: Filter) -> &mut Knote {
        match filter {
            Filter::Read => &mut self.read,
            Filter::Write => &mut self.write,
        }
    }
}

impl Shape {
    pub(super) fn flags(self) -> Flags {
        match self {
            Shape::Level => Flags::empty(),
            Shape::Clear => Flags::CLEAR,
            Shape::Dispatch => Flags::DISPATCH,
        }
    }
}

/// All watches: dense, with an index by number.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    /// By number: the row plus one, 0 for none.
    index: Vec<u32>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn find(&self, number: RawFd) -> Option<usize> {
        let at = *self.index.get(usize::try_from(number).ok()?)?;
        (at as usize).checked_sub(1)
    }

    pub(super) fn has_room_for(&self, number: RawFd) -> bool {
        (number as usize) < self.index.len()
    }

    /// A new row, of which the kernel knows nothing.
    pub(super) fn insert(&mut self, number: RawFd, token: u64, interest: Interest) -> usize {
        if !self.has_room_for(number) {
            self.index.resize(number as usize + 1, 0);
        }
        self.rows.push(Row {
            number,
            token,
            interest,
            live: true,
            read: Knote::None,
            write: Knote::None,
            eof: false,
            broken: false,
            again: false,
            dirty: false,
            wait: 0,
            place: 0,
        });
        self.index[number as usize] = self.rows.len() as u32;
        self.rows.len() - 1
    }

    /// Takes a row out; the last one takes its place.
    pub(super) fn remove(&mut self, at: usize) -> Row {
        let row = self.rows.swap_remove(at);
        self.index[row.number as usize] = 0;
        if let Some(moved) = self.rows.get(at) {
            self.index[moved.number as usize] = at as u32 + 1;
        }
        row
    }
}

impl Index<usize> for Rows {
    type Output = Row;

    fn index(&self, at: usize) -> &Row {
        &self.rows[at]
    }
}

impl IndexMut<usize> for Rows {
    fn index_mut(&mut self, at: usize) -> &mut Row {
        &mut self.rows[at]
    }
}
