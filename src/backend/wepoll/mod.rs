//! wepoll: the scalable method of Windows. Each socket is polled by the driver of all sockets, `\Device\Afd`, and the answers come by an I/O completion port.
//!
//! The name is libevent 2.2's, after the library that showed how. What the driver takes is not in Microsoft's manuals, but has been the same since Windows Vista,
//! and `select` and `WSAPoll` are made of it.
//!
//! Kernel facts and defects:
//! - A poll is one-shot: it ends with its answer. So what is still wanted after a report is polled again just before the next wait, which looks at the socket anew: that is
//!   level-triggered, and an edge can't be had.
//! - One poll may have several sockets, and its answer ends it for all. Those that are to be polled again go together, as what was active together once is so again: ten active sockets
//!   are one call a round and not ten. So that one that is active alone does not have too many polled again with it, there are at most 16.
//! - An answer is as old as its being queued: what was read since is still told by it. So one that was queued before the wait began is looked at again, with one `WSAPoll` for all
//!   of them, else somebody would be told to read what is not there, and not be told of what has come since.
//! - A reset, a failed connect and a close of the peer stay, and are not looked at again. That also keeps away from `WSAPoll`'s own defect: before Windows 10 version 2004
//!   it does not know of failed connects.
//! - A poll can't be changed, only cancelled, and its memory is the kernel's until its answer has come (`real.rs`).
//! - Only sockets can be polled: no pipes, no files, no consoles.
//! - A socket that is closed ends its poll with an answer that says so, and is forgotten.
//!
//! As part of another loop: a thread takes the answers and makes a socket readable. What was reported is polled again with `apply`, so that has to be called before the outer
//! loop sleeps, which `Base::arm_pollable` does.
//!
//! Source: wepoll's README and its documents; libevent 2.2, epoll.c; Wine, server/sock.c.

mod calls;

pub use calls::{Calls, Events, MOST};

use super::table::Table;
use super::{Backend, Entry, Features, Interest, Mode, Report, WatchError};
use evd_proto::What;
use evd_proto::sys::{self, AsRawFd, BAD_FD, BorrowedFd, PollFd, RawFd};
use std::io;
use std::time::{Duration, Instant};

/// libevent's are the same.
pub(super) const FEATURES: Features = Features::O1.union(Features::EARLY_CLOSE);

/// What is told whether it was asked for or not: as elsewhere.
const ALWAYS: Events = Events::ABORT.union(Events::CONNECT_FAIL).union(Events::LOCAL_CLOSE);

fn events_of(live: What) -> Events {
    let mut events = ALWAYS;
    if live.contains(What::READ) {
        events |= Events::RECEIVE | Events::ACCEPT | Events::DISCONNECT;
    }
    if live.contains(What::WRITE) {
        events |= Events::SEND;
    }
    if live.contains(What::CLOSED) {
        events |= Events::DISCONNECT;
    }
    events
}

/// As epoll tells it: the end of the peer is READ and CLOSED, an error is everything.
fn ready_of(events: Events) -> What {
    let mut ready = What::empty();
    if events.intersects(Events::RECEIVE | Events::ACCEPT) {
        ready |= What::READ;
    }
    if events.contains(Events::SEND) {
        ready |= What::WRITE;
    }
    if events.contains(Events::DISCONNECT) {
        ready |= What::READ | What::CLOSED;
    }
    if events.intersects(Events::ABORT | Events::CONNECT_FAIL) {
        ready |= What::IO;
    }
    ready
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The kernel has a poll of it, or its answer.
    there: bool,
    dirty: bool,
    /// The wait that asked for it.
    round: u32,
}

/// The driver's polls. `C` is the kernel's side, or a test's model of it.
#[derive(Debug)]
pub struct Wepoll<C> {
    calls: C,
    table: Table,
    /// As long as the table's rows and in the same order.
    told: Vec<Told>,
    dirty: Vec<RawFd>,
    came: Vec<(RawFd, Events)>,
    looks: Vec<PollFd>,
    /// What this wait has reported, to be polled again by the next.
    reported: Vec<RawFd>,
    /// Counts waits.
    round: u32,
}

impl<C: Calls> Wepoll<C> {
    /// Watches nothing yet.
    pub fn on(calls: C) -> Wepoll<C> {
        Wepoll {
            calls,
            table: Table::new(What::IO),
            told: Vec::new(),
            dirty: Vec::new(),
            came: Vec::new(),
            looks: Vec::new(),
            reported: Vec::new(),
            round: 0,
        }
    }

    fn touch(&mut self, at: usize) {
        if !std::mem::replace(&mut self.told[at].dirty, true) {
            self.dirty.push(self.table.rows()[at].number);
        }
    }

    /// Has `sockets` polled together; if that can't be, each alone.
    fn ask(&mut self, sockets: &[(RawFd, Events)]) {
        let Err(e) = self.calls.poll(sockets) else { return };
        if let [(number, _)] = sockets {
            log::warn!("socket {number} can't be watched any more: {e}");
            if let Some(at) = self.table.row_of(*number) {
                self.told[at].there = false;
            }
            return;
        }
        sockets.iter().for_each(|one| self.ask(std::slice::from_ref(one)));
    }

    fn tell_all(&mut self) {
        let mut batch = [(-1, Events::empty()); MOST];
        let mut len = 0;
        while let Some(number) = self.dirty.pop() {
            let Some(at) = self.table.row_of(number) else { continue };
            if !std::mem::take(&mut self.told[at].dirty) {
                continue;
            }
            let live = self.table.rows()[at].live;
            let was = std::mem::replace(&mut self.told[at].there, !live.is_empty());
            self.told[at].round = self.round;
            if !live.is_empty() {
                batch[len] = (number, events_of(live));
                len += 1;
            } else if was {
                self.calls.cancel(number);
            }
            if len == MOST {
                self.ask(&batch);
                len = 0;
            }
        }
        if len > 0 {
            self.ask(&batch[..len]);
        }
    }

