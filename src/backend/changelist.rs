//! epoll with a list of changes: what is watched and unwatched between two waits is told to the kernel just before the wait, once for each fd.
//!
//! What is added and taken back in one round costs nothing then, and what is taken back and added again one system call instead of two. It is never
//! nothing: the number may have been closed and opened in between, and the kernel has forgotten its entry then, without a word.
//!
//! An fd that can't be watched is noticed only with the wait: that is logged, and it never reports. Who needs to know at once does not use this.
//!
//! Source: libevent, `EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST`.

use super::epoll::Epoll;
use super::{Backend, Entry, Features, Interest, Report, WatchError};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

const NONE: u32 = u32::MAX;

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    Ok(Box::new(Changelist { epoll: Epoll::new()?, changes: Vec::new(), by_number: Vec::new() }))
}

#[derive(Debug)]
struct Change {
    number: RawFd,
    token: u64,
    /// `None`: it is not to be watched.
    interest: Option<Interest>,
    /// Whether the kernel has it already.
    entry: Entry,
}

/// An epoll whose changes wait for the next wait.
#[derive(Debug)]
struct Changelist {
    epoll: Epoll,
    changes: Vec<Change>,
    /// By number: where its change is, or `NONE`.
    by_number: Vec<u32>,
}

impl Changelist {
    fn change(&mut self, number: RawFd, token: u64, interest: Option<Interest>, entry: Entry) {
        let Ok(at) = usize::try_from(number) else { return };
        if self.by_number.len() <= at {
            self.by_number.resize(at + 1, NONE);
        }
        match self.changes.get_mut(self.by_number[at] as usize) {
            Some(change) => (change.token, change.interest) = (token, interest),
            None => {
                self.by_number[at] = self.changes.len() as u32;
                self.changes.push(Change { number, token, interest, entry });
            }
        }
    }
}

impl Backend for Changelist {
    fn method(&self) -> &'static str {
        "epoll (with changelist)"
    }

    fn features(&self) -> Features {
        self.epoll.features()
    }

    fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
        entry: Entry,
    ) -> Result<(), WatchError> {
        self.change(fd.as_raw_fd(), token, Some(interest), entry);
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.change(fd.as_raw_fd(), 0, None, Entry::Known);
    }

    fn rest(&mut self, fd: BorrowedFd<'_>, spent: bool) {
        if spent {
            self.epoll.leave(fd.as_raw_fd(), spent);
        } else {
            self.unwatch(fd);
        }
    }

    /// At once: with the next wait the number is another file's.
    fn forget(&mut self, fd: BorrowedFd<'_>) {
        let number = fd.as_raw_fd();
        self.epoll.clear_left(number);
        let at = usize::try_from(number).ok().and_then(|at| self.by_number.get(at));
        let Some(change) = at.and_then(|at| self.changes.get_mut(*at as usize)) else { return };
        if change.interest.is_none() && change.entry == Entry::Known {
            self.epoll.clear(number);
            change.entry = Entry::New;
        }
    }

    fn mute(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) {
        self.apply();
        self.epoll.mute(fd, token, interest);
    }

    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        self.apply();
        self.epoll.unmute(number, token, interest);
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        self.apply();
        self.epoll.wait(timeout, reports)
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.pollable()
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        self.apply();
        Ok(())
    }

    fn apply(&mut self) {
        for Change { number, token, interest, entry } in self.changes.drain(..) {
            self.by_number[number as usize] = NONE;
            match (interest, entry) {
                (None, Entry::New) => {}
                (None, Entry::Known) => self.epoll.clear(number),
                (Some(interest), entry) => {
                    if let Err(e) = self.epoll.set(number, token, interest, entry) {
                        log::warn!("fd {number} can't be watched: {e}");
                    }
                }
            }
        }
    }
}
