//! What every event loop of this project must do, written once: as functions over [`Loop`].
//!
//! A test file implements `Loop` for what it tests (a `Base`, a client's `EventBase`, the same through a daemon) and instantiates all cases for each method
//! with `conformance!`. A case states a fact in its name, waits for what must come with [`until`], and for what must not come with one short wait; it asserts
//! least times and never longest ones.

#![allow(dead_code)]

pub mod client;
#[cfg(windows)]
pub mod handles;
#[cfg_attr(windows, path = "windows.rs")]
pub mod os;
pub mod rest;
pub mod watches;

use evd::backend::{Features, Mode};
use evd_proto::What;
use evd_proto::sys::BorrowedFd;
use std::time::Duration;

/// Names a watch or a timer of one loop.
pub type Id = u64;

/// What became active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// A watch, with what it wanted and is ready.
    Ready(Id, What),
    /// A timer; it is gone.
    Timer(Id),
    /// A signal, and how often it came.
    Signal(i32, u32),
    /// The loop was woken from elsewhere.
    Wake,
}

/// Why a watch was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    AlwaysReady,
    BadFd,
    Edge,
    Other(String),
}

/// What a loop does with a file that is always ready.
#[derive(Debug, PartialEq, Eq)]
pub enum Files {
    Refused,
    Reported,
}

/// Where a loop tells that the peer has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    Never,
    OnSockets,
    OnPipesToo,
}

impl Closed {
    /// Its feature promises it for sockets; kqueue tells it beyond its promise, and where a pipe is a socket there is no difference.
    pub fn of(method: &str, features: Features) -> Closed {
        match method {
            "kqueue" | "wepoll" => Closed::OnPipesToo,
            _ if features.contains(Features::EARLY_CLOSE) => Closed::OnSockets,
            _ => Closed::Never,
        }
    }
}

/// An event loop under test.
pub trait Loop: Sized {
    /// A new loop of this method; `None` if the machine lacks it.
    fn open(method: &str) -> Option<Self>;
    fn features(&self) -> Features;
    fn files(&self) -> Files;
    fn closed(&self) -> Closed;
    /// A new watch, or the whole interest of an old one anew (which arms a one-shot again).
    fn watch(&mut self, old: Option<Id>, fd: BorrowedFd<'_>, what: What, mode: Mode) -> Result<Id, Refused>;
    /// Ends a watch, before its fd is closed.
    fn unwatch(&mut self, id: Id);
    /// A new timer, or an old one moved.
    fn timer(&mut self, old: Option<Id>, after: Duration) -> Id;
    fn cancel(&mut self, id: Id);
    fn catch_signal(&mut self, signo: i32);
    fn waker(&mut self) -> Box<dyn Fn() + Send>;
    /// Waits until something is active, for at most about `ms`; may return early with nothing.
    fn wait(&mut self, ms: u64) -> Vec<Fired>;
    /// Sleeps in a plain `poll` on the loop's own fd for at most `ms`; tells whether it became readable.
    fn poll_outside(&mut self, ms: u64) -> bool;
}

/// Waits until something is active. Bounded, so that a failure is a failure and no hang.
pub fn until<L: Loop>(l: &mut L) -> Vec<Fired> {
    for _ in 0..200 {
        let fired = l.wait(100);
        if !fired.is_empty() {
            return fired;
        }
    }
    panic!("nothing came");
}

/// Asserts that nothing is active, over several waits.
pub fn quiet<L: Loop>(l: &mut L) {
    for _ in 0..3 {
        assert_eq!(l.wait(5), []);
    }
}

/// Opens a loop, or says that it was skipped: which is a failure for the methods in `EVD_EXPECT_METHODS`.
pub fn open<L: Loop>(method: &str) -> Option<L> {
    let l = L::open(method);
    if l.is_none() {
        println!("skipped: {method}");
        let expected = std::env::var("EVD_EXPECT_METHODS").unwrap_or_default();
        assert!(!expected.split(',').any(|m| m == method), "{method} is expected on this machine");
    }
    l
}

/// Instantiates all cases: `conformance!(MyLoop: epoll = "epoll", poll = "poll");`.
#[macro_export]
macro_rules! conformance {
    ($loop:ty: $($module:ident = $method:literal),* $(,)?) => {
        $(mod $module {
            use super::*;
            $crate::conformance_cases!($loop, $method;
                watches::level_reports_with_every_wait
                watches::one_shot_reports_once_until_armed_again
                watches::one_shot_rests_in_both_directions
                watches::edge_reports_once_for_each_edge
                watches::closed_reports_a_half_close
                watches::closed_reports_a_close_with_something_unread
                watches::data_that_nobody_wants_does_not_spin
                watches::a_pipe_that_nobody_reads_is_ready_for_writing
                watches::a_watch_that_changes_its_mode_keeps_it
                watches::write_is_reported_while_there_is_room
                watches::hang_up_counts_as_read
                watches::hang_up_that_nobody_wants_does_not_spin
                watches::closed_is_seen_on_a_socket_that_was_watched_before_it_was_connected
                watches::two_fds_report_under_their_own_ids
                watches::a_change_replaces_the_whole_interest
                watches::unwatch_stops_reports
                watches::a_number_used_again_at_once_is_a_new_watch
                watches::a_number_above_1024_works
                watches::a_thousand_fds_at_once_are_all_reported
                watches::a_file_that_is_always_ready_is_refused_or_reported
                watches::a_bad_fd_is_refused
                rest::timers_are_not_early_and_in_order
                rest::equal_timers_fire_in_order_of_setting
                rest::a_moved_timer_fires_once_at_its_new_time
                rest::a_cancelled_timer_does_not_fire
                rest::a_wait_without_anything_lasts_its_time
                rest::signals_are_counted
                rest::a_wake_from_another_thread_is_seen_once
                rest::the_own_fd_is_readable_for_a_ready_watch_and_only_then
                rest::the_own_fd_is_readable_for_a_file_that_is_always_ready
                rest::the_own_fd_is_readable_when_a_timer_is_due
            );
        })*
    };
}

/// One test function for each case of a list.
#[macro_export]
macro_rules! conformance_cases {
    ($loop:ty, $method:literal; $($group:ident::$case:ident)*) => {
        $(#[test]
        fn $case() {
            if let Some(mut l) = $crate::conformance::open::<$loop>($method) {
                $crate::conformance::$group::$case(&mut l);
            }
        })*
    };
}
