//! A client forks, and starts programs: the child has nothing to do with the parent's base, and a program inherits no fd of it.

use crate::fake;
use crate::os;
use crate::parts::*;
use crate::role::{Process, hear, say};
use crate::wire::{Evd, PATIENCE, eventually};
use evd_client::{Error, Event, EventBase, LoopFlags, NoFd, What};
use evd_proto::frame::encode;
use evd_proto::sys::{self, PollFd};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

const READERS: usize = 5;

/// Forks. `true`: this is the child.
fn fork() -> (bool, i32) {
    // SAFETY: no other thread of a role runs meanwhile, so no lock is held by one that the child lacks.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: alarm takes a number. A child that hangs is a failure.
        unsafe { libc::alarm(30) };
    }
    (pid == 0, pid)
}

/// Ends the child of a fork: nothing of the test harness runs in it.
fn end_child(fine: bool) -> ! {
    // SAFETY: _exit takes a number.
    unsafe { libc::_exit(i32::from(!fine)) }
}

fn child_was_fine(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is writable for the call.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child has failed");
}

/// Runs `child` in a fork of this process, where it must not panic.
fn in_child(child: impl FnOnce()) {
    match fork() {
        (true, _) => end_child(catch_unwind(AssertUnwindSafe(child)).is_ok()),
        (false, pid) => child_was_fine(pid),
    }
}

/// A base with one of everything.
struct All {
    base: EventBase,
    readers: Vec<(Event<UnixStream>, Count)>,
    peers: Vec<UnixStream>,
    others: Vec<Event<NoFd>>,
    /// Timer, name, own signal, evd's signal.
    fired: [Count; 4],
}

fn all(base: EventBase) -> All {
    let (mut readers, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..READERS {
        let (near, far) = pair();
        readers.push(reader(&base, near));
        peers.push(far);
    }
    let fired: [Count; 4] = Default::default();
    let counts = |i: usize| {
        let of = Rc::clone(&fired[i]);
        move |_: &Event<NoFd>, _| count(&of)
    };
    let others = vec![
        Event::timer(&base, What::empty(), counts(0)).unwrap(),
        Event::named(&base, "forks", counts(1)).unwrap(),
        Event::signal(&base, libc::SIGUSR1, counts(2)).unwrap(),
        Event::daemon_signal(&base, libc::SIGUSR2, counts(3)).unwrap(),
    ];
    others[0].add(Some(Duration::from_secs(600))).unwrap();
    others[1..].iter().for_each(|e| e.add(None).unwrap());
    let detached = Event::user(&base, |_, _| {}).unwrap();
    detached.add(None).unwrap();
    detached.detach();
    All { base, readers, peers, others, fired }
}

fn forked<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Forked)), "{result:?}");
}

/// What the child may not do, which is all that would reach evd or the kernel.
fn is_refused(all: &All) {
    let base = &all.base;
    forked(base.dispatch());
    forked(base.sync());
    forked(base.trigger("forks"));
    forked(base.hold("fork", std::io::stdin(), b"", None));
    forked(base.hold_anew("fork", std::io::stdin(), b"", None));
    forked(base.take("fork"));
    forked(base.take_copy("fork"));
    forked(base.list_held());
    forked(base.drop_held("fork"));
    forked(base.loopexit(None));
    forked(base.loopexit(Some(MS)));
    forked(base.pollable());
    forked(Event::new(base, std::io::stdin(), READ, |_, _| {}));
    forked(Event::timer(base, What::empty(), |_, _| {}));
    forked(Event::user(base, |_, _| {}));
    forked(Event::named(base, "forks", |_, _| {}));
    forked(Event::signal(base, libc::SIGUSR1, |_, _| {}));
    forked(Event::daemon_signal(base, libc::SIGUSR1, |_, _| {}));
    for event in &all.others {
        forked(event.add(Some(MS)));
        forked(event.remove_timer());
        forked(event.active(What::READ));
        forked(event.del());
        forked(event.free());
    }
    for (event, _) in &all.readers {
        forked(event.add(None));
        forked(event.del());
    }
    all.base.handle().wake();
    all.base.handle().post(|_| {});
    all.base.loopbreak();
}

/// The child may have a base of its own, and be gone again.
fn has_its_own(socket: &Path) {
    let base = base_at(socket, "child");
    let (near, mut far) = pair();
    let (_event, got) = reader(&base, near);
    park(&base, 1);
    far.write_all(b"x").unwrap();
    until(&base, "the child's own event", || got.get() == 1);
}

