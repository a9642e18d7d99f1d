//! add, del, pending and the getters of events with an fd: `event_new`, `event_add`, `event_del`, `event_pending`, `EV_*`.

use crate::os;
use crate::parts::*;
use evd_client::{Ended, Error, Event, Features, What};
use evd_proto::sys::AsRawFd;
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;

#[test]
fn read_event_fires_once_or_stays_with_persist() {
    each_base(|base| {
        let ((a, mut b), (c, mut d)) = (pair(), pair());
        let seen = Log::default();
        let one = Event::new(base, a, What::READ, seen.says("once")).unwrap();
        let s = seen.clone();
        let stays = Event::new(base, c, READ, move |event, what| {
            let n = event.source().read(&mut [0; 8]).unwrap();
            s.add(format!("stays {what} {n}"));
        })
        .unwrap();
        one.add(None).unwrap();
        stays.add(None).unwrap();
        park(base, 2);
        b.write_all(b"x").unwrap();
        d.write_all(b"yy").unwrap();
        until(base, "both", || one.count() + stays.count() == 2);
        d.write_all(b"zzz").unwrap();
        until(base, "once more", || stays.count() == 2);
        let mut seen = seen.take();
        seen.sort();
        assert_eq!(seen, ["once READ", "stays READ 2", "stays READ 3"]);
        assert_eq!(one.pending(What::all()), What::empty());
        assert_eq!(stays.pending(What::all()), What::READ);
    });
}

#[test]
fn newest_event_of_a_fd_runs_first_and_each_gets_only_its_bits() {
    each_base(|base| {
        let (a, _b) = ready();
        let a = Shared::new(a);
        let seen = Log::default();
        let three = [("A", What::READ), ("B", What::WRITE), ("C", What::READ | What::WRITE)];
        let events = three.map(|(name, what)| {
            let event = Event::new(base, a.clone(), what, seen.says(name)).unwrap();
            event.add(None).unwrap();
            event
        });
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(seen.take(), ["C READ|WRITE", "B WRITE", "A READ"]);
        drop(events);
    });
}

#[test]
fn each_event_of_a_fd_has_its_own_timeout_and_priority() {
    each_timed_with(
        |b| b.priorities(2),
        |base, time| {
            let (a, _b) = ready();
            let a = Shared::new(a);
            let seen = Log::default();
            let urgent = Event::new(base, a.clone(), What::READ, seen.says("urgent")).unwrap();
            urgent.set_priority(0).unwrap();
            let quiet = Event::new(base, a, What::CLOSED, seen.says("quiet")).unwrap();
            let rest = Event::new(base, Shared(Rc::clone(&urgent.source().0)), What::READ, seen.says("rest"));
            let rest = rest.unwrap();
            urgent.add(None).unwrap();
            quiet.add(Some(5 * MS)).unwrap();
            rest.add(None).unwrap();
            time.pass(10 * MS);
            until(base, "all three", || !urgent.is_pending() && !quiet.is_pending() && !rest.is_pending());
            assert_eq!(seen.take(), ["urgent READ", "rest READ", "quiet TIMEOUT"]);
        },
    );
}

trait IsPending {
    fn is_pending(&self) -> bool;
}

impl<F> IsPending for Event<F> {
    fn is_pending(&self) -> bool {
        !self.pending(What::all()).is_empty()
    }
}

#[test]
fn a_one_time_event_is_gone_from_everything_before_its_callback() {
    each_base(|base| {
        let (a, _b) = ready();
        let runs = Count::default();
        let r = Rc::clone(&runs);
        let event = Event::new(base, a, What::READ, move |event, _| {
            assert!(!event.is_pending());
            assert_eq!(event.time_left(), None);
            r.set(r.get() + 1);
            if r.get() == 1 {
                event.add(None).unwrap();
            }
        })
        .unwrap();
        event.add(Some(LONG)).unwrap();
        assert_eq!(base.dispatch().unwrap().callbacks, 2);
        assert!(!event.is_pending());
    });
}

