//! What every loop on Windows must do with handles that can be waited for.

use super::{Fired, Id, Loop, Refused, os, until};
use evd::backend::Mode;
use evd_proto::What;
use evd_proto::sys::{AsFd, AsRawFd, WaitHandle};
use std::fs::File;
use std::io::{self, Write};
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::process::{Child, Command, Stdio};
use std::ptr::{null, null_mut};
use windows_sys::Win32::Foundation::{HANDLE, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    CreateEventW, CreateMutexW, CreateSemaphoreW, CreateWaitableTimerW, ReleaseSemaphore, ResetEvent,
    SetEvent, SetWaitableTimer, WaitForSingleObject,
};

fn own(raw: HANDLE) -> OwnedHandle {
    assert!(!raw.is_null(), "{}", io::Error::last_os_error());
    // SAFETY: it was just made; nobody else owns it.
    unsafe { OwnedHandle::from_raw_handle(raw) }
}

pub fn event(manual: bool) -> OwnedHandle {
    // SAFETY: no attributes and no name.
    own(unsafe { CreateEventW(null(), manual.into(), 0, null()) })
}

pub fn set(event: &OwnedHandle) {
    // SAFETY: an open handle.
    assert_ne!(unsafe { SetEvent(event.as_raw_handle()) }, 0);
}

fn reset(event: &OwnedHandle) {
    // SAFETY: an open handle.
    assert_ne!(unsafe { ResetEvent(event.as_raw_handle()) }, 0);
}

fn semaphore() -> OwnedHandle {
    // SAFETY: no attributes and no name.
    own(unsafe { CreateSemaphoreW(null(), 0, 1000, null()) })
}

fn release(semaphore: &OwnedHandle, count: i32) {
    // SAFETY: an open handle; nobody wants to know the count before.
    assert_ne!(unsafe { ReleaseSemaphore(semaphore.as_raw_handle(), count, null_mut()) }, 0);
}

/// Due 20 ms after it was made.
fn timer(manual: bool) -> OwnedHandle {
    // SAFETY: no attributes and no name.
    let timer = own(unsafe { CreateWaitableTimerW(null(), manual.into(), null()) });
    let due = -200_000;
    // SAFETY: an open handle, a live number, and no function to be called.
    assert_ne!(unsafe { SetWaitableTimer(timer.as_raw_handle(), &due, 0, None, null(), 0) }, 0);
    timer
}

/// Whether it is signalled; takes what a wait takes.
pub fn is_signalled(handle: &impl AsHandle) -> bool {
    // SAFETY: an open handle.
    unsafe { WaitForSingleObject(handle.as_handle().as_raw_handle(), 0) == WAIT_OBJECT_0 }
}

