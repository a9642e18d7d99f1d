//! What other threads may do with a base: `Handle`, in place of libevent's locks, `event_del_block` and `event_del_noblock`.

use crate::parts::*;
use evd_client::{Ended, Event, EventBase, EventKey, Handle, LoopFlags, NoFd, What};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

/// Runs a loop that only an exit ends while another thread works on the base.
fn beside(base: &EventBase, work: impl FnOnce(Handle) + Send + 'static) -> Ended {
    let handle = base.handle();
    let thread = thread::spawn(move || {
        // It ends also if the work fails, so that the failure is seen.
        let done = catch_unwind(AssertUnwindSafe(|| work(handle.clone())));
        handle.loopexit();
        done
    });
    let ended = base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap().ended;
    thread.join().unwrap().unwrap();
    ended
}

/// Asks the loop's thread something, and waits for the answer: then all that was asked before is done.
fn ask<T: Send + 'static>(handle: &Handle, look: impl FnOnce(&EventBase) -> T + Send + 'static) -> T {
    let (tells, told) = channel();
    handle.post(move |base| tells.send(look(base)).unwrap());
    told.recv().unwrap()
}

#[test]
fn handle_wakes_posts_activates_and_stops_from_another_thread() {
    each_base(|base| {
        let runs = Count::default();
        let r = Rc::clone(&runs);
        let event = Event::user(base, move |_, what| {
            assert_eq!(what, What::WRITE);
            r.set(r.get() + 1);
        })
        .unwrap();
        let key = event.key();
        let ended = beside(base, move |handle| {
            handle.wake();
            handle.active(key, What::WRITE);
            handle.post(|base| base.loopexit(None).unwrap());
        });
        assert_eq!(ended, Ended::Exit);
        assert_eq!(runs.get(), 1);
    });
}

fn deadline_of(handle: &Handle, key: EventKey) -> Option<What> {
    ask(handle, move |base| {
        base.for_each_event(|e| match e.key == key {
            true => std::ops::ControlFlow::Break(e.pending),
            false => std::ops::ControlFlow::Continue(()),
        })
    })
}

#[test]
fn add_del_and_remove_timer_from_another_thread() {
    each_base(|base| {
        let runs = Count::default();
        let event = Event::new(base, silent(), READ, counts(&runs)).unwrap();
        let timer = Event::timer(base, What::empty(), counts(&runs)).unwrap();
        let (key, timer_key) = (event.key(), timer.key());
        beside(base, move |handle| {
            handle.add(key, Some(LONG));
            assert_eq!(deadline_of(&handle, key), Some(What::READ | What::TIMEOUT));
            handle.remove_timer(key);
            assert_eq!(deadline_of(&handle, key), Some(What::READ));
            handle.del(key);
            assert_eq!(deadline_of(&handle, key), None);
            handle.add(timer_key, Some(MS));
            while deadline_of(&handle, timer_key).is_some() {}
        });
        assert_eq!(runs.get(), 1);
    });
}

#[test]
fn keys_of_events_that_are_gone_name_nothing() {
    each_base(|base| {
        let handle = base.handle();
        let gone = Event::user(base, |_, _| panic!("it is gone")).unwrap().key();
        // The same place in the base, and another event.
        let here = Event::user(base, |_, _| panic!("nobody means this one")).unwrap();
        handle.active(gone, What::READ);
        handle.add(gone, Some(MS));
        handle.del(gone);
        handle.del_wait(gone);
        handle.remove_timer(gone);
        assert_eq!(base.dispatch().unwrap().callbacks, 0);
        drop(here);
    });
}

#[test]
fn a_loop_that_sleeps_is_broken_continued_and_exited_from_another_thread() {
    each_base(|base| {
        for how in [Handle::loopbreak, Handle::loopexit] {
            let handle = base.handle();
            let (tells, told) = channel();
            let prepare = base.prepare(move |_, _| {
                let _ = tells.send(());
            });
            let thread = thread::spawn(move || {
                told.recv().unwrap();
                handle.loopcontinue();
                handle.wake();
                told.recv().unwrap();
                how(&handle);
                told
            });
            let looped = base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
            assert!(matches!(looped.ended, Ended::Break | Ended::Exit));
            assert_eq!(base.got_break(), looped.ended == Ended::Break);
            drop(thread.join().unwrap());
            drop(prepare);
        }
    });
}

