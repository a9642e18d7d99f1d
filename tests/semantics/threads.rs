//! What other threads may do with a base: `Handle`, in place of libevent's locks.

use crate::parts::*;
use evd_client::{Ended, Event, LoopFlags, What};
use std::rc::Rc;

#[test]
fn handle_wakes_posts_activates_and_stops_from_another_thread() {
    each_base(|base| {
        let (handle, runs) = (base.handle(), Count::default());
        let r = Rc::clone(&runs);
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
        assert_eq!(runs.get(), 1);
        thread.join().unwrap();
    });
}
