//! After a fork: `event_reinit` in the child, and the parent undisturbed. Each fork is in a process of its own.

use crate::os;
use crate::parts::*;
use crate::role;
use evd_client::{Event, EventBase, LinkState, LoopFlags, NoFd, What};
use evd_proto::sys::{AsFd, AsRawFd, CAN_REPLACE, PollFd, poll};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

#[cfg(unix)]
#[test]
fn reinit_in_the_child_brings_everything_back_and_leaves_the_parent_alone() {
    for at in 0..SETTINGS.len() {
        role::play_with("fork", &at.to_string(), &[]);
    }
}

#[test]
fn reinit_in_the_process_itself_makes_everything_anew() {
    for at in 0..SETTINGS.len() {
        role::play_with("again", &at.to_string(), &[]);
    }
}

/// One of everything, with what it counts.
#[cfg_attr(windows, allow(dead_code, reason = "the child of a fork looks at some of it"))]
struct All {
    base: EventBase,
    reader: Event<Stream>,
    peer: Stream,
    edge: Event<Stream>,
    edge_peer: Stream,
    timer: Event<NoFd>,
    /// A signal, a name, a user event, and one that is dropped in the child.
    others: Vec<Event<NoFd>>,
    ran: [Count; 4],
}

const NAME: &str = "semantics:fork";

fn all(setting: &Setting, socket: &Path) -> All {
    let socket = if setting.remote { Some(socket) } else { None };
    let base = setting.builder_at(socket).priorities(2).build().unwrap();
    let ran: [Count; 4] = Default::default();
    let ((a, peer), (c, edge_peer)) = (pair(), pair());
    let reads = |count: &Count| {
        let count = Rc::clone(count);
        move |event: &Event<Stream>, _: What| {
            drain(event.source());
            count.set(count.get() + 1);
        }
    };
    let reader = Event::new(&base, a, READ, reads(&ran[0])).unwrap();
    let edge = Event::new(&base, c, READ | What::ET, reads(&ran[0])).unwrap();
    let timer = Event::timer(&base, What::PERSIST, counts(&ran[1])).unwrap();
    let others = vec![
        Event::signal(&base, SIGUSR1, counts(&ran[2])).unwrap(),
        Event::named(&base, NAME, counts(&ran[3])).unwrap(),
        Event::user(&base, |_, _| panic!("nobody made it active")).unwrap(),
        Event::timer(&base, What::empty(), |_, _| panic!("it was dropped in the child")).unwrap(),
    ];
    reader.add(Some(LONG)).unwrap();
    edge.add(None).unwrap();
    timer.add(Some(LONG)).unwrap();
    others[0].add(None).unwrap();
    others[1].add(None).unwrap();
    others[3].add(Some(LONG)).unwrap();
    if CAN_REPLACE {
        base.pollable().unwrap();
    }
    park(&base, 2);
    All { base, reader, peer, edge, edge_peer, timer, others, ran }
}

/// Everything that it has works, once each.
fn works(all: &mut All, remote: bool) {
    let before = all.ran.each_ref().map(|c| c.get());
    let came = |i: usize| all.ran[i].get() - before[i];
    let outside = |base: &EventBase| {
        if !CAN_REPLACE {
            return;
        }
        let fd = base.as_fd().as_raw_fd();
        let mut fds = [PollFd::new(fd, What::READ)];
        poll(&mut fds, None).unwrap();
    };
    assert_eq!(all.reader.pending(What::all()), What::READ | What::TIMEOUT);
    all.peer.write_all(b"x").unwrap();
    outside(&all.base);
    until(&all.base, "the reader", || came(0) == 1);
    for i in 2..4 {
        all.edge_peer.write_all(b"x").unwrap();
        until(&all.base, "the edge", || came(0) == i);
    }
    all.timer.add(Some(MS)).unwrap();
    outside(&all.base);
    until(&all.base, "the timer", || came(1) >= 1);
    all.timer.add(Some(LONG)).unwrap();
    os::raise(SIGUSR1);
    outside(&all.base);
    until(&all.base, "the signal", || came(2) == 1);
    if remote {
        assert!(matches!(all.base.link(), LinkState::Up { .. }), "{:?}", all.base.link());
        // An edge-triggered one stays where it is, and that is here.
        park(&all.base, 1);
    }
    all.base.trigger(NAME).unwrap();
    until(&all.base, "the name", || came(3) >= 1);
    let handle = all.base.handle();
    let thread = std::thread::spawn(move || handle.loopexit());
    all.base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
    thread.join().unwrap();
}

#[cfg(unix)]
fn forked<T: std::fmt::Debug>(result: Result<T, evd_client::Error>) {
    assert!(matches!(result, Err(evd_client::Error::Forked)), "{result:?}");
}

