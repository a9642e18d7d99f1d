//! What the daemon gives up once it runs: a program that serves strangers needs no way to become another program.
//!
//! A deny-list, and not a list of what is needed: the libraries below make calls of their own, by system and version, and a daemon that dies of a new one
//! helps nobody. What is denied fails with EPERM; a call by another architecture's table (i386 on x86_64) ends the process. The unit files deny far more, but
//! can't deny exec, which they need to start evd. Only the binary does this, never an evd in a host; `--no-hardening` leaves it out. File systems stay reachable:
//! evd reads `/proc` and `/dev/null` all the time, and looks users and groups up through whatever nsswitch.conf(5) names.
//!
//! Tested in `tests/server/harden.rs`, in processes of their own: nobody gets back what was given up.

use evd_proto::sys;

// What seccompiler knows; Cargo.toml says the same.
#[cfg(all(
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
mod filter;

/// Gives it up for all threads of the process, and those to come. Where the kernel, the architecture or whoever started evd does not let it, evd goes on
/// without, and says so.
pub(super) fn apply() {
    // Implied by the filter; said first, as it helps by itself.
    if let Err(e) = sys::no_new_privileges() {
        log::warn!("evd goes on and keeps the right to new privileges: prctl: {e}");
    }
    match filter::apply() {
        Ok(calls) => log::debug!("{calls} system calls are given up"),
        Err(e) => log::warn!("evd goes on and gives up no system calls: {e} (--no-hardening does not try)"),
    }
}

#[cfg(not(all(
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
)))]
mod filter {
    pub(super) fn apply() -> Result<usize, String> {
        Err(format!("there is no filter for the architecture {}", std::env::consts::ARCH))
    }
}
