//! Held names and held timers count on, whoever lives or dies.

use crate::kept::*;
use crate::wire::{PATIENCE, eventually};
use evd_client::{Error, Event, EventBase};
use evd_proto::reply::Code;
use std::time::Duration;

fn base(keeper: &Keeper) -> EventBase {
    let builder = EventBase::builder().socket(keeper.path()).name("counts").patience(PATIENCE);
    builder.connect().build().unwrap()
}

#[test]
fn a_held_name_counts_what_nobody_hears_also_over_kills() {
    let keeper = Keeper::start();
    let rest = keeper.fds();
    let owner = base(&keeper);
    owner.hold_name("mail", None).unwrap();
    drop(owner);
    let count = |base: &EventBase| {
        let all = base.list_held().unwrap();
        all.iter().find(|h| h.name == "mail").map(|h| h.count)
    };
    for round in 1..=3u64 {
        let sender = base(&keeper);
        for _ in 0..5 {
            let triggered = sender.trigger("mail").unwrap();
            assert_eq!((triggered.reached, triggered.queued), (0, 1));
        }
        assert_eq!(count(&sender), Some(5 * round));
        drop(sender);
        keeper.kill();
        assert_eq!(count(&base(&keeper)), Some(5 * round));
    }
    // Who listens hears it, and then it is not counted.
    let heir = base(&keeper);
    let listener = Event::named(&heir, "mail", |_, _| {}).unwrap();
    listener.add(None).unwrap();
    heir.sync().unwrap();
    assert_eq!(heir.trigger("mail").unwrap().reached, 1);
    assert_eq!(count(&heir), Some(15));
    drop(listener);
    heir.sync().unwrap();
    // A copy shares the count; who takes it takes it over.
    let copy = heir.take_copy("mail").unwrap();
    assert_eq!((copy.take_count().unwrap(), copy.take_count().unwrap()), (15, 0));
    heir.trigger("mail").unwrap();
    let taken = heir.take("mail").unwrap();
    assert_eq!(taken.take_count().unwrap(), 1);
    match heir.trigger("mail") {
        Err(Error::Refused(why)) => assert_eq!(why.code, Code::Unknown),
        other => panic!("nobody holds it: {other:?}"),
    }
    // Something else that is held under the name is no counter.
    let (fd, _thing) = thing(0, "x");
    heir.hold("mail", &fd, b"", None).unwrap();
    assert!(matches!(heir.trigger("mail"), Err(Error::Refused(_))));
    assert!(matches!(heir.take_copy("mail").unwrap().take_count(), Err(Error::Os(_))));
    heir.drop_held("mail").unwrap();
    drop((heir, fd));
    eventually("nothing is left", || keeper.fds() == rest);
}

#[test]
fn a_held_timer_goes_on_while_nobody_has_it_and_evd_is_killed() {
    let keeper = Keeper::start();
    let ms = Duration::from_millis;
    let owner = base(&keeper);
    owner.hold_timer("often", ms(1), Some(ms(1)), None).unwrap();
    owner.hold_timer("once", ms(20), None, None).unwrap();
    owner.hold_timer("far", Duration::from_secs(3600), Some(ms(1)), None).unwrap();
    drop(owner);
    let count = |name: &str| {
        let all = base(&keeper).list_held().unwrap();
        all.iter().find(|h| h.name == name).unwrap().count
    };
    let mut before = 0;
    for _ in 0..3 {
        keeper.kill();
        eventually("it goes on", || count("often") > before);
        before = count("often");
    }
    eventually("it is due", || count("once") == 1);
    let heir = base(&keeper);
    assert!(heir.take("often").unwrap().take_count().unwrap() >= before);
    assert_eq!(heir.take("once").unwrap().take_count().unwrap(), 1);
    assert_eq!(heir.take("far").unwrap().take_count().unwrap(), 0);
}
