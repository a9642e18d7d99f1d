//! Cases about fds.

use super::{Closed, Files, Fired, Loop, Refused, os, quiet, until};
use evd::backend::{Features, Mode};
use evd_proto::What;
use evd_proto::sys::{self, AsFd, OwnedFd};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// A pipe with a byte in it.
fn full_pipe() -> (os::End, os::End) {
    let (r, mut w) = os::pipe();
    w.write_all(b"x").unwrap();
    (r, w)
}

fn take_one(mut from: impl Read) {
    from.read_exact(&mut [0]).unwrap();
}

pub fn level_reports_with_every_wait(l: &mut impl Loop) {
    let (r, mut w) = os::pipe();
    let id = l.watch(None, r.as_fd(), What::READ, Mode::Level).unwrap();
    quiet(l);
    w.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    }
    take_one(&r);
    quiet(l);
    l.unwatch(id);
}

pub fn one_shot_reports_once_until_armed_again(l: &mut impl Loop) {
    let (r, _w) = full_pipe();
    let id = l.watch(None, r.as_fd(), What::READ, Mode::OneShot).unwrap();
    for _ in 0..3 {
        assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
        quiet(l);
        l.watch(Some(id), r.as_fd(), What::READ, Mode::OneShot).unwrap();
    }
    l.unwatch(id);
}

pub fn one_shot_rests_in_both_directions(l: &mut impl Loop) {
    let (a, mut b) = os::connection();
    let id = l.watch(None, a.as_fd(), What::READ | What::WRITE, Mode::OneShot).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::WRITE)]);
    b.write_all(b"x").unwrap();
    quiet(l);
    l.watch(Some(id), a.as_fd(), What::READ | What::WRITE, Mode::OneShot).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::READ | What::WRITE)]);
    l.unwatch(id);
}

pub fn edge_reports_once_for_each_edge(l: &mut impl Loop) {
    let (r, mut w) = os::pipe();
    if !l.features().contains(Features::ET) {
        return;
    }
    let id = l.watch(None, r.as_fd(), What::READ, Mode::Edge).unwrap();
    for _ in 0..3 {
        w.write_all(b"x").unwrap();
        assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
        quiet(l);
    }
    l.unwatch(id);
}

pub fn closed_reports_a_half_close(l: &mut impl Loop) {
    let (a, b) = os::connection();
    let id = l.watch(None, a.as_fd(), What::CLOSED, Mode::Level).unwrap();
    quiet(l);
    b.shutdown(Shutdown::Write).unwrap();
    if l.closed() >= Closed::OnSockets {
        assert_eq!(until(l), [Fired::Ready(id, What::CLOSED)]);
        assert_eq!(until(l), [Fired::Ready(id, What::CLOSED)]);
    } else {
        quiet(l);
    }
    l.unwatch(id);
}

pub fn closed_reports_a_close_with_something_unread(l: &mut impl Loop) {
    let (a, mut b) = os::connection();
    let all = What::READ | What::WRITE | What::CLOSED;
    let id = l.watch(None, a.as_fd(), all, Mode::Level).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::WRITE)]);
    b.write_all(b"x").unwrap();
    drop(b);
    let closed = l.closed() >= Closed::OnSockets && os::sees_a_close_behind_data();
    let what = if closed { all } else { What::READ | What::WRITE };
    assert_eq!(until(l), [Fired::Ready(id, what)]);
    l.unwatch(id);
}

/// By the time that waits take, as below.
pub fn data_that_nobody_wants_does_not_spin(l: &mut impl Loop) {
    let (a, mut b) = os::connection();
    let id = l.watch(None, a.as_fd(), What::CLOSED, Mode::Level).unwrap();
    b.write_all(b"x").unwrap();
    let (waits, ms, early) = (20, 10, 5);
    let start = Instant::now();
    for _ in 0..waits {
        assert_eq!(l.wait(ms), []);
    }
    let least = Duration::from_millis((waits - early) * ms);
    assert!(start.elapsed() >= least, "{waits} waits of {ms} ms took only {:?}", start.elapsed());
    drop(b);
    if l.closed() >= Closed::OnSockets && os::sees_a_close_behind_data() {
        for _ in 0..2 {
            assert_eq!(until(l), [Fired::Ready(id, What::CLOSED)]);
        }
        l.watch(Some(id), a.as_fd(), What::CLOSED, Mode::OneShot).unwrap();
        assert_eq!(until(l), [Fired::Ready(id, What::CLOSED)]);
        quiet(l);
        l.watch(Some(id), a.as_fd(), What::CLOSED, Mode::OneShot).unwrap();
        assert_eq!(until(l), [Fired::Ready(id, What::CLOSED)]);
    }
    l.unwatch(id);
}

