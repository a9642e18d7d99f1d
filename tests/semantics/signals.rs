//! Signals to this process: `evsignal_new`, with counts, senders and every base served.

use crate::os;
use crate::parts::*;
use evd_client::{Event, EventBase, What};
use std::cell::RefCell;
use std::rc::Rc;

#[test]
fn signals_are_counted_and_reach_every_base() {
    each_base(|base| {
        let other = EventBase::local().unwrap();
        let counts = Rc::new(RefCell::new((0, 0)));
        let c = Rc::clone(&counts);
        let here = Event::signal(&other, libc::SIGUSR1, move |event, what| {
            assert_eq!(what, What::SIGNAL);
            c.borrow_mut().0 += 1;
            if c.borrow().0 == 3 {
                event.del().unwrap();
            }
        })
        .unwrap();
        here.add(None).unwrap();
        let c = Rc::clone(&counts);
        let there = Event::signal(base, libc::SIGUSR1, move |event, _| {
            c.borrow_mut().1 += 1;
            if c.borrow().1 == 3 {
                event.del().unwrap();
            }
        })
        .unwrap();
        there.add(None).unwrap();
        for _ in 0..3 {
            // To this thread: one to the process may go to another thread, and while it is on its way the next one is lost.
            os::raise(libc::SIGUSR1);
        }
        base.dispatch().unwrap();
        other.dispatch().unwrap();
        assert_eq!(*counts.borrow(), (3, 3));
    });
}
