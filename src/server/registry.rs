//! Who is there: workers, bases, followers. One mutex, taken when a session comes or goes and when somebody asks, never for an activation.

use super::access::Access;
use super::holds::Holds;
use super::mail::{Handle, Mail, lock};
use super::names::Names;
use super::worker::Worker;
use crate::base::{Base, Config, Waker};
use crate::session::books::Books;
use crate::session::{Caller, Guest, Opening, Viewer, Who};
use evd_proto::reply::{Code, Limits, Refused, Resource};
use evd_proto::request::Selector;
use evd_proto::sys::{self, Peer};
use evd_proto::sys::{AsFd, OwnedFd};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bases that one connection follows at most, "all" counting as one.
pub(super) const MOST_FOLLOWED: usize = 64;
/// Ids of watches and of timers are below this.
const MOST_WATCHES: u32 = 1_048_576;
/// Ids of subscriptions are below this.
const MOST_NAMES: u32 = 4096;
/// Bytes of one attachment.
const MOST_ATTACHMENT: u32 = 65_536;

/// What all threads of one evd share.
pub(super) struct Shared {
    pub access: Access,
    pub limits: Limits,
    pub books: Arc<Books>,
    pub started: u64,
    pub names: Names,
    pub holds: Holds,
    workers_per_uid: usize,
    last_base: AtomicU64,
    registry: Mutex<Registry>,
    /// Notified when a worker's thread ends.
    ended: Condvar,
    /// Wakes the acceptor.
    acceptor: Waker,
    stop: AtomicBool,
    /// Whether the acceptor wants to know that sessions came or went.
    pub reports_sessions: AtomicBool,
    /// Sessions have ended, and the allocator keeps what they had.
    pub leaves_memory: AtomicBool,
}

#[derive(Default)]
struct Registry {
    workers: BTreeMap<u32, Arc<Handle>>,
    last_worker: u32,
    bases: BTreeMap<u64, Listed>,
    followers: Vec<Following>,
    /// Threads of workers that have not ended.
    threads: usize,
    /// Set with the lock held, so that no worker is made after it.
    stopping: bool,
}

/// Why a connection has no worker.
pub(super) enum Unassigned {
    Refused(Refused),
    Os(io::Error),
}

/// One base, as the registry knows it.
#[derive(Clone)]
pub(super) struct Listed {
    pub who: Who,
    pub method: &'static str,
    pub features: u32,
    pub worker: Arc<Handle>,
}

/// Where traces go.
#[derive(Clone)]
pub(super) struct Follower {
    pub worker: Arc<Handle>,
    pub session: u64,
}

struct Following {
    to: Follower,
    /// `None`: all that he may see.
    base: Option<u64>,
    viewer: Viewer,
}

impl Shared {
    pub fn new(
        access: Access,
        books: Arc<Books>,
        workers_per_uid: usize,
        acceptor: Waker,
        holds: Holds,
    ) -> Shared {
        let (open_files, _) = sys::open_files();
        let share = usize::try_from(open_files / 8).unwrap_or(usize::MAX).max(1);
        let limits = Limits {
            watches: MOST_WATCHES,
            timers: MOST_WATCHES,
            names: MOST_NAMES,
            fds_per_frame: share.min(evd_proto::MAX_FDS) as u32,
            attachment: MOST_ATTACHMENT,
        };
        Shared {
            access,
            limits,
            books,
            started: sys::monotonic_ns(),
            names: Names::default(),
            holds,
            workers_per_uid: workers_per_uid.max(1),
            last_base: AtomicU64::new(0),
            registry: Mutex::default(),
            ended: Condvar::new(),
            acceptor,
            stop: AtomicBool::new(false),
            reports_sessions: AtomicBool::new(false),
            leaves_memory: AtomicBool::new(false),
        }
    }

