//! How a base is made: `event_config_*`, `event_get_supported_methods`, and the environment.

use crate::parts::*;
use crate::role;
use evd_client::{Error, Event, EventBase, Features, LinkState, What};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

fn refused(builder: evd_client::Builder) -> String {
    match builder.build() {
        Err(e @ Error::Method(_)) => e.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The methods of this system, best first.
fn methods() -> Vec<&'static str> {
    METHODS.map(|(method, _)| method).to_vec()
}

/// Without anything but where evd is.
fn plain(remote: bool) -> evd_client::Builder {
    let b = EventBase::builder().ignore_env();
    if remote { b.socket(socket()).connect() } else { b.local() }
}

#[test]
fn methods_are_taken_in_libevents_order_of_preference() {
    let all = methods();
    assert_eq!(evd::backend::supported(true), all);
    for &remote in REMOTE {
        let mut builder = plain(remote);
        for &method in &all {
            assert_eq!(builder.clone().build().unwrap().method(), method);
            builder = builder.avoid_method(method).avoid_method("no such method");
        }
        let why = refused(builder);
        assert!(all.iter().all(|method| why.contains(method)), "{why}");
    }
}

#[test]
fn a_method_asked_for_by_name_is_that_or_an_error_that_says_why() {
    let best = methods()[0];
    for &remote in REMOTE {
        let why = refused(plain(remote).method("kqueue2"));
        assert!(why.contains("kqueue2") && why.contains(best), "{why}");
        let why = refused(plain(remote).method(best).avoid_method(best));
        assert!(why.contains("avoided"), "{why}");
        // Names are compared as they are.
        assert_eq!(plain(remote).avoid_method(&best.to_uppercase()).build().unwrap().method(), best);
    }
}

#[test]
fn required_features_choose_a_method_or_are_refused_with_the_reason() {
    for &remote in REMOTE {
        let method = |features| plain(remote).require_features(features).build().unwrap().method();
        assert_eq!(method(Features::O1 | Features::EARLY_CLOSE), methods()[0]);
        for (features, chosen) in CHOSEN_BY {
            assert_eq!(method(features), chosen);
        }
        let none = refused(plain(remote).require_features(Features::ET | Features::FDS));
        assert!(none.contains("lacks"), "{none}");
        let (second, lacks) = (methods()[1], Features::ET);
        let why = refused(plain(remote).method(second).require_features(lacks));
        assert!(why.contains(&format!("{second} lacks")), "{why}");
        // The last one counts.
        let both = plain(remote).require_features(Features::all()).require_features(Features::O1);
        assert_eq!(both.build().unwrap().method(), methods()[0]);
    }
}

#[test]
fn a_configuration_makes_any_number_of_bases() {
    each(|setting| {
        let builder = setting.builder().priorities(4);
        let bases = [builder.clone().build().unwrap(), builder.build().unwrap()];
        for base in &bases {
            setting.is_as_asked(base);
            assert_eq!(base.priorities(), 4);
        }
        let runs = Count::default();
        let event = active(&bases[0], counts(&runs));
        assert_eq!(bases[1].dispatch().unwrap().callbacks, 0);
        assert_eq!(bases[0].dispatch().unwrap().callbacks, 1);
        drop(event);
    });
}

#[cfg(unix)]
#[test]
fn the_changelist_tells_the_kernel_once_for_each_fd() {
    let base = EventBase::builder().local().ignore_env().changelist().build().unwrap();
    assert_eq!(base.method(), "epoll (with changelist)");
    let (a, _b) = ready();
    let runs = Count::default();
    let event = Event::new(&base, a, READ, counts(&runs)).unwrap();
    for _ in 0..3 {
        event.add(None).unwrap();
        event.del().unwrap();
    }
    round(&base);
    assert_eq!(runs.get(), 0);
    event.add(None).unwrap();
    assert_eq!(once(&base).callbacks, 1);
    event.del().unwrap();
    event.add(None).unwrap();
    assert_eq!(once(&base).callbacks, 1);
    for method in ["poll", "select"] {
        let base = EventBase::builder().local().ignore_env().method(method).changelist().build().unwrap();
        assert_eq!(base.method(), method, "others need none");
    }
}

#[test]
fn variables_disable_methods_by_being_there() {
    let all = || 0..METHODS.len();
    for disabled in 0..1 << METHODS.len() {
        let is_off = |i: usize| disabled & (1 << i) != 0;
        let off: Vec<(&str, &str)> = all().filter(|i| is_off(*i)).map(|i| (METHODS[i].1, "")).collect();
        let left: Vec<&str> = all().filter(|i| !is_off(*i)).map(|i| METHODS[i].0).collect();
        role::play_with("environment", &left.join(" "), &off);
    }
    role::play_with("environment", &methods().join(" "), &FOREIGN.map(|variable| (variable, "1")));
}

/// A role: the methods that are left, or none.
pub fn environment(socket: &Path, left: &str) {
    let left: Vec<&str> = left.split(' ').filter(|m| !m.is_empty()).collect();
    assert_eq!(EventBase::supported_methods(), left);
    let last = METHODS[METHODS.len() - 1];
    for &remote in REMOTE {
        let builder = || match remote {
            true => EventBase::builder().socket(socket).connect(),
            false => EventBase::builder().local(),
        };
        match left.first() {
            Some(first) => assert_eq!(&builder().build().unwrap().method(), first),
            None => assert!(refused(builder()).contains("EVENT_NO")),
        }
        assert_eq!(builder().ignore_env().build().unwrap().method(), methods()[0]);
        if !left.contains(&last.0) {
            assert!(refused(builder().method(last.0)).contains(last.1));
        }
    }
}

#[test]
fn show_method_says_which_method_a_base_has() {
    let shown = |environment: &[(&str, &str)], left: &str| {
        String::from_utf8(role::play_with("environment", left, environment).stderr).unwrap()
    };
    let on = ("EVENT_SHOW_METHOD", "1");
    let all = methods().join(" ");
    assert!(shown(&[on], &all).contains(&format!("[msg] evd using: {}\n", methods()[0])));
    let (last, off) = METHODS.split_last().unwrap();
    let off: Vec<_> = [on].into_iter().chain(off.iter().map(|(_, variable)| (*variable, "1"))).collect();
    assert!(shown(&off, last.0).contains(&format!("[msg] evd using: {}\n", last.0)));
    assert!(!shown(&[], &all).contains("[msg]"));
}

#[cfg(unix)]
#[test]
fn a_variable_turns_the_changelist_on_and_ignore_env_turns_it_off() {
    role::play_with("precise", "epoll (with changelist)", &[("EVENT_EPOLL_USE_CHANGELIST", "")]);
}

#[test]
fn timers_are_precise_with_and_without_the_variable() {
    role::play_with("precise", methods()[0], &[("EVENT_PRECISE_TIMER", "1")]);
    role::play_with("precise", methods()[0], &[]);
}

/// A role: the method that the environment leads to, with a timer of 1 ms.
pub fn precise(_: &Path, method: &str) {
    let base = EventBase::local().unwrap();
    assert_eq!(base.method(), method);
    assert_eq!(EventBase::builder().local().ignore_env().build().unwrap().method(), methods()[0]);
    let best = (0..50).map(|_| {
        let start = Instant::now();
        base.once_after(MS, |_| {}).unwrap();
        base.dispatch().unwrap();
        start.elapsed()
    });
    let best = best.min().unwrap();
    // libevent takes 3.3 ms at best unless it is asked for precision.
    assert!(best >= MS && best < 3 * MS, "{best:?}");
}

#[test]
fn a_base_is_its_own_readable_fd_when_something_is_to_be_done() {
    each_base(|base| {
        let (a, mut b) = pair();
        let outer = EventBase::local().unwrap();
        let inner = base.clone();
        let runs = Count::default();
        let event = Event::new(base, a, READ, {
            let runs = std::rc::Rc::clone(&runs);
            move |event, _| {
                drain(event.source());
                runs.set(runs.get() + 1);
            }
        })
        .unwrap();
        event.add(None).unwrap();
        let timer = Event::timer(base, What::empty(), counts(&runs)).unwrap();
        let nested = Event::new(&outer, base.clone(), READ, move |_, _| {
            round(&inner);
        })
        .unwrap();
        nested.add(None).unwrap();
        std::io::Write::write_all(&mut b, b"x").unwrap();
        while runs.get() < 1 {
            once(&outer);
        }
        timer.add(Some(Duration::from_millis(5))).unwrap();
        while runs.get() < 2 {
            once(&outer);
        }
        round(base);
        round(&outer);
        assert_eq!(round(&outer).callbacks, 0, "and not when there is nothing");
    });
}

#[test]
fn times_without_an_end_may_be_asked_for() {
    each_base_with(
        |b| b.patience(Duration::MAX).liveness(Duration::MAX).linger(Duration::MAX),
        |base| {
            let event = Event::new(base, silent(), READ, |_, _| {}).unwrap();
            event.add(Some(Duration::MAX)).unwrap();
            park(base, 1);
            round(base);
            let timer = Event::timer(base, What::empty(), |_, _| {}).unwrap();
            timer.add(Some(MS)).unwrap();
            once(base);
            assert!(event.pending(What::READ).contains(What::READ));
        },
    );
}

#[test]
fn a_duration_without_end_is_no_overflow_anywhere() {
    let max = Duration::MAX;
    let endless =
        |b: evd_client::Builder| b.patience(max).linger(max).liveness(max).max_dispatch(Some(max), None, 0);
    each_base_with(endless, |base| {
        let log = Log::default();
        base.on_slow(max, |_, _| panic!("nothing is that slow"));
        base.common_timeout(max).unwrap();
        let (near, far) = pair();
        let event = Event::new(base, near, READ, log.says("read")).unwrap();
        event.set_slack(max);
        event.add(Some(max)).unwrap();
        let timer = Event::timer(base, What::PERSIST, log.says("timer")).unwrap();
        timer.add(Some(max)).unwrap();
        base.handle().add(timer.key(), Some(max));
        let boot = Event::boot_timer(base, |_| panic!("it is not due")).unwrap();
        boot.set_after(max).unwrap();
        base.once(silent(), What::READ, Some(max), |_, _| panic!("nothing came")).unwrap();
        base.once_after(max, |_| panic!("it is not due")).unwrap();
        base.loopexit(Some(max)).unwrap();
        round(base);
        park(base, 1);
        (&far).write_all(b"x").unwrap();
        until(base, "it is read", || log.take() == ["read READ"]);
        round(base);
        if matches!(base.link(), LinkState::Up { .. }) {
            base.hold_timer("endless", max, Some(max), Some(max)).unwrap();
            base.hold_anew("endless", &far, b"", Some(max)).unwrap();
            assert!(base.take("endless").unwrap().ttl > Some(LONG));
        }
    });
}
