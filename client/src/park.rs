//! Parking: the one rule that makes a base remote.
//!
//! With the wish to wait, quiet level watches are armed at evd in batches and leave the local backend; evd's activation brings a watch back. A watch
//! that fires again within the **linger** stays in the local backend until it was quiet that long, so a busy connection costs no message. What
//! evd does not take (a full socket, too many fds in flight, a refusal) simply stays local.
//!
//! What evd is told beside that is in [`told`].

mod handles;
mod looks;
mod told;

use crate::state::{NIL, Place, State};
use evd_proto::What;
use evd_proto::request::{Arm, ArmWatch, Disarm};
use evd_proto::sys::{self, AsFd, FdNumber, FileId, RawFd};
use rustc_hash::FxHashMap;

/// How late evd may be with a timer before the client fires it by itself.
pub(crate) const GRACE: u64 = 5_000_000;
/// The longest linger: it may be added to, and is not that of a base which parks nothing.
pub(crate) const NEVER_QUIET: u64 = u64::MAX / 4;
/// What could not be parked because evd did not take it is tried again after this.
const RETRY: u64 = 20_000_000;
/// After a limit was reached evd is not asked for more for so long.
const PAUSE: u64 = 1_000_000_000;
/// So many entries of a `Timers`, `Report` or `Disarm` fit a frame with room to spare.
const BATCH: usize = 2_000;

/// What parking knows of a watch, by the watch's index. Kept apart so that a local base has none of it.
#[derive(Clone, Copy)]
pub(crate) struct Info {
    /// Counts the arms; it outlives the watch, so that a new one with this index is told apart.
    seq: u32,
    file: Option<FileId>,
    /// The interest that evd waits for.
    armed: What,
    /// evd should hear of it: it is local, or has fired.
    dirty: bool,
    /// Activations seen here and not yet reported to evd.
    unreported: u32,
    unreported_ready: What,
    /// When it last fired.
    pub fired_at: u64,
    /// Where it stands in the list of its place, or `NIL`.
    pub position: u32,
}

impl Default for Info {
    fn default() -> Info {
        Info {
            seq: 0,
            file: None,
            armed: What::empty(),
            dirty: false,
            unreported: 0,
            unreported_ready: What::empty(),
            fired_at: 0,
            position: NIL,
        }
    }
}

/// The infos, made as far as they are needed.
#[derive(Default)]
pub(crate) struct Infos(Vec<Info>);

impl Infos {
    /// Takes out where a watch stands in its list; nothing is made for it.
    pub fn take_position(&mut self, w: u32) -> Option<usize> {
        let info = self.0.get_mut(w as usize)?;
        Some(std::mem::replace(&mut info.position, NIL)).filter(|p| *p != NIL).map(|p| p as usize)
    }

    pub fn of(&mut self, w: u32) -> &mut Info {
        let at = w as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, Info::default());
        }
        &mut self.0[at]
    }
}

#[derive(Default)]
pub(crate) struct Park {
    pub linger: u64,
    pub infos: Infos,
    /// Local watches that may be parked once they are quiet.
    pub locals: Vec<u32>,
    next_quiet_check: u64,
    /// Until when evd is asked for no more: it refused something because a limit was reached.
    paused_until: u64,
    pub parked: usize,
    /// Which watch is parked for a file that several numbers may name.
    files: FxHashMap<FileId, u32>,
    pub rearm_edge: Vec<u32>,
    disarms: Vec<u32>,
    pub dirty_timers: Vec<u32>,
    /// By event: the deadline that evd has, or 0.
    known: Vec<u64>,
    pub timers_at_evd: usize,
    reports: Vec<u32>,
    gone: Vec<u32>,
    labels: Vec<u32>,
    pub report_signals: bool,
    next_report: u64,
    /// The callbacks that evd was told of last.
    told_callbacks: u64,
    pub attended: bool,
    /// A loop that does not wait has looked at what is parked, and none has waited since.
    pub was_asked: bool,
}

impl Park {
    pub fn new(linger: u64) -> Park {
        Park { linger, ..Park::default() }
    }

    fn info(&mut self, w: u32) -> &mut Info {
        self.infos.of(w)
    }

    pub fn learn(&mut self, w: u32, file: FileId) {
        self.info(w).file = Some(file);
    }

    fn file(&self, w: u32) -> Option<FileId> {
        self.infos.0.get(w as usize)?.file
    }

    pub fn seq(&self, w: u32) -> u32 {
        self.infos.0.get(w as usize).map_or(0, |i| i.seq)
    }

    pub fn armed(&self, w: u32) -> What {
        self.infos.0.get(w as usize).map_or(What::empty(), |i| i.armed)
    }

