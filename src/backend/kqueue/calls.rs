//! What the kqueue method asks of its kernel: `kevent`, in terms that are the same on every system.
//!
//! The real one is `real.rs`; the tests have a model of it over Linux's own calls, so that the logic in `mod.rs` runs on any machine.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

/// The filters that watch an fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// `EVFILT_READ`.
    Read,
    /// `EVFILT_WRITE`.
    Write,
}

bitflags::bitflags! {
    /// The flags of a kevent, as far as they are used here. The values are ours: systems agree on the meaning and hardly on the type.
    ///
    /// Source: kqueue(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// `EV_ADD`: makes the knote, or looks anew at one that is there. The shape of one that is there does not change.
        const ADD = 1;
        /// `EV_DELETE`: removes the knote.
        const DELETE = 2;
        /// `EV_ENABLE`: a disabled knote may report again.
        const ENABLE = 4;
        /// `EV_DISABLE`: the knote stays and does not report.
        const DISABLE = 8;
        /// `EV_CLEAR`: it reports a change and not a state.
        const CLEAR = 16;
        /// `EV_DISPATCH`: it is disabled by its report.
        const DISPATCH = 32;
        /// `EV_EOF`, in a report: the other end is closed.
        const EOF = 64;
        /// `EV_ERROR`, in a report: a change failed, and `data` is the errno.
        const ERROR = 128;
    }
}

/// A change, or a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kevent {
    /// The fd.
    pub ident: RawFd,
    /// Which of its knotes.
    pub filter: Filter,
    /// What is to be done, or what is reported.
    pub flags: Flags,
    /// Of an error its errno; else nothing that is used here.
    pub data: i64,
}

/// One kqueue: its fd, which is readable when a report waits, and the one call on it.
pub trait Calls: AsFd {
    /// Applies all of `changes`, then waits for at most `timeout` (`None` = for ever) for reports, of which it appends at most `room` to `events`.
    ///
    /// A change that fails is reported with [`Flags::ERROR`], and then nothing is waited for; if there is no room its errno is the result, and the changes after
    /// it are not applied.
    ///
    /// # Errors
    /// `EINTR`: all changes were applied. Else as said, and `ENOMEM`.
    ///
    /// Source: kevent(2).
    fn kevent(
        &mut self,
        changes: &[Kevent],
        events: &mut Vec<Kevent>,
        room: usize,
        timeout: Option<Duration>,
    ) -> io::Result<()>;
}
