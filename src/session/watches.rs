//! The watches of a session: what is parked here, what the client serves itself, and what is to be reported.
//!
//! A watch is a few bytes in a table by the client's id. The kernel has id and seq as its token, so a report of an older arm is known as such. Where
//! the method does not need it and the file's identity is unique, no fd is kept: the arm goes through the worker's slot.

use super::allowed;
use super::books::{Account, Purse};
use super::identify;
use super::pages::Pages;
use super::{Refusal, Shares};
use crate::backend::{Entry, Features, Interest, Mode, WatchError};
use crate::base::Base;
use evd_proto::What;
use evd_proto::notice::ActiveWatch;
use evd_proto::reply::{Code, Resource};
use evd_proto::request::{ArmHandle, ArmWatch, LocalWatch};
use evd_proto::sys::{self, FileKind, NotPulled, PulledHandle, Slot};
use evd_proto::sys::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

bitflags::bitflags! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Flags: u8 {
        /// evd waits for it.
        const ARMED = 0x01;
        /// It stays armed when it is reported.
        const EDGE = 0x02;
        /// The kernel has an entry of it under the slot's number, most likely.
        const ENTERED = 0x04;
        /// It is in the list of what is to be reported.
        const LISTED = 0x08;
        /// There is something to report.
        const DUE = 0x10;
        /// The client serves it itself.
        const LOCAL = 0x20;
        /// The client has it: it is shown.
        const KNOWN = 0x40;
        /// It was armed at least once: `seq` counts.
        const COUNTED = 0x80;
    }
}

/// Why files are not watched that need not be.
pub(super) const ALWAYS_READY: &str =
    "regular files, directories and the like are always ready: no method waits for them";
/// Which watches need a copy.
const KEEPS: &str = "it keeps one for each watch of a method but epoll, and for eventfds and the like";

/// What the kernel has is not counted before it may be so much.
const FEW_ENTRIES: u64 = 1024;
/// What is told of one watch takes about so many bytes.
const TOLD: u64 = 192;

/// One watch.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub count: u64,
    /// When it was last active; 0: never.
    pub last: u64,
    pub seq: u32,
    pub interest: What,
    ready: What,
    pub flags: Flags,
    /// Our copy, where one must be kept.
    pub kept: Option<Kept>,
}

/// What is kept of a watch while it is armed.
#[derive(Debug)]
pub(super) enum Kept {
    Fd(OwnedFd),
    Handle(PulledHandle),
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Kept::Fd(fd) => fd.as_fd(),
            Kept::Handle(handle) => handle.as_fd(),
        }
    }
}

/// What the client told about a watch that it serves, or served, itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub kind: Option<FileKind>,
    pub ino: u64,
    pub label: String,
}

impl Refusal {
    fn bad(text: String) -> Refusal {
        Refusal::new(Code::BadRequest, text)
    }

    pub(super) fn not_watchable(errno: i32, text: &str) -> Refusal {
        Refusal { code: Code::NotWatchable, limit: 0, value: errno as u64, text: text.to_owned() }
    }
}

/// The watches of one session.
#[derive(Debug)]
pub(super) struct Watches {
    pub table: Pages<Watch>,
    /// Ids with something to report, in the order in which it came.
    due: Vec<u32>,
    pub told: BTreeMap<u32, Told>,
    limit: u32,
    /// Epolls may be watched.
    nests: bool,
    method: &'static str,
    edge: bool,
    /// The method needs the fd for as long as it is armed.
    copies: bool,
    /// Those that are armed.
    armed: Purse,
    /// Those that have a copy here.
    kept: Purse,
    /// What the kernel may have of them, and at what number it is to be counted again.
    entries: Purse,
    count_at: u64,
    bytes: Purse,
    /// Numbers below this may be kept. evd's fds are everybody's: if none were left for those that are passed, other clients' frames would lose theirs.
    most_kept: RawFd,
}

/// The seq as it fits into a token, whose top bit belongs to the base.
fn short(seq: u32) -> u32 {
    seq & 0x7fff_ffff
}

fn token(id: u32, seq: u32) -> u64 {
    u64::from(id) | u64::from(short(seq)) << 32
}

/// The id and the shortened seq of a token.
pub(super) fn untoken(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}

impl Watches {
    pub fn new(base: &Base, limit: u32, nests: bool, account: &Arc<Account>) -> Watches {
        Watches {
            armed: account.purse(Resource::Watches),
            kept: account.purse(Resource::Copies),
            entries: account.purse(Resource::Entries),
            count_at: FEW_ENTRIES,
            bytes: account.purse(Resource::Tables),
            table: Pages::default(),
            due: Vec::new(),
            told: BTreeMap::new(),
            limit,
            nests,
            method: base.method(),
            edge: base.features().contains(Features::ET),
            copies: base.method() != "epoll",
            most_kept: Shares::now().kept,
        }
    }

