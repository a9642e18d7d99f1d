//! The client's way back to evd, in a world whose time stands still until the client sleeps.
//!
//! evd is there or not, refuses, stalls, answers late, ends within a frame and in every other way, as a script says that is made up from a seed; bytes and named events come at any
//! moment, the last one before it ends too. The client is the real one, over real sockets, with a clock that the test sets. What must hold: each byte is seen once and within the
//! time in which a stuck evd is noticed; each named event that evd had told of is heard once; the base's timers go on; in the end every watch is parked at an evd that is there, or
//! served locally; the pauses between two tries are within their bounds; and the loop never turns without need.
//!
//! `EVD_RECONNECT_SEED` is the first seed and `EVD_RECONNECT_SCRIPTS` the number of scripts of each test, for other or longer runs. A failure prints its seed, and the script made
//! short: paste it as a test.

// The lint knows test functions, but not the helpers of a test file.
#![allow(clippy::unwrap_used)]

#[path = "reconnect/fake.rs"]
mod fake;
#[path = "random/mod.rs"]
mod random;
#[path = "reconnect/run.rs"]
mod run;
#[path = "reconnect/script.rs"]
mod script;

use fake::{Death, Manner};
use script::Act::*;

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

#[test]
fn scripts() {
    run::random(0, 2_000);
}

#[test]
fn scripts_go_on() {
    run::random(1, 2_000);
}

#[test]
fn who_is_refused_asks_less_and_less_often() {
    for manner in [Manner::Closes, Manner::Refuses, Manner::Garbage, Manner::HalfWelcome] {
        run::pauses(manner);
    }
}

#[test]
fn what_was_told_just_before_the_end_is_heard() {
    let deaths = [Death::Close, Death::MidFrame, Death::Closing, Death::Garbage, Death::Stall];
    for death in deaths {
        run::replay(
            &[(0, Become(Manner::Good)), (3000, Die(death)), (3000, Become(Manner::Good))],
            60_000 * MS,
        );
    }
}
