//! evd: a daemon that hosts libevent-style event bases and keeps what must survive a process.
//!
//! The floors, from below: [`backend`] (one file a method), [`base`] (watches, timers, signals, a mailbox on one backend), `session` (one client)
//! and `server` (accept, access, workers, names, holds). Calls go down, events come up as returned values. `evctl` speaks the protocol
//! like any client. Without the `daemon` feature only `backend` and `base` are built: that is what the client crate runs on.

pub mod backend;
pub mod base;
#[cfg(feature = "daemon")]
pub mod evctl;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
mod session;

#[cfg(feature = "daemon")]
pub use server::Daemon;
