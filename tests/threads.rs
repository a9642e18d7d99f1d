//! A base's `Handle` from several threads at once, at random, against a loop that runs.
//!
//! Each thread has events of its own, so that it knows whether they are added. What must hold: after `del` returned no callback of the event begins until it is added
//! again, and after `del_wait` none runs either; posted closures all run, once and in their thread's order; and all of it ends.
//!
//! To look for data races, with the sources of the standard library (`rustup component add rust-src --toolchain nightly`):
//!
//! ```text
//! RUSTFLAGS=-Zsanitizer=thread cargo +nightly test -Zbuild-std --target x86_64-unknown-linux-gnu --test threads -- --test-threads 1
//! ```
//!
//! One test after the other: the changelist tells the kernel of a closed fd by its number, and the sanitizer takes it for a use of the fd that another test has opened
//! under that number.

// The lint knows test functions, but not the helpers of a test file.
#![allow(clippy::unwrap_used)]

use evd_client::{Builder, Event, EventBase, EventKey, Handle, LoopFlags, What};
use evd_proto::sys;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const THREADS: usize = 4;
const EVENTS: usize = 3;
const ROUNDS: u64 = 10_000;

/// An event, as its thread knows it.
struct Slot {
    key: Mutex<EventKey>,
    begun: AtomicU64,
    runs: AtomicBool,
    kind: usize,
}

thread_local! {
    /// The events, in the loop's thread.
    static HERE: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    static FINISHED: Cell<usize> = const { Cell::new(0) };
}

struct Random(u64);

impl Random {
    /// 0 to `n` - 1; splitmix64.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn pause(&mut self) {
        for _ in 0..self.below(4) {
            std::thread::yield_now();
        }
    }
}

/// A new event for a slot. It is not added.
fn make(base: &EventBase, kind: usize, slot: Option<Arc<Slot>>, handle: Handle) -> (Box<dyn Any>, EventKey) {
    let mut random = Random(kind as u64);
    let mut called = move || {
        let Some(slot) = &slot else { return };
        slot.begun.fetch_add(1, SeqCst);
        slot.runs.store(true, SeqCst);
        random.pause();
        if random.below(16) == 0 {
            // In its own callback it does not wait.
            let key = *slot.key.lock().unwrap();
            handle.del_wait(key);
        }
        slot.runs.store(false, SeqCst);
    };
    let persist = if kind % 2 == 0 { What::PERSIST } else { What::empty() };
    if kind % 3 == 0 {
        let event = Event::timer(base, persist, move |_, _| called()).unwrap();
        let key = event.key();
        return (Box::new(event), key);
    }
    // Readable all the time.
    let (near, far): (OwnedFd, OwnedFd) = sys::pipe().unwrap();
    std::fs::File::from(far).write_all(b"x").unwrap();
    let event = Event::new(base, near, What::READ | persist, move |_, _| called()).unwrap();
    let key = event.key();
    (Box::new(event), key)
}

/// What one thread does.
fn work(handle: &Handle, mine: &[(usize, Arc<Slot>)], seed: u64) {
    let mut random = Random(seed);
    let (ran, mut posted) = (Arc::new(AtomicU64::new(0)), 0);
    for _ in 0..ROUNDS {
        let (at, slot) = &mine[random.below(EVENTS as u64) as usize];
        let key = *slot.key.lock().unwrap();
        match random.below(20) {
            0..=2 => handle.add(key, None),
            3 | 4 => handle.add(key, Some(Duration::from_micros(random.below(3) * 50))),
            5..=8 => handle.active(key, What::READ),
            9..=11 => {
                handle.del(key);
                let begun = slot.begun.load(SeqCst);
                random.pause();
                // One that had begun may get to its first line now.
                assert!(slot.begun.load(SeqCst) <= begun + 1);
            }
            12..=14 => {
                handle.del_wait(key);
                assert!(!slot.runs.load(SeqCst), "a callback runs after del_wait");
                let begun = slot.begun.load(SeqCst);
                random.pause();
                assert_eq!(slot.begun.load(SeqCst), begun, "a callback began after del_wait");
                assert!(!slot.runs.load(SeqCst), "a callback runs after del_wait");
            }
            15 | 16 => {
                let (number, ran) = (posted, Arc::clone(&ran));
                posted += 1;
                handle.post(move |_| assert_eq!(ran.fetch_add(1, SeqCst), number, "in order, and once"));
            }
            17 => {
                // Another event in its place; the old one's key names nothing from then on.
                let (at, slot, handle) = (*at, Arc::clone(slot), handle.clone());
                let to = handle.clone();
                to.post(move |base| {
                    let (event, key) = make(base, slot.kind, Some(Arc::clone(&slot)), handle);
                    *slot.key.lock().unwrap() = key;
                    let old = HERE.with(|h| std::mem::replace(&mut h.borrow_mut()[at], event));
                    drop(old);
                });
            }
            18 => match random.below(4) {
                0 => handle.loopbreak(),
                1 => handle.loopexit(),
                2 => handle.loopcontinue(),
                _ => handle.wake(),
            },
            _ => handle.remove_timer(key),
        }
    }
    let all = Arc::clone(&ran);
    handle.post(move |_| assert_eq!(all.load(SeqCst), posted, "all that was posted ran"));
}

/// Says that a thread is at its end, also if it failed.
struct Finish(Handle);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.post(|base| {
            FINISHED.set(FINISHED.get() + 1);
            base.loopbreak();
        });
    }
}

fn stress(builder: Builder) {
    let base = builder.ignore_env().build().unwrap();
    let handle = base.handle();
    let mut slots: Vec<Arc<Slot>> = Vec::new();
    for kind in 0..THREADS * EVENTS {
        let (_, key) = make(&base, kind, None, handle.clone());
        let (begun, runs) = (AtomicU64::new(0), AtomicBool::new(false));
        let slot = Arc::new(Slot { key: Mutex::new(key), begun, runs, kind });
        let (event, key) = make(&base, kind, Some(Arc::clone(&slot)), handle.clone());
        *slot.key.lock().unwrap() = key;
        HERE.with(|h| h.borrow_mut().push(event));
        slots.push(slot);
    }
    let threads: Vec<_> = (0..THREADS)
        .map(|t| {
            let mine: Vec<_> =
                (t * EVENTS..(t + 1) * EVENTS).map(|at| (at, Arc::clone(&slots[at]))).collect();
            let handle = handle.clone();
            std::thread::spawn(move || {
                let finish = Finish(handle);
                work(&finish.0, &mine, t as u64);
            })
        })
        .collect();
    while FINISHED.get() < THREADS {
        base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
    }
    let failed = threads.into_iter().filter_map(|t| t.join().err()).next();
    HERE.with(|h| h.borrow_mut().clear());
    if let Some(panic) = failed {
        std::panic::resume_unwind(panic);
    }
    assert!(slots.iter().any(|s| s.begun.load(SeqCst) > 0));
}

fn local(method: &str) -> Builder {
    EventBase::builder().local().method(method)
}

#[test]
fn epoll() {
    stress(local("epoll"));
}

#[test]
fn epoll_with_changelist() {
    stress(local("epoll").changelist());
}

#[test]
fn poll() {
    stress(local("poll"));
}

#[test]
fn select() {
    stress(local("select"));
}

#[test]
fn at_evd() {
    let dir = std::env::temp_dir().join(format!("evd-threads-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("socket");
    let daemon = evd::Daemon::builder().socket(&path).spawn().unwrap();
    stress(EventBase::builder().socket(&path).connect().linger(Duration::ZERO));
    drop(daemon);
    std::fs::remove_dir_all(&dir).unwrap();
}