    /// So many are to be armed: what is missing for them is reserved at once. What can't be reserved is refused one by one.
    pub fn expect(&mut self, base: &mut Base, count: usize) {
        let count = count as u64;
        let _ = self.armed.reserve(count);
        if self.copies {
            let _ = self.kept.reserve(count);
            return;
        }
        let plausible = self.entries.used() <= self.count_at.max(2 * self.armed.used() + FEW_ENTRIES);
        if !plausible || self.entries.reserve(count).is_err() {
            self.count_entries(base);
            let _ = self.entries.reserve(count);
        }
    }

    /// The kernel forgets an entry with its file and does not tell. So what was added is an upper bound, and now and then it is looked at: each time that
    /// it has doubled, so that what a look costs is a small part of what the adding did.
    fn count_entries(&mut self, base: &mut Base) {
        let Some(found) = identify::count(base) else { return };
        self.entries.give(self.entries.used().saturating_sub(found));
        self.count_at = 2 * self.entries.used() + FEW_ENTRIES;
    }

    /// Arms one watch through `slot`, which the caller clears after the last of a frame.
    pub fn arm(
        &mut self,
        base: &mut Base,
        slot: &mut Slot,
        arm: &ArmWatch,
        fd: OwnedFd,
    ) -> Result<(), Refusal> {
        let interest = self.admit(arm)?;
        let keep = arm.flags & ArmWatch::KEEP != 0;
        if keep || self.copies {
            if keep {
                allowed::check(fd.as_fd(), self.nests)?;
            }
            return self.arm_kept(base, arm, interest, Kept::Fd(fd));
        }
        let (id, token) = (arm.id, token(arm.id, arm.seq));
        let watch = self.table.entry(id);
        let entry = if watch.flags.contains(Flags::ENTERED) { Entry::Known } else { Entry::New };
        if entry == Entry::New {
            self.entries.reserve(1)?;
        }
        let placed = slot.place(fd.as_fd()).map_err(|e| refusal(WatchError::Os(e)))?;
        let added = base.added();
        base.watch(placed, token, interest, entry).map_err(refusal)?;
        watch.flags |= Flags::ENTERED;
        if base.added() != added {
            if let Err(e) = self.entries.take(1) {
                // The file that the kernel knew is gone, and there is no room for this one.
                base.unwatch(placed, token);
                watch.flags &= !Flags::ENTERED;
                return Err(e.into());
            }
        }
        self.armed(base, arm, None)
    }

    /// Arms the watch of a handle of the process at the other end of `connection`.
    pub fn arm_handle(
        &mut self,
        base: &mut Base,
        connection: BorrowedFd<'_>,
        arm: &ArmHandle,
    ) -> Result<(), Refusal> {
        let ArmHandle { id, seq, interest, handle } = *arm;
        let arm = ArmWatch { id, seq, interest, flags: ArmWatch::KEEP };
        let interest = self.admit(&arm)?;
        let pulled = sys::pull_handle(connection, handle)
            .map_err(|NotPulled { code, text }| Refusal::not_watchable(code, &text))?;
        self.arm_kept(base, &arm, interest, Kept::Handle(pulled))
    }

    /// Whether this may be armed, as far as can be told without what it is to watch.
    fn admit(&mut self, arm: &ArmWatch) -> Result<Interest, Refusal> {
        let ArmWatch { id, seq, interest, flags } = *arm;
        if id >= self.limit {
            let text = format!("watch {id}: ids of watches must be below {}", self.limit);
            let (limit, value) = (u64::from(self.limit), u64::from(id));
            return Err(Refusal { code: Code::Limit, limit, value, text });
        }
        if flags & !(ArmWatch::EDGE | ArmWatch::KEEP) != 0 {
            return Err(Refusal::bad(format!("watch {id}: unknown flags {flags:#04x}")));
        }
        if interest.is_empty() || !What::IO.contains(interest) {
            let what = if interest.is_empty() { "nothing".to_owned() } else { interest.to_string() };
            let text = format!("watch {id}: {what} can't be waited for, only READ, WRITE and CLOSED");
            return Err(Refusal::bad(text));
        }
        let edge = flags & ArmWatch::EDGE != 0;
        if edge && !self.edge {
            return Err(Refusal::bad(format!("{} has no edge-triggered watches", self.method)));
        }
        self.bytes.take(self.table.cost(id))?;
        let watch = self.table.entry(id);
        if !watch.flags.contains(Flags::ARMED) {
            self.armed.reserve(1)?;
        }
        if watch.flags.contains(Flags::COUNTED) && seq.wrapping_sub(watch.seq) as i32 <= 0 {
            let text = format!("watch {id}: seq {seq} is not newer than {}", watch.seq);
            return Err(Refusal::bad(text));
        }
        Ok(Interest { what: interest, mode: if edge { Mode::Edge } else { Mode::OneShot } })
    }

