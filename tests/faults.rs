//! What the kernel may do to evd and its clients at any system call: end them there, or refuse the call. strace does it to real processes, at the
//! first, second and third occurrence of each call of a session, which each thread counts for itself.
//!
//! `cargo test` runs a part of it; `EVD_FAULTS=all` runs everything. Where a process may not be traced it says so.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "faults/cases.rs"]
mod cases;
#[path = "faults/errors.rs"]
mod errors;
#[path = "faults/kills.rs"]
mod kills;
#[path = "e2e/parts.rs"]
#[allow(dead_code)]
mod parts;
#[path = "e2e/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "faults/role.rs"]
mod role;
#[path = "faults/script.rs"]
mod script;
#[path = "faults/soak.rs"]
mod soak;
#[path = "faults/starts.rs"]
mod starts;
#[path = "faults/strace.rs"]
mod strace;
#[path = "server/wire.rs"]
#[allow(dead_code)]
mod wire;
