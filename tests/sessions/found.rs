//! Sequences that once failed, as they were printed.

use crate::ops::{Ask::*, Hello, Op::*};
use crate::run::replay;
use evd::server::probe::Evd;
use evd_proto::channel::{Channel, Scratch};
use evd_proto::frame::Kind;
use evd_proto::request::{Hello as SaysHello, Role};
use evd_proto::sys::{self, Peer};

#[test]
fn who_leaves_amid_its_requests_leaves_no_name_behind() {
    replay(&[
        Connect(0, 1000, false, false),
        Dash(0, vec![Hello(Hello::Client), Subscribe(0, 0), Trigger(0), Subscribe(1, 1)]),
    ]);
}

#[test]
fn what_was_asked_for_before_leaving_counts() {
    replay(&[
        Connect(0, 1000, false, false),
        Dash(0, vec![Hello(Hello::Client), Subscribe(0, 0), Trigger(0), Put(0, false, 5, false)]),
        Connect(1, 1000, false, false),
        Ask(1, vec![Hello(Hello::Client)]),
        Ask(1, vec![Take(0, false)]),
    ]);
}

#[test]
fn who_follows_all_and_one_is_told_once() {
    replay(&[
        Connect(0, 1000, false, false),
        Ask(0, vec![Hello(Hello::Client)]),
        Connect(1, 1000, false, false),
        Ask(1, vec![Hello(Hello::Control)]),
        Ask(1, vec![Follow(None)]),
        Ask(1, vec![Follow(Some(0))]),
        Ask(0, vec![Timer(1, true)]),
    ]);
}

#[test]
fn a_trigger_reaches_the_subscription_that_is_given_up_behind_it() {
    replay(&[
        Connect(0, 1000, false, false),
        Ask(0, vec![Hello(Hello::Client), Subscribe(0, 0)]),
        Ask(0, vec![Trigger(0), Unsubscribe(0)]),
    ]);
}

#[test]
fn a_trigger_does_not_reach_a_subscription_that_was_given_up_before() {
    replay(&[
        Connect(0, 1000, false, false),
        Ask(0, vec![Hello(Hello::Client), Subscribe(0, 0), Unsubscribe(0), Trigger(0), Subscribe(0, 1)]),
        Ask(0, vec![Trigger(1), Unsubscribe(0), Subscribe(0, 0), Trigger(0)]),
    ]);
}

#[test]
fn a_hello_that_evd_looks_at_too_late_has_come_in_time() {
    let mut evd = Evd::new(&[]).unwrap();
    let (ours, evds) = sys::socketpair().unwrap();
    let mut channel = Channel::new(ours);
    let hello = SaysHello {
        versions: (evd_proto::OLDEST_VERSION, evd_proto::PROTOCOL_VERSION),
        features: 0,
        role: Role::Client,
        name: "patient".to_owned(),
        method: String::new(),
        avoid: Vec::new(),
        require: 0,
    };
    channel.output.push(1, &hello).unwrap();
    assert!(channel.flush().unwrap());
    let peer = Peer { pid: std::process::id() as i32, uid: 1000, gid: 1000 };
    assert!(evd.connect(evds, peer, false).unwrap().is_none());
    // As if it had been stopped: longer than it gives anybody.
    std::thread::sleep(std::time::Duration::from_millis(10_100));
    evd.turn().unwrap();
    let mut scratch = Scratch::new();
    let (socket, input, _) = channel.split();
    let (_, mut frames) = input.receive(socket, &mut scratch).unwrap();
    assert_eq!(frames.next().unwrap().unwrap().header.kind, Kind::Welcome);
}
