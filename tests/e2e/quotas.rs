//! evd lets a client have only so much: the client serves the rest itself, in time, and does not ask again and again.

use crate::parts::*;
use crate::wire::Evd;
use evd_client::{Event, EventBase, What};
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

fn evd_with(quotas: &str) -> Evd {
    Evd::start_with(|c| {
        dies_with_us(c).args(["--quota", quotas]);
    })
}

fn refused(evd: &Evd, what: &str) -> u64 {
    status(evd)["accounts"][0][what]["refused"].as_u64().unwrap()
}

#[test]
fn watches_over_the_limit_are_served_here_and_evd_is_not_asked_again_at_once() {
    let evd = evd_with("watches=10");
    let base = base(&evd);
    let (near, mut peers): (Vec<_>, Vec<_>) = (0..300).map(|_| pair()).unzip();
    let events: Vec<_> = near.into_iter().map(|s| reader(&base, s)).collect();
    base.sync().unwrap();
    assert_eq!(base.watches(), (10, 290));
    let link = base.link();
    let before = (refused(&evd, "watches"), Instant::now());
    // New ones come and go, and none of them is offered while evd has no room.
    for _ in 0..20 {
        let (one, _other) = pair();
        let (event, _) = reader(&base, one);
        run_for(&base, 5 * MS);
        drop(event);
    }
    let asked = refused(&evd, "watches") - before.0;
    let seconds = before.1.elapsed().as_secs() + 1;
    assert!(asked <= seconds * 4, "{asked} refusals in {seconds} s");
    for round in 1..=5 {
        peers.iter_mut().for_each(|p| p.write_all(b"x").unwrap());
        until(&base, "a byte of each", || events.iter().all(|(_, got)| got.get() == round));
        run_for(&base, 5 * MS);
    }
    assert_eq!(base.link(), link);
    drop(events);
    let more: Vec<_> = (0..5).map(|_| pair()).collect();
    let _events: Vec<_> = more.iter().map(|(s, _)| reader(&base, s.try_clone().unwrap())).collect();
    park(&base, 5);
}

#[test]
fn timers_over_the_limit_fire_here_in_time() {
    let evd = evd_with("timers=3");
    let base = EventBase::builder().socket(evd.path()).connect().build().unwrap();
    // evd has these, and no room for the next.
    let far: Vec<Event> = (0..3).map(|_| Event::timer(&base, What::empty(), |_, _| {}).unwrap()).collect();
    far.iter().for_each(|e| e.add(Some(Duration::from_secs(3600))).unwrap());
    base.sync().unwrap();
    let start = Instant::now();
    let (fired, late) = (Count::default(), Count::default());
    let (of, too, mut due) = (Rc::clone(&fired), Rc::clone(&late), start + 20 * MS);
    let event = Event::timer(&base, What::empty(), move |event, _| {
        let now = Instant::now();
        // What the client allows evd for a timer that evd has.
        if now - due > 4 * MS {
            count(&too);
        }
        event.add(Some(20 * MS)).unwrap();
        due = now + 20 * MS;
        count(&of);
    });
    let event = event.unwrap();
    event.add(Some(20 * MS)).unwrap();
    until(&base, "it, often", || fired.get() >= 50);
    assert!(late.get() < 40, "late {} times of 50", late.get());
    assert_eq!(status(&evd)["accounts"][0]["timers"]["limit"], 3);
    let seconds = start.elapsed().as_secs() + 1;
    let asked = refused(&evd, "timers");
    assert!((1..=seconds * 2).contains(&asked), "{asked} refusals in {seconds} s");
    drop((far, event));
}

#[test]
fn a_client_that_may_not_connect_goes_on_and_comes_when_it_may() {
    let evd = evd_with("connections=4");
    let mut first: Vec<EventBase> = (0..3).map(|_| base(&evd)).collect();
    let refused = EventBase::builder().socket(evd.path()).connect().name("one").build();
    let last = refused.unwrap();
    let error = EventBase::builder().socket(evd.path()).connect().build().unwrap_err();
    assert!(matches!(error, evd_client::Error::Refused(r) if r.limit == 4 && r.value == 4));
    let late = EventBase::builder().socket(evd.path()).build().unwrap();
    let (near, mut far) = pair();
    let (_event, got) = reader(&late, near);
    far.write_all(b"x").unwrap();
    until(&late, "a byte", || got.get() == 1);
    why_away(&late);
    first.truncate(1);
    drop(last);
    until(&late, "there is room", || is_up(&late));
    park(&late, 1);
}