    /// Watches what is kept for as long as it is armed.
    fn arm_kept(
        &mut self,
        base: &mut Base,
        arm: &ArmWatch,
        interest: Interest,
        kept: Kept,
    ) -> Result<(), Refusal> {
        let number = kept.as_fd().as_raw_fd();
        if number >= self.most_kept {
            return Err(Refusal {
                code: Code::OutOfFds,
                limit: self.most_kept as u64,
                value: number as u64,
                text: format!("evd has no fds left to keep copies of watched ones; {KEEPS}"),
            });
        }
        self.kept.take(1)?;
        if let Err(e) = base.watch(kept.as_fd(), token(arm.id, arm.seq), interest, Entry::New) {
            self.kept.give(1);
            return Err(refusal(e));
        }
        self.armed(base, arm, Some(kept))
    }

    /// Notes that the kernel waits for it now, and not for what the watch was before.
    fn armed(&mut self, base: &mut Base, arm: &ArmWatch, kept: Option<Kept>) -> Result<(), Refusal> {
        let watch = self.table.entry(arm.id);
        let old = token(arm.id, watch.seq);
        let_go(watch, base, &mut self.kept, old);
        if !watch.flags.contains(Flags::ARMED) {
            self.armed.take(1)?;
        }
        watch.kept = kept;
        watch.seq = arm.seq;
        watch.interest = arm.interest;
        watch.flags &= !(Flags::EDGE | Flags::LOCAL | Flags::DUE);
        watch.flags |= Flags::ARMED | Flags::KNOWN | Flags::COUNTED;
        watch.flags.set(Flags::EDGE, arm.flags & ArmWatch::EDGE != 0);
        Ok(())
    }

    /// Takes a watch back. With its fd the kernel forgets the entry at once; else it may report once more, and that is ignored.
    pub fn disarm(&mut self, base: &mut Base, slot: &mut Slot, id: u32, fd: Option<OwnedFd>) {
        let Some(watch) = self.table.get_mut(id) else { return };
        rest(watch, &mut self.armed);
        watch.flags &= !Flags::DUE;
        let token = token(id, watch.seq);
        if watch.kept.is_some() {
            let_go(watch, base, &mut self.kept, token);
        } else if let Some(fd) = fd {
            if let Ok(placed) = slot.place(fd.as_fd()) {
                // What it was counted as in the kernel is given back by the next look.
                base.unwatch(placed, token);
                watch.flags &= !Flags::ENTERED;
            }
        }
    }

    /// Takes in a report of the base. `Some`: it counts, for this id.
    pub fn report(&mut self, base: &mut Base, token: u64, ready: What, now: u64) -> Option<u32> {
        let (id, seq) = untoken(token);
        let watch = self.table.get_mut(id)?;
        if !watch.flags.contains(Flags::ARMED) || short(watch.seq) != seq {
            return None;
        }
        watch.count += 1;
        watch.last = now;
        watch.ready = if watch.flags.contains(Flags::DUE) { watch.ready | ready } else { ready };
        if !watch.flags.contains(Flags::EDGE) {
            rest(watch, &mut self.armed);
            let_go(watch, base, &mut self.kept, token);
        }
        watch.flags |= Flags::DUE;
        if !watch.flags.contains(Flags::LISTED) {
            watch.flags |= Flags::LISTED;
            self.due.push(id);
        }
        Some(id)
    }

    /// Whether something is to be reported.
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Moves at most `most` reports to `into`.
    pub fn take_due(&mut self, most: usize, into: &mut Vec<ActiveWatch>) {
        let table = &mut self.table;
        for id in self.due.drain(..most.min(self.due.len())) {
            let Some(watch) = table.get_mut(id) else { continue };
            watch.flags &= !Flags::LISTED;
            if watch.flags.contains(Flags::DUE) {
                watch.flags &= !Flags::DUE;
                into.push(ActiveWatch { id, seq: watch.seq, ready: watch.ready });
            }
        }
    }

