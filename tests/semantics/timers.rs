//! Timeouts: `evtimer_*`, `event_add` with a time, persist, common timeouts, slack, other clocks.

use crate::parts::*;
use evd_client::{Event, What};
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[test]
fn timers_fire_in_order_never_early_and_persist_restarts() {
    each_base(|base| {
        let start = Instant::now();
        let seen = Log::default();
        let events = [30u64, 10, 20].map(|ms| {
            let s = seen.clone();
            let event = Event::timer(base, What::empty(), move |_, what| {
                assert_eq!(what, What::TIMEOUT);
                assert!(start.elapsed() >= Duration::from_millis(ms));
                s.add(ms);
            })
            .unwrap();
            event.add(Some(Duration::from_millis(ms))).unwrap();
            event
        });
        let count = Count::default();
        let c = Rc::clone(&count);
        let ticking = Event::timer(base, What::PERSIST, move |event, _| {
            c.set(c.get() + 1);
            if c.get() == 5 {
                event.del().unwrap();
            }
        })
        .unwrap();
        ticking.add(Some(8 * MS)).unwrap();
        assert_eq!(base.dispatch().unwrap().code(), 1);
        assert_eq!(seen.take(), ["10", "20", "30"]);
        assert_eq!(count.get(), 5);
        assert!(start.elapsed() >= 40 * MS);
        drop(events);
    });
}

#[test]
fn timeout_of_a_read_event_comes_alone_and_with_data_both_come() {
    each_base(|base| {
        let (a, mut b) = pair();
        let seen = Log::default();
        let event = Event::new(base, a, What::READ, seen.says("it")).unwrap();
        event.add(Some(5 * MS)).unwrap();
        base.dispatch().unwrap();
        b.write_all(b"x").unwrap();
        event.add(Some(Duration::ZERO)).unwrap();
        base.dispatch().unwrap();
        assert_eq!(seen.take(), ["it TIMEOUT", "it TIMEOUT|READ"]);
    });
}