    /// A new base's id.
    pub fn next_id(&self) -> u64 {
        self.last_base.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Hands a connection to the least busy worker of its user that is not stuck; makes one if there are fewer than there may be and none is idle.
    ///
    /// # Errors
    /// The user has too many connections, or a worker is needed and the system refuses its base or its thread. The connection is given back.
    pub fn assign(
        self: &Arc<Self>,
        socket: OwnedFd,
        peer: Peer,
        inspects: bool,
    ) -> Result<(), (OwnedFd, Unassigned)> {
        let connection = match self.books.account(peer.uid).charge(Resource::Connections, 1) {
            Ok(charge) => charge,
            Err(over) => return Err((socket, Unassigned::Refused(over.refused()))),
        };
        let now = sys::monotonic_ns();
        let mut registry = lock(&self.registry);
        let mut count = 0;
        let mut best: Option<&Arc<Handle>> = None;
        let mut stuck = None;
        for w in registry.workers.values().filter(|w| w.uid == peer.uid && !w.solo) {
            count += 1;
            if let Some(time) = w.stuck(now) {
                stuck = Some((w.id, time));
                continue;
            }
            let load = |w: &Handle| w.sessions.load(Ordering::Relaxed);
            if best.is_none_or(|b| load(w) < load(b)) {
                best = Some(w);
            }
        }
        let idle = best.is_some_and(|b| b.sessions.load(Ordering::Relaxed) == 0);
        let worker = match best {
            Some(best) if count >= self.workers_per_uid || idle => Arc::clone(best),
            None if count >= self.workers_per_uid => {
                let (id, time) = stuck.unwrap_or_default();
                let text = format!(
                    "worker {id}, which serves user {}, is stuck since {} s: by what one of its clients passed, or because the machine or the service manager is too busy",
                    peer.uid,
                    time / 1_000_000_000
                );
                let why = Refused { code: Code::Busy, limit: 0, value: time, text, ids: Vec::new() };
                return Err((socket, Unassigned::Refused(why)));
            }
            _ => match self.new_worker(&mut registry, peer.uid) {
                Ok(worker) => worker,
                Err(e) => return Err((socket, Unassigned::Os(e))),
            },
        };
        worker.sessions.fetch_add(1, Ordering::Relaxed);
        // With the registry locked the worker can't end between being found and this.
        let (process, nests) = (sys::peer_process(socket.as_fd()), self.access.nests(peer.uid));
        let caller = Caller { peer, inspects, nests, since: now, process, connection };
        worker.post(Mail::Connection(Guest { socket, caller }));
        Ok(())
    }

    /// Lets a worker of `uid` read what an earlier evd has left of it.
    pub fn inherit(self: &Arc<Self>, uid: u32) {
        let mut registry = lock(&self.registry);
        match self.new_worker(&mut registry, uid) {
            Ok(worker) => drop(worker.post(Mail::Holds)),
            Err(e) => {
                log::warn!("no worker for the holds of user {uid}: {e}; it is tried again");
                self.holds.turns.wait(uid, 1);
            }
        }
    }

    /// Lets the next one try again who was short of fds for what he holds, if it is time. Returns when to look again.
    pub fn give_turn(self: &Arc<Self>, now: u64) -> Option<u64> {
        let turns = &self.holds.turns;
        if let Some(uid) = turns.next(now) {
            let mut registry = lock(&self.registry);
            let mut own = registry.workers.values().filter(|w| w.uid == uid).peekable();
            let worker = if own.peek().is_some() {
                // Each of them may be stuck: it is asked again later, and not told twice.
                own.find(|w| w.stuck(now).is_none()).cloned()
            } else {
                self.new_worker(&mut registry, uid).ok()
            };
            drop(registry);
            let told = worker.as_ref().map(|w| {
                turns.give(uid, w.id);
                w.id
            });
            if !worker.is_some_and(|w| w.post(Mail::Turn)) {
                turns.over(uid, told);
            }
        }
        turns.due()
    }

    /// Tells the other workers of a user that wait for the time of a held fd: it may have gone, and then nothing keeps them.
    pub fn holds_changed(&self, by: &Handle) {
        let registry = lock(&self.registry);
        let others = registry.workers.values().filter(|w| w.uid == by.uid && w.id != by.id);
        for worker in others.filter(|w| w.awaits_hold.load(Ordering::Relaxed)) {
            worker.post(Mail::Holds);
        }
    }

    fn new_worker(self: &Arc<Self>, registry: &mut Registry, uid: u32) -> io::Result<Arc<Handle>> {
        let worker = self.make_worker(registry, uid)?;
        let handle = Arc::clone(&worker.me);
        self.start(registry, &handle, move || worker.run())?;
        Ok(handle)
    }

    /// Makes a worker that is not on a thread but is driven by the caller, if the user has none yet.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn worker_by_hand(self: &Arc<Self>, uid: u32) -> io::Result<Option<Worker>> {
        let mut registry = lock(&self.registry);
        if registry.workers.values().any(|w| w.uid == uid) {
            return Ok(None);
        }
        let worker = self.make_worker(&mut registry, uid)?;
        registry.workers.insert(worker.me.id, Arc::clone(&worker.me));
        Ok(Some(worker))
    }

