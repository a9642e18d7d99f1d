//! What other threads want of a base, and what they may rely on.
//!
//! A request is put into the mailbox and read by the loop's thread between two callbacks. No lock is held while a callback runs, so no order of locks can
//! ever be wrong. **The promise of `del`**: the mailbox is found empty, and the event noted as running, under one lock; so once a request to delete has been
//! put in, no callback of that event begins any more, and the one that runs can be waited for.

use crate::{EventBase, EventKey};
use evd::base::Waker;
use evd_proto::What;
use evd_proto::sys::{Generation, generation};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// What another thread wants.
pub(crate) enum Mail {
    Post(Box<dyn FnOnce(&EventBase) + Send>),
    Add { key: EventKey, timeout: Option<Duration> },
    Del(EventKey),
    RemoveTimer(EventKey),
    Activate { key: EventKey, what: What },
    Exit,
    Break,
    Continue,
    Wake,
}

/// What a base shares with its handles.
pub(crate) struct Shared {
    generation: Generation,
    waker: Waker,
    /// Whether there is mail, for a look without the lock.
    has_mail: AtomicBool,
    mailbox: Mutex<Mailbox>,
    /// A callback that somebody waits for has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Mailbox {
    mail: Vec<Mail>,
    /// The event whose callback runs, and in which thread; noted only while there are handles.
    running: Option<(EventKey, ThreadId)>,
    waiting: usize,
    /// The base is gone, and nobody reads any more.
    closed: bool,
}

impl Shared {
    pub fn new(waker: Waker) -> Shared {
        Shared {
            generation: generation(),
            waker,
            has_mail: AtomicBool::new(false),
            mailbox: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in a request and wakes the loop. In the child of a fork it does nothing: what wakes the loop is the parent's.
    pub fn send(&self, mail: Mail) {
        if self.generation != generation() {
            return;
        }
        // The lock is gone before the wake-up, so that the woken thread finds it free.
        let mut mailbox = self.lock();
        if mailbox.closed {
            // What a closure owns is dropped by its sender, without the lock.
            drop(mailbox);
            return;
        }
        mailbox.mail.push(mail);
        self.has_mail.store(true, Ordering::SeqCst);
        drop(mailbox);
        self.waker.wake();
    }

    /// Waits until no callback of this event runs; at once if it is the caller's own.
    pub fn wait_for(&self, key: EventKey) {
        if self.generation != generation() {
            return;
        }
        let me = std::thread::current().id();
        let mut mailbox = self.lock();
        while mailbox.running.is_some_and(|(running, thread)| running == key && thread != me) {
            mailbox.waiting += 1;
            mailbox = self.ended.wait(mailbox).unwrap_or_else(PoisonError::into_inner);
            mailbox.waiting -= 1;
        }
    }

    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::SeqCst)
    }

    /// Takes all requests.
    pub fn take(&self, into: &mut impl Extend<Mail>) {
        let mut mailbox = self.lock();
        self.has_mail.store(false, Ordering::SeqCst);
        into.extend(mailbox.mail.drain(..));
    }

    /// Notes that a callback of this event begins. `false`: there are requests, which come first.
    pub fn begin(&self, key: EventKey, thread: ThreadId) -> bool {
        let mut mailbox = self.lock();
        let free = mailbox.mail.is_empty();
        if free {
            mailbox.running = Some((key, thread));
        }
        free
    }

    /// As [`Shared::begin`] of a callback that has begun already.
    pub fn note(&self, key: EventKey, thread: ThreadId) {
        if self.generation == generation() {
            self.lock().running = Some((key, thread));
        }
    }

    /// The base is gone: what was asked for and not done is dropped, and so is what comes from now on.
    pub fn close(&self) {
        if self.generation != generation() {
            return;
        }
        let mut mailbox = self.lock();
        mailbox.closed = true;
        let left = std::mem::take(&mut mailbox.mail);
        drop(mailbox);
        drop(left);
    }

    /// The callback has ended. In the child of a fork nobody waits, and the lock may be one that a thread of the parent has.
    pub fn end(&self) {
        if self.generation != generation() {
            return;
        }
        let mut mailbox = self.lock();
        mailbox.running = None;
        if mailbox.waiting > 0 {
            self.ended.notify_all();
        }
    }
}
