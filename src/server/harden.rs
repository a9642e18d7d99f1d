//! What the daemon gives up once it runs: a program that serves strangers needs no way to become another program.
//!
//! A deny-list, and not a list of what is needed: the libraries below make calls of their own, by system and version, and a daemon that dies of a new one
//! helps nobody. What is denied fails with EPERM; a call by another architecture's table (i386 on x86_64) ends the process. The unit files deny far more, but
//! can't deny exec, which they need to start evd. Only the binary does this, never an evd in a host; `--no-hardening` leaves it out. File systems stay reachable:
//! evd reads `/proc` and `/dev/null` all the time, and looks users and groups up through whatever nsswitch.conf(5) names.
//!
//! Tested in `tests/server/harden.rs`, in processes of their own: nobody gets back what was given up.

use evd_proto::sys;
use std::io::{Error, ErrorKind};

/// Gives it up for all threads of the process, and those to come. Where the kernel, the architecture or whoever started evd does not let it, evd goes on
/// without, and says so.
pub(super) fn apply() {
    // Implied by the filter; said first, as it helps by itself.
    if let Err(e) = sys::no_new_privileges() {
        without("keeps the right to new privileges", &e);
    }
    match sys::deny_calls() {
        Ok(calls) => log::debug!("{calls} system calls are given up"),
        Err(e) => without("gives up no system calls", &e),
    }
}

/// Where it can't be had nobody needs to be warned at each start.
fn without(what: &str, e: &Error) {
    let level = if e.kind() == ErrorKind::Unsupported { log::Level::Info } else { log::Level::Warn };
    log::log!(level, "evd goes on and {what}: {e} (--no-hardening does not try)");
}
