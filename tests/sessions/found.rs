//! Sequences that once failed, as they were printed.

use crate::ops::{Ask::*, Hello, Op::*};
use crate::run::replay;

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