/// A role: forks, and both go on.
#[cfg(unix)]
pub fn forks(socket: &Path, at: &str) {
    let setting = &SETTINGS[at.parse::<usize>().unwrap()];
    let mut all = all(setting, socket);
    let old = all.base.handle();
    // SAFETY: no other thread of this role runs meanwhile, so no lock is held by one that the child lacks.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let child = std::panic::AssertUnwindSafe(|| {
            forked(all.base.dispatch());
            forked(all.reader.add(None));
            drop(all.others.pop());
            all.base.reinit().unwrap();
            let mut left = 0;
            let _ = all.base.for_each_event(|_| {
                left += 1;
                std::ops::ControlFlow::<()>::Continue(())
            });
            assert_eq!(left, 5, "what was dropped is gone, the rest is there");
            assert!(all.edge.what().contains(What::ET));
            assert_eq!(
                all.base.features().contains(evd_client::Features::ET),
                setting.method.starts_with("epoll")
            );
            // The parent's, of which nobody here may know.
            old.loopbreak();
            old.wake();
            works(&mut all, setting.remote);
            assert_eq!(all.base.priorities(), 2);
            all.reader.del().unwrap();
            all.edge.del().unwrap();
            drop(all);
        });
        let fine = std::panic::catch_unwind(child).is_ok();
        // SAFETY: _exit takes a number. Nothing of the test harness runs in the child.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable for the call.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child has failed");
    // A name reaches every subscriber, and nothing else of the child's comes here.
    round(&all.base);
    let named = usize::from(setting.remote);
    until(&all.base, "the child's trigger", || all.ran[3].get() >= named);
    // Of a file that both watch both see the edges.
    let ran = all.ran.each_ref().map(|c| c.get());
    assert_eq!((all.reader.count(), ran[1], ran[2], ran[3]), (0, 0, 0, named));
    assert!(!all.base.got_break());
    works(&mut all, setting.remote);
}

/// A role: makes everything anew without a fork, twice.
pub fn again(socket: &Path, at: &str) {
    let setting = &SETTINGS[at.parse::<usize>().unwrap()];
    let mut all = all(setting, socket);
    for _ in 0..2 {
        all.base.reinit().unwrap();
        works(&mut all, setting.remote);
    }
    setting.is_as_asked(&all.base);
    if !CAN_REPLACE {
        all.base.pollable().unwrap();
        let why = all.base.reinit().unwrap_err().to_string();
        assert!(why.contains("can't be made anew"), "{why}");
        works(&mut all, setting.remote);
    }
}

#[cfg(unix)]
#[test]
fn a_child_forked_by_a_watcher_waits_for_nothing() {
    for at in 0..SETTINGS.len() {
        role::play_with("watcher", &at.to_string(), &[]);
    }
}

#[cfg(unix)]
#[test]
fn the_child_of_a_fork_cannot_make_the_parents_base_readable() {
    for at in 0..SETTINGS.len() {
        role::play_with("silent", &at.to_string(), &[]);
    }
}

/// Runs `child` in a fork, where it must not panic.
#[cfg(unix)]
fn in_child(child: impl FnOnce()) {
    // SAFETY: no other thread of this role runs meanwhile, so no lock is held by one that the child lacks.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: alarm takes a number. A child that hangs is a failure.
        unsafe { libc::alarm(10) };
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).is_ok();
        // SAFETY: _exit takes a number. Nothing of the test harness runs in the child.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable for the call.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child has failed");
}

#[cfg(unix)]
fn own_base(socket: &Path, at: &str) -> EventBase {
    let setting = &SETTINGS[at.parse::<usize>().unwrap()];
    setting.builder_at(setting.remote.then_some(socket)).build().unwrap()
}

/// A role: watchers fork. In the child the loop ends, without a wait in which it would take what is the parent's.
#[cfg(unix)]
pub fn watcher(socket: &Path, at: &str) {
    for check in [false, true] {
        let base = own_base(socket, at);
        let event = Event::new(&base, silent(), READ, |_, _| {}).unwrap();
        event.add(None).unwrap();
        let forks = |base: &EventBase| {
            // SAFETY: no other thread of this role runs meanwhile.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0);
            if pid > 0 {
                let mut status = 0;
                // SAFETY: `status` is writable for the call.
                assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
                assert_eq!(status, 0, "the child has failed");
                base.stop();
                base.handle().wake();
            } else {
                // SAFETY: alarm takes a number. A child that hangs is a failure.
                unsafe { libc::alarm(10) };
            }
        };
        let me = std::process::id();
        let _watcher = if check { base.check(forks) } else { base.prepare(move |base, _| forks(base)) };
        if check {
            base.handle().wake();
        }
        let result = base.dispatch();
        if std::process::id() != me {
            // SAFETY: _exit takes a number. Nothing of the test harness runs in the child.
            unsafe { libc::_exit(i32::from(!matches!(result, Err(evd_client::Error::Forked)))) };
        }
        result.unwrap();
    }
}

/// A role: what has no result to be an error does nothing in the child.
#[cfg(unix)]
pub fn silent_in_child(socket: &Path, at: &str) {
    let base = own_base(socket, at);
    let stream = silent();
    let fd = stream.as_raw_fd();
    let reader = Event::new(&base, stream, READ, |_, _| {}).unwrap();
    let signal = Event::signal(&base, libc::SIGUSR1, |_, _| {}).unwrap();
    reader.add(None).unwrap();
    signal.add(None).unwrap();
    let boot = Event::boot_timer(&base, |_| panic!("not for long")).unwrap();
    let wall = Event::wall_timer(&base, |_| panic!("not for long")).unwrap();
    boot.set_after(LONG).unwrap();
    wall.set_at(std::time::SystemTime::now() + LONG).unwrap();
    park(&base, 2);
    base.pollable().unwrap();
    round(&base);
    in_child(|| {
        base.active_by_fd(fd, What::READ);
        base.active_by_signal(libc::SIGUSR1);
        forked(boot.set_after(MS));
        forked(wall.set_at(std::time::UNIX_EPOCH));
    });
    for fd in [base.as_fd(), boot.as_fd(), wall.as_fd()] {
        let mut one = [PollFd::new(fd.as_raw_fd(), What::READ)];
        assert_eq!(poll(&mut one, Some(5 * MS)).unwrap(), 0, "it belongs to the parent");
    }
}
