//! Several numbers of one file, and one number for several files.

use crate::os;
use crate::parts::*;
use evd_client::{Event, EventBase, What};
use evd_proto::sys;
use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// Two numbers of one file, and what makes it ready for `what` and not ready any more.
struct Twins {
    first: OwnedFd,
    second: OwnedFd,
    what: What,
    make_ready: Box<dyn FnMut()>,
    end_it: Box<dyn FnMut()>,
}

fn socket_twins() -> Twins {
    let (near, mut far) = pair();
    let first: OwnedFd = near.into();
    let second = first.try_clone().unwrap();
    let mut own = UnixStream::from(first.try_clone().unwrap());
    Twins {
        first,
        second,
        what: What::READ,
        make_ready: Box::new(move || far.write_all(b"x").unwrap()),
        end_it: Box::new(move || own.read_exact(&mut [0]).unwrap()),
    }
}

fn reading_twins() -> Twins {
    let (r, mut w) = os::pipe();
    let (first, mut own): (OwnedFd, File) = (r.try_clone().unwrap().into(), r);
    let second = first.try_clone().unwrap();
    Twins {
        first,
        second,
        what: What::READ,
        make_ready: Box::new(move || w.write_all(b"x").unwrap()),
        end_it: Box::new(move || own.read_exact(&mut [0]).unwrap()),
    }
}

/// The writing end of a pipe that is full when it is not ready.
fn writing_twins() -> Twins {
    let (mut r, w) = os::pipe();
    let first: OwnedFd = w.into();
    let second = first.try_clone().unwrap();
    let mut own = File::from(first.try_clone().unwrap());
    const SIZE: usize = 65536;
    own.write_all(&[0; SIZE]).unwrap();
    Twins {
        first,
        second,
        what: What::WRITE,
        make_ready: Box::new(move || r.read_exact(&mut [0; SIZE]).unwrap()),
        end_it: Box::new(move || own.write_all(&[0; SIZE]).unwrap()),
    }
}

const KINDS: [fn() -> Twins; 3] = [socket_twins, reading_twins, writing_twins];

/// An event that fires once, and how often it did in all.
fn once(base: &EventBase, fd: OwnedFd, what: What) -> (Event<OwnedFd>, Count) {
    let fired = Count::default();
    let of = Rc::clone(&fired);
    let event = Event::new(base, fd, what, move |_, came| {
        assert_eq!(came, what);
        count(&of);
    })
    .unwrap();
    event.add(None).unwrap();
    (event, fired)
}

#[test]
fn both_numbers_of_one_file_get_each_event() {
    let evd = evd();
    for kind in KINDS {
        for second_comes_later in [false, true] {
            let base = base(&evd);
            let mut t = kind();
            let (a, a_fired) = once(&base, t.first, t.what);
            if second_comes_later {
                park(&base, 1);
            }
            let (b, b_fired) = once(&base, t.second, t.what);
            for round in 1..=10 {
                base.sync().unwrap();
                (t.make_ready)();
                until(&base, "both", || a_fired.get() == round && b_fired.get() == round);
                (t.end_it)();
                a.add(None).unwrap();
                b.add(None).unwrap();
                run_for(&base, 3 * MS);
                assert_eq!((a_fired.get(), b_fired.get()), (round, round), "it is not ready");
            }
        }
    }
}

#[test]
fn either_number_of_one_file_may_go_first_and_the_other_goes_on() {
    let evd = evd();
    for kind in KINDS {
        for first_goes in [true, false] {
            for parked in [true, false] {
                let base = base(&evd);
                let mut t = kind();
                let (a, a_fired) = once(&base, t.first, t.what);
                let (b, b_fired) = once(&base, t.second, t.what);
                if parked {
                    base.sync().unwrap();
                }
                // Its event goes, and then its number.
                let (left, fired, gone) = match first_goes {
                    true => (b, b_fired, (a, a_fired)),
                    false => (a, a_fired, (b, b_fired)),
                };
                gone.0.del().unwrap();
                for round in 1..=5 {
                    if parked {
                        base.sync().unwrap();
                    }
                    (t.make_ready)();
                    until(&base, "the one that is left", || fired.get() == round);
                    (t.end_it)();
                    left.add(None).unwrap();
                    if round == 2 {
                        // Back again, beside the other one.
                        gone.0.add(None).unwrap();
                        base.sync().unwrap();
                        (t.make_ready)();
                        until(&base, "both", || fired.get() == 3 && gone.1.get() == 1);
                        (t.end_it)();
                        left.add(None).unwrap();
                        fired.set(2);
                    }
                }
                drop(gone.0);
                base.sync().unwrap();
                (t.make_ready)();
                until(&base, "the one that is left", || fired.get() == 6);
                assert_eq!(gone.1.get(), 1);
            }
        }
    }
}