    /// The watch leaves evd; its report, if one is on its way, is stale.
    pub fn unparked(&mut self, w: u32) {
        self.parked -= 1;
        if let Some(file) = self.infos.of(w).file {
            if self.files.get(&file) == Some(&w) {
                self.files.remove(&file);
            }
        }
    }

    /// The watch is no more.
    pub fn gone(&mut self, w: u32, place: Place, is_up: bool) {
        if let Some(info) = self.infos.0.get_mut(w as usize) {
            // The next watch with this index counts on from its arms.
            *info = Info { seq: info.seq, dirty: info.dirty, ..Info::default() };
            // Without a session there is nobody to be told, and a new one starts with nothing.
            if is_up && place != Place::Parked {
                note(&mut self.gone, w);
            }
        }
    }

    /// evd should hear the labels of this watch. A new session hears all of them.
    pub fn label(&mut self, w: u32) {
        note(&mut self.labels, w);
    }

    /// evd should hear that this watch is local, or fired.
    pub fn note_local(&mut self, w: u32) {
        if self.linger == u64::MAX {
            return;
        }
        let info = self.infos.of(w);
        if !info.dirty {
            info.dirty = true;
            self.reports.push(w);
        }
    }

    /// A watch has fired. Without evd nobody asks when.
    pub fn fired(&mut self, w: u32, place: Place, what: What, now: u64) {
        if self.linger == u64::MAX {
            return;
        }
        let info = self.infos.of(w);
        info.fired_at = now;
        if place != Place::Parked {
            info.unreported = info.unreported.saturating_add(1);
            info.unreported_ready |= what;
            self.note_local(w);
        }
    }

    /// evd takes no more for now: what is new stays here, and is not offered to it again and again.
    pub fn pause(&mut self, now: u64) {
        self.paused_until = now + PAUSE;
    }

    pub fn forget_timer(&mut self, id: u32) {
        if let Some(known) = self.known.get_mut(id as usize) {
            if *known != 0 {
                self.timer_changed(id);
            }
        }
    }

    /// evd must hear of this timer before the next sleep.
    pub fn timer_changed(&mut self, id: u32) {
        note(&mut self.dirty_timers, id);
    }

    fn known(&mut self, id: u32) -> &mut u64 {
        let at = id as usize;
        if self.known.len() <= at {
            self.known.resize(at + 1, 0);
        }
        &mut self.known[at]
    }

    pub fn start_session(&mut self) {
        self.end_session();
        self.report_signals = true;
        self.next_report = 0;
        self.next_quiet_check = 0;
        self.paused_until = 0;
    }

    pub fn end_session(&mut self) {
        self.rearm_edge.clear();
        self.disarms.clear();
        self.dirty_timers.clear();
        self.known.clear();
        self.timers_at_evd = 0;
        self.gone.clear();
        self.labels.clear();
        self.attended = false;
    }

    /// When the loop must be awake for parking.
    pub fn deadline(&self) -> Option<u64> {
        let quiet = (!self.locals.is_empty()).then_some(self.next_quiet_check);
        let report = (!self.reports.is_empty()).then_some(self.next_report);
        [quiet, report].into_iter().flatten().min()
    }
}

impl State {
    /// The wish to wait. Returns whether something turned out to be ready, so that there is nothing to wait for.
    pub fn settle(&mut self) -> bool {
        if !self.outs.is_empty() && self.look_at_outs() {
            self.send_at_once();
            return true;
        }
        self.park_quiet();
        false
    }

    /// Arms at evd what is quiet, without a look at it, and tells evd what else is new. Without evd it goes into the local backend.
    pub fn park_quiet(&mut self) {
        if !self.link.is_up() {
            while let Some(&w) = self.outs.last() {
                self.fall_back(w);
            }
            return;
        }
        let mut list = std::mem::take(&mut self.outs);
        for &w in &list {
            self.park.infos.of(w).position = NIL;
        }
        if self.base.now() < self.park.paused_until {
            self.park.next_quiet_check = self.park.next_quiet_check.max(self.park.paused_until);
            list.drain(..).for_each(|w| self.stay_local(w));
        }
        self.add_quiet_locals(&mut list);
        self.park(&list);
        self.rearm_edges();
        self.send_disarms();
        self.send_timers();
        self.send_report();
        self.flush_link();
    }

    fn add_quiet_locals(&mut self, list: &mut Vec<u32>) {
        let (now, linger) = (self.base.now(), self.park.linger);
        if self.park.locals.is_empty() || now < self.park.next_quiet_check {
            return;
        }
        let mut next = u64::MAX;
        for &w in &self.park.locals {
            let quiet_at = self.park.infos.0.get(w as usize).map_or(0, |i| i.fired_at).saturating_add(linger);
            if quiet_at <= now { list.push(w) } else { next = next.min(quiet_at) }
        }
        // Not for each watch by itself: they go in batches. With none left, the next one that becomes local is looked at from then on.
        self.park.next_quiet_check = if next == u64::MAX { 0 } else { next.max(now + linger / 2) };
    }