#[test]
fn a_loopbreak_from_another_thread_leaves_the_rest_of_the_queue_active() {
    each_base(|base| {
        let handle = base.handle();
        let first = active(base, move |_, _| {
            let handle = handle.clone();
            thread::spawn(move || handle.loopbreak()).join().unwrap();
        });
        let runs = Count::default();
        let rest = active(base, counts(&runs));
        assert_eq!(base.dispatch().unwrap().ended, Ended::Break);
        assert_eq!(runs.get(), 0);
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
        drop((first, rest));
    });
}

#[test]
fn a_loopbreak_or_exit_of_a_handle_before_the_loop_ends_the_next_one() {
    each_base(|base| {
        let keep = base.keep_going();
        base.handle().loopbreak();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Break);
        base.handle().loopexit();
        assert_eq!(base.dispatch().unwrap().ended, Ended::Exit);
        drop(keep);
    });
}

/// An event whose callback says that it runs and ends when it is told to.
fn held(base: &EventBase) -> (Event<NoFd>, Receiver<()>, Sender<()>) {
    let (begins, begun) = channel();
    let (go, goes) = channel::<()>();
    let event = Event::user(base, move |_, _| {
        begins.send(()).unwrap();
        let _ = goes.recv();
    });
    (event.unwrap(), begun, go)
}

#[test]
fn del_does_not_wait_for_a_callback_that_runs_and_del_wait_does() {
    each_base(|base| {
        let (event, begun, go) = held(base);
        let key = event.key();
        event.active(What::READ).unwrap();
        beside(base, move |handle| {
            begun.recv().unwrap();
            // Returns although the callback can't end yet.
            handle.del(key);
            let ended = Arc::new(AtomicBool::new(false));
            let (waiter, e) = (handle.clone(), Arc::clone(&ended));
            let waits = thread::spawn(move || {
                waiter.del_wait(key);
                assert!(e.load(Ordering::SeqCst), "it returned while the callback ran");
            });
            // Gives it the time to be wrong; it can't be seen that it waits.
            thread::sleep(20 * MS);
            ended.store(true, Ordering::SeqCst);
            go.send(()).unwrap();
            waits.join().unwrap();
            handle.del_wait(key);
        });
        assert_eq!(event.count(), 1);
    });
}

#[test]
fn del_wait_waits_for_no_other_event_and_not_in_the_events_own_callback() {
    each_base(|base| {
        let (event, begun, go) = held(base);
        let other = Event::user(base, |_, _| {}).unwrap().key();
        event.active(What::READ).unwrap();
        beside(base, move |handle| {
            begun.recv().unwrap();
            handle.del_wait(other);
            go.send(()).unwrap();
        });
        let handle = base.handle();
        let own = active(base, move |event, _| handle.del_wait(event.key()));
        assert_eq!(base.dispatch().unwrap().callbacks, 1);
        drop(own);
    });
}

#[test]
fn del_wait_ends_when_the_callback_panics() {
    each_base(|base| {
        let (begins, begun) = channel();
        let (go, goes) = channel::<()>();
        let event = active(base, move |_, _| {
            begins.send(()).unwrap();
            let _ = goes.recv();
            panic!("on purpose");
        });
        let (key, handle) = (event.key(), base.handle());
        let waits = thread::spawn(move || {
            begun.recv().unwrap();
            go.send(()).unwrap();
            handle.del_wait(key);
        });
        assert!(catch_unwind(AssertUnwindSafe(|| base.dispatch())).is_err());
        waits.join().unwrap();
    });
}

