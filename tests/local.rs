//! The client's base in-process: libevent's state machine and loop, on every method of the machine.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "conformance/os.rs"]
#[allow(dead_code)]
mod os;

use evd_client::{Ended, Error, Event, EventBase, LoopFlags, What};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

fn each_method(test: impl Fn(&EventBase)) {
    for method in evd::backend::supported(true) {
        println!("method {method}");
        let base = EventBase::builder().local().method(method).ignore_env().build().unwrap();
        assert_eq!(base.method(), method);
        test(&base);
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// The other end is gone: the end, or a reset if it had not read everything.
fn is_closed(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

type Log = Rc<RefCell<Vec<String>>>;

fn log() -> Log {
    Rc::default()
}

#[test]
fn empty_base_ends_at_once_and_says_so() {
    each_method(|base| {
        let looped = base.dispatch().unwrap();
        assert_eq!((looped.ended, looped.code(), looped.callbacks), (Ended::Empty, 1, 0));
        let flags = LoopFlags::NO_EXIT_ON_EMPTY | LoopFlags::NONBLOCK;
        assert_eq!(base.loop_(flags).unwrap().code(), 0);
    });
}

#[test]
fn read_event_fires_once_or_stays_with_persist() {
    each_method(|base| {
        let (a, mut b) = pair();
        let (c, mut d) = pair();
        let seen = log();
        let s = Rc::clone(&seen);
        let once =
            Event::new(base, a, What::READ, move |_, what| s.borrow_mut().push(format!("once {what}")))
                .unwrap();
        let s = Rc::clone(&seen);
        let stays = Event::new(base, c, What::READ | What::PERSIST, move |event, what| {
            let mut buf = [0; 8];
            let n = event.source().read(&mut buf).unwrap();
            s.borrow_mut().push(format!("stays {what} {n}"));
        })
        .unwrap();
        once.add(None).unwrap();
        stays.add(None).unwrap();
        b.write_all(b"x").unwrap();
        d.write_all(b"yy").unwrap();
        base.loop_(LoopFlags::ONCE).unwrap();
        d.write_all(b"zzz").unwrap();
        base.loop_(LoopFlags::ONCE | LoopFlags::NONBLOCK).unwrap();
        let mut seen = seen.borrow_mut();
        seen.sort();
        assert_eq!(*seen, ["once READ", "stays READ 2", "stays READ 3"]);
        assert_eq!(once.pending(What::all()), What::empty());
        assert_eq!(stays.pending(What::all()), What::READ);
    });
}

#[test]
fn newest_event_of_a_fd_runs_first_and_each_gets_only_its_bits() {
    each_method(|base| {
        let (a, mut b) = pair();
        let a = Rc::new(a);
        let seen = log();
        let events: Vec<_> = [("A", What::READ), ("B", What::WRITE), ("C", What::READ | What::WRITE)]
            .into_iter()
            .map(|(name, what)| {
                let s = Rc::clone(&seen);
                let event = Event::new(base, RcFd(Rc::clone(&a)), what, move |_, what| {
                    s.borrow_mut().push(format!("{name} {what}"));
                })
                .unwrap();
                event.add(None).unwrap();
                event
            })
            .collect();
        b.write_all(b"x").unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(*seen.borrow(), ["C READ|WRITE", "B WRITE", "A READ"]);
        drop(events);
    });
}

struct RcFd(Rc<UnixStream>);

impl std::os::fd::AsFd for RcFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[test]
fn timers_fire_in_order_never_early_and_persist_restarts() {
    each_method(|base| {
        let start = Instant::now();
        let seen = log();
        let mut keep = Vec::new();
        for ms in [30u64, 10, 20] {
            let s = Rc::clone(&seen);
            let event = Event::timer(base, What::empty(), move |_, what| {
                assert_eq!(what, What::TIMEOUT);
                assert!(start.elapsed() >= Duration::from_millis(ms));
                s.borrow_mut().push(format!("{ms}"));
            })
            .unwrap();
            event.add(Some(Duration::from_millis(ms))).unwrap();
            keep.push(event);
        }
        let count = Rc::new(Cell::new(0));
        let c = Rc::clone(&count);
        let ticking = Event::timer(base, What::PERSIST, move |event, _| {
            c.set(c.get() + 1);
            if c.get() == 5 {
                event.del().unwrap();
            }
        })
        .unwrap();
        ticking.add(Some(Duration::from_millis(8))).unwrap();
        assert_eq!(base.dispatch().unwrap().code(), 1);
        assert_eq!(*seen.borrow(), ["10", "20", "30"]);
        assert_eq!(count.get(), 5);
        assert!(start.elapsed() >= Duration::from_millis(40));
    });
}

#[test]
fn timeout_of_a_read_event_comes_alone_and_with_data_both_come() {
    each_method(|base| {
        let (a, mut b) = pair();
        let seen = log();
        let s = Rc::clone(&seen);
        let event =
            Event::new(base, a, What::READ, move |_, what| s.borrow_mut().push(what.to_string())).unwrap();
        event.add(Some(Duration::from_millis(5))).unwrap();
        base.dispatch().unwrap();
        b.write_all(b"x").unwrap();
        event.add(Some(Duration::ZERO)).unwrap();
        base.dispatch().unwrap();
        assert_eq!(*seen.borrow(), ["TIMEOUT", "TIMEOUT|READ"]);
    });
}

#[test]
fn event_may_free_itself_or_another_ready_one_in_a_callback() {
    each_method(|base| {
        let (a, mut b) = pair();
        let (c, mut d) = pair();
        let cells: Rc<RefCell<Vec<Option<Event<UnixStream>>>>> = Rc::default();
        let runs = Rc::new(Cell::new(0));
        for stream in [a, c] {
            let (cells2, runs2) = (Rc::clone(&cells), Rc::clone(&runs));
            let event = Event::new(base, stream, What::READ | What::PERSIST, move |_, _| {
                runs2.set(runs2.get() + 1);
                cells2.borrow_mut().clear();
            })
            .unwrap();
            event.add(None).unwrap();
            cells.borrow_mut().push(Some(event));
        }
        b.write_all(b"x").unwrap();
        d.write_all(b"x").unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(runs.get(), 1);
        assert!(is_closed(&mut b) || is_closed(&mut d), "the source was closed with its event");
    });
}

#[test]
fn priorities_are_strict_and_loopexit_lets_the_queue_end() {
    each_method(|base| {
        base.set_priorities(3).unwrap();
        let seen = log();
        let mut keep = Vec::new();
        for (name, priority) in [("low", 2), ("mid", 1), ("high", 0), ("high2", 0)] {
            let s = Rc::clone(&seen);
            let event = Event::user(base, move |_, _| s.borrow_mut().push(name.to_owned())).unwrap();
            event.set_priority(priority).unwrap();
            event.active(What::empty()).unwrap();
            keep.push(event);
        }
        base.loopexit(None).unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Exit);
        assert!(base.got_exit());
        assert_eq!(*seen.borrow(), ["high", "high2", "mid"], "loopexit is an event of middle priority");
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.borrow().last().unwrap(), "low");
        assert!(keep[0].set_priority(3).is_err());
    });
}

#[test]
fn loopbreak_leaves_the_rest_active_for_the_next_loop() {
    each_method(|base| {
        let seen = log();
        let mut keep = Vec::new();
        for name in ["one", "two"] {
            let s = Rc::clone(&seen);
            let event = Event::user(base, move |event, _| {
                s.borrow_mut().push(name.to_owned());
                event.base().loopbreak();
            })
            .unwrap();
            event.active(What::READ).unwrap();
            keep.push(event);
        }
        assert_eq!(base.dispatch().unwrap().ended, Ended::Break);
        assert_eq!(*seen.borrow(), ["one"]);
        assert_eq!(base.dispatch().unwrap().ended, Ended::Break);
        assert_eq!(*seen.borrow(), ["one", "two"]);
    });
}

#[test]
fn signals_are_counted_and_reach_every_base() {
    let other = EventBase::local().unwrap();
    let counts = Rc::new(RefCell::new((0, 0)));
    let c = Rc::clone(&counts);
    let here = Event::signal(&other, 10, move |event, what| {
        assert_eq!(what, What::SIGNAL);
        c.borrow_mut().0 += 1;
        if c.borrow().0 == 3 {
            event.del().unwrap();
        }
    })
    .unwrap();
    here.add(None).unwrap();
    let base = EventBase::local().unwrap();
    let c = Rc::clone(&counts);
    let there = Event::signal(&base, 10, move |event, _| {
        c.borrow_mut().1 += 1;
        if c.borrow().1 == 3 {
            event.del().unwrap();
        }
    })
    .unwrap();
    there.add(None).unwrap();
    for _ in 0..3 {
        // To this thread: one to the process may go to another thread, and while it is on its way the next one is lost.
        os::raise(10);
    }
    base.dispatch().unwrap();
    other.dispatch().unwrap();
    assert_eq!(*counts.borrow(), (3, 3));
}

#[test]
fn panic_in_a_callback_reaches_the_caller_and_the_base_goes_on() {
    each_method(|base| {
        let ran = Rc::new(Cell::new(0));
        let bad = Event::user(base, |_, _| panic!("on purpose")).unwrap();
        let r = Rc::clone(&ran);
        let good = Event::user(base, move |_, _| r.set(r.get() + 1)).unwrap();
        bad.active(What::READ).unwrap();
        good.active(What::READ).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| base.dispatch()));
        assert!(result.is_err());
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
        assert_eq!(ran.get(), 1);
    });
}

