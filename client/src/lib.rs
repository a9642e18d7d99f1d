//! libevent's `event_new`, `event_add`, `event_del` in Rust: in-process, or with what is quiet watched by `evd`.
//!
//! ```no_run
//! use evd_client::{Event, EventBase, What};
//! use std::net::TcpListener;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let base = EventBase::new()?; // evd if it is there, else in-process
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! listener.set_nonblocking(true)?;
//! let event = Event::new(&base, listener, What::READ | What::PERSIST, |event, _what| {
//!     while let Ok((stream, peer)) = event.source().accept() {
//!         println!("{peer} is here: {stream:?}");
//!     }
//! })?;
//! event.add(None)?;
//! base.dispatch()?;
//! # Ok(()) }
//! ```
//!
//! All of libevent's semantics are here, in the client, over a local [`evd::base::Base`]. With evd one rule is added: quiet level-triggered watches are
//! **parked**, that is, evd waits for them; its report brings a watch back, and the local kernel is asked what is really ready. Whatever evd does
//! not take, or when evd goes away, is served in-process: the program goes on by itself.
//!
//! A base and its events belong to one thread; callbacks need not be `Send`. Other threads use a [`Handle`].
#![forbid(unsafe_code)]

mod base;
mod builder;
mod clocks;
mod error;
mod event;
mod events;
mod files;
mod fork;
mod handle;
pub mod hold;
mod inspect;
mod line;
mod link;
mod liveness;
mod mailbox;
mod once;
mod park;
mod queues;
mod run;
mod state;
mod turn;
mod watchers;

pub use base::{EventBase, Triggered};
pub use builder::Builder;
pub use clocks::{BootClock, WallClock};
pub use error::Error;
pub use evd::backend::Features;
pub use evd_proto::What;
pub use evd_proto::reply::{HoldInfo, Refused};
#[allow(unused_imports, reason = "there are none but on Windows")]
pub use evd_proto::sys::sources::*;
pub use event::{Event, EventKey, NoFd};
pub use handle::Handle;
pub use hold::{Held, ToHold};
pub use inspect::{Counted, EventInfo, KeepGoing};
pub use link::LinkState;
pub use state::Sender;
pub use turn::{Ended, LoopFlags, Looped};
pub use watchers::{Slow, Watcher};

/// This crate's version: libevent's `event_get_version`.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The same as a number in libevent's form, to be compared: 1.2.3 is `0x01020300`. libevent's `event_get_version_number`.
pub fn version_number() -> u32 {
    let mut parts = version().split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    [24, 16, 8].iter().map(|shift| parts.next().unwrap_or(0) << shift).sum()
}