#[test]
fn the_child_of_a_fork_is_refused_and_the_parent_goes_on() {
    let evd = evd();
    let mut process = Process::start("forks", &evd.path(), &[]);
    process.says("parked");
    let before = base_info(&evd, "forks").unwrap();
    for i in 1..=3 {
        process.tell("fork");
        process.says("forked");
        let now = base_info(&evd, "forks").unwrap();
        for what in ["id", "parked", "local", "timers", "names", "daemon_signals"] {
            assert_eq!(now[what], before[what], "{what}");
        }
        eventually("the child's own base is gone", || base_info(&evd, "child").is_none());
        process.tell("go on");
        assert!(evctl(&evd.path(), &["trigger", "forks"]).contains('1'));
        evd.signal(libc::SIGUSR2);
        process.signal(libc::SIGUSR1);
        process.says(&format!("all of round {i}"));
    }
    process.ends();
}

/// A role: forks when it is told to, and has its events afterwards.
pub fn forks(socket: &Path, _: &[&str]) {
    let mut all = Some(all(base_at(socket, "forks")));
    let links = links(&all.as_ref().unwrap().base);
    park(&all.as_ref().unwrap().base, READERS);
    say("parked");
    for round in 1..=3 {
        assert_eq!(hear(), "fork");
        in_child(|| {
            is_refused(all.as_ref().unwrap());
            drop(all.take());
            has_its_own(socket);
        });
        say("forked");
        let All { base, readers, peers, others, fired } = all.as_ref().unwrap();
        assert_eq!(hear(), "go on");
        peers.iter().for_each(|mut p| p.write_all(b"x").unwrap());
        others[0].add(Some(MS)).unwrap();
        until(base, "all of this round", || {
            readers.iter().all(|(_, got)| got.get() == round) && fired.iter().all(|f| f.get() == round)
        });
        assert!(links.borrow().is_empty(), "{links:?}");
        others[0].add(Some(Duration::from_secs(600))).unwrap();
        park(base, READERS);
        say(format!("all of round {round}"));
    }
}

