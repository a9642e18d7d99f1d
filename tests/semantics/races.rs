//! What happens at the same time, and in great numbers.

use crate::parts::*;
use evd_client::{Ended, Event, LoopFlags, What};
use evd_proto::sys::AsRawFd;
use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::thread;

#[test]
fn a_thousand_events_active_at_once_run_by_priority_and_in_their_order() {
    each_base_with(
        |b| b.priorities(3),
        |base| {
            const MANY: usize = 1000;
            let ran: Rc<RefCell<Vec<usize>>> = Rc::default();
            let priority = |i: usize| (i * 7 + i / 5) % 3;
            let events: Vec<Event> = (0..MANY)
                .map(|i| {
                    let r = Rc::clone(&ran);
                    let event = Event::user(base, move |_, _| r.borrow_mut().push(i)).unwrap();
                    event.set_priority(priority(i)).unwrap();
                    event
                })
                .collect();
            for e in &events {
                e.active(What::READ).unwrap();
            }
            assert_eq!(base.dispatch().unwrap().callbacks, MANY as u64);
            let mut expected: Vec<usize> = (0..MANY).collect();
            expected.sort_by_key(|i| priority(*i));
            assert_eq!(*ran.borrow(), expected);
        },
    );
}

#[test]
fn many_ready_fds_are_all_served_by_priority() {
    each_base_with(
        |b| b.priorities(3),
        |base| {
            const MANY: usize = 300;
            let ran: Rc<RefCell<Vec<usize>>> = Rc::default();
            let mut keep = Vec::new();
            for i in 0..MANY {
                let (a, b) = ready();
                let r = Rc::clone(&ran);
                let event = Event::new(base, a, What::READ, move |_, _| r.borrow_mut().push(i % 3)).unwrap();
                event.set_priority(i % 3).unwrap();
                event.add(None).unwrap();
                keep.push((event, b));
            }
            let mut total = 0;
            while total < MANY as u64 {
                total += once(base).callbacks;
            }
            assert_eq!(ran.borrow().len(), MANY);
            if base.watches() == (0, 0) && !base.method().contains("epoll") {
                // poll and select see all of them with one look; epoll takes them in parts.
                assert!(ran.borrow().is_sorted(), "{:?}", ran.borrow());
            }
        },
    );
}

#[test]
fn the_same_number_added_after_a_close_is_a_new_watch() {
    each_base(|base| {
        let seen = Log::default();
        let (a, mut old) = pair();
        let number = a.as_raw_fd();
        let first = Event::new(base, a, READ, seen.says("old")).unwrap();
        first.add(None).unwrap();
        park(base, 1);
        old.write_all(b"x").unwrap();
        drop(first);
        // The number that was just closed is mostly the next one; other tests open files as well.
        let mut spare = Vec::new();
        let (event, mut peer) = loop {
            let (a, b) = pair();
            if a.as_raw_fd() == number || spare.len() == 50 {
                break (Event::new(base, a, READ, seen.says("new")).unwrap(), b);
            }
            spare.push((a, b));
        };
        event.add(None).unwrap();
        for _ in 0..3 {
            round(base);
        }
        assert!(seen.is_empty(), "what the old one had is not the new one's");
        park(base, 1);
        peer.write_all(b"x").unwrap();
        until(base, "the new one", || !seen.is_empty());
        assert_eq!(seen.take()[0], "new READ");
    });
}

#[test]
fn a_ready_event_may_replace_another_ready_one_by_its_number() {
    each_base(|base| {
        let ((a, _b), (c, _d)) = (ready(), ready());
        let second: Rc<RefCell<Option<Event<Stream>>>> = Rc::default();
        let seen = Log::default();
        let (cell, s, base2) = (Rc::clone(&second), seen.clone(), base.clone());
        // Newest last: whichever runs first, the other one's fd is closed under it and its number used again.
        let keep = Rc::new(RefCell::new(Vec::new()));
        let k = Rc::clone(&keep);
        let replaces = Event::new(base, a, What::READ, move |_, _| {
            drop(cell.borrow_mut().take());
            let (new, peer) = pair();
            let event = Event::new(&base2, new, What::READ, s.says("nothing was written to it")).unwrap();
            event.add(None).unwrap();
            k.borrow_mut().push((event, peer));
        })
        .unwrap();
        let event = Event::new(base, c, READ, |event, _| drain(event.source())).unwrap();
        replaces.add(None).unwrap();
        event.add(None).unwrap();
        *second.borrow_mut() = Some(event);
        until(base, "it is replaced", || !keep.borrow().is_empty());
        for _ in 0..3 {
            round(base);
        }
        assert!(seen.is_empty());
        keep.borrow_mut().clear();
    });
}

#[test]
fn add_and_del_in_turn_leave_the_last_word() {
    each_base(|base| {
        let (a, mut b) = pair();
        let runs = Count::default();
        let event = Event::new(base, a, READ, counts(&runs)).unwrap();
        for i in 0..200 {
            event.add(Some(LONG)).unwrap();
            if i % 7 == 0 {
                park(base, 1);
            }
            if i % 5 == 0 {
                round(base);
            }
            event.del().unwrap();
        }
        b.write_all(b"x").unwrap();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Empty);
        assert_eq!(runs.get(), 0);
        event.add(None).unwrap();
        once(base);
        assert_eq!(runs.get(), 1);
    });
}