/// A read would find its end, a write would say why.
pub fn a_pipe_that_nobody_reads_is_ready_for_writing(l: &mut impl Loop) {
    let (r, w) = os::pipe();
    drop(r);
    let id = l.watch(None, w.as_fd(), What::WRITE, Mode::OneShot).unwrap();
    assert!(l.poll_outside(10_000));
    for _ in 0..2 {
        assert_eq!(until(l), [Fired::Ready(id, What::WRITE)]);
        quiet(l);
        assert!(!l.poll_outside(5));
        l.watch(Some(id), w.as_fd(), What::WRITE, Mode::OneShot).unwrap();
    }
    l.watch(Some(id), w.as_fd(), What::WRITE, Mode::Level).unwrap();
    for _ in 0..3 {
        assert_eq!(until(l), [Fired::Ready(id, What::WRITE)]);
    }
    l.unwatch(id);
    assert!(!l.poll_outside(5));
}

pub fn a_watch_that_changes_its_mode_keeps_it(l: &mut impl Loop) {
    let (r, _w) = full_pipe();
    let id = l.watch(None, r.as_fd(), What::READ, Mode::Level).unwrap();
    for mode in [Mode::OneShot, Mode::Level, Mode::OneShot, Mode::OneShot, Mode::Level, Mode::Level] {
        assert_eq!(l.watch(Some(id), r.as_fd(), What::READ, mode), Ok(id));
        assert_eq!(until(l), [Fired::Ready(id, What::READ)], "{mode:?}");
        if mode == Mode::OneShot {
            quiet(l);
        } else {
            assert_eq!(until(l), [Fired::Ready(id, What::READ)], "{mode:?}");
        }
    }
    l.unwatch(id);
}

pub fn write_is_reported_while_there_is_room(l: &mut impl Loop) {
    let (a, mut b) = os::connection();
    a.set_nonblocking(true).unwrap();
    let id = l.watch(None, a.as_fd(), What::WRITE, Mode::Level).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::WRITE)]);
    while (&a).write(&[0; 4096]).is_ok() {}
    quiet(l);
    b.set_nonblocking(true).unwrap();
    let mut room = [0; 4096];
    while b.read(&mut room).is_ok_and(|n| n > 0) {}
    assert_eq!(until(l), [Fired::Ready(id, What::WRITE)]);
    l.unwatch(id);
}

pub fn hang_up_counts_as_read(l: &mut impl Loop) {
    let (r, w) = os::pipe();
    let id = l.watch(None, r.as_fd(), What::READ, Mode::Level).unwrap();
    quiet(l);
    drop(w);
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    l.unwatch(id);
}

/// Counted by the time that waits take when nothing disturbs them, which is a least time and so right on a slow machine too.
pub fn hang_up_that_nobody_wants_does_not_spin(l: &mut impl Loop) {
    let (r, w) = os::pipe();
    let id = l.watch(None, r.as_fd(), What::CLOSED, Mode::Level).unwrap();
    drop(w);
    if l.closed() == Closed::OnPipesToo {
        assert_eq!(until(l), [Fired::Ready(id, What::CLOSED)]);
        l.unwatch(id);
        return;
    }
    let (waits, ms, early) = (50, 10, 10);
    let start = Instant::now();
    for _ in 0..waits {
        assert_eq!(l.wait(ms), []);
    }
    let least = Duration::from_millis((waits - early) * ms);
    assert!(start.elapsed() >= least, "{waits} waits of {ms} ms took only {:?}", start.elapsed());
    // A change is heard at once.
    l.watch(Some(id), r.as_fd(), What::READ, Mode::Level).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    l.unwatch(id);
}

