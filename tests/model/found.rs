//! Sequences that once failed, as they were printed.

use crate::ops::{Act::*, Op::*, Setup};
use crate::replays;

const PLAIN: Setup = Setup {
    priorities: 1,
    most_calls: None,
    most_time: None,
    limited_from: 0,
    common: None,
    signals: false,
    watched: true,
    lazy: false,
};

#[test]
fn the_newest_event_of_an_fd_is_the_first() {
    replays(
        PLAIN,
        &[
            New { event: 0, port: Some(0), what: 18, priority: None, script: [Some(Del(1)), None] },
            New { event: 1, port: Some(0), what: 18, priority: None, script: [Some(Read(0, 1)), None] },
            Do(Add(0, None)),
            Do(Add(1, None)),
            Do(Write(0, 2)),
            Loop(3),
            Loop(3),
        ],
    );
}

#[test]
fn loopexit_after_no_time_is_a_loopexit_now() {
    replays(
        PLAIN,
        &[
            New {
                event: 2,
                port: Some(0),
                what: 130,
                priority: Some(0),
                script: [Some(Exit(Some(0))), None],
            },
            Do(Add(2, Some(50))),
            Loop(1),
        ],
    );
}

#[test]
fn a_persistent_event_that_was_active_when_it_was_added_waits_for_its_fd() {
    replays(
        PLAIN,
        &[
            New { event: 0, port: Some(0), what: 18, priority: None, script: [None, None] },
            Do(Activate(0, 4)),
            Do(Add(0, Some(10))),
            Loop(3),
            Do(Write(0, 1)),
            Loop(3),
        ],
    );
}

#[test]
fn to_look_at_the_time_left_does_not_change_the_loops_time() {
    replays(
        PLAIN,
        &[
            New { event: 0, port: None, what: 0, priority: None, script: [Some(Advance(10)), None] },
            New { event: 1, port: None, what: 0, priority: None, script: [Some(Add(0, Some(50))), None] },
            Do(Activate(0, 1)),
            Do(Activate(1, 1)),
            Loop(3),
        ],
    );
}

#[test]
fn a_limit_of_callbacks_does_not_change_the_loops_time() {
    replays(
        Setup { most_calls: Some(2), ..PLAIN },
        &[
            New { event: 0, port: None, what: 0, priority: None, script: [Some(Advance(10)), None] },
            New { event: 1, port: None, what: 0, priority: None, script: [Some(Add(0, Some(50))), None] },
            Do(Activate(0, 1)),
            Do(Activate(1, 1)),
            Loop(3),
        ],
    );
}

#[test]
fn what_a_method_does_not_report_is_not_reported_with_a_timeout() {
    replays(
        PLAIN,
        &[
            New { event: 1, port: Some(1), what: 144, priority: None, script: [Some(Continue), None] },
            Do(Add(1, Some(86400000))),
            Loop(3),
            Do(Close(1)),
            Loop(4),
        ],
    );
}

#[test]
fn a_new_edge_triggered_event_is_served_while_others_are_busy() {
    replays(
        PLAIN,
        &[
            New {
                event: 1,
                port: Some(0),
                what: 6,
                priority: None,
                script: [Some(Read(1, 1)), Some(Add(1, Some(10)))],
            },
            Do(Add(1, Some(100))),
            New { event: 2, port: Some(1), what: 36, priority: None, script: [None, None] },
            Do(Add(2, Some(0))),
            Loop(3),
        ],
    );
}

#[test]
fn an_edge_triggered_event_that_is_added_again_hears_what_is_ready() {
    replays(
        PLAIN,
        &[
            New { event: 1, port: Some(1), what: 50, priority: None, script: [None, None] },
            Do(Add(1, None)),
            New { event: 2, port: Some(1), what: 36, priority: None, script: [None, None] },
            Do(Add(2, None)),
            Loop(3),
            Do(Add(2, None)),
            Loop(3),
        ],
    );
}

#[test]
fn what_has_come_since_an_event_was_added_is_told_with_what_was_there() {
    for change in [Write(0, 2), HalfClose(0), Close(0)] {
        for what in [6, 134, 150] {
            replays(
                PLAIN,
                &[
                    New { event: 0, port: Some(0), what, priority: None, script: [None, None] },
                    Do(Add(0, None)),
                    Do(change),
                    Loop(3),
                    Loop(3),
                ],
            );
        }
    }
}
