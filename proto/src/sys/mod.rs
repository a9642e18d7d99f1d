//! Floor 0: the operating system's calls that are not a backend.
//!
//! Sockets and fd passing, `poll`, wake-ups, identities of open files, signals, fork detection, process states. This is one of the two places of
//! the project that may be `unsafe` (the other is `evd::backend`); what leaves it is safe to call.

mod unix;

pub use unix::*;
