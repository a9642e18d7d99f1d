//! The holds of one user: the table, when each expires, and the parcel that outlives evd.

use super::giving;
use super::parcel::{Leaving, Left, Parcel};
use super::store::{NotStored, Store};
use crate::session::books::Charge;
use evd_proto::What;
use evd_proto::reply::HoldInfo;
use evd_proto::request::Attach;
use evd_proto::sys::{self, FileKind, PollFd};
use evd_proto::sys::{AsFd, AsRawFd, OwnedFd};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// How long what was let go may stay in the parcel, in nanoseconds: what goes meanwhile goes with it.
const SOON: u64 = 5_000_000;
/// Making a parcel anew takes at most one part of so many of the worker's time...
const SHARE: u64 = 20;
/// ...unless it was not done for so long.
pub(super) const LATEST: u64 = 1_000_000_000;
/// When a service manager that does not answer is asked again to let something go, in nanoseconds: his worker waits for it each time.
const AGAIN: u64 = 10_000_000_000;
/// A log that has so many bytes more than its holds is written anew.
const SLACK: u64 = 8 << 20;

/// One held fd.
pub(super) struct Held {
    pub number: u64,
    pub fd: Arc<OwnedFd>,
    kind: FileKind,
    ino: u64,
    pub attachment: Arc<[u8]>,
    pub since: u64,
    /// When it is let go, in nanoseconds; 0: never.
    pub expires: u64,
    pub pid: i32,
    pub giver: String,
    pub taking: Option<u64>,
    _charges: [Charge; 2],
}

/// What is given to a taker.
pub(super) struct Given {
    /// 0: it stays held.
    pub number: u64,
    pub fd: Arc<OwnedFd>,
    pub attachment: Arc<[u8]>,
    /// Nanoseconds left; 0: no limit.
    pub left: u64,
}

/// Who gives it.
pub(super) struct Giver {
    pub pid: i32,
    pub name: String,
}

/// The holds of one user.
#[derive(Default)]
pub(super) struct Book {
    pub table: BTreeMap<String, Held>,
    pub names: HashMap<u64, String>,
    /// When which hold expires.
    pub times: BTreeSet<(u64, u64)>,
    pub bytes: usize,
    pub parcel: Option<Parcel>,
    /// When the store is to be put right: the parcel made anew, or what is leaving taken out.
    pub dirty: Option<u64>,
    /// Something in the parcel is dead.
    is_stale: bool,
    not_before: u64,
    /// Parcels of earlier evds that are not read yet, or have no successor in the store yet; those not to be read are marked.
    pub left: Vec<(Left, bool)>,
    /// What must go from the store before anything else is put there.
    leaving: Vec<Leaving>,
    pub is_unread: bool,
    /// How often in a row there were too few fds to read what is left, or to put the store right, or too little room in that. Unless it is 0, it is tried again when it is
    /// the user's turn, see `turns`, and not before.
    pub short: u32,
}

impl Book {
    pub fn insert(&mut self, name: String, held: Held) -> Option<Held> {
        self.bytes += held.attachment.len();
        self.names.insert(held.number, name.clone());
        if held.expires != 0 {
            self.times.insert((held.expires, held.number));
        }
        let old = self.table.insert(name, held);
        if let Some(old) = &old {
            self.unlist(old);
        }
        old
    }

    fn unlist(&mut self, held: &Held) {
        self.bytes -= held.attachment.len();
        self.names.remove(&held.number);
        self.times.remove(&(held.expires, held.number));
    }

    /// Marks as being taken what fits a frame. What can be read comes first: that is what a program that has just started must serve.
    pub fn give_all(&mut self, prefix: &str, session: u64, most: usize) -> (Vec<(String, Given)>, bool) {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let all = self.table.range_mut::<str, _>(from).take_while(|(name, _)| name.starts_with(prefix));
        let all: Vec<(&String, &mut Held)> = all.filter(|(_, h)| h.taking.is_none()).collect();
        let mut look: Vec<PollFd> =
            all.iter().map(|(_, h)| PollFd::new(h.fd.as_raw_fd(), What::READ)).collect();
        // Without an answer all of them count as not ready.
        let _ = sys::poll(&mut look, Some(Duration::ZERO));
        let mut all: Vec<_> = look.iter().map(|seen| seen.ready().is_empty()).zip(all).collect();
        // Stable: by name otherwise.
        all.sort_by_key(|(waits, _)| *waits);
        let (mut given, mut room, count) = (Vec::new(), giving::ROOM, all.len());
        for (_, (name, held)) in all {
            let long = held.attachment.len() > Attach::INLINE;
            // Beside the name: the number, the time, and two lengths.
            let bytes = 32 + name.len() + if long { 0 } else { held.attachment.len() };
            // A long one goes first, as its attachment is said before.
            if given.len() == most || bytes > room || (long && !given.is_empty()) {
                break;
            }
            room -= bytes;
            held.taking = Some(session);
            given.push((name.clone(), held.give(false)));
        }
        let more = given.len() < count;
        (given, more)
    }

