//! The conformance suite on the client's `EventBase`, in-process, for each method.

// The lint knows test functions, but not the helpers of a test file.
#![allow(clippy::unwrap_used)]

mod conformance;

use conformance::client::ClientLoop;

conformance!(ClientLoop:
    epoll = "epoll",
    poll = "poll",
    select = "select",
    wepoll = "wepoll",
    win32 = "win32",
);

#[cfg(windows)]
mod on_handles {
    use super::*;

    use conformance::handles::{event, is_signalled, process, set};
    use conformance::os;
    use evd_client::{Event, EventBase, LoopFlags, WaitHandle, What};
    use std::rc::Rc;
    use std::time::Duration;

    handles!(ClientLoop: wepoll = "wepoll", win32 = "win32");
    own_handles!(ClientLoop: own_wepoll = "wepoll", own_win32 = "win32");

    /// So that what does not come is a failure and no hang.
    const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

    fn each_base(test: impl Fn(&EventBase)) {
        for method in ["wepoll", "win32"] {
            println!("method {method}");
            test(&EventBase::builder().local().ignore_env().method(method).build().unwrap());
        }
    }

    fn reads<F>(_: &Event<F>, what: What) {
        assert_eq!(what, What::READ);
    }

    #[test]
    fn an_event_that_is_deleted_and_added_again_tells_what_was_taken_meanwhile() {
        each_base(|base| {
            let handle = Rc::new(event(false));
            let event = Event::new(base, WaitHandle(Rc::clone(&handle)), What::READ, reads).unwrap();
            for runs in 1..4 {
                event.add(LIMIT).unwrap();
                base.loop_(LoopFlags::NONBLOCK).unwrap();
                set(&handle);
                std::thread::sleep(os::LOOK);
                assert!(!is_signalled(&*handle), "the pool has it");
                event.del().unwrap();
                base.loop_(LoopFlags::NONBLOCK).unwrap();
                event.add(LIMIT).unwrap();
                base.dispatch().unwrap();
                assert_eq!(event.count(), runs);
            }
        });
    }

    #[test]
    fn an_event_owns_its_child_process_and_runs_when_that_has_ended() {
        each_base(|base| {
            let mut child = process();
            let input = child.stdin.take();
            let event = Event::new(base, WaitHandle(child), What::READ, reads).unwrap();
            event.add(LIMIT).unwrap();
            drop(input);
            base.dispatch().unwrap();
            assert_eq!(event.count(), 1);
        });
    }

    #[test]
    fn many_events_of_one_handle_each_run() {
        each_base(|base| {
            let handle = Rc::new(event(true));
            let events = [(); 3].map(|()| {
                let event = Event::new(base, WaitHandle(Rc::clone(&handle)), What::READ, reads).unwrap();
                event.add(LIMIT).unwrap();
                event
            });
            set(&handle);
            base.dispatch().unwrap();
            assert_eq!(events.each_ref().map(Event::count), [1, 1, 1]);
        });
    }
}
