//! What the acceptor and the workers tell each other, and how one worker is reached.

use crate::base::Waker;
use crate::session::Guest;
use evd_proto::notice::TraceEntry;
use evd_proto::reply::{BaseInfo, EventsPage};
use evd_proto::sys;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

/// In one turn for longer, or with mail unread for longer, in nanoseconds, a worker is stuck: `evctl status` calls it so, too.
pub(super) const STUCK: u64 = 2_000_000_000;

/// A message to a worker.
pub(super) enum Mail {
    /// A connection to serve.
    Connection(Guest),
    /// Activate a subscription of a session to this name. Answered by `Triggered`.
    Trigger { session: u64, id: u32, name: Arc<str>, ticket: Asker },
    /// Whether the activation is in the subscriber's socket; `None`: the subscription is no more.
    Triggered { ticket: u64, reached: Option<bool> },
    /// Describe these bases. Answered by `Bases`.
    AskBases { ids: Vec<u64>, ticket: Asker },
    /// The ones that are still there.
    Bases { ticket: u64, bases: Vec<BaseInfo> },
    /// Describe what a base waits for. Answered by `Events`.
    AskEvents { base: u64, from: (u8, u32), ticket: Asker },
    /// `None`: the base is no more.
    Events { ticket: u64, page: Option<Box<EventsPage>> },
    /// The held fds of its user have changed, or there are some of an earlier evd to be read.
    Holds,
    /// It is its user's turn, see `turns`.
    Turn,
    /// Somebody follows other bases than before: see the registry.
    Followers,
    /// To a follower: what happened in a base.
    Trace { to: u64, trace: Arc<Traced> },
    /// evd stops.
    Stop,
}

/// Who waits for an answer.
#[derive(Clone)]
pub(super) struct Asker {
    pub worker: Arc<Handle>,
    pub ticket: u64,
}

/// What happened in one turn of a base.
pub(super) struct Traced {
    pub base: u64,
    pub name: String,
    pub at: u64,
    pub entries: Vec<TraceEntry>,
}

/// One worker, as others see it.
pub(super) struct Handle {
    pub id: u32,
    pub uid: u32,
    /// It serves one session, in that session's base.
    pub solo: bool,
    pub method: &'static str,
    pub tid: AtomicI32,
    /// Its thread, once it runs: a solo worker whose session has ended sleeps without a base.
    pub thread: OnceLock<Thread>,
    /// Sessions it has, connections on their way to it included.
    pub sessions: AtomicU32,
    /// When its turn began, in nanoseconds; 0: it waits.
    pub busy_since: AtomicU64,
    /// Whether it may be waiting for the time of a held fd. Set before that time is looked up.
    pub awaits_hold: AtomicBool,
    /// Whether there may be something in `queue`.
    has_mail: AtomicBool,
    /// Since when there is something in `queue`, in nanoseconds.
    mail_since: AtomicU64,
    /// `None`: the worker has ended.
    queue: Mutex<Option<Vec<Mail>>>,
    waker: Waker,
}

impl Handle {
    pub fn new(id: u32, uid: u32, solo: bool, method: &'static str, waker: Waker, sessions: u32) -> Handle {
        Handle {
            id,
            uid,
            solo,
            method,
            tid: AtomicI32::new(0),
            thread: OnceLock::new(),
            sessions: AtomicU32::new(sessions),
            busy_since: AtomicU64::new(0),
            awaits_hold: AtomicBool::new(false),
            has_mail: AtomicBool::new(false),
            mail_since: AtomicU64::new(0),
            queue: Mutex::new(Some(Vec::new())),
            waker,
        }
    }

    /// How long it has been in one turn, in nanoseconds, if that is too long.
    pub fn stuck(&self, now: u64) -> Option<u64> {
        Some(self.busy_for(now)).filter(|time| *time > STUCK)
    }

    /// Sends mail. `false`: the worker has ended, and the mail is dropped.
    pub fn post(&self, mail: Mail) -> bool {
        let mut queue = lock(&self.queue);
        let Some(queue) = queue.as_mut() else { return false };
        if queue.is_empty() {
            self.mail_since.store(sys::monotonic_ns(), Ordering::Relaxed);
        }
        queue.push(mail);
        self.has_mail.store(true, Ordering::Release);
        self.wake();
        true
    }

    /// Makes it look into its mailbox.
    pub fn wake(&self) {
        self.waker.wake();
        if self.solo {
            self.thread.get().inspect(|t| t.unpark());
        }
    }

    /// How long it has been in its turn, in nanoseconds; 0: it waits.
    pub fn busy_for(&self, now: u64) -> u64 {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since).max(1),
        }
    }

    /// How long mail has been lying there, in nanoseconds; 0: there is none.
    pub fn mail_lies(&self, now: u64) -> u64 {
        match &*lock(&self.queue) {
            Some(queue) if !queue.is_empty() => now.saturating_sub(self.mail_since.load(Ordering::Relaxed)),
            _ => 0,
        }
    }

    /// Moves all mail to `into`. Costs one atomic operation if there is none.
    pub fn collect(&self, into: &mut Vec<Mail>) {
        if !self.has_mail.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Some(queue) = lock(&self.queue).as_mut() {
            into.append(queue);
        }
    }

    /// Closes the mailbox if there is no mail. `false`: there is.
    pub fn close_if_empty(&self) -> bool {
        let mut queue = lock(&self.queue);
        let empty = queue.as_ref().is_none_or(Vec::is_empty);
        if empty {
            *queue = None;
        }
        empty
    }

    /// Closes the mailbox; what is in it is dropped by the caller.
    pub fn close(&self) -> Option<Vec<Mail>> {
        lock(&self.queue).take()
    }
}

/// Locks; a thread that panicked with the lock left plain data behind, which is as good as before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