#[test]
fn no_callback_begins_after_a_del_and_none_runs_after_a_del_wait() {
    each_base(|base| {
        let (state, deleted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (s, d) = (Arc::clone(&state), Arc::clone(&deleted));
        let event = Event::user(base, move |event, what| {
            s.fetch_add(1, Ordering::SeqCst);
            assert!(!d.load(Ordering::SeqCst), "it began after del");
            // It is to be active again when it is deleted, but not for ever.
            if event.count() % 4 != 0 {
                event.active(what).unwrap();
            }
            s.fetch_sub(1, Ordering::SeqCst);
        })
        .unwrap();
        let key = event.key();
        beside(base, move |handle| {
            for i in 0..300 {
                handle.active(key, What::READ);
                if i % 3 == 0 {
                    thread::yield_now();
                }
                handle.del_wait(key);
                deleted.store(true, Ordering::SeqCst);
                assert_eq!(state.load(Ordering::SeqCst), 0, "it ran after del_wait");
                thread::yield_now();
                assert_eq!(state.load(Ordering::SeqCst), 0);
                deleted.store(false, Ordering::SeqCst);
            }
        });
    });
}

#[test]
fn all_that_many_threads_ask_for_is_done_and_in_each_ones_order() {
    each_base(|base| {
        const THREADS: usize = 4;
        const EACH: usize = 500;
        let last = Rc::new(Cell::new([0; THREADS]));
        let handles: Vec<_> = (0..THREADS).map(|_| base.handle()).collect();
        let l = Rc::clone(&last);
        LAST.set(Some(l));
        let all = handles.into_iter().enumerate().map(|(at, handle)| {
            thread::spawn(move || {
                for i in 1..=EACH {
                    handle.post(move |_| {
                        let cell = LAST.take().unwrap();
                        let mut last = cell.get();
                        assert_eq!(last[at] + 1, i);
                        last[at] = i;
                        cell.set(last);
                        LAST.set(Some(cell));
                    });
                }
            })
        });
        let all: Vec<_> = all.collect();
        let mut posted = 0;
        while posted < (THREADS * EACH) as u64 {
            posted += base.loop_(LoopFlags::ONCE | LoopFlags::NO_EXIT_ON_EMPTY).unwrap().callbacks;
        }
        all.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(last.get(), [EACH; THREADS]);
        LAST.set(None);
    });
}

thread_local! {
    static LAST: Cell<Option<Rc<Cell<[usize; 4]>>>> = const { Cell::new(None) };
}

#[test]
fn nothing_is_lost_when_a_posted_closure_panics() {
    each_base(|base| {
        let runs = Count::default();
        let event = Event::user(base, counts(&runs)).unwrap();
        let handle = base.handle();
        handle.post(|_| panic!("on purpose"));
        handle.active(event.key(), What::READ);
        let (tells, told) = channel();
        handle.post(move |_| tells.send(()).unwrap());
        assert!(catch_unwind(AssertUnwindSafe(|| base.dispatch())).is_err());
        base.dispatch().unwrap();
        told.recv().unwrap();
        assert_eq!(runs.get(), 1);
    });
}

#[test]
fn closures_posted_while_a_queue_runs_run_between_two_callbacks_and_are_counted() {
    each_base(|base| {
        let seen = Log::default();
        let (s, handle) = (seen.clone(), base.handle());
        let (tells, told) = channel();
        let first = active(base, move |_, _| {
            let tells = tells.clone();
            handle.post(move |base| tells.send(base.num_events(evd_client::Counted::ACTIVE)).unwrap());
            s.add("first");
        });
        let second = active(base, seen.says("second"));
        assert_eq!(base.dispatch().unwrap().callbacks, 3);
        assert_eq!(told.recv().unwrap(), 1, "the second one was still active");
        drop((first, second));
    });
}

#[test]
fn a_handle_outlives_its_base() {
    each(|setting| {
        let base = setting.builder().build().unwrap();
        let (handle, event) = (base.handle(), Event::user(&base, |_, _| {}).unwrap());
        let key = event.key();
        drop((base, event));
        handle.wake();
        handle.active(key, What::READ);
        handle.post(|_| panic!("nobody runs it"));
        handle.del_wait(key);
    });
}

#[test]
fn what_a_handle_asked_for_is_done_first_also_when_the_handle_is_gone() {
    each_base(|base| {
        let seen = Log::default();
        let second = Event::user(base, seen.says("deleted before it began")).unwrap();
        let key = second.key();
        let _first = active(base, move |event, _| {
            let handle = event.base().handle();
            std::thread::spawn(move || handle.del(key)).join().unwrap();
        });
        second.active(What::empty()).unwrap();
        round(base);
        assert!(seen.is_empty(), "{:?}", seen.take());
    });
}

#[test]
fn del_wait_waits_also_by_a_handle_that_was_made_in_the_callback() {
    each_base(|base| {
        let waiting = Rc::new(RefCell::new(None));
        let w = Rc::clone(&waiting);
        let _event = active(base, move |event, _| {
            let (handle, key) = (event.base().handle(), event.key());
            let (tell, told) = channel();
            let thread = std::thread::spawn(move || {
                handle.del_wait(key);
                let _ = tell.send(());
            });
            assert!(told.recv_timeout(20 * MS).is_err(), "the callback runs still");
            *w.borrow_mut() = Some(thread);
        });
        round(base);
        waiting.take().unwrap().join().unwrap();
    });
}

#[test]
fn what_is_posted_to_a_base_that_is_gone_is_dropped() {
    each(|setting| {
        let base = setting.builder().build().unwrap();
        let handle = base.handle();
        let (before, told) = channel::<()>();
        let after = before.clone();
        handle.post(move |_| before.send(()).unwrap());
        drop(base);
        handle.post(move |_| after.send(()).unwrap());
        assert_eq!(told.try_recv(), Err(TryRecvError::Disconnected), "nobody waits for an answer for ever");
    });
}