/// Reads what is there, however much that is.
fn bytes_there(mut from: &UnixStream) -> usize {
    let (mut all, mut buf) = (0, [0; 4096]);
    loop {
        match from.read(&mut buf) {
            Ok(0) => panic!("the client has closed"),
            Ok(n) => all += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return all,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_child_of_a_fork_sends_nothing_on_its_parents_socket_and_does_not_wake_it() {
    let d = dir();
    // evd's place is taken by somebody who counts.
    let listener = UnixListener::bind(d.socket()).unwrap();
    let mut process = Process::start("counted", &d.socket(), &[]);
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(socket.read(&mut [0; 4096]).unwrap() > 0, "Hello");
    let mut welcome = Vec::new();
    encode(&mut welcome, 1, 0, &fake::welcome()).unwrap();
    socket.write_all(&welcome).unwrap();
    socket.set_nonblocking(true).unwrap();
    process.says("parked");
    assert!(bytes_there(&socket) > 0, "what it registers");
    for _ in 0..3 {
        process.tell("fork");
        process.says("forked");
        assert_eq!(bytes_there(&socket), 0);
    }
    process.tell("delete");
    process.says("deleted");
    assert!(bytes_there(&socket) > 0, "the parent still has its line");
}

/// A role: registers all it can, and its children try what they can.
pub fn counted(socket: &Path, _: &[&str]) {
    // It does not look after evd by itself: that would wake it.
    let builder = EventBase::builder().patience(PATIENCE).socket(socket).connect();
    let mut all = Some(all(builder.liveness(Duration::from_secs(600)).build().unwrap()));
    let base = all.as_ref().unwrap().base.clone();
    run_for(&base, MS);
    assert_eq!(base.watches(), (READERS, 0));
    let base_fd = base.pollable().unwrap();
    say("parked");
    for round in 0..3 {
        assert_eq!(hear(), "fork");
        in_child(|| {
            if round < 2 {
                is_refused(all.as_ref().unwrap());
                // A signal to the child is not the parent's.
                os::raise(libc::SIGUSR1);
                drop(all.take());
            }
            // The last one ends without a word.
        });
        let mut ready = [PollFd::new(base_fd.as_raw_fd(), What::READ)];
        assert_eq!(sys::poll(&mut ready, Some(Duration::ZERO)).unwrap(), 0, "the parent is woken");
        say("forked");
    }
    assert_eq!(hear(), "delete");
    all.as_ref().unwrap().readers[0].0.del().unwrap();
    say("deleted");
    // The one who counts is no evd, and answers nothing. The line stays open until it has counted.
    hear();
    std::process::exit(0);
}

#[test]
fn a_fork_in_a_callback_ends_the_childs_loop_with_forked() {
    let evd = evd();
    let process = Process::start("inside", &evd.path(), &[]);
    process.says("forked in each callback");
    process.ends();
}

/// A role: forks in callbacks whose children return from them.
pub fn inside(socket: &Path, _: &[&str]) {
    let base = base_at(socket, "inside");
    let (in_child, ran) = (Rc::new(Cell::new(false)), Count::default());
    let (mut events, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (near, far) = pair();
        let (is_child, count_of) = (Rc::clone(&in_child), Rc::clone(&ran));
        let event = Event::new(&base, near, READ, move |event, _| {
            assert!(!is_child.get(), "a callback of the parent's in the child");
            let (child, pid) = fork();
            if child {
                return is_child.set(true);
            }
            child_was_fine(pid);
            assert_eq!(drain(event.source()), (1, false), "the child has taken nothing");
            count(&count_of);
        });
        let event = event.unwrap();
        event.add(None).unwrap();
        events.push(event);
        peers.push(far);
    }
    let links = links(&base);
    for round in 1..=5 {
        park(&base, 3);
        peers.iter_mut().for_each(|p| p.write_all(b"x").unwrap());
        while ran.get() < 3 * round {
            let looped = catch_unwind(AssertUnwindSafe(|| base.loop_(LoopFlags::ONCE)));
            if in_child.get() {
                end_child(matches!(looped, Ok(Err(Error::Forked))));
            }
            looped.unwrap().unwrap();
        }
        assert!(links.borrow().is_empty(), "{links:?}");
    }
    say("forked in each callback");
}

/// The numbers of a process's open files.
fn open_files(pid: u32) -> BTreeSet<i32> {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    all.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// What a program has open that this process starts now.
fn inherited() -> BTreeSet<i32> {
    let mut cat = Command::new("cat");
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It runs: by then the kernel has closed what is not to be inherited.
    let mut input = cat.stdin.take().unwrap();
    input.write_all(b"x").unwrap();
    cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let files = open_files(cat.id());
    drop(input);
    assert!(cat.wait().unwrap().success());
    files
}

#[test]
fn a_program_that_a_client_starts_inherits_nothing_of_its_base() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let process = Process::start("starts", &evd.path(), &[method]);
        process.says("nothing is inherited");
        process.ends();
    }
}

/// A role: starts programs before and after it has a base.
pub fn starts(socket: &Path, args: &[&str]) {
    let before = inherited();
    let builder = EventBase::builder().patience(PATIENCE).socket(socket).connect().method(args[0]);
    let base = builder.ignore_env().build().unwrap();
    let (near, _far) = pair();
    let (event, _) = reader(&base, near);
    let signal = Event::signal(&base, libc::SIGUSR1, |_, _| {}).unwrap();
    signal.add(None).unwrap();
    let local = EventBase::builder().local().method(args[0]).ignore_env().build().unwrap();
    let (near, _other_far) = pair();
    let (_event, _) = reader(&local, near);
    base.hold_anew("inherited", event.source(), b"", None).unwrap();
    let held = base.take("inherited").unwrap();
    base.pollable().unwrap();
    park(&base, 1);
    assert_eq!(inherited(), before);
    drop(held);
    say("nothing is inherited");
}

/// Its numbers that a program started by it would have, but for the standard ones.
fn open_on_exec(evd: &Evd) -> Vec<i32> {
    let mut left = Vec::new();
    for number in open_files(evd.child.id()).into_iter().filter(|n| *n > 2) {
        let text = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", evd.pid())).unwrap();
        let flags = text.lines().find_map(|l| l.strip_prefix("flags:")).unwrap().trim();
        if i32::from_str_radix(flags, 8).unwrap() & libc::O_CLOEXEC == 0 {
            left.push(number);
        }
    }
    left
}

#[test]
fn all_fds_of_evd_are_closed_on_exec() {
    let evd = Evd::start_with(|c| {
        dies_with_us(c);
        let mark = || {
            // SAFETY: close_range takes numbers. What this process has inherited itself is not evd's doing.
            unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
            Ok(())
        };
        // SAFETY: between fork and exec only close_range is called, which is async-signal-safe.
        unsafe { c.pre_exec(mark) };
    });
    let mut kept = Vec::new();
    for method in ["epoll", "poll", "select"] {
        let base = base_of(&evd, method);
        let (near, far) = pair();
        let (event, _) = reader(&base, near);
        // A kind that evd keeps a copy of, whatever the method.
        let wake = sys::Wake::new().unwrap();
        let counter = Event::new(&base, wake, READ, |_, _| {}).unwrap();
        counter.add(None).unwrap();
        let signal = Event::daemon_signal(&base, libc::SIGUSR1, |_, _| {}).unwrap();
        signal.add(None).unwrap();
        base.hold(method, event.source(), b"", None).unwrap();
        park(&base, 2);
        kept.push((base, event, counter, signal, far));
    }
    assert!(evd.fds() > 10);
    assert_eq!(open_on_exec(&evd), Vec::<i32>::new());
}
