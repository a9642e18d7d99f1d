//! What the fds that evd may open are for.
//!
//! The kernel gives the lowest number that is free, so the number of a new fd tells how many are open at least: a kind of fds that has a share is refused above a
//! number, and what is left above it is for the others.

use evd_proto::sys;
use evd_proto::sys::RawFd;

/// So many fds, or a quarter of all, are not for connections.
const RESERVE: RawFd = 1024;

/// Numbers below which fds must be, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Connections, with what belongs to them. The rest is for the fds that those who are here already pass.
    pub connections: RawFd,
    /// What evd keeps for clients: held fds, copies of watched ones. The rest is for what comes and goes.
    pub kept: RawFd,
}

impl Shares {
    /// Those of so many fds in all.
    pub fn of(files: RawFd) -> Shares {
        Shares { connections: files - (files / 4).min(RESERVE), kept: files / 4 * 3 }
    }

    /// Those of what evd may open now.
    pub fn now() -> Shares {
        Shares::of(sys::most_open_files())
    }
}