    /// Notes what the client says of a watch that it serves itself. Ids over the limit are passed over.
    pub fn told(&mut self, local: &LocalWatch, now: u64) {
        if local.id >= self.limit || self.bytes.take(self.table.cost(local.id)).is_err() {
            return;
        }
        let watch = self.table.entry(local.id);
        if local.fired > 0 {
            watch.count += u64::from(local.fired);
            watch.last = now;
        }
        if local.interest.is_empty() {
            return;
        }
        watch.flags |= Flags::LOCAL | Flags::KNOWN;
        watch.interest = local.interest;
        if let Some(told) = self.told_of(local.id) {
            (told.kind, told.ino) = (Some(local.kind), local.ino);
        }
    }

    /// Notes what the client calls a watch.
    pub fn label(&mut self, id: u32, label: &str) {
        if id >= self.limit || self.bytes.take(self.table.cost(id)).is_err() {
            return;
        }
        let mut end = label.len().min(evd_proto::name::MAX_LABEL);
        while !label.is_char_boundary(end) {
            end -= 1;
        }
        self.table.entry(id).flags |= Flags::KNOWN;
        if let Some(told) = self.told_of(id) {
            told.label = label[..end].to_owned();
        }
    }

    /// What is told of a watch, if there is room for it: it is only shown.
    fn told_of(&mut self, id: u32) -> Option<&mut Told> {
        if !self.told.contains_key(&id) {
            self.bytes.take(TOLD).ok()?;
        }
        Some(self.told.entry(id).or_default())
    }

    /// Forgets a watch, but for its seq: an older report must stay recognisable.
    pub fn gone(&mut self, base: &mut Base, id: u32) {
        if self.told.remove(&id).is_some() {
            self.bytes.give(TOLD);
        }
        let Some(watch) = self.table.get_mut(id) else { return };
        let token = token(id, watch.seq);
        let_go(watch, base, &mut self.kept, token);
        rest(watch, &mut self.armed);
        (watch.count, watch.last) = (0, 0);
        watch.flags &= Flags::COUNTED | Flags::ENTERED | Flags::LISTED;
    }

    /// What is known of each armed watch's file: kind and inode by id.
    pub fn identities(&self, base: &mut Base) -> BTreeMap<u32, (Option<FileKind>, u64)> {
        let current = |id: u32, seq: u32| {
            self.table.get(id).is_some_and(|w| w.flags.contains(Flags::ARMED) && short(w.seq) == seq)
        };
        let mut found = BTreeMap::new();
        if !self.copies {
            for entry in identify::entries(base) {
                let (id, seq) = untoken(entry.token);
                if current(id, seq) {
                    found.insert(id, (entry.kind, entry.ino));
                }
            }
        }
        for (id, watch) in self.table.iter_from(0) {
            let Some(kept) = &watch.kept else { continue };
            if let Ok(file) = sys::look(kept.as_fd()) {
                found.insert(id, (Some(file.kind), file.ino));
            }
        }
        found
    }
}

/// evd does not wait for it any more.
fn rest(watch: &mut Watch, armed: &mut Purse) {
    if watch.flags.contains(Flags::ARMED) {
        watch.flags &= !Flags::ARMED;
        armed.give(1);
    }
}

/// Closes our copy, if there is one.
fn let_go(watch: &mut Watch, base: &mut Base, copies: &mut Purse, token: u64) {
    if let Some(kept) = watch.kept.take() {
        base.unwatch(kept.as_fd(), token);
        copies.give(1);
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        let count =
            |which: fn(&Watch) -> bool| self.table.iter_from(0).filter(|(_, w)| which(w)).count() as u64;
        debug_assert_eq!(count(|w| w.flags.contains(Flags::ARMED)), self.armed.used(), "armed watches");
        debug_assert_eq!(count(|w| w.kept.is_some()), self.kept.used(), "copies of fds");
    }
}

fn refusal(e: WatchError) -> Refusal {
    match e {
        WatchError::AlwaysReady => Refusal::not_watchable(libc::EPERM, ALWAYS_READY),
        WatchError::BadFd => Refusal::not_watchable(libc::EBADF, "not an fd that can be watched (O_PATH?)"),
        WatchError::Loop => {
            Refusal::not_watchable(libc::ELOOP, "epoll instances that watch each other, or too deep")
        }
        WatchError::Unsupported(why) => Refusal::bad(why.to_owned()),
        WatchError::Full => {
            let text = "the system's limit on watches is reached (fs.epoll.max_user_watches, or memory)";
            Refusal::new(Code::Limit, text.to_owned())
        }
        e => {
            let e = as_io(e);
            Refusal::system(&e, e.to_string())
        }
    }
}

/// The error as the system would give it.
pub(super) fn as_io(e: WatchError) -> io::Error {
    match e {
        WatchError::Os(e) => e,
        other => io::Error::other(other.to_string()),
    }
}
