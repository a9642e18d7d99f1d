//! The client crate and evd as a user meets them: evd is a real process on a private socket, killed, frozen and started again. Each test states a fact
//! of README or of the client's documentation and waits for it, however slow the machine is.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "e2e/loss.rs"]
mod loss;
#[path = "e2e/numbers.rs"]
mod numbers;
#[path = "e2e/parts.rs"]
#[allow(dead_code)]
mod parts;
#[path = "server/wire.rs"]
#[allow(dead_code)]
mod wire;