    fn remove(&mut self, number: RawFd) {
        if let Some(at) = self.table.remove(number) {
            self.told.swap_remove(at);
            self.calls.cancel(number);
        }
    }

    /// What is queued, in `came`: without those that are not watched, and without those whose socket is gone.
    fn take(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut came = std::mem::take(&mut self.came);
        came.clear();
        let taken = self.calls.take(&mut came, timeout);
        came.retain(|&(number, events)| {
            let Some(at) = self.table.row_of(number) else { return false };
            self.told[at].there = false;
            if events.contains(Events::LOCAL_CLOSE) {
                self.remove(number);
                return false;
            }
            true
        });
        self.came = came;
        taken
    }

    /// Looks again at those of `came` that were asked before this wait: what is so no more is taken away, and what has become so is added.
    fn look_again(&mut self) -> io::Result<()> {
        let lasts = Events::ABORT | Events::CONNECT_FAIL | Events::DISCONNECT;
        self.looks.clear();
        let mut any = false;
        for &(number, events) in &self.came {
            let old = self.table.row_of(number).filter(|at| self.told[*at].round != self.round);
            let sure = events.is_empty() || old.is_none();
            any |= !sure;
            // -1 is passed over. The same is asked of all, wanted or not: of two numbers of one socket Wine tells only what both are asked for.
            self.looks.push(PollFd::new(if sure { -1 } else { number }, What::IO));
        }
        if !any {
            return Ok(());
        }
        sys::poll(&mut self.looks, Some(Duration::ZERO))?;
        for ((number, events), look) in self.came.iter_mut().zip(&self.looks) {
            let Some(at) = self.table.row_of(*number).filter(|_| look.number() >= 0) else { continue };
            let gone = if events.intersects(lasts) { What::empty() } else { What::IO - look.ready() };
            let (new, live) = (look.strictly_ready(), self.table.rows()[at].live);
            if gone.contains(What::READ) {
                events.remove(Events::RECEIVE | Events::ACCEPT);
            }
            if gone.contains(What::WRITE) {
                events.remove(Events::SEND);
            }
            if (new & live).contains(What::READ) {
                events.insert(Events::RECEIVE);
            }
            if (new & live).contains(What::WRITE) {
                events.insert(Events::SEND);
            }
            // An end is something to read.
            if new.contains(What::CLOSED) && live.intersects(What::READ | What::CLOSED) {
                events.insert(Events::DISCONNECT);
            }
        }
        Ok(())
    }

    fn report(&mut self, reports: &mut Vec<Report>) {
        for i in 0..self.came.len() {
            let (number, events) = self.came[i];
            let Some(at) = self.table.row_of(number) else { continue };
            let row = &self.table.rows()[at];
            let (token, mode, ready) = (row.token, row.mode, ready_of(events));
            if ready.is_empty() {
                self.touch(at);
                continue;
            }
            reports.push(Report { token, ready });
            if mode == Mode::OneShot {
                self.table.pause(at);
            } else {
                // Not again with this wait, also if it was to be polled for another reason.
                self.told[at].dirty = false;
                self.reported.push(number);
            }
        }
    }
}

impl<C: Calls> Backend for Wepoll<C> {
    fn method(&self) -> &'static str {
        "wepoll"
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
        if interest.mode == Mode::Edge {
            return Err(WatchError::Unsupported("wepoll has no edge-triggered watches; ask for level"));
        }
        let refused = |e: io::Error| match e.raw_os_error() {
            Some(BAD_FD) => WatchError::BadFd,
            _ => WatchError::Os(e),
        };
        let number = fd.as_raw_fd();
        let known = self.table.row_of(number);
        if known.is_none() || entry == Entry::New {
            self.calls.enter(number).map_err(refused)?;
        }
        let at = self.table.set(fd, token, interest)?;
        if known.is_some() {
            self.touch(at);
            return Ok(());
        }
        // A new one at once, so that it can be refused; alone, as nothing is known of it.
        self.told.push(Told { there: true, dirty: false, round: self.round });
        self.calls.poll(&[(number, events_of(interest.what))]).map_err(|e| {
            self.table.remove(number);
            self.told.pop();
            refused(e)
        })
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.remove(fd.as_raw_fd());
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
        let before = reports.len();
        self.round = self.round.wrapping_add(1);
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        // First what is there already, as that may be old.
        let (mut left, mut is_first) = (Some(Duration::ZERO), true);
        let waited = loop {
            self.tell_all();
            let mut waited = self.take(left);
            if is_first && waited.is_ok() {
                waited = self.look_again();
            }
            self.report(reports);
            if waited.is_err() || reports.len() > before {
                break waited;
            }
            // An answer may have been none but that some are to be asked again.
            if self.came.is_empty() && (!is_first || timeout == Some(Duration::ZERO)) {
                break Ok(());
            }
            is_first = false;
            left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        };
        while let Some(number) = self.reported.pop() {
            if let Some(at) = self.table.row_of(number) {
                self.touch(at);
            }
        }
        waited
    }

    /// What is queued may not be so any more, and then would keep the pollable socket readable: it is asked for anew.
    fn apply(&mut self) {
        if let Err(e) = self.take(Some(Duration::ZERO)) {
            log::warn!("wepoll: {e}");
        }
        for i in 0..self.came.len() {
            if let Some(at) = self.table.row_of(self.came[i].0) {
                self.touch(at);
            }
        }
        self.tell_all();
        self.calls.settle();
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.calls.pollable()
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        self.calls.make_pollable()?;
        self.apply();
        Ok(())
    }
}