    /// These are no longer held, also for the next evd.
    pub fn let_go(&mut self, names: &[String]) {
        let gone: Vec<Held> = names.iter().filter_map(|n| self.table.remove(n)).collect();
        gone.iter().for_each(|h| self.unlist(h));
        if gone.is_empty() {
            return;
        }
        let numbers = gone.iter().map(|h| h.number);
        let written = match &mut self.parcel {
            Some(parcel) => parcel.forget(numbers),
            // What is of an earlier evd may not be stored anew yet: at most one of these was read.
            None => self.left.iter_mut().try_for_each(|(left, _)| left.forget(numbers.clone())),
        };
        if let Err(e) = written {
            log::warn!("can't write down what is no longer held: {e}");
            self.not_before = 0;
        }
        self.soon(sys::monotonic_ns());
    }

    /// Something in the parcel is dead.
    pub fn soon(&mut self, now: u64) {
        if self.parcel.is_none() && self.left.is_empty() {
            return;
        }
        self.is_stale = true;
        if self.short == 0 {
            let at = (now + SOON).max(self.not_before);
            self.dirty = Some(self.dirty.map_or(at, |d| d.min(at)));
        }
    }

    /// Puts new holds into the parcel; makes it anew where that is not possible.
    pub fn add(&mut self, uid: u32, store: &Store, new: &[(String, Held)]) -> io::Result<()> {
        let live = self.bytes as u64 + 256 * self.table.len() as u64;
        if let Some(parcel) = self.parcel.as_mut().filter(|p| p.len < live + live / 2 + SLACK) {
            match parcel.add_all(new.iter().map(|(n, h)| (n.as_str(), h))) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => {
                    // What came of it is dead.
                    self.soon(sys::monotonic_ns());
                    return Err(e);
                }
            }
        }
        let done = self.repack(uid, store, new);
        if let (Err(e), false, 0) = (&done, self.leaving.is_empty(), self.short) {
            self.put_off(e);
        }
        done
    }

    /// Puts the store right: nothing is to be found there but one parcel, of what is held.
    pub fn tidy(&mut self, uid: u32, store: &Store) {
        if !self.is_stale && self.left.is_empty() {
            return self.clear(uid, store);
        }
        if let Err(e) = self.repack(uid, store, &[]) {
            if self.short == 0 {
                log::error!("the holds of user {uid} can't be stored anew: {e}");
            }
            self.put_off(&e);
        }
    }

    /// The store could not be put right: when it is tried again.
    fn put_off(&mut self, why: &io::Error) {
        let is_full = why.kind() == io::ErrorKind::StorageFull;
        if is_full || sys::is_shortage(why) || why.raw_os_error() == Some(sys::TOO_MANY_IN_FLIGHT) {
            // No time of his own: a worker that waits for it has fds that others may be short of.
            self.dirty = None;
            self.short += 1;
        } else {
            let pause = if self.leaving.is_empty() { LATEST } else { AGAIN };
            self.dirty = Some(sys::monotonic_ns() + pause);
            self.short = 0;
        }
    }

    /// As [`Book::clear_away`], later if it can't be done now.
    fn clear(&mut self, uid: u32, store: &Store) {
        match self.clear_away(store) {
            Ok(()) => (self.dirty, self.short) = (None, 0),
            Err(e) => {
                if self.short == 0 {
                    log::warn!("what user {uid} does not hold any more can't leave the store: {e}");
                }
                self.put_off(&e);
            }
        }
    }

    /// Takes out of the store what nobody is to find there, and closes it.
    fn clear_away(&mut self, store: &Store) -> io::Result<()> {
        if !self.leaving.is_empty() {
            Leaving::leave(&self.leaving, store)?;
            self.leaving.clear();
        }
        Ok(())
    }

    /// Makes the parcel anew, with `new` beside what is held. The old one goes when the new one is stored.
    fn repack(&mut self, uid: u32, store: &Store, new: &[(String, Held)]) -> io::Result<()> {
        let start = sys::monotonic_ns();
        self.clear_away(store)?;
        let replaced: BTreeSet<&String> = new.iter().map(|(n, _)| n).collect();
        let held = self.table.iter().filter(|(n, _)| !replaced.contains(n));
        let mut all = held.chain(new.iter().map(|(n, h)| (n, h))).peekable();
        let mut next = None;
        if all.peek().is_some() {
            let newest = self.left.iter().map(|(l, _)| l.generation + 1).max().unwrap_or(0);
            let parcel = Parcel::pack(uid, start.max(newest), all)?;
            if let Err(NotStored { why, may_be_there }) = parcel.store(store) {
                if may_be_there {
                    // The next evd is not to take it for the newest state: what is held and let go from now on is written elsewhere.
                    if let Err(e) = parcel.void() {
                        log::warn!("a parcel of user {uid} that may be stored counts still: {e}");
                    }
                    // What is new may be nowhere else by then.
                    self.leaving.push(parcel.into());
                }
                // One that does not answer was waited for long enough.
                if why.kind() == io::ErrorKind::StorageFull {
                    let _ = self.clear_away(store);
                }
                return Err(why);
            }
            next = Some(parcel);
        }
        self.leaving.extend(std::mem::replace(&mut self.parcel, next).map(Leaving::from));
        self.leaving.extend(self.left.drain(..).map(|(left, _)| left.into()));
        self.is_stale = false;
        self.clear(uid, store);
        let now = sys::monotonic_ns();
        self.not_before = now + ((now - start) * SHARE).min(LATEST);
        Ok(())
    }
}