#[test]
fn a_persistent_event_is_pending_in_its_callback_and_not_active() {
    each_base(|base| {
        let (a, _b) = ready();
        let event = Event::new(base, a, READ, |event, _| {
            assert_eq!(event.pending(What::all()), What::READ | What::TIMEOUT);
            let active = event.base().for_each_event(|e| match e.active {
                Some(_) => std::ops::ControlFlow::Break(()),
                None => std::ops::ControlFlow::Continue(()),
            });
            assert_eq!(active, None);
            event.del().unwrap();
            assert!(!event.is_pending());
        })
        .unwrap();
        event.add(Some(LONG)).unwrap();
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
    });
}

// libevent's test nonpersist_readd.
#[test]
fn adding_an_event_that_is_active_does_not_outlive_its_activation() {
    each_base(|base| {
        let (a, _b) = ready();
        let a = Shared::new(a);
        let cells: Rc<RefCell<Vec<Event<Shared>>>> = Rc::default();
        let last = Rc::new(Cell::new(9));
        for other in [1, 0] {
            let (c, l) = (Rc::clone(&cells), Rc::clone(&last));
            let event = Event::new(base, a.clone(), What::READ, move |_, _| {
                c.borrow()[other].add(None).unwrap();
                l.set(other);
            });
            cells.borrow_mut().push(event.unwrap());
        }
        cells.borrow().iter().for_each(|e| e.add(None).unwrap());
        assert_eq!(once(base).callbacks, 2);
        let pending = |at: usize| cells.borrow()[at].is_pending();
        assert!(pending(last.get()), "added when it had run already");
        assert!(!pending(1 - last.get()), "added while it was active");
        cells.borrow_mut().clear();
    });
}

#[test]
fn del_drops_what_is_pending_and_what_is_queued() {
    each_base(|base| {
        let (a, _b) = ready();
        let seen = Log::default();
        let event = Event::new(base, a, READ, seen.says("deleted")).unwrap();
        event.add(Some(LONG)).unwrap();
        event.active(What::READ).unwrap();
        assert_eq!(event.pending(What::all()), What::READ | What::TIMEOUT);
        event.del().unwrap();
        assert!(!event.is_pending());
        assert_eq!(base.dispatch().unwrap().code(), 1);
        assert!(seen.is_empty());
        event.del().unwrap();
        let never = Event::timer(base, What::empty(), seen.says("never")).unwrap();
        never.del().unwrap();
        never.remove_timer().unwrap();
    });
}

#[test]
fn del_of_another_ready_event_in_a_callback_drops_its_activation() {
    each_base(|base| {
        let ((a, _b), (c, _d)) = (ready(), ready());
        let cells: Rc<RefCell<Vec<Event<Stream>>>> = Rc::default();
        let runs = Count::default();
        for stream in [a, c] {
            let (all, r) = (Rc::clone(&cells), Rc::clone(&runs));
            let event = Event::new(base, stream, READ, move |_, _| {
                r.set(r.get() + 1);
                all.borrow().iter().for_each(|e| e.del().unwrap());
            });
            event.as_ref().unwrap().add(None).unwrap();
            cells.borrow_mut().push(event.unwrap());
        }
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(runs.get(), 1);
        cells.borrow_mut().clear();
    });
}

#[test]
fn event_may_free_itself_or_another_ready_one_in_a_callback() {
    each_base(|base| {
        let ((a, b), (c, d)) = (ready(), ready());
        let cells: Rc<RefCell<Vec<Event<Stream>>>> = Rc::default();
        let runs = Count::default();
        for stream in [a, c] {
            let (all, r) = (Rc::clone(&cells), Rc::clone(&runs));
            let event = Event::new(base, stream, READ, move |_, _| {
                r.set(r.get() + 1);
                all.borrow_mut().clear();
            });
            event.as_ref().unwrap().add(None).unwrap();
            cells.borrow_mut().push(event.unwrap());
        }
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(runs.get(), 1);
        assert!(closes(&b) && closes(&d), "the sources were closed with their events");
    });
}