    /// Arms watches at evd. Those it does not take stay, or become, local.
    fn park(&mut self, list: &[u32]) {
        let most = self
            .link
            .up()
            .map_or(1, |up| up.welcome.limits.fds_per_frame.clamp(1, evd_proto::MAX_FDS as u32))
            as usize;
        let limit = self.link.up().map_or(0, |up| up.welcome.limits.watches);
        let (mut batch, mut handles) = (Batch::default(), Vec::new());
        let mut full = false;
        for &w in list {
            if full || !self.link.is_up() {
                self.stay_local(w);
                continue;
            }
            let Some(entry) = self.parkable(w, limit) else { continue };
            if let Some(handle) = self.as_handle(&entry) {
                handles.push(handle);
                continue;
            }
            batch.push(entry, self.watch(w).fd);
            if batch.fds.len() == most {
                full = !self.send_arms(&mut batch);
            }
        }
        if !batch.fds.is_empty() {
            self.send_arms(&mut batch);
        }
        self.send_handles(&handles);
    }

    /// evd waits for it from now on.
    fn parked(&mut self, w: u32) {
        let (fd, place) = (self.watch(w).fd, self.watch(w).place);
        if place == Place::Local {
            self.base.unwatch(FdNumber(fd).as_fd(), crate::files::watch_token(w));
        }
        self.set_place(w, Place::Parked);
        self.park.parked += 1;
    }

    /// The arm of a watch, unless it must stay here.
    fn parkable(&mut self, w: u32, limit: u32) -> Option<ArmWatch> {
        let watch = &self.watches[w as usize];
        let (fd, pinned, interest, edge) = (watch.fd, watch.pinned, watch.interest, watch.is_edge());
        if self.park.info(w).file.is_none() {
            self.park.info(w).file = sys::identify(FdNumber(fd).as_fd()).ok();
        }
        let file = self.park.info(w).file;
        let stays = file.is_none_or(|f| self.must_stay(f));
        let one_file = file.filter(FileId::is_one_file);
        let twin = one_file.and_then(|f| self.park.files.get(&f)).is_some_and(|other| *other != w);
        if pinned || stays || twin || w >= limit {
            self.watch_mut(w).pinned = true;
            self.stay_local(w);
            return None;
        }
        if let Some(file) = one_file {
            self.park.files.insert(file, w);
        }
        let info = self.park.info(w);
        // 31 bits: evd packs it into its kernel's data together with the id.
        info.seq = (info.seq + 1) & 0x7fff_ffff;
        info.armed = interest;
        let keep = if one_file.is_none() { ArmWatch::KEEP } else { 0 };
        let flags = keep | if edge { ArmWatch::EDGE } else { 0 };
        Some(ArmWatch { id: w, seq: info.seq, interest, flags })
    }

    /// Sends a batch and empties it. `false`: evd takes no more now.
    fn send_arms(&mut self, batch: &mut Batch) -> bool {
        let Some(up) = self.link.up() else {
            batch.drain().for_each(|w| self.stay_local_after_try(w));
            return false;
        };
        let arm = Arm { watches: std::mem::take(&mut batch.entries) };
        let sent = up.line.send_with_fds(&arm, &batch.fds);
        batch.entries = arm.watches;
        match sent {
            Ok(Some(_)) => {
                batch.drain().for_each(|w| self.parked(w));
                true
            }
            Ok(None) => {
                let now = self.base.now();
                self.park.next_quiet_check = self.park.next_quiet_check.max(now + RETRY);
                batch.drain().for_each(|w| self.stay_local_after_try(w));
                false
            }
            Err(e) if is_fds_fault(&e) && batch.fds.len() > 1 => {
                // One of them is closed, or of a kind that can't be passed: the others shall not suffer.
                let all: Vec<(ArmWatch, RawFd)> = batch.entries.drain(..).zip(batch.fds.drain(..)).collect();
                // Each of them is tried, or it would be nowhere.
                all.into_iter().fold(true, |taken, (entry, fd)| {
                    let mut one = Batch::default();
                    one.push(entry, fd);
                    self.send_arms(&mut one) && taken
                })
            }
            Err(e) if is_fds_fault(&e) => {
                for w in batch.drain() {
                    self.watch_mut(w).pinned = true;
                    self.stay_local_after_try(w);
                }
                true
            }
            Err(e) => {
                batch.drain().for_each(|w| self.stay_local_after_try(w));
                self.lose(format!("sending to evd failed: {e}"));
                false
            }
        }
    }

