//! What an event tells of itself, and what of it can be changed: `event_get_*`, `event_pending`, `event_assign`.

use crate::parts::*;
use evd_client::{Error, Event, What};
use std::os::fd::{AsFd, AsRawFd};

#[test]
fn timeout_among_the_flags_of_an_event_means_nothing() {
    each_base(|base| {
        let event = Event::new(base, silent(), What::READ | What::TIMEOUT, |_, _| {}).unwrap();
        event.add(None).unwrap();
        assert_eq!(event.pending(What::all()), What::READ);
        event.del().unwrap();
        event.set_what(READ | What::TIMEOUT).unwrap();
        event.add(None).unwrap();
        assert_eq!(event.pending(What::all()), What::READ);
    });
}

#[test]
fn pending_tells_of_the_bits_asked_for_only() {
    each_base(|base| {
        let event = Event::new(base, silent(), READ | What::WRITE, |_, _| {}).unwrap();
        event.add(Some(LONG)).unwrap();
        assert_eq!(event.pending(What::all()), What::READ | What::WRITE | What::TIMEOUT);
        assert_eq!(event.pending(What::READ | What::SIGNAL), What::READ);
        assert_eq!(event.pending(What::CLOSED), What::empty());
        let user = active(base, |_, _| {});
        assert_eq!(user.pending(What::all()), What::empty(), "active with nothing");
        user.active(What::CLOSED).unwrap();
        assert_eq!(user.pending(What::all()), What::CLOSED);
        // Flags and bits without a meaning are none that it waits for.
        user.active(What::from_bits_retain(0xff)).unwrap();
        let bits = What::IO | What::TIMEOUT | What::SIGNAL;
        assert_eq!(user.pending(What::from_bits_retain(0xff)), bits);
        let later = Event::user(base, |_, _| {}).unwrap();
        later.active_later(What::WRITE).unwrap();
        assert_eq!(later.pending(What::all()), What::WRITE, "it is about to be active");
    });
}

#[test]
fn getters_tell_what_an_event_was_made_of() {
    each_base_with(
        |b| b.priorities(3),
        |base| {
            let stream = pair().0;
            let number = stream.as_raw_fd();
            let event = Event::new(base, stream, READ | What::WRITE, |_, _| {}).unwrap();
            assert_eq!(event.as_fd().as_raw_fd(), number);
            assert_eq!(event.source().as_raw_fd(), number);
            assert_eq!(event.what(), READ | What::WRITE);
            assert_eq!((event.priority(), event.count()), (1, 0));
            assert_eq!(event.base().method(), base.method());
            assert_eq!((event.time_left(), event.sender()), (None, None));
            assert_eq!(event.key(), event.key());
            assert_ne!(event.key(), Event::user(base, |_, _| {}).unwrap().key());
        },
    );
}

#[test]
fn set_what_is_for_events_that_wait_for_nothing_and_bits_that_fit() {
    each_base(|base| {
        let (a, _b) = ready();
        let seen = Log::default();
        let event = Event::new(base, a, What::READ, seen.says("it")).unwrap();
        event.add(None).unwrap();
        assert!(matches!(event.set_what(What::WRITE), Err(Error::Pending)));
        event.del().unwrap();
        event.active(What::READ).unwrap();
        assert!(matches!(event.set_what(What::WRITE), Err(Error::Pending)));
        event.del().unwrap();
        assert!(matches!(event.set_what(What::SIGNAL), Err(Error::Combination(_))));
        event.set_what(What::WRITE).unwrap();
        event.add(None).unwrap();
        once(base);
        assert_eq!(seen.take(), ["it WRITE"]);
        let timer = Event::timer(base, What::empty(), |_, _| {}).unwrap();
        assert!(matches!(timer.set_what(What::READ), Err(Error::Combination(_))));
        timer.set_what(What::PERSIST).unwrap();
        assert!(matches!(Event::new(base, silent(), What::SIGNAL, |_, _| {}), Err(Error::Combination(_))));
    });
}