#[test]
fn events_of_every_kind_may_free_themselves_in_their_callback() {
    let _turn = turn();
    each_base(|base| {
        let (a, b) = ready();
        let runs = Count::default();
        let frees = |event: Event, add: &dyn Fn(&Event)| {
            add(&event);
            event.detach();
        };
        let free = |runs: &Count| {
            let r = Rc::clone(runs);
            move |event: &Event, _: What| {
                r.set(r.get() + 1);
                event.free().unwrap();
            }
        };
        frees(Event::timer(base, What::empty(), free(&runs)).unwrap(), &|e| e.add(Some(MS)).unwrap());
        frees(Event::timer(base, What::PERSIST, free(&runs)).unwrap(), &|e| e.add(Some(MS)).unwrap());
        frees(Event::user(base, free(&runs)).unwrap(), &|e| e.active(What::empty()).unwrap());
        frees(Event::signal(base, SIGWINCH, free(&runs)).unwrap(), &|e| e.add(None).unwrap());
        frees(Event::named(base, "frees:itself", free(&runs)).unwrap(), &|e| {
            e.active(What::empty()).unwrap()
        });
        let r = Rc::clone(&runs);
        let event = Event::new(base, a, READ, move |event, _| {
            r.set(r.get() + 1);
            event.free().unwrap();
        });
        event.as_ref().unwrap().add(None).unwrap();
        event.unwrap().detach();
        base.active_by_signal(SIGWINCH);
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(runs.get(), 6);
        assert!(closes(&b));
    });
}

#[test]
fn dropping_an_event_deletes_it_before_its_fd_is_closed() {
    each_base(|base| {
        let (a, b) = pair();
        let event = Event::new(base, a, READ, |_, _| {}).unwrap();
        event.add(Some(LONG)).unwrap();
        park(base, 1);
        drop(event);
        assert_eq!(base.watches(), (0, 0));
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        until(base, "the peer sees the end, also if evd had a copy", || is_closed(&b));
    });
}

#[test]
fn detached_event_lives_until_it_frees_itself() {
    each_base(|base| {
        let (a, mut b) = pair();
        let event = Event::new(base, a, READ, |event, _| event.free().unwrap()).unwrap();
        event.add(None).unwrap();
        event.detach();
        park(base, 1);
        b.write_all(b"x").unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert!(closes(&b));
    });
}

