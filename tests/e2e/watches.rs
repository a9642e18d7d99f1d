//! Watches that go to evd and come back.

use crate::parts::*;
use crate::wire::{Evd, eventually};
use evd_client::{Event, EventBase, LoopFlags, What};
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

#[test]
fn a_busy_watch_is_served_here_and_parked_again_when_it_is_quiet_each_time() {
    let evd = evd();
    let base = base(&evd);
    let mut all = Vec::new();
    for _ in 0..3 {
        let (near, far) = pair();
        all.push((reader(&base, near), far, 0));
    }
    for round in 0..9 {
        park(&base, 3);
        let ((_, got), far, sent) = &mut all[round % 3];
        until(&base, "it is busy, and here", || {
            if got.get() == *sent {
                far.write_all(b"x").unwrap();
                *sent += 1;
            }
            base.watches() == (2, 1)
        });
        until(&base, "all of it is read", || got.get() == *sent);
    }
}

#[test]
fn an_edge_triggered_parked_watch_fires_once_for_each_edge() {
    let evd = evd();
    let base = base(&evd);
    let (near, mut far) = pair();
    let fired = Count::default();
    let of = Rc::clone(&fired);
    let event = Event::new(&base, near, READ | What::ET, move |_, what| {
        assert_eq!(what, What::READ | What::ET);
        count(&of);
    })
    .unwrap();
    event.add(None).unwrap();
    park(&base, 1);
    for round in 1..=10 {
        // Nobody reads: an edge is all there is.
        far.write_all(b"x").unwrap();
        until(&base, "an edge", || fired.get() == round);
        run_for(&base, 2 * MS);
        assert_eq!((fired.get(), base.watches()), (round, (1, 0)));
    }
    event.del().unwrap();
    far.write_all(b"x").unwrap();
    base.sync().unwrap();
    run_for(&base, 5 * MS);
    assert_eq!(fired.get(), 10);
    event.add(None).unwrap();
    until(&base, "what is there counts as one edge", || fired.get() == 11);
}

#[test]
fn a_one_time_event_at_evd_fires_once_until_it_is_added_again() {
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let base = base_of(&evd, method);
        let (near, mut far) = pair();
        let fired = Count::default();
        let of = Rc::clone(&fired);
        let event = Event::new(&base, near, What::READ, move |_, _| count(&of)).unwrap();
        for round in 1..=5 {
            event.add(None).unwrap();
            if round == 1 {
                park(&base, 1);
            }
            far.write_all(b"x").unwrap();
            until(&base, "it fires", || fired.get() == round);
            run_for(&base, 2 * MS);
            assert_eq!(fired.get(), round);
        }
    }
}