#[test]
fn breaks_from_another_thread_hit_no_loop_or_one_and_are_never_lost() {
    each_base(|base| {
        const MANY: usize = 200;
        let (handle, keep) = (base.handle(), base.keep_going());
        let (next, goes) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            for () in goes {
                handle.loopbreak();
            }
        });
        for _ in 0..MANY {
            next.send(()).unwrap();
            // It begins before or after the break: it ends in either case.
            let ended = base.loop_(LoopFlags::empty()).unwrap().ended;
            assert_eq!(ended, Ended::Break);
        }
        drop(next);
        thread.join().unwrap();
        drop(keep);
    });
}

#[test]
fn traffic_to_and_fro_loses_no_byte_whatever_is_parked_meanwhile() {
    each_base(|base| {
        const BYTES: usize = 400;
        let (a, mut b) = pair();
        let got = Count::default();
        let g = Rc::clone(&got);
        let event = Event::new(base, a, READ, move |event, _| {
            let mut buf = [0; 3];
            if let Ok(n) = std::io::Read::read(&mut event.source(), &mut buf) {
                g.set(g.get() + n);
            }
        })
        .unwrap();
        event.add(None).unwrap();
        // So many small messages may fill it.
        b.set_nonblocking(false).unwrap();
        let writes = thread::spawn(move || {
            for i in 0..BYTES {
                b.write_all(&[0]).unwrap();
                if i % 8 == 0 {
                    thread::yield_now();
                }
            }
            b
        });
        while got.get() < BYTES {
            once(base);
        }
        drop(writes.join().unwrap());
        assert_eq!(got.get(), BYTES);
    });
}

/// What a one-time event of one direction leaves in the kernel when it has fired, or is deleted, says nothing to whoever comes after it.
#[test]
fn a_deleted_event_is_not_heard_of_again_though_a_dup_keeps_its_file_open() {
    each_base(|base| {
        for what in [What::READ, READ] {
            for runs_first in [false, true] {
                let (a, mut b) = pair();
                let dup = a.try_clone().unwrap();
                let first = Event::new(base, a, what, |_, _| {}).unwrap();
                first.add(None).unwrap();
                if runs_first {
                    b.write_all(b"x").unwrap();
                    until(base, "it has run", || first.count() > 0);
                    drain(&dup);
                } else {
                    round(base);
                }
                first.del().unwrap();
                drop(first);
                b.write_all(b"x").unwrap();
                let next = Event::new(base, silent(), READ, |_, _| panic!("nothing came")).unwrap();
                next.add(None).unwrap();
                for _ in 0..3 {
                    round(base);
                }
            }
        }
    });
}

#[test]
fn an_active_event_whose_timeout_is_set_anew_waits_for_its_fd_again() {
    each_timed(|base, time| {
        let seen = Log::default();
        let (a, mut b) = pair();
        let event = Rc::new(Event::new(base, a, What::READ, seen.says("it")).unwrap());
        event.add(Some(MS)).unwrap();
        park(base, 1);
        // Its timeout and its fd at once, and both are taken back before it runs.
        let (e, runs) = (Rc::clone(&event), Count::default());
        let r = Rc::clone(&runs);
        let first = Event::user(base, move |_, _| {
            r.set(r.get() + 1);
            if e.pending(What::TIMEOUT | What::READ) == What::TIMEOUT | What::READ {
                e.add(Some(LONG)).unwrap();
            }
        })
        .unwrap();
        first.active_later(What::empty()).unwrap();
        b.write_all(b"x").unwrap();
        time.pass(MS * 2);
        until(base, "its fd", || !seen.is_empty());
        let said = seen.take();
        assert!(
            said == ["it READ"] || said == ["it TIMEOUT|READ"] || said == ["it READ|TIMEOUT"],
            "{said:?}"
        );
        assert_eq!(runs.get(), 1);
    });
}

#[test]
fn an_event_added_beside_one_that_was_reported_and_has_not_run_is_reported_too() {
    each_base_with(
        |b| b.priorities(2),
        |base| {
            let seen = Log::default();
            let (a, _b) = ready();
            let shared = Shared::new(a);
            let later = Event::new(base, shared.clone(), READ, seen.says("later")).unwrap();
            let later = Rc::new(later);
            let one_time = Event::new(base, shared, What::READ, seen.says("one time")).unwrap();
            one_time.set_priority(1).unwrap();
            one_time.add(None).unwrap();
            let (first, _c) = ready();
            let l = Rc::clone(&later);
            // The more urgent one runs when both were reported.
            let first = Event::new(base, first, What::READ, move |_, _| l.add(None).unwrap()).unwrap();
            first.set_priority(0).unwrap();
            first.add(None).unwrap();
            until(base, "both", || later.count() > 0 && one_time.count() > 0);
            later.del().unwrap();
            assert_eq!(seen.take().iter().filter(|s| *s == "one time READ").count(), 1);
        },
    );
}