impl Held {
    pub fn new(
        number: u64,
        fd: OwnedFd,
        attachment: Arc<[u8]>,
        times: (u64, u64),
        giver: &Giver,
        charges: [Charge; 2],
    ) -> Held {
        let file = sys::look(fd.as_fd());
        let (kind, ino) = file.map_or((FileKind::Other, 0), |f| (f.kind, f.ino));
        let (since, expires) = times;
        let (pid, giver) = (giver.pid, giver.name.clone());
        Held {
            number,
            fd: Arc::new(fd),
            kind,
            ino,
            attachment,
            since,
            expires,
            pid,
            giver,
            taking: None,
            _charges: charges,
        }
    }

    #[cfg(test)]
    pub fn for_test(fd: OwnedFd, attachment: &[u8]) -> Held {
        use crate::session::books::{Books, Quotas};
        use evd_proto::reply::Resource;
        const KINDS: usize = Resource::ALL.len();
        let account = Books::new(Quotas { each: [9; KINDS], whole: [9; KINDS] }).account(1);
        let charges = [Resource::Holds, Resource::HoldBytes].map(|what| account.charge_anyway(what, 1));
        Held::new(0, fd, attachment.into(), (1, 0), &Giver { pid: 1, name: "test".into() }, charges)
    }

    pub fn give(&self, keep: bool) -> Given {
        let left = match self.expires {
            0 => 0,
            at => at.saturating_sub(sys::monotonic_ns()).max(1),
        };
        let number = if keep { 0 } else { self.number };
        Given { number, fd: Arc::clone(&self.fd), attachment: Arc::clone(&self.attachment), left }
    }

    /// Whether it is a held name: a counter.
    pub fn is_counter(&self) -> bool {
        self.kind == FileKind::EventFd
    }

    pub fn info(&self, name: &str, now: u64) -> HoldInfo {
        HoldInfo {
            name: name.to_owned(),
            kind: self.kind,
            ino: self.ino,
            ready: What::empty(),
            count: 0,
            attachment: self.attachment.len() as u32,
            age: now.saturating_sub(self.since),
            left: if self.expires == 0 { 0 } else { self.expires.saturating_sub(now).max(1) },
            pid: self.pid,
            giver: self.giver.clone(),
        }
    }
}