    fn stay_local_after_try(&mut self, w: u32) {
        if let Some(file) = self.park.info(w).file {
            if self.park.files.get(&file) == Some(&w) {
                self.park.files.remove(&file);
            }
        }
        self.stay_local(w);
    }

    fn stay_local(&mut self, w: u32) {
        match self.watch(w).place {
            Place::Out => self.fall_back(w),
            // Out of the list of those that are asked again, if it is pinned now.
            Place::Local => self.set_place(w, Place::Local),
            _ => {}
        }
    }

    /// evd could not arm a watch.
    pub fn refused_arm(&mut self, w: u32, seq: u32) {
        let current = self.watches.get(w as usize).is_some_and(|x| x.place == Place::Parked);
        if current && self.park.seq(w) == seq {
            self.watch_mut(w).pinned = true;
            self.set_place(w, Place::Out);
            self.fall_back(w);
        }
    }

    /// Takes a parked watch back from evd. One that is edge-triggered needs its fd for that, which its owner may close at once.
    pub fn disarm(&mut self, w: u32, edge_fd: Option<RawFd>) {
        match edge_fd {
            None => self.park.disarms.push(w),
            Some(fd) => {
                let body = Disarm { with_fd: vec![w], ids: Vec::new() };
                if let Some(up) = self.link.up() {
                    // If it can't be sent the kernel forgets the entry with the file.
                    let _ = up.line.send_with_fds(&body, &[fd]);
                }
            }
        }
    }

    /// Without the wish to wait, in a loop or outside of one: takes back what is deleted (a loop may never wait, and evd's copy of an fd keeps a connection
    /// open), and sends what waits. Arms wait for the next wait.
    pub fn send_pending(&mut self) {
        if self.link.is_up() {
            self.send_disarms();
            self.flush_link();
        }
    }

    /// In a loop that does not wait: as [`State::send_pending`]. And edge-triggered watches that are new, or wanted for more, are armed, as nobody else looks at
    /// them: in a loop that is always busy their first edge would never be seen.
    pub fn send_at_once(&mut self) {
        let edges: Vec<u32> = self.outs.iter().copied().filter(|w| self.watch(*w).is_edge()).collect();
        if !edges.is_empty() && self.link.is_up() {
            edges.iter().for_each(|w| self.delist(*w));
            self.park(&edges);
        }
        self.rearm_edges();
        self.send_pending();
    }

    fn rearm_edges(&mut self) {
        let list = std::mem::take(&mut self.park.rearm_edge);
        for w in list {
            let Some(watch) = self.watches.get(w as usize) else { continue };
            if watch.place == Place::Parked {
                self.set_place(w, Place::Out);
                self.outs.retain(|x| *x != w);
                self.park.infos.of(w).position = NIL;
                self.park(&[w]);
            }
        }
    }

    fn send_disarms(&mut self) {
        while !self.park.disarms.is_empty() {
            let rest = self.park.disarms.len().saturating_sub(BATCH);
            let ids = self.park.disarms.split_off(rest);
            // An id that was armed anew since is not to be taken back.
            let parked = |w: &u32| self.watches.get(*w as usize).is_some_and(|x| x.place == Place::Parked);
            let ids: Vec<u32> = ids.into_iter().filter(|w| !parked(w)).collect();
            let Some(up) = self.link.up() else { return };
            if !ids.is_empty() {
                let _ = up.line.post(&Disarm { with_fd: Vec::new(), ids });
            }
        }
    }
}

/// Notes an index. Before the list would have to grow, what is in it more than once is taken out: a loop that never waits sends none of this, and the list must not
/// have more than there are indices for all that.
fn note(list: &mut Vec<u32>, index: u32) {
    if list.len() == list.capacity() {
        list.sort_unstable();
        list.dedup();
        if list.len() * 2 > list.capacity() {
            list.reserve(list.len().max(8));
        }
    }
    list.push(index);
}

/// The error is about one of the fds, not about the line.
fn is_fds_fault(e: &std::io::Error) -> bool {
    // EBADF has no ErrorKind of its own; an fd that can't be passed is EINVAL.
    e.kind() == std::io::ErrorKind::InvalidInput || e.raw_os_error() == Some(sys::BAD_FD)
}

#[derive(Default)]
struct Batch {
    entries: Vec<ArmWatch>,
    fds: Vec<RawFd>,
}

impl Batch {
    fn push(&mut self, entry: ArmWatch, fd: RawFd) {
        self.entries.push(entry);
        self.fds.push(fd);
    }

    fn drain(&mut self) -> impl Iterator<Item = u32> + use<> {
        self.fds.clear();
        std::mem::take(&mut self.entries).into_iter().map(|e| e.id)
    }
}