/// Sends `size` bytes when there is room, and counts what comes: both on one fd, by two events.
fn talker(base: &EventBase, stream: UnixStream, size: usize) -> (Vec<Event<Shared>>, Count) {
    let stream = Shared(Rc::new(stream));
    let (read, wrote) = (Count::default(), Count::default());
    let sum = Rc::clone(&read);
    let reads = Event::new(base, stream.clone(), READ, move |event, _| {
        sum.set(sum.get() + drain(&*event.source().0).0);
    })
    .unwrap();
    reads.add(None).unwrap();
    park(base, 1);
    let writes = Event::new(base, stream, What::WRITE | What::PERSIST, move |event, _| {
        let left = size - wrote.get();
        match (&*event.source().0).write(&vec![7; left.min(50_000)]) {
            Ok(n) => wrote.set(wrote.get() + n),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        if wrote.get() == size {
            event.del().unwrap();
        }
    })
    .unwrap();
    (vec![reads, writes], read)
}

#[test]
fn write_wanted_beside_a_parked_read_loses_neither() {
    const SIZE: usize = 3_000_000;
    let evd = evd();
    for method in ["epoll", "poll", "select"] {
        let base = base_of(&evd, method);
        let (near, far) = pair();
        let (events, read) = talker(&base, near, SIZE);
        // The other end takes it in its own time, and answers with as much. It stays open: its end would make the read ready for ever.
        let (mut back, _open) = (far.try_clone().unwrap(), far.try_clone().unwrap());
        let peer = std::thread::spawn(move || {
            let (mut buf, mut all) = (vec![0; 100_000], 0);
            while all < SIZE {
                let n = (&far).read(&mut buf).unwrap();
                assert!(n > 0 && buf[..n].iter().all(|b| *b == 7));
                all += n;
                std::thread::sleep(MS / 2);
            }
        });
        let answers = std::thread::spawn(move || {
            for chunk in [1usize, 99, 999_900, 2_000_000] {
                std::thread::sleep(3 * MS);
                back.write_all(&vec![9; chunk]).unwrap();
            }
        });
        for write_event in &events[1..] {
            write_event.add(None).unwrap();
        }
        until(&base, "both directions", || read.get() >= 3_000_000 && peer.is_finished());
        peer.join().unwrap();
        answers.join().unwrap();
        assert_eq!(events[1].pending(What::all()), What::empty());
        park(&base, 1);
    }
}

#[test]
fn events_of_one_parked_fd_run_newest_first_each_with_its_own_bits() {
    let evd = evd();
    let base = base(&evd);
    let (near, mut far) = pair();
    let near = Shared(Rc::new(near));
    let seen: Rc<RefCell<Vec<String>>> = Rc::default();
    let mut events = Vec::new();
    for (name, what) in [("a", What::READ), ("b", What::CLOSED), ("c", What::READ | What::CLOSED)] {
        let log = Rc::clone(&seen);
        let event = Event::new(&base, near.clone(), what, move |_, what| {
            log.borrow_mut().push(format!("{name} {what}"));
        })
        .unwrap();
        event.add(None).unwrap();
        events.push(event);
    }
    park(&base, 1);
    far.write_all(b"x").unwrap();
    until(&base, "two of them", || seen.borrow().len() >= 2);
    assert_eq!(*seen.borrow(), ["c READ", "a READ"]);
    park(&base, 1);
    drop(far);
    until(&base, "the third", || seen.borrow().len() >= 3);
    assert_eq!(seen.borrow()[2], "b CLOSED");
    assert_eq!(base.watches(), (0, 0));
}

#[test]
fn data_and_a_timeout_at_the_same_time_lose_nothing_and_fire_once() {
    let evd = evd();
    let base = base(&evd);
    let (near, far) = pair();
    let (bytes, fired, late) = (Count::default(), Count::default(), Count::default());
    let (sum, of, alone) = (Rc::clone(&bytes), Rc::clone(&fired), Rc::clone(&late));
    let event = Event::new(&base, near, What::READ, move |event, what| {
        count(&of);
        sum.set(sum.get() + drain(event.source()).0);
        if !what.contains(What::READ) {
            assert_eq!(what, What::TIMEOUT);
            count(&alone);
        }
    })
    .unwrap();
    let (to, times) = channel::<u64>();
    let writer = std::thread::spawn(move || {
        for micros in times {
            std::thread::sleep(Duration::from_micros(micros));
            (&far).write_all(b"x").unwrap();
        }
        far
    });
    const ROUNDS: usize = 100;
    for round in 1..=ROUNDS {
        if round % 4 == 0 {
            event.add(None).unwrap();
            base.sync().unwrap();
        }
        // Sometimes before, sometimes after, often just then.
        to.send(1500 + (round as u64 * 37) % 1000).unwrap();
        event.add(Some(2 * MS)).unwrap();
        until(&base, "it fires", || fired.get() == round);
        assert_eq!(event.pending(What::all()), What::empty());
        run_for(&base, MS);
        assert_eq!(fired.get(), round, "once");
        drain(event.source());
    }
    drop(to);
    writer.join().unwrap();
    assert!(bytes.get() > 0 || late.get() == ROUNDS);
}

#[test]
fn data_that_came_before_the_timeout_was_looked_at_is_told_with_it() {
    let evd = evd();
    let base = base(&evd);
    for persist in [What::empty(), What::PERSIST] {
        let (near, mut far) = pair();
        let seen: Rc<RefCell<Vec<What>>> = Rc::default();
        let log = Rc::clone(&seen);
        let event = Event::new(&base, near, What::READ | persist, move |event, what| {
            log.borrow_mut().push(what);
            drain(event.source());
            event.del().unwrap();
        })
        .unwrap();
        event.add(None).unwrap();
        park(&base, 1);
        event.add(Some(20 * MS)).unwrap();
        base.sync().unwrap();
        // It is late, as a busy program is: the time has come, and so has the data.
        far.write_all(b"x").unwrap();
        std::thread::sleep(30 * MS);
        until(&base, "it fires", || !seen.borrow().is_empty());
        assert!(seen.borrow()[0].contains(What::READ), "{seen:?}");
        run_for(&base, 30 * MS);
        assert_eq!(seen.borrow().len(), 1);
    }
}

#[test]
fn parked_events_run_in_the_order_of_their_priorities() {
    let evd = evd();
    let base = base(&evd);
    base.set_priorities(5).unwrap();
    let seen: Rc<RefCell<Vec<usize>>> = Rc::default();
    let (mut events, mut peers) = (Vec::new(), Vec::new());
    for priority in [3, 0, 4, 1, 2] {
        let (near, far) = pair();
        let log = Rc::clone(&seen);
        let event = Event::new(&base, near, READ, move |event, _| {
            drain(event.source());
            log.borrow_mut().push(event.priority());
        })
        .unwrap();
        event.set_priority(priority).unwrap();
        event.add(None).unwrap();
        events.push(event);
        peers.push(far);
    }
    for round in 1..=3 {
        park(&base, 5);
        peers.iter_mut().for_each(|p| p.write_all(b"x").unwrap());
        // All reports are here before anything runs.
        let activations = || base_info(&evd, "test").unwrap()["activations"].as_u64().unwrap();
        eventually("evd has reported all", || activations() == 5 * round);
        until(&base, "all have run", || seen.borrow().len() == 5);
        assert_eq!(*seen.borrow(), [0, 1, 2, 3, 4]);
        seen.borrow_mut().clear();
    }
}

fn named(base: &EventBase, name: &str) -> (Event, Count) {
    let times = Count::default();
    let sum = Rc::clone(&times);
    let event = Event::named(base, name, move |event, _| sum.set(sum.get() + event.times() as usize));
    let event = event.unwrap();
    event.add(None).unwrap();
    (event, times)
}

fn goes_on(evd: &Evd, base: &EventBase, far: &mut UnixStream, got: &Count, times: &Count) {
    let (before, times_before) = (got.get(), times.get());
    far.write_all(b"x").unwrap();
    evctl(&evd.path(), &["trigger", "goes:on"]);
    until(base, "both work", || got.get() == before + 1 && times.get() == times_before + 1);
}

#[test]
fn a_panic_in_a_callback_leaves_what_is_parked_as_it_was() {
    let evd = evd();
    let base = base(&evd);
    let link = base.link();
    let (near, mut far) = pair();
    let (_reader, got) = reader(&base, near);
    let (_named, times) = named(&base, "goes:on");
    let (bad, mut bad_far) = pair();
    let angry = Rc::new(Cell::new(true));
    let is_angry = Rc::clone(&angry);
    let panics = Event::new(&base, bad, READ, move |event, _| {
        drain(event.source());
        if is_angry.get() {
            panic!("on purpose");
        }
    })
    .unwrap();
    panics.add(None).unwrap();
    let timer = Event::timer(&base, What::empty(), |_, _| {}).unwrap();
    timer.add(Some(Duration::from_secs(600))).unwrap();
    for _ in 0..3 {
        park(&base, 2);
        far.write_all(b"x").unwrap();
        bad_far.write_all(b"x").unwrap();
        let (limit, mut panicked) = (Instant::now() + crate::wire::PATIENCE, false);
        while !panicked {
            assert!(Instant::now() < limit);
            panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run_for(&base, 5 * MS);
            }))
            .is_err();
        }
        goes_on(&evd, &base, &mut far, &got, &times);
    }
    assert_eq!(got.get(), 6);
    angry.set(false);
    assert!(timer.time_left().is_some());
    park(&base, 2);
    assert_eq!(base.link(), link, "the same session");
}