#[test]
fn handle_wakes_posts_activates_and_stops_from_another_thread() {
    each_method(|base| {
        let (handle, ran) = (base.handle(), Rc::new(Cell::new(0)));
        let r = Rc::clone(&ran);
        let event = Event::user(base, move |_, what| {
            assert_eq!(what, What::WRITE);
            r.set(r.get() + 1);
        })
        .unwrap();
        let key = event.key();
        let thread = std::thread::spawn(move || {
            handle.wake();
            handle.active(key, What::WRITE);
            handle.post(|base| base.loopexit(None).unwrap());
        });
        assert_eq!(base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap().ended, Ended::Exit);
        assert_eq!(ran.get(), 1);
        thread.join().unwrap();
    });
}

#[test]
fn loop_in_a_callback_is_refused() {
    each_method(|base| {
        let event = Event::user(base, |event, _| {
            assert!(matches!(event.base().dispatch(), Err(Error::Reentrant)));
        })
        .unwrap();
        event.active(What::READ).unwrap();
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
    });
}

#[test]
fn regular_file_is_always_ready() {
    each_method(|base| {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let runs = Rc::new(Cell::new(0));
        let r = Rc::clone(&runs);
        let event = Event::new(base, file, What::READ | What::PERSIST, move |event, what| {
            assert_eq!(what, What::READ);
            r.set(r.get() + 1);
            if r.get() == 3 {
                event.del().unwrap();
            }
        })
        .unwrap();
        event.add(None).unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(runs.get(), 3);
    });
}