/// A new socket is hung up, which nobody wants to know here.
pub fn closed_is_seen_on_a_socket_that_was_watched_before_it_was_connected(l: &mut impl Loop) {
    if l.closed() == Closed::Never {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = os::tcp_socket();
    let id = l.watch(None, fd.as_fd(), What::CLOSED, Mode::Level).unwrap();
    quiet(l);
    os::connect(fd.as_fd(), listener.local_addr().unwrap().port());
    let (peer, _) = listener.accept().unwrap();
    quiet(l);
    drop(peer);
    assert_eq!(until(l), [Fired::Ready(id, What::CLOSED)]);
    assert_eq!(until(l), [Fired::Ready(id, What::CLOSED)]);
    l.unwatch(id);
}

pub fn two_fds_report_under_their_own_ids(l: &mut impl Loop) {
    let ((r1, mut w1), (r2, mut w2)) = (os::pipe(), os::pipe());
    let one = l.watch(None, r1.as_fd(), What::READ, Mode::Level).unwrap();
    let two = l.watch(None, r2.as_fd(), What::READ, Mode::Level).unwrap();
    w2.write_all(b"x").unwrap();
    assert_eq!(until(l), [Fired::Ready(two, What::READ)]);
    w1.write_all(b"x").unwrap();
    let both = until(l);
    assert_eq!(both.len(), 2);
    assert!(both.contains(&Fired::Ready(one, What::READ)) && both.contains(&Fired::Ready(two, What::READ)));
    take_one(&r2);
    assert_eq!(until(l), [Fired::Ready(one, What::READ)]);
    l.unwatch(one);
    l.unwatch(two);
}

pub fn a_change_replaces_the_whole_interest(l: &mut impl Loop) {
    let (a, mut b) = os::connection();
    b.write_all(b"x").unwrap();
    let id = l.watch(None, a.as_fd(), What::READ, Mode::Level).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    for what in [What::WRITE, What::READ | What::WRITE, What::READ] {
        l.watch(Some(id), a.as_fd(), what, Mode::Level).unwrap();
        assert_eq!(until(l), [Fired::Ready(id, what)]);
    }
    l.watch(Some(id), a.as_fd(), What::WRITE, Mode::OneShot).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::WRITE)]);
    quiet(l);
    l.unwatch(id);
}

pub fn unwatch_stops_reports(l: &mut impl Loop) {
    let (r, _w) = full_pipe();
    let id = l.watch(None, r.as_fd(), What::READ, Mode::Level).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    l.unwatch(id);
    quiet(l);
    let id = l.watch(None, r.as_fd(), What::READ, Mode::Level).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    l.unwatch(id);
}

pub fn a_number_used_again_at_once_is_a_new_watch(l: &mut impl Loop) {
    let (old, _w) = full_pipe();
    let (new, mut w) = os::pipe();
    let number = OwnedFd::from(old);
    let id = l.watch(None, number.as_fd(), What::READ, Mode::Level).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    l.unwatch(id);
    let number = os::exchange(number, new.as_fd());
    let id = l.watch(None, number.as_fd(), What::READ, Mode::Level).unwrap();
    quiet(l);
    w.write_all(b"x").unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    l.unwatch(id);
}

pub fn a_number_above_1024_works(l: &mut impl Loop) {
    sys::raise_open_files().unwrap();
    let (a, b) = os::connection();
    let fd = os::dup_above(a.as_fd(), 2000);
    let id = l.watch(None, fd.as_fd(), What::READ, Mode::Level).unwrap();
    quiet(l);
    (&b).write_all(b"x").unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
    l.watch(Some(id), fd.as_fd(), What::WRITE, Mode::OneShot).unwrap();
    assert_eq!(until(l), [Fired::Ready(id, What::WRITE)]);
    quiet(l);
    l.unwatch(id);
}

pub fn a_thousand_fds_at_once_are_all_reported(l: &mut impl Loop) {
    sys::raise_open_files().unwrap();
    let pipes: Vec<_> = (0..1000).map(|_| full_pipe()).collect();
    let watch = |(r, _): &(os::End, _)| l.watch(None, r.as_fd(), What::READ, Mode::OneShot).unwrap();
    let ids: BTreeSet<_> = pipes.iter().map(watch).collect();
    let mut seen = BTreeSet::new();
    while seen.len() < ids.len() {
        for fired in until(l) {
            let Fired::Ready(id, What::READ) = fired else { panic!("{fired:?}") };
            assert!(seen.insert(id), "{id} came twice");
        }
    }
    assert_eq!(seen, ids);
    quiet(l);
    ids.into_iter().for_each(|id| l.unwatch(id));
}

pub fn a_file_that_is_always_ready_is_refused_or_reported(l: &mut impl Loop) {
    let Some(file) = os::always_ready() else { return };
    let watched = l.watch(None, file.as_fd(), What::READ, Mode::Level);
    match l.files() {
        Files::Refused => assert_eq!(watched, Err(Refused::AlwaysReady)),
        Files::Reported => {
            let id = watched.unwrap();
            assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
            assert_eq!(until(l), [Fired::Ready(id, What::READ)]);
            l.unwatch(id);
        }
    }
    quiet(l);
}

pub fn a_bad_fd_is_refused(l: &mut impl Loop) {
    assert_eq!(l.watch(None, os::bad_fd(), What::READ, Mode::Level), Err(Refused::BadFd));
    quiet(l);
}
