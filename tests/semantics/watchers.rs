//! Looking over the loop's shoulder: `evwatch_prepare_new`, `evwatch_check_new`, and callbacks that take too long.

use crate::parts::*;
use evd_client::{Counted, Event, LinkState, What};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

#[test]
fn watchers_run_before_and_after_each_wait_in_the_order_in_which_they_were_made() {
    each_base(|base| {
        let seen = Log::default();
        let check = |name: &'static str| {
            let s = seen.clone();
            base.check(move |_| s.add(name))
        };
        let prepare = |name: &'static str| {
            let s = seen.clone();
            base.prepare(move |_, _| s.add(name))
        };
        let all = [check("check 1"), prepare("prepare 1"), check("check 2"), prepare("prepare 2")];
        let (a, _b) = ready();
        let io = Event::new(base, a, What::READ, seen.says("io")).unwrap();
        io.add(None).unwrap();
        once(base);
        let before = ["prepare 1", "prepare 2", "check 1", "check 2"];
        assert_eq!(seen.take(), [&before[..], &["io READ"]].concat());
        drop(all);
        round(base);
        assert!(seen.is_empty());
    });
}

#[test]
fn watchers_are_no_events() {
    each_base(|base| {
        let all = [base.prepare(|_, _| panic!("the base is empty")), base.check(|_| panic!("it is"))];
        assert_eq!(base.num_events(Counted::all()), 0);
        assert_eq!(base.dispatch().unwrap().code(), 1);
        assert_eq!(all[0].base().unwrap().method(), base.method());
    });
}

#[test]
fn a_check_watcher_finds_what_is_ready_active_and_due_timers_not_yet() {
    each_timed(|base, time| {
        let (a, _b) = ready();
        let io = Event::new(base, a, What::READ, |_, _| {}).unwrap();
        let timer = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        io.add(None).unwrap();
        timer.add(Some(MS)).unwrap();
        time.pass(MS);
        let watcher = base.check(|base| assert_eq!(base.num_events(Counted::ACTIVE), 1));
        assert_eq!(round(base).callbacks, 2);
        drop(watcher);
    });
}

#[test]
fn a_prepare_watcher_is_told_how_long_the_wait_may_be() {
    each_timed(|base, _| {
        let told: Rc<RefCell<Vec<Option<Duration>>>> = Rc::default();
        let t = Rc::clone(&told);
        let watcher = base.prepare(move |_, timeout| t.borrow_mut().push(timeout));
        let user = active(base, |_, _| {});
        round(base);
        assert_eq!(told.take(), [Some(Duration::ZERO)], "something is active");
        base.loop_(evd_client::LoopFlags::NO_EXIT_ON_EMPTY | ROUND).unwrap();
        assert_eq!(told.take(), [Some(Duration::ZERO)], "it may not wait");
        let timer = Event::timer(base, What::PERSIST, |_, _| {}).unwrap();
        timer.add(Some(LONG)).unwrap();
        let handle = base.handle();
        let ends = base.check(move |_| handle.loopbreak());
        // Mail is there, but for all that the watcher is told the wait may last.
        base.handle().wake();
        assert_eq!(base.dispatch().unwrap().code(), 0);
        let timeout = told.take()[0].unwrap();
        // A base at evd may look after evd in between.
        assert!(timeout > Duration::ZERO && timeout <= LONG + 5 * MS, "{timeout:?}");
        drop((watcher, user, ends));
    });
}

#[test]
fn a_base_without_timers_is_prepared_to_wait_for_ever() {
    let _turn = turn();
    each_base(|base| {
        let told: Rc<RefCell<Vec<Option<Duration>>>> = Rc::default();
        let t = Rc::clone(&told);
        let watcher = base.prepare(move |_, timeout| t.borrow_mut().push(timeout));
        let signal = Event::signal(base, SIGURG, |_, _| {}).unwrap();
        signal.add(None).unwrap();
        base.handle().post(|base| base.loopbreak());
        base.dispatch().unwrap();
        assert_eq!(told.take(), [None]);
        drop(watcher);
    });
}