#[cfg(unix)]
#[test]
fn regular_file_is_always_ready() {
    each_base(|base| {
        if base.method().contains("changelist") {
            return;
        }
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let runs = Count::default();
        let r = Rc::clone(&runs);
        let event = Event::new(base, file, READ, move |event, what| {
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
fn a_bad_fd_is_refused_and_nothing_has_changed() {
    each_base(|base| {
        if base.method().contains("changelist") {
            return;
        }
        let event = Event::new(base, os::bad_fd(), READ, |_, _| {}).unwrap();
        assert!(matches!(event.add(Some(LONG)), Err(Error::BadFd)));
        assert!(!event.is_pending());
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
    });
}

#[cfg(unix)]
#[test]
fn the_changelist_notices_a_bad_fd_and_a_file_only_with_the_wait() {
    let base =
        evd_client::EventBase::builder().local().method("epoll").ignore_env().changelist().build().unwrap();
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let file = Event::new(&base, file, READ, |_, _| panic!("it can't be watched")).unwrap();
    let bad = Event::new(&base, os::not_open(60_000), READ, |_, _| panic!("it is not open")).unwrap();
    file.add(None).unwrap();
    bad.add(None).unwrap();
    for _ in 0..3 {
        round(&base);
    }
    assert!(file.is_pending() && bad.is_pending());
}

#[test]
fn edge_event_says_so_and_fires_once_for_each_edge_or_is_level_where_the_method_has_none() {
    each_base(|base| {
        let (a, mut b) = pair();
        let seen = Log::default();
        let event = Event::new(base, a, READ | What::ET, seen.says("edge")).unwrap();
        event.add(None).unwrap();
        park(base, 1);
        b.write_all(b"x").unwrap();
        until(base, "an edge", || event.count() >= 1);
        if base.features().contains(Features::ET) {
            for _ in 0..3 {
                round(base);
            }
            b.write_all(b"x").unwrap();
            until(base, "another edge", || event.count() >= 2);
            assert_eq!(seen.take(), ["edge READ|ET", "edge READ|ET"]);
        } else {
            until(base, "still ready", || event.count() >= 3);
            assert!(seen.take().iter().all(|line| line == "edge READ"));
        }
    });
}

#[test]
fn edge_beside_level_on_one_fd_is_refused_where_they_differ() {
    each_base(|base| {
        let a = Shared::new(pair().0);
        let level = Event::new(base, a.clone(), READ, |_, _| {}).unwrap();
        let edge = Event::new(base, a, READ | What::ET, |_, _| {}).unwrap();
        level.add(None).unwrap();
        if base.features().contains(Features::ET) {
            assert!(matches!(edge.add(Some(LONG)), Err(Error::Combination(_))));
            assert!(!edge.is_pending());
            level.del().unwrap();
        }
        edge.add(None).unwrap();
        assert!(edge.is_pending());
    });
}

#[test]
fn closed_tells_of_a_half_close_without_reading_where_the_method_can() {
    each_base(|base| {
        let (a, mut b) = pair();
        let a = Shared::new(a);
        if os::sees_a_close_behind_data() {
            b.write_all(b"unread").unwrap();
        }
        let (closed, read) = (Log::default(), Log::default());
        let event = Event::new(base, a.clone(), What::CLOSED | What::PERSIST, closed.says("closed")).unwrap();
        event.add(None).unwrap();
        for _ in 0..3 {
            round(base);
        }
        assert!(closed.is_empty());
        park(base, 1);
        b.shutdown(Shutdown::Write).unwrap();
        if base.features().contains(Features::EARLY_CLOSE) {
            until(base, "it fires in every round", || event.count() >= 3);
            assert!(closed.take().iter().all(|line| line == "closed CLOSED"));
        } else {
            let reader = Event::new(base, a, What::READ, read.says("read")).unwrap();
            reader.add(None).unwrap();
            until(base, "the reader", || !read.is_empty());
            assert!(closed.is_empty(), "added, and never fires");
        }
    });
}

#[test]
fn a_peer_that_is_gone_is_all_that_was_asked_for() {
    each_base(|base| {
        let (a, b) = pair();
        let seen = Log::default();
        let event = Event::new(base, a, What::IO, seen.says("gone")).unwrap();
        drop(b);
        event.add(None).unwrap();
        once(base);
        let early = base.features().contains(Features::EARLY_CLOSE);
        assert_eq!(seen.take(), [if early { "gone READ|WRITE|CLOSED" } else { "gone READ|WRITE" }]);
    });
}

#[test]
fn hangup_that_nobody_wants_does_not_spin() {
    each_base(|base| {
        if os::PIPES_ARE_SOCKETS && base.features().contains(Features::EARLY_CLOSE) {
            // Its end is what was asked for.
            return;
        }
        let (r, w) = os::pipe();
        let event = Event::new(base, r, What::CLOSED | What::PERSIST, |_, _| {}).unwrap();
        event.add(None).unwrap();
        drop(w);
        let tick = Event::timer(base, What::PERSIST, |_, _| {}).unwrap();
        tick.add(Some(10 * MS)).unwrap();
        base.loopexit(Some(100 * MS)).unwrap();
        let looped = base.dispatch().unwrap();
        assert!(looped.callbacks <= 12, "{looped:?}");
    });
}

#[test]
fn an_event_with_an_fd_and_nothing_to_wait_for_is_a_timer() {
    each_base(|base| {
        let (a, _b) = ready();
        let seen = Log::default();
        let event = Event::new(base, a, What::empty(), seen.says("timer")).unwrap();
        event.add(None).unwrap();
        assert!(!event.is_pending());
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        event.add(Some(MS)).unwrap();
        assert_eq!(event.pending(What::all()), What::TIMEOUT);
        base.active_by_fd(event.source().as_raw_fd(), What::TIMEOUT);
        once(base);
        assert_eq!(seen.take(), ["timer TIMEOUT"]);
        assert!(!event.is_pending());
    });
}

#[cfg(unix)]
#[test]
fn a_file_that_is_always_ready_and_never_closed_does_not_spin() {
    each_base(|base| {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let event = Event::new(base, file, What::CLOSED, |_, _| panic!("nobody closes it")).unwrap();
        event.add(None).unwrap();
        let waits = Rc::new(RefCell::new(Vec::new()));
        let w = Rc::clone(&waits);
        let _watcher = base.prepare(move |base, wait| {
            w.borrow_mut().push(wait);
            base.stop();
            base.handle().wake();
        });
        assert_eq!(base.dispatch().unwrap().ended, Ended::Break);
        assert!(waits.borrow()[0] != Some(std::time::Duration::ZERO), "{:?}", waits.borrow());
    });
}
