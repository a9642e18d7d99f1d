//! `evctl` as a program, against an evd that is scripted by the test.
//!
//! Each test runs the real binary. What is compared as a whole text is what scripts may rely on: columns, exit codes, JSON.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "evctl/exits.rs"]
mod exits;
#[path = "evctl/fake.rs"]
mod fake;
#[path = "evctl/fds.rs"]
mod fds;
#[path = "evctl/listings.rs"]
mod listings;
