//! Cases about timers, signals, wake-ups, and the loop as part of another one.

use super::{Files, Fired, Id, Loop, os, quiet, until};
use evd::backend::Mode;
use evd_proto::What;
use evd_proto::sys::AsFd;
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// The next `n` activations. Several may come at once where the machine is slow.
fn next(l: &mut impl Loop, n: usize) -> Vec<Fired> {
    let mut all = Vec::new();
    while all.len() < n {
        all.extend(until(l));
    }
    all
}

/// Asserts that these timers fire in this order, each once and none before its delay since `start`.
fn fire_in_order(l: &mut impl Loop, start: Instant, timers: &[(Id, Duration)]) {
    let mut left = timers.iter();
    while left.len() > 0 {
        for fired in until(l) {
            let (id, delay) = left.next().expect("one too many");
            assert_eq!(fired, Fired::Timer(*id));
            assert!(start.elapsed() >= *delay, "{delay:?} came after {:?}", start.elapsed());
        }
    }
    quiet(l);
}

pub fn timers_are_not_early_and_in_order(l: &mut impl Loop) {
    let start = Instant::now();
    let delays = [30, 10, 0, 20].map(|ms| ms * MS + Duration::from_nanos(1));
    let timers = delays.map(|d| (l.timer(None, d), d));
    fire_in_order(l, start, &[2, 1, 3, 0].map(|i| timers[i]));
}

pub fn equal_timers_fire_in_order_of_setting(l: &mut impl Loop) {
    let ids: Vec<_> = (0..20).map(|_| l.timer(None, Duration::ZERO)).collect();
    let expected: Vec<_> = ids.into_iter().map(Fired::Timer).collect();
    assert_eq!(next(l, expected.len()), expected);
}

pub fn a_moved_timer_fires_once_at_its_new_time(l: &mut impl Loop) {
    let start = Instant::now();
    let (early, late) = (l.timer(None, MS), l.timer(None, 3600 * 1000 * MS));
    l.timer(Some(early), 30 * MS);
    l.timer(Some(late), 20 * MS);
    fire_in_order(l, start, &[(late, 20 * MS), (early, 30 * MS)]);
}

pub fn a_cancelled_timer_does_not_fire(l: &mut impl Loop) {
    let (gone, stays) = (l.timer(None, MS), l.timer(None, 5 * MS));
    l.cancel(gone);
    assert_eq!(next(l, 1), [Fired::Timer(stays)]);
    quiet(l);
}

pub fn a_wait_without_anything_lasts_its_time(l: &mut impl Loop) {
    let start = Instant::now();
    let mut waits = 0;
    while start.elapsed() < 20 * MS {
        assert_eq!(l.wait(20), []);
        waits += 1;
        assert!(waits < 10, "waits return too early");
    }
}

pub fn signals_are_counted(l: &mut impl Loop) {
    // Signals are the process's, and so are the counts.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let [one, two] = os::SIGNALS;
    l.catch_signal(one);
    l.catch_signal(two);
    quiet(l);
    for _ in 0..3 {
        os::raise(one);
    }
    assert_eq!(next(l, 1), [Fired::Signal(one, 3)]);
    quiet(l);
    os::raise(two);
    assert_eq!(next(l, 1), [Fired::Signal(two, 1)]);
    quiet(l);
}

pub fn a_wake_from_another_thread_is_seen_once(l: &mut impl Loop) {
    quiet(l);
    let mut wake = l.waker();
    for _ in 0..3 {
        let thread = std::thread::spawn(move || {
            (0..3).for_each(|_| wake());
            wake
        });
        wake = thread.join().unwrap();
        assert_eq!(next(l, 1), [Fired::Wake]);
        quiet(l);
    }
    // And while the loop is asleep, or just before or after.
    for _ in 0..20 {
        let wake = l.waker();
        let thread = std::thread::spawn(wake);
        assert_eq!(next(l, 1), [Fired::Wake]);
        thread.join().unwrap();
    }
}

pub fn the_own_fd_is_readable_for_a_ready_watch_and_only_then(l: &mut impl Loop) {
    // One watch made before the own fd is asked for, and one after.
    let ((mut r1, mut w1), (r2, mut w2)) = (os::pipe(), os::pipe());
    let one = l.watch(None, r1.as_fd(), What::READ, Mode::Level).unwrap();
    assert!(!l.poll_outside(5));
    let two = l.watch(None, r2.as_fd(), What::READ, Mode::OneShot).unwrap();
    w1.write_all(b"x").unwrap();
    assert!(l.poll_outside(10_000));
    assert_eq!(until(l), [Fired::Ready(one, What::READ)]);
    r1.read_exact(&mut [0]).unwrap();
    assert_eq!(l.wait(0), []);
    assert!(!l.poll_outside(5));
    w2.write_all(b"x").unwrap();
    for _ in 0..2 {
        assert!(l.poll_outside(10_000));
        assert_eq!(until(l), [Fired::Ready(two, What::READ)]);
        assert!(!l.poll_outside(5), "a one-shot that has reported rests");
        l.watch(Some(two), r2.as_fd(), What::READ, Mode::OneShot).unwrap();
    }
    l.unwatch(two);
    assert!(!l.poll_outside(5));
    l.unwatch(one);
}

pub fn the_own_fd_is_readable_for_a_file_that_is_always_ready(l: &mut impl Loop) {
    if l.files() == Files::Refused {
        return;
    }
    assert!(!l.poll_outside(5));
    let Some(file) = os::always_ready() else { return };
    let id = l.watch(None, file.as_fd(), What::READ, Mode::OneShot).unwrap();
    assert!(l.poll_outside(10_000));
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    assert!(!l.poll_outside(5));
    l.watch(Some(id), file.as_fd(), What::READ, Mode::Level).unwrap();
    assert!(l.poll_outside(10_000));
    l.unwatch(id);
    assert!(!l.poll_outside(5));
}

pub fn the_own_fd_is_readable_when_a_timer_is_due(l: &mut impl Loop) {
    assert!(!l.poll_outside(5));
    let start = Instant::now();
    let (a, b) = (l.timer(None, 10 * MS), l.timer(None, 20 * MS));
    let mut fired = Vec::new();
    while fired.len() < 2 {
        assert!(l.poll_outside(10_000));
        assert!(start.elapsed() >= [10 * MS, 20 * MS][fired.len()]);
        fired.extend(l.wait(0));
    }
    assert_eq!(fired, [Fired::Timer(a), Fired::Timer(b)]);
    assert!(!l.poll_outside(5));
    l.timer(None, Duration::ZERO);
    assert!(l.poll_outside(10_000), "one that is due already");
    next(l, 1);
    assert!(!l.poll_outside(5));
}
