//! Random sequences of what many clients do to one evd, compared step by step with a plain model of it.
//!
//! Clients of two users connect, say hello or nonsense, arm and disarm, set timers, subscribe to names and trigger them, give and take held fds, follow each other, stop
//! reading, leave, and leave in the midst of what they ask for. What is compared after each step: every answer and every notice that each client was told, what each
//! user is charged; and at the end, when all have left, that nothing is left of them. evd is driven by hand, without threads (see `evd::server::probe`): the code that serves is the
//! daemon's, over real sockets and a real epoll.
//!
//! `EVD_SESSIONS_SEED` is the first seed and `EVD_SESSIONS_SEQUENCES` the number of sequences of each test, for other or longer runs. A failure prints its seed, and the sequence
//! made short: paste it as a test.

// The lint knows test functions, but not the helpers of a test file.
#![allow(clippy::unwrap_used)]

#[path = "sessions/found.rs"]
mod found;
#[path = "sessions/ops.rs"]
mod ops;
#[path = "sessions/plain.rs"]
mod plain;
#[path = "random/mod.rs"]
mod random;
#[path = "sessions/real.rs"]
mod real;
#[path = "sessions/run.rs"]
mod run;

// In parts, so that they run at the same time.
#[test]
fn sessions() {
    run::random(0, 5_000);
}

#[test]
fn sessions_go_on() {
    run::random(1, 5_000);
}

#[test]
fn sessions_go_on_further() {
    run::random(2, 5_000);
}

#[test]
fn sessions_go_on_to_the_end() {
    run::random(3, 5_000);
}
