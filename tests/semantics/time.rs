//! What time it is for a base, timeouts that may be late, and timers on other clocks.

use crate::parts::*;
use evd_client::{Event, What};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

#[test]
fn the_time_stands_still_between_two_waits_until_it_is_taken_anew() {
    each_timed(|base, time| {
        let time = Rc::new(time.clone());
        let t = Rc::clone(&time);
        let event = active(base, move |event, _| {
            let base = event.base();
            let (now, wall) = (base.time(), base.wall_time());
            let timers = [(); 2].map(|()| Event::timer(&base, What::empty(), |_, _| {}).unwrap());
            timers[0].add(Some(LONG)).unwrap();
            t.pass(2 * MS);
            assert!(timers[0].time_left().unwrap() <= LONG - 2 * MS, "what is left is told exactly");
            let _ = base.for_each_event(|_| ControlFlow::<()>::Continue(()));
            timers[1].add(Some(LONG)).unwrap();
            assert_eq!((base.time(), base.wall_time()), (now, wall));
            assert_eq!(timers[0].deadline(), Some(now + LONG));
            assert_eq!(timers[1].deadline(), Some(now + LONG));
            base.update_time();
            assert!(base.time() >= now + 2 * MS);
            timers[1].add(Some(LONG)).unwrap();
            assert_eq!(timers[1].deadline(), Some(base.time() + LONG));
        });
        round(base);
        let before = base.time();
        time.pass(MS);
        assert!(base.time() >= before + MS, "outside of a loop it goes on");
        drop(event);
    });
}

#[test]
fn without_a_cached_time_it_goes_on_in_callbacks() {
    each_timed_with(
        |b| b.no_cache_time(),
        |base, time| {
            let time = time.clone();
            let event = active(base, move |event, _| {
                let before = event.base().time();
                time.pass(MS);
                assert!(event.base().time() >= before + MS);
                let timer = Event::timer(&event.base(), What::empty(), |_, _| {}).unwrap();
                timer.add(Some(LONG)).unwrap();
                assert!(timer.deadline().unwrap() >= before + MS + LONG);
            });
            round(base);
            drop(event);
        },
    );
}

#[test]
fn wall_time_is_the_wall_clocks() {
    each_base(|base| {
        let before = SystemTime::now();
        let wall = base.wall_time();
        assert!(wall >= before - MS && wall <= SystemTime::now() + MS, "if nobody sets the clock just now");
        let start = before;
        let event = active(base, move |event, _| {
            assert!(event.base().wall_time() >= start - MS);
        });
        round(base);
        drop(event);
    });
}

#[test]
fn a_timeout_with_slack_is_in_its_window_and_falls_together_with_others() {
    each_timed(|base, time| {
        let seen = Log::default();
        let events = [100u32, 110, 125].map(|ms| {
            let event = Event::timer(base, What::empty(), seen.says(&ms.to_string())).unwrap();
            event.set_slack(100 * MS);
            let before = base.time();
            event.add(Some(ms * MS)).unwrap();
            let due = event.deadline().unwrap();
            assert!(due >= before + ms * MS && due <= base.time() + (ms + 100) * MS);
            event
        });
        let precise = Event::timer(base, What::empty(), seen.says("precise")).unwrap();
        let before = base.time();
        precise.add(Some(100 * MS)).unwrap();
        let due = precise.deadline().unwrap();
        assert!(due >= before + 100 * MS && due <= base.time() + 100 * MS);
        let mut dues: Vec<_> = events.iter().map(|e| e.deadline().unwrap()).collect();
        dues.dedup();
        assert!(dues.len() <= 2, "windows that overlap so much share times: {dues:?}");
        events[0].set_slack(Duration::ZERO);
        events[0].add(Some(MS)).unwrap();
        time.pass(MS);
        round(base);
        assert_eq!(events[0].count(), 1, "precise again");
    });
}

#[test]
fn a_persistent_timeout_with_slack_does_not_drift() {
    each_timed(|base, time| {
        let interval = 40 * MS;
        let slack = 30 * MS;
        let event = Event::timer(base, What::PERSIST, |_, _| {}).unwrap();
        event.set_slack(slack);
        let before = base.time();
        event.add(Some(interval)).unwrap();
        let after = base.time();
        for i in 1..=4u32 {
            let due = event.deadline().unwrap();
            assert!(due >= before + i * interval && due <= after + i * interval + slack, "{i}");
            let left = due.saturating_sub(base.time());
            time.pass(left);
            round(base);
            let missed = base.time() > after + (i + 1) * interval;
            if missed {
                // The machine was too slow for this test: it starts anew from then.
                return;
            }
            assert_eq!(event.count(), u64::from(i));
        }
    });
}

#[test]
fn a_wall_timer_fires_at_its_time_and_not_before() {
    each_base(|base| {
        let at = Rc::new(std::cell::Cell::new(SystemTime::now() + LONG));
        let runs = Count::default();
        let (r, a) = (Rc::clone(&runs), Rc::clone(&at));
        let event = Event::wall_timer(base, move |_| {
            assert!(SystemTime::now() >= a.get());
            r.set(r.get() + 1);
        })
        .unwrap();
        event.set_at(at.get()).unwrap();
        park(base, 1);
        at.set(SystemTime::now() + 20 * MS);
        let at = at.get();
        event.set_at(at).unwrap();
        assert_eq!(base.dispatch().unwrap().code(), 1);
        assert_eq!(runs.get(), 1);
        event.set_at(at).unwrap();
        once(base);
        assert_eq!(runs.get(), 2, "a time that has passed is due at once");
        event.set_at(at).unwrap();
        event.del().unwrap();
        assert_eq!((base.dispatch().unwrap().code(), runs.get()), (1, 2));
    });
}

#[test]
fn a_boot_timer_fires_after_its_time_and_not_before() {
    each_base(|base| {
        let start = std::time::Instant::now();
        let runs = Count::default();
        let r = Rc::clone(&runs);
        let event = Event::boot_timer(base, move |_| {
            assert!(start.elapsed() >= 20 * MS);
            r.set(r.get() + 1);
        })
        .unwrap();
        event.set_after(LONG).unwrap();
        park(base, 1);
        event.set_after(20 * MS).unwrap();
        assert_eq!(base.dispatch().unwrap().code(), 1);
        assert_eq!(runs.get(), 1);
    });
}