#[test]
fn both_ends_of_a_socket_pair_and_of_a_pipe_are_different_files() {
    let evd = evd();
    let base = base(&evd);
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    let (a, a_got) = reader(&base, a);
    let (b, b_got) = reader(&base, b);
    let (r, mut w) = os::pipe();
    w.write_all(&[0; 65536]).unwrap();
    let (r, r_fired) = once(&base, r.into(), What::READ);
    until(&base, "the pipe can be read", || r_fired.get() == 1);
    let (w, w_fired) = once(&base, w.into(), What::WRITE);
    park(&base, 3);
    a.source().write_all(b"ab").unwrap();
    b.source().write_all(b"c").unwrap();
    File::from(r.source().try_clone().unwrap()).read_exact(&mut [0; 65536]).unwrap();
    until(&base, "each", || (a_got.get(), b_got.get(), w_fired.get()) == (1, 2, 1));
    drop(w);
}

/// Events that would be somebody else's.
type Seen = Rc<RefCell<Vec<usize>>>;

#[test]
fn a_number_that_is_used_again_at_once_reports_its_own_file_only() {
    let floor = sys::raise_open_files().unwrap().min(20_000) as i32 - 10;
    for method in ["epoll", "poll", "select"] {
        let evd = evd();
        let base = base_of(&evd, method);
        let seen = Seen::default();
        for i in 0..300 {
            let (near, mut far) = pair();
            // Where no other test has one.
            let near = UnixStream::from(os::dup_above(near.as_fd(), floor));
            assert_eq!(near.as_raw_fd(), floor);
            let log = Rc::clone(&seen);
            let event = Event::new(&base, near, READ, move |event, _| {
                assert_eq!(drain(event.source()), (1, false), "a report of another file");
                log.borrow_mut().push(i);
            })
            .unwrap();
            event.add(None).unwrap();
            match i % 6 {
                // Never at evd.
                0 => {}
                // Armed, and quiet when it goes.
                1 => base.sync().unwrap(),
                // evd's report is on its way, or there, when it goes.
                2 => {
                    base.sync().unwrap();
                    far.write_all(b"x").unwrap();
                }
                3 => {
                    base.sync().unwrap();
                    far.write_all(b"x").unwrap();
                    base.sync().unwrap();
                }
                // It fires.
                _ => {
                    base.sync().unwrap();
                    far.write_all(b"x").unwrap();
                    until(&base, "it fires", || seen.borrow().last() == Some(&i));
                    if i % 6 == 5 {
                        base.sync().unwrap();
                    }
                }
            }
            drop(event);
        }
        run_for(&base, 10 * MS);
        let expected: Vec<usize> = (0..300).filter(|i| i % 6 >= 4).collect();
        assert_eq!(*seen.borrow(), expected);
    }
}

#[test]
fn a_number_may_change_its_file_between_del_and_add() {
    let evd = evd();
    let base = base(&evd);
    let (near, _first_far) = pair();
    let number: OwnedFd = near.into();
    let fired = Count::default();
    let of = Rc::clone(&fired);
    let event = Event::new(&base, number, READ, move |event, _| {
        let mut stream = UnixStream::from(event.source().try_clone().unwrap());
        stream.read_exact(&mut [0]).unwrap();
        count(&of);
    })
    .unwrap();
    let mut far = _first_far;
    for round in 1..=100 {
        event.add(None).unwrap();
        if round % 2 == 0 {
            base.sync().unwrap();
        }
        far.write_all(b"x").unwrap();
        until(&base, "it fires", || fired.get() == round);
        if round % 3 == 0 {
            base.sync().unwrap();
        }
        event.del().unwrap();
        let (next, next_far) = pair();
        os::replace(event.source(), next.as_fd());
        sees_end(std::mem::replace(&mut far, next_far));
    }
}