#[test]
fn a_loop_that_does_not_wait_finds_what_is_ready_whether_evd_has_reported_it_or_not() {
    let evd = evd();
    let base = base(&evd);
    let (near, mut far) = pair();
    let (_event, got) = reader(&base, near);
    let (near, mut edge_far) = pair();
    for round in 0..3 {
        park(&base, 1);
        // It can report nothing.
        freeze(&evd);
        for n in 1..=3 {
            far.write_all(b"x").unwrap();
            base.loop_(LoopFlags::NONBLOCK).unwrap();
            assert_eq!(got.get(), round * 3 + n, "in one look, round {round}, look {n}");
        }
        evd.signal(libc::SIGCONT);
    }
    // The first edge of a watch that is new, too.
    let edges = Count::default();
    let of = Rc::clone(&edges);
    let edge = Event::new(&base, near, READ | What::ET, move |_, _| count(&of)).unwrap();
    freeze(&evd);
    edge.add(None).unwrap();
    for n in 1..=3 {
        base.loop_(LoopFlags::NONBLOCK).unwrap();
        assert_eq!(edges.get(), n - 1);
        edge_far.write_all(b"x").unwrap();
        base.loop_(LoopFlags::NONBLOCK).unwrap();
        assert_eq!(edges.get(), n);
    }
    evd.signal(libc::SIGCONT);
    // A loop that waits parks what is level-triggered again.
    until(&base, "it is parked again", || base.watches() == (1, 1));
}

#[test]
fn the_most_urgent_of_what_became_ready_together_runs_first() {
    let evd = evd();
    let builder = EventBase::builder().socket(evd.path()).connect().ignore_env().linger(Duration::ZERO);
    let base = builder.priorities(2).build().unwrap();
    let ran = Rc::new(RefCell::new(Vec::new()));
    let (mut events, mut fars) = (Vec::new(), Vec::new());
    for n in 0..20 {
        let (near, far) = pair();
        let of = Rc::clone(&ran);
        let event = Event::new(&base, near, READ | What::PERSIST, move |event, _| {
            let _ = event.source().read(&mut [0]);
            of.borrow_mut().push(n);
        })
        .unwrap();
        event.set_priority(usize::from(n != 13)).unwrap();
        event.add(None).unwrap();
        events.push(event);
        fars.push(far);
    }
    for round in 0..100 {
        park(&base, 20);
        fars.iter_mut().for_each(|far| far.write_all(b"x").unwrap());
        base.loop_(LoopFlags::ONCE).unwrap();
        let ran = std::mem::take(&mut *ran.borrow_mut());
        assert_eq!((ran.len(), ran[0]), (20, 13), "round {round}: {ran:?}");
    }
}