#[test]
fn edge_beside_level_on_one_fd_is_refused() {
    let base = EventBase::local().unwrap();
    let (a, _b) = pair();
    let a = Rc::new(a);
    let level = Event::new(&base, RcFd(Rc::clone(&a)), What::READ | What::PERSIST, |_, _| {}).unwrap();
    let edge = Event::new(&base, RcFd(a), What::READ | What::PERSIST | What::ET, |_, _| {}).unwrap();
    level.add(None).unwrap();
    assert!(matches!(edge.add(None), Err(Error::Combination(_))));
    level.del().unwrap();
    edge.add(None).unwrap();
}

#[test]
fn detached_event_lives_until_it_frees_itself() {
    each_method(|base| {
        let (a, mut b) = pair();
        let event =
            Event::new(base, a, What::READ | What::PERSIST, |event, _| event.free().unwrap()).unwrap();
        event.add(None).unwrap();
        event.detach();
        b.write_all(b"x").unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert!(is_closed(&mut b));
    });
}

#[test]
fn hangup_that_nobody_wants_does_not_spin() {
    each_method(|base| {
        let (r, w) = os::pipe();
        let event = Event::new(base, r, What::CLOSED | What::PERSIST, |_, _| {}).unwrap();
        event.add(None).unwrap();
        drop(w);
        let turns = Rc::new(Cell::new(0));
        let t = Rc::clone(&turns);
        let tick = Event::timer(base, What::PERSIST, move |_, _| t.set(t.get() + 1)).unwrap();
        tick.add(Some(Duration::from_millis(10))).unwrap();
        base.loopexit(Some(Duration::from_millis(100))).unwrap();
        let looped = base.dispatch().unwrap();
        assert!(looped.callbacks <= 12, "{looped:?}");
    });
}
