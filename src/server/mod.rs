//! Floor 5: the daemon around the sessions.
//!
//! One thread accepts and does nothing else; it hands each connection to a worker of the connecting user. A worker serves the sessions of one user and no
//! others, so whatever a client does to block its worker stays with that user. Names and held fds are tables that the workers share. Nothing here runs
//! by the clock, but for the service manager's watchdog: an evd with nothing to do makes no system calls.
//!
//! From the bottom: `mail` (what workers tell each other), `names` and `holds` (the tables; `book`, `parcel`, `records`, `store`, `starts` and `turns` keep held fds
//! beyond evd's own end), `registry` (who is there), `worker` with `wishes`, `tickets` and `follow` (the work), `accept` and `reject` (who comes in), `watchdog`
//! (whether all get on), `builder` (the whole); beside it `keeper`, the parent of an evd that has no service manager.
#![forbid(unsafe_code)]

mod accept;
mod access;
pub mod args;
mod book;
mod builder;
mod deadlines;
mod error;
mod follow;
mod giving;
mod harden;
mod holds;
mod keeper;
mod log;
mod mail;
mod names;
mod parcel;
#[doc(hidden)]
pub mod probe;
mod quotas;
mod records;
mod registry;
mod reject;
mod service;
mod starts;
mod status;
mod store;
mod tickets;
mod turns;
mod watchdog;
mod wishes;
mod worker;

pub use args::{Args, Level, main};
pub use builder::{Builder, Daemon};
pub use error::Error;
