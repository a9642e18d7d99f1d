//! The protocol between `evd` and its clients, and the operating system calls under it.
//!
//! [`sys`] is floor 0: sockets, fd passing and the other calls that are not a backend. Everything else is floor 1: what is said ([`request`],
//! [`reply`], [`notice`]), how it is framed ([`frame`]) and carried ([`channel`]). The bytes are written down in `SPEC.md`, with golden vectors that
//! the tests check.

pub mod channel;
mod codec;
pub mod frame;
pub mod name;
pub mod notice;
pub mod path;
pub mod reply;
pub mod request;
pub mod sys;

pub use codec::CodecError;
pub use sys::{MAX_FDS, What};

/// The newest protocol version this crate speaks; a change of the bytes increases it.
pub const PROTOCOL_VERSION: u16 = 1;
/// The feature bits that this build knows: of `Hello` and `Welcome`.
pub const FEATURES: u64 = if sys::PULLS_HANDLES { request::ArmHandles::FEATURE } else { 0 };
/// The oldest protocol version this crate speaks.
pub const OLDEST_VERSION: u16 = 1;
