//! The client crate and evd as a user meets them: evd is a real process on a private socket, and clients that are to be killed or frozen are real
//! processes too. Each test states a fact of README or of the client's documentation and waits for it, however slow the machine is.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "e2e/closing.rs"]
mod closing;
#[path = "e2e/crowd.rs"]
mod crowd;
#[path = "e2e/dying.rs"]
mod dying;
#[path = "e2e/embedded.rs"]
mod embedded;
#[path = "e2e/fake.rs"]
mod fake;
#[path = "e2e/forks.rs"]
mod forks;
#[path = "e2e/holds.rs"]
mod holds;
#[path = "e2e/interests.rs"]
mod interests;
#[path = "e2e/kills.rs"]
mod kills;
#[path = "e2e/loss.rs"]
mod loss;
#[path = "e2e/names.rs"]
mod names;
#[path = "e2e/numbers.rs"]
mod numbers;
#[path = "conformance/os.rs"]
#[allow(dead_code)]
mod os;
#[path = "e2e/parts.rs"]
mod parts;
#[path = "e2e/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "e2e/quotas.rs"]
mod quotas;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "e2e/role.rs"]
mod role;
#[path = "e2e/shortage.rs"]
mod shortage;
#[path = "e2e/signals.rs"]
mod signals;
#[path = "e2e/stalls.rs"]
mod stalls;
#[path = "e2e/timers.rs"]
mod timers;
#[path = "e2e/watches.rs"]
mod watches;
#[path = "server/wire.rs"]
#[allow(dead_code)]
mod wire;