#[test]
fn a_watcher_may_end_itself_and_others_and_make_new_ones_in_its_callback() {
    each_base(|base| {
        let seen = Log::default();
        let cells: Rc<RefCell<Vec<evd_client::Watcher>>> = Rc::default();
        let (c, s) = (Rc::clone(&cells), seen.clone());
        let first = base.prepare(move |base, _| {
            s.add("first");
            // This one, and the one behind it.
            let gone = std::mem::take(&mut *c.borrow_mut());
            drop(gone);
            let t = s.clone();
            c.borrow_mut().push(base.prepare(move |_, _| t.add("new")));
        });
        let s = seen.clone();
        let second = base.prepare(move |_, _| s.add("second"));
        cells.borrow_mut().extend([first, second]);
        let user = active(base, |_, _| {});
        round(base);
        assert_eq!(seen.take(), ["first"]);
        user.active(What::empty()).unwrap();
        round(base);
        assert_eq!(seen.take(), ["new"]);
        cells.borrow_mut().clear();
    });
}

#[test]
fn what_a_watcher_makes_active_or_adds_counts_for_this_wait() {
    each_base(|base| {
        let runs = Count::default();
        let user = Rc::new(Event::user(base, counts(&runs)).unwrap());
        let timer = Rc::new(Event::timer(base, What::empty(), counts(&runs)).unwrap());
        let long = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        long.add(Some(LONG)).unwrap();
        let u = Rc::clone(&user);
        let watcher = base.prepare(move |_, _| u.active(What::READ).unwrap());
        assert_eq!(once(base).callbacks, 1);
        drop(watcher);
        let t = Rc::clone(&timer);
        let watcher = base.prepare(move |_, _| {
            if t.deadline().is_none() {
                t.add(Some(MS)).unwrap();
            }
        });
        assert_eq!(once(base).callbacks, 1, "the wait was shortened");
        drop(watcher);
        assert_eq!(runs.get(), 2);
    });
}

#[test]
fn a_watcher_knows_that_its_base_is_gone() {
    each(|setting| {
        let base = setting.builder().build().unwrap();
        let watcher = base.prepare(|_, _| {});
        drop(base);
        assert!(watcher.base().is_none());
    });
}

#[test]
fn slow_callbacks_are_told_and_all_are_timed() {
    each_base(|base| {
        let told = Log::default();
        let fast = active(base, |_, _| {});
        assert_eq!(fast.callback_times(), (Duration::ZERO, Duration::ZERO));
        round(base);
        assert_eq!(fast.callback_times().0, Duration::ZERO, "nobody has asked for it");
        let t = told.clone();
        base.on_slow(20 * MS, move |base, slow| {
            assert!(slow.took >= 20 * MS);
            assert_eq!(base.running_event(), Some(slow.event));
            t.add(format!("{} {}", slow.label, slow.what));
        });
        let slow = Event::user(base, |_, _| std::thread::sleep(20 * MS)).unwrap();
        slow.label("sleeps");
        for _ in 0..2 {
            fast.active(What::READ).unwrap();
            slow.active(What::READ).unwrap();
            round(base);
        }
        let (total, longest) = slow.callback_times();
        assert!(total >= 40 * MS && longest >= 20 * MS && longest < total);
        assert!(fast.callback_times().0 > Duration::ZERO);
        let told = told.take();
        assert_eq!(told.iter().filter(|line| *line == "sleeps READ").count(), 2);
        base.on_slow(Duration::MAX, |_, _| panic!("nothing is that slow"));
        slow.active(What::READ).unwrap();
        round(base);
    });
}

#[test]
fn a_panic_in_what_is_told_of_slow_callbacks_or_the_link_is_not_its_end() {
    each_base(|base| {
        let count = Count::default();
        let c = Rc::clone(&count);
        let panics = move || {
            c.set(c.get() + 1);
            assert!(c.get() != 1, "as the test wants");
        };
        let again = panics.clone();
        base.on_slow(Duration::ZERO, move |_, _| again());
        let event = Event::user(base, |_, _| {}).unwrap();
        event.active(What::READ).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| round(base))).is_err());
        event.active(What::READ).unwrap();
        round(base);
        assert_eq!(count.replace(0), 2);
        if matches!(base.link(), LinkState::Up { .. }) {
            base.on_link(move |_, _| panics());
            base.reinit().unwrap();
            assert!(catch_unwind(AssertUnwindSafe(|| round(base))).is_err());
            base.reinit().unwrap();
            round(base);
            assert_eq!(count.get(), 2);
        }
    });
}
