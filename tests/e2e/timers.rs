//! Timers that evd waits for.

use crate::parts::*;
use crate::wire::Evd;
use evd_client::{Event, EventBase, What};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// A timer that knows when it may fire.
struct Timed {
    event: Event,
    fired: Count,
    due: Rc<Cell<Option<Instant>>>,
}

impl Timed {
    fn new(base: &EventBase) -> Timed {
        let (fired, due) = (Count::default(), Rc::new(Cell::new(None::<Instant>)));
        let (of, at) = (Rc::clone(&fired), Rc::clone(&due));
        let event = Event::timer(base, What::empty(), move |_, what| {
            assert_eq!(what, What::TIMEOUT);
            assert!(Instant::now() >= at.get().expect("it was cancelled"), "early");
            count(&of);
        });
        Timed { event: event.unwrap(), fired, due }
    }

    fn add(&self, after: Duration) {
        self.due.set(Some(Instant::now() + after));
        self.event.add(Some(after)).unwrap();
    }

    fn cancel(&self, by_del: bool) {
        self.due.set(None);
        if by_del { self.event.del() } else { self.event.remove_timer() }.unwrap();
    }
}

fn at_evd(evd: &Evd) -> u64 {
    base_info(evd, "test").unwrap()["timers"].as_u64().unwrap()
}

#[test]
fn callbacks_are_counted_at_evd_though_nothing_else_is_told() {
    let evd = evd();
    let base = base(&evd);
    let tick = Event::timer(&base, What::PERSIST, |_, _| {}).unwrap();
    tick.add(Some(20 * MS)).unwrap();
    let known = || base_info(&evd, "test").unwrap()["callbacks"].as_u64().unwrap();
    until(&base, "evd knows of many", || known() > 20);
    tick.del().unwrap();
    base.sync().unwrap();
}

#[test]
fn timers_that_are_moved_and_cancelled_at_evd_fire_once_and_never_early() {
    let evd = evd();
    let base = base(&evd);
    let timers: Vec<Timed> = (0..300).map(|_| Timed::new(&base)).collect();
    timers.iter().for_each(|t| t.add(HOUR));
    base.sync().unwrap();
    assert_eq!(at_evd(&evd), 300);
    // Earlier, cancelled, cancelled and added again, later: each while evd has it.
    for (i, t) in timers.iter().enumerate() {
        match i % 6 {
            0 => t.add(HOUR / 2),
            1 => t.cancel(true),
            2 => t.cancel(false),
            3 => {
                t.cancel(true);
                t.add(HOUR / 2);
            }
            4 => t.add(2 * HOUR),
            _ => {}
        }
    }
    base.sync().unwrap();
    assert_eq!(at_evd(&evd), 200);
    for (i, t) in timers.iter().enumerate() {
        match i % 6 {
            0 => t.add(Duration::from_millis(20 + i as u64 / 3)),
            3 => t.add(30 * MS),
            4 => t.add(10 * MS),
            _ => {}
        }
    }
    base.sync().unwrap();
    for t in timers.iter().skip(4).step_by(6) {
        // Later: evd keeps the old time, and its report is not believed.
        t.add(Duration::from_millis(150));
    }
    let fires = |i: usize| matches!(i % 6, 0 | 3 | 4);
    let count_of = |i: usize| timers[i].fired.get();
    until(&base, "those that are due", || (0..300).filter(|i| fires(*i)).all(|i| count_of(i) == 1));
    run_for(&base, 20 * MS);
    for (i, t) in timers.iter().enumerate() {
        assert_eq!(t.fired.get(), usize::from(fires(i)), "timer {i}");
        assert_eq!(t.event.time_left().is_some(), i % 6 == 5);
    }
    base.sync().unwrap();
    assert_eq!(at_evd(&evd), 50);
    timers.iter().for_each(|t| t.cancel(true));
    base.sync().unwrap();
    assert_eq!(at_evd(&evd), 0);
}

#[test]
fn a_thousand_timers_fire_in_the_order_of_their_deadlines() {
    let evd = evd();
    let base = base(&evd);
    let order: Rc<RefCell<Vec<u64>>> = Rc::default();
    let mut random = jitter(5);
    let timers: Vec<(Event, u64)> = (0..1000)
        .map(|i| {
            // All different.
            let micros = random.below(400) * 1000 + i;
            let log = Rc::clone(&order);
            let timer = Event::timer(&base, What::empty(), move |_, _| log.borrow_mut().push(micros));
            (timer.unwrap(), micros)
        })
        .collect();
    let mut sorted: Vec<u64> = timers.iter().map(|(_, micros)| *micros).collect();
    sorted.sort_unstable();
    let start = Event::user(&base, move |_, _| {
        // In a callback all times are counted from the same moment.
        for (timer, micros) in &timers {
            timer.add(Some(Duration::from_micros(*micros))).unwrap();
        }
    });
    let start = start.unwrap();
    start.active(What::READ).unwrap();
    until(&base, "all", || order.borrow().len() == 1000);
    assert_eq!(*order.borrow(), sorted);
    run_for(&base, 5 * MS);
    assert_eq!(order.borrow().len(), 1000);
    base.sync().unwrap();
    assert_eq!(at_evd(&evd), 0);
}

#[test]
fn a_timeout_that_is_pushed_back_again_and_again_fires_once_it_is_left_alone() {
    let evd = evd();
    let base = base(&evd);
    let timer = Timed::new(&base);
    timer.add(100 * MS);
    base.sync().unwrap();
    let start = Instant::now();
    while start.elapsed() < 300 * MS {
        timer.add(100 * MS);
        run_for(&base, MS);
    }
    // On a slow machine it may have been due meanwhile; but never early.
    let before = timer.fired.get();
    timer.add(100 * MS);
    until(&base, "it is left alone", || timer.fired.get() == before + 1);
    run_for(&base, 150 * MS);
    assert_eq!(timer.fired.get(), before + 1);
}

#[test]
fn persistent_timers_go_on_at_evd_and_others_are_not_disturbed() {
    let evd = evd();
    let base = base(&evd);
    let (ticks, start) = (Count::default(), Instant::now());
    let of = Rc::clone(&ticks);
    let tick = Event::timer(&base, What::PERSIST, move |_, _| {
        count(&of);
        assert!(start.elapsed() >= 5 * MS * of.get() as u32, "early");
    });
    let tick = tick.unwrap();
    tick.add(Some(5 * MS)).unwrap();
    let (near, far) = pair();
    let (_event, got) = reader(&base, near);
    for round in 1..=20 {
        let before = ticks.get();
        until(&base, "a tick", || ticks.get() > before);
        std::io::Write::write_all(&mut &far, b"x").unwrap();
        until(&base, "a byte", || got.get() == round);
    }
    tick.del().unwrap();
    let after = ticks.get();
    run_for(&base, 20 * MS);
    assert_eq!(ticks.get(), after);
}
