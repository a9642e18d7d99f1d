//! Handles that are pulled out of another process: Windows has them.

use super::{AsFd, BorrowedFd};
use crate::sys::NotPulled;

/// Whether there is anything to be pulled. Here fds are attached to messages.
pub const PULLS_HANDLES: bool = false;

/// A handle out of another process: here there is none.
#[derive(Debug)]
pub enum PulledHandle {}

impl AsFd for PulledHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

/// Not on Unix.
///
/// # Errors
/// `ENOTSUP`, always.
pub fn pull_handle(_connection: BorrowedFd<'_>, handle: u32) -> Result<PulledHandle, NotPulled> {
    let text = format!("handle {handle:#x}: only Windows has handles; here an Arm attaches fds");
    Err(NotPulled { code: libc::ENOTSUP, text })
}