    fn make_worker(self: &Arc<Self>, registry: &mut Registry, uid: u32) -> io::Result<Worker> {
        let mut base =
            Base::new(&Config { ignore_env: true, ..Config::default() }).map_err(io::Error::other)?;
        let waker = base.waker()?;
        registry.last_worker += 1;
        let handle = Handle::new(registry.last_worker, uid, false, base.method(), waker, 0);
        Worker::new(Arc::clone(self), Arc::new(handle), base)
    }

    /// Makes a worker for one session whose base can't be waited for through another.
    ///
    /// # Errors
    /// It may not be, or can't be; the client was told, unless the thread could not be made.
    pub fn assign_solo(self: &Arc<Self>, opening: Box<Opening>, mut base: Base, id: u64) -> io::Result<()> {
        let uid = opening.peer().uid;
        let mut registry = lock(&self.registry);
        if registry.stopping {
            opening.refuse(Code::Stopping, (0, 0), "evd is stopping");
            return Ok(());
        }
        let thread = match opening.account().charge(Resource::Threads, 1) {
            Ok(thread) => thread,
            Err(over) => {
                let text = format!("a base on {} needs a thread of its own; {over}", base.method());
                opening.refuse(Code::Limit, (over.limit, over.used), &text);
                return Ok(());
            }
        };
        let waker = base.waker()?;
        registry.last_worker += 1;
        let handle = Handle::new(registry.last_worker, uid, true, base.method(), waker, 1);
        let handle = Arc::new(handle);
        let worker = Worker::solo(Arc::clone(self), Arc::clone(&handle))?;
        self.start(&mut registry, &handle, move || {
            worker.run_solo(opening, base, id);
            drop(thread);
        })
    }

    fn start(
        self: &Arc<Self>,
        registry: &mut Registry,
        handle: &Arc<Handle>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let (shared, of) = (Arc::clone(self), Arc::clone(handle));
        std::thread::Builder::new().name(format!("evd-uid-{}", handle.uid)).spawn(move || {
            // Also if it panics: the thread must not be waited for, and nobody may write to it.
            let _gone = Gone(shared, Arc::clone(&of));
            of.tid.store(sys::current_tid(), Ordering::Relaxed);
            let _ = of.thread.set(std::thread::current());
            run();
        })?;
        registry.threads += 1;
        registry.workers.insert(handle.id, Arc::clone(handle));
        Ok(())
    }

    /// Whether `worker` may end now: it has no sessions, none on the way, and no mail. Then it is no longer listed.
    pub fn retire(&self, worker: &Handle) -> bool {
        let mut registry = lock(&self.registry);
        let done = worker.sessions.load(Ordering::Relaxed) == 0 && worker.close_if_empty();
        if done {
            registry.workers.remove(&worker.id);
        }
        done
    }

    /// Lists a base.
    pub fn came(&self, listed: Listed) {
        lock(&self.registry).bases.insert(listed.who.id, listed);
        self.sessions_changed();
    }

    /// A session is no more.
    pub fn went(&self, id: u64) {
        lock(&self.registry).bases.remove(&id);
        self.sessions_changed();
        if !self.leaves_memory.swap(true, Ordering::Relaxed) {
            self.acceptor.wake();
        }
    }

    fn sessions_changed(&self) {
        if self.reports_sessions.load(Ordering::Relaxed) {
            self.acceptor.wake();
        }
    }

    /// How many bases and workers there are.
    pub fn counts(&self) -> (usize, usize) {
        let registry = lock(&self.registry);
        (registry.bases.len(), registry.workers.len())
    }

    /// All workers.
    pub fn all_workers(&self) -> Vec<Arc<Handle>> {
        lock(&self.registry).workers.values().cloned().collect()
    }

    /// The workers that `viewer` may see.
    pub fn workers(&self, viewer: Viewer) -> Vec<Arc<Handle>> {
        let registry = lock(&self.registry);
        registry.workers.values().filter(|w| viewer.may_see(w.uid)).cloned().collect()
    }

