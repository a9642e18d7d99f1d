//! Floor 0: the operating system's calls that are not a backend.
//!
//! Sockets and fd passing, `poll`, wake-ups, identities of open files, signals, fork detection, process states. This is one of the two places of
//! the project that may be `unsafe` (the other is `evd::backend`); what leaves it is safe to call.

mod kind;
#[cfg(unix)]
mod unix;
mod what;
#[cfg(windows)]
mod windows;

pub use kind::{FileId, FileKind, NotPulled, is_always_ready};
#[cfg(unix)]
pub use unix::*;
pub use what::What;
#[cfg(windows)]
pub use windows::*;

/// What an event can wait for on this system beside what has an fd: handles on Windows, and nothing elsewhere.
pub mod sources {
    #[cfg(windows)]
    pub use crate::sys::WaitHandle;
}

/// The most fds in one message, so in one frame: what the kernel takes. Source: unix(7), SCM_MAX_FD.
pub const MAX_FDS: usize = 253;