/// A process that ends when its input does.
pub fn process() -> Child {
    Command::new("cmd").args(["/c", "pause"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn watch<L: Loop>(l: &mut L, handle: &impl AsHandle) -> Id {
    l.watch(None, WaitHandle(handle.as_handle()).as_fd(), What::READ, Mode::Level).unwrap()
}

fn read(id: Id) -> Vec<Fired> {
    vec![Fired::Ready(id, What::READ)]
}

/// Asserts that nothing is active, for as long as the pool needs to find something.
fn silent<L: Loop>(l: &mut L) {
    for _ in 0..3 {
        assert_eq!(l.wait(os::LOOK.as_millis() as u64 / 4), []);
    }
}

pub fn a_manual_reset_event_is_reported_with_every_wait_until_it_is_reset(l: &mut impl Loop) {
    let event = event(true);
    let id = watch(l, &event);
    silent(l);
    for _ in 0..2 {
        set(&event);
        for _ in 0..5 {
            assert_eq!(until(l), read(id));
        }
        reset(&event);
        silent(l);
    }
    l.unwatch(id);
}

pub fn an_auto_reset_event_is_reported_once_each_time_it_is_set(l: &mut impl Loop) {
    let event = event(false);
    set(&event);
    let id = watch(l, &event);
    for _ in 0..4 {
        assert_eq!(until(l), read(id));
        silent(l);
        assert!(!is_signalled(&event), "the report has taken it");
        set(&event);
    }
    assert_eq!(until(l), read(id));
    l.unwatch(id);
}

pub fn a_semaphore_is_reported_once_for_each_release(l: &mut impl Loop) {
    let semaphore = semaphore();
    let id = watch(l, &semaphore);
    for count in [1, 3, 10] {
        release(&semaphore, count);
        for _ in 0..count {
            assert_eq!(until(l), read(id));
        }
        silent(l);
    }
    l.unwatch(id);
}

pub fn a_process_is_reported_when_it_has_ended(l: &mut impl Loop) {
    let mut child = process();
    let id = watch(l, &child);
    silent(l);
    drop(child.stdin.take());
    for _ in 0..3 {
        assert_eq!(until(l), read(id));
    }
    assert!(child.try_wait().unwrap().is_some());
    l.unwatch(id);
    let mut killed = process();
    let id = watch(l, &killed);
    killed.kill().unwrap();
    assert_eq!(until(l), read(id));
    killed.wait().unwrap();
    l.unwatch(id);
}

pub fn a_thread_is_reported_when_it_has_ended(l: &mut impl Loop) {
    let (goes, waits) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || waits.recv());
    let id = watch(l, &thread);
    silent(l);
    drop(goes);
    assert_eq!(until(l), read(id));
    l.unwatch(id);
}

pub fn a_waitable_timer_is_reported_when_it_is_due(l: &mut impl Loop) {
    let (once, stays) = (timer(false), timer(true));
    let id = watch(l, &once);
    assert_eq!(until(l), read(id));
    silent(l);
    l.unwatch(id);
    let id = watch(l, &stays);
    for _ in 0..3 {
        assert_eq!(until(l), read(id));
    }
    l.unwatch(id);
}

pub fn one_shot_reports_once_until_armed_again(l: &mut impl Loop) {
    let event = event(true);
    set(&event);
    let fd = WaitHandle(&event);
    let id = l.watch(None, fd.as_fd(), What::READ, Mode::OneShot).unwrap();
    for _ in 0..3 {
        assert_eq!(until(l), read(id));
        silent(l);
        assert_eq!(l.watch(Some(id), fd.as_fd(), What::READ, Mode::OneShot).unwrap(), id);
    }
    l.unwatch(id);
}

pub fn unwatch_stops_reports_and_takes_nothing_any_more(l: &mut impl Loop) {
    let event = event(false);
    let id = watch(l, &event);
    silent(l);
    l.unwatch(id);
    silent(l);
    set(&event);
    silent(l);
    assert!(is_signalled(&event), "nobody has taken it");
}

/// The pool may take it between two waits.
pub fn what_was_taken_before_the_watch_changed_is_reported(l: &mut impl Loop) {
    let event = event(false);
    let fd = WaitHandle(&event);
    let id = l.watch(None, fd.as_fd(), What::READ, Mode::Level).unwrap();
    for mode in [Mode::OneShot, Mode::Level] {
        l.watch(Some(id), fd.as_fd(), What::READ, Mode::Level).unwrap();
        silent(l);
        set(&event);
        std::thread::sleep(os::LOOK);
        assert!(!is_signalled(&event), "the pool has it");
        l.watch(Some(id), fd.as_fd(), What::READ, mode).unwrap();
        assert_eq!(until(l), read(id), "{mode:?}");
    }
    l.unwatch(id);
}

pub fn a_handle_closed_while_watched_is_still_reported_and_does_not_stop_others(l: &mut impl Loop) {
    let (event, other) = (event(true), event(false));
    let ids = [watch(l, &event), watch(l, &other)];
    silent(l);
    let kept = event.try_clone().unwrap();
    drop(event);
    set(&other);
    assert_eq!(until(l), read(ids[1]));
    set(&kept);
    assert_eq!(until(l), read(ids[0]));
    reset(&kept);
    silent(l);
    l.unwatch(ids[0]);
    set(&other);
    assert_eq!(until(l), read(ids[1]));
    l.unwatch(ids[1]);
}

pub fn a_number_used_again_at_once_is_a_new_watch(l: &mut impl Loop) {
    for _ in 0..5 {
        let first = event(true);
        set(&first);
        let number = WaitHandle(&first).as_raw_fd();
        let id = watch(l, &first);
        assert_eq!(until(l), read(id));
        l.unwatch(id);
        drop(first);
        let second = event(true);
        let id = watch(l, &second);
        silent(l);
        set(&second);
        assert_eq!(until(l), read(id), "{number}");
        l.unwatch(id);
        drop(second);
        let (r, mut w) = os::connection();
        let id = l.watch(None, r.as_fd(), What::READ, Mode::Level).unwrap();
        silent(l);
        w.write_all(b"x").unwrap();
        assert_eq!(until(l), read(id));
        l.unwatch(id);
    }
}

/// A wait of the system takes 64 at most.
pub fn three_hundred_handles_are_all_reported(l: &mut impl Loop) {
    let events: Vec<_> = (0..300).map(|i| event(i % 2 == 0)).collect();
    let mut left: std::collections::BTreeSet<Id> = events.iter().map(|e| watch(l, e)).collect();
    let ids: Vec<_> = left.iter().copied().collect();
    silent(l);
    events.iter().for_each(set);
    while !left.is_empty() {
        for fired in until(l) {
            let Fired::Ready(id, What::READ) = fired else { panic!("{fired:?}") };
            left.remove(&id);
        }
    }
    ids.into_iter().for_each(|id| l.unwatch(id));
    silent(l);
}

pub fn handles_and_sockets_are_reported_together(l: &mut impl Loop) {
    let (r, mut w) = os::connection();
    let event = event(true);
    let socket = l.watch(None, r.as_fd(), What::READ, Mode::Level).unwrap();
    let handle = watch(l, &event);
    set(&event);
    w.write_all(b"x").unwrap();
    std::thread::sleep(os::LOOK);
    for _ in 0..5 {
        let mut fired = until(l);
        fired.sort_by_key(|f| format!("{f:?}"));
        let mut both = vec![Fired::Ready(socket, What::READ), Fired::Ready(handle, What::READ)];
        both.sort_by_key(|f| format!("{f:?}"));
        assert_eq!(fired, both);
    }
    l.unwatch(handle);
    for _ in 0..3 {
        assert_eq!(until(l), read(socket));
    }
    l.unwatch(socket);
}

pub fn only_read_is_ever_reported(l: &mut impl Loop) {
    let event = event(true);
    set(&event);
    let fd = WaitHandle(&event);
    let id = l.watch(None, fd.as_fd(), What::WRITE | What::CLOSED, Mode::Level).unwrap();
    silent(l);
    l.watch(Some(id), fd.as_fd(), What::READ | What::WRITE, Mode::Level).unwrap();
    assert_eq!(until(l), read(id));
    l.unwatch(id);
}

pub fn what_can_not_be_waited_for_is_refused(l: &mut impl Loop) {
    // SAFETY: no attributes and no name.
    let mutex = own(unsafe { CreateMutexW(null(), 0, null()) });
    let file = OwnedHandle::from(File::open(std::env::current_exe().unwrap()).unwrap());
    for bad in [&mutex, &file] {
        match l.watch(None, WaitHandle(bad).as_fd(), What::READ, Mode::Level) {
            Err(Refused::Other(why)) => assert!(why.contains("neither a socket nor a handle"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let event = event(true);
    let edge = l.watch(None, WaitHandle(&event).as_fd(), What::READ, Mode::Edge);
    assert_eq!(edge, Err(Refused::Edge));
    // A number that stands for the caller.
    let me = WaitHandle(os::this_process());
    assert_eq!(l.watch(None, me.as_fd(), What::READ, Mode::Level), Err(Refused::BadFd));
}

pub fn the_own_fd_is_readable_for_a_signalled_handle_and_only_then(l: &mut impl Loop) {
    let (manual, auto) = (event(true), event(false));
    for (event, stays) in [(&manual, true), (&auto, false)] {
        let id = watch(l, event);
        assert!(!l.poll_outside(20));
        set(event);
        assert!(l.poll_outside(10_000));
        assert_eq!(until(l), read(id));
        assert_eq!(l.poll_outside(if stays { 10_000 } else { 50 }), stays);
        if stays {
            assert_eq!(until(l), read(id));
            reset(event);
            assert_eq!(l.wait(20), []);
            assert!(!l.poll_outside(50));
        }
        l.unwatch(id);
        set(event);
        assert!(!l.poll_outside(50));
    }
}

/// Instantiates the cases: `handles!(MyLoop: wepoll = "wepoll");`.
#[macro_export]
macro_rules! handles {
    ($loop:ty: $($module:ident = $method:literal),* $(,)?) => {
        $(mod $module {
            use super::*;
            $crate::conformance_cases!($loop, $method;
                handles::a_manual_reset_event_is_reported_with_every_wait_until_it_is_reset
                handles::an_auto_reset_event_is_reported_once_each_time_it_is_set
                handles::a_semaphore_is_reported_once_for_each_release
                handles::a_process_is_reported_when_it_has_ended
                handles::a_thread_is_reported_when_it_has_ended
                handles::a_waitable_timer_is_reported_when_it_is_due
                handles::one_shot_reports_once_until_armed_again
                handles::unwatch_stops_reports_and_takes_nothing_any_more
                handles::what_was_taken_before_the_watch_changed_is_reported
                handles::a_number_used_again_at_once_is_a_new_watch
                handles::three_hundred_handles_are_all_reported
                handles::handles_and_sockets_are_reported_together
                handles::only_read_is_ever_reported
                handles::what_can_not_be_waited_for_is_refused
                handles::the_own_fd_is_readable_for_a_signalled_handle_and_only_then
            );
        })*
    };
}

/// As `handles!`, the cases of loops that watch nowhere else than in their own process.
#[macro_export]
macro_rules! own_handles {
    ($loop:ty: $($module:ident = $method:literal),* $(,)?) => {
        $(mod $module {
            use super::*;
            $crate::conformance_cases!($loop, $method;
                handles::a_handle_closed_while_watched_is_still_reported_and_does_not_stop_others
            );
        })*
    };
}