    /// At most `most` bases that `viewer` may see with ids above `after`, and whether there are more.
    pub fn bases(&self, viewer: Viewer, after: u64, most: usize) -> (Vec<Listed>, bool) {
        let registry = lock(&self.registry);
        let mut found: Vec<Listed> = registry
            .bases
            .range(after.saturating_add(1)..)
            .map(|(_, b)| b)
            .filter(|b| viewer.may_see(b.who.peer.uid))
            .take(most + 1)
            .cloned()
            .collect();
        let more = found.len() > most;
        found.truncate(most);
        (found, more)
    }

    /// The base that is meant, if `viewer` may see it. Of several with one name it is the newest.
    pub fn find(&self, viewer: Viewer, which: &Selector) -> Option<Listed> {
        let registry = lock(&self.registry);
        let found = match which {
            Selector::Id(id) => registry.bases.get(id),
            Selector::Name(name) => {
                registry.bases.values().rev().find(|b| b.who.name == *name && viewer.may_see(b.who.peer.uid))
            }
        };
        found.filter(|b| viewer.may_see(b.who.peer.uid)).cloned()
    }

    /// Lets a session follow one base, or all that it may see, and tells the workers that serve these. `false`: it follows too many.
    pub fn follow(&self, to: Follower, viewer: Viewer, base: Option<u64>) -> bool {
        let mut registry = lock(&self.registry);
        let own = registry.followers.iter().filter(|f| f.to.session == to.session);
        let (count, known) = own.fold((0, false), |(n, known), f| (n + 1, known || f.base == base));
        if !known {
            if count >= MOST_FOLLOWED {
                return false;
            }
            registry.followers.push(Following { to, base, viewer });
            tell(&registry, viewer);
        }
        true
    }

    /// Forgets a follower. `false`: it was none.
    pub fn unfollow(&self, session: u64) -> bool {
        let mut registry = lock(&self.registry);
        let viewer = registry.followers.iter().find(|f| f.to.session == session).map(|f| f.viewer);
        registry.followers.retain(|f| f.to.session != session);
        if let Some(viewer) = viewer {
            tell(&registry, viewer);
        }
        viewer.is_some()
    }

    /// Who follows a base: each once, also who follows it and all.
    pub fn followers(&self, base: u64, uid: u32) -> Vec<Follower> {
        let registry = lock(&self.registry);
        let follows = |f: &&Following| match f.base {
            Some(id) => id == base,
            None => f.viewer.may_see(uid),
        };
        let mut found: Vec<Follower> = Vec::new();
        for following in registry.followers.iter().filter(follows) {
            // Those of one session are not far from each other, but need not be neighbours.
            if found.iter().all(|f| f.session != following.to.session) {
                found.push(following.to.clone());
            }
        }
        found
    }

    fn tell_all(&self, mail: impl Fn() -> Mail) {
        for worker in lock(&self.registry).workers.values() {
            worker.post(mail());
        }
    }

    /// Asks the acceptor to stop evd.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.acceptor.wake();
    }

    /// Whether somebody asked for that.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Tells all workers to end, and waits for them at most `patience`. Returns how many did not.
    pub fn stop_workers(&self, patience: Duration) -> usize {
        lock(&self.registry).stopping = true;
        self.tell_all(|| Mail::Stop);
        let until = Instant::now() + patience;
        let mut registry = lock(&self.registry);
        while registry.threads > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            registry = self.ended.wait_timeout(registry, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        registry.threads
    }
}

/// Tells the workers whose bases `viewer` may follow, and no others: who follows and leaves all the time keeps only his own busy.
fn tell(registry: &Registry, viewer: Viewer) {
    for worker in registry.workers.values().filter(|w| viewer.may_see(w.uid)) {
        worker.post(Mail::Followers);
    }
}

/// A worker's thread ends.
struct Gone(Arc<Shared>, Arc<Handle>);

impl Drop for Gone {
    fn drop(&mut self) {
        // First, and without the lock: to close what is in it may take its time, and its user is charged for it.
        drop(self.1.close());
        let mut registry = lock(&self.0.registry);
        registry.workers.remove(&self.1.id);
        registry.bases.retain(|_, b| b.worker.id != self.1.id);
        registry.threads -= 1;
        drop(registry);
        self.0.holds.turns.over(self.1.uid, Some(self.1.id));
        self.0.ended.notify_all();
    }
}
