//! evd as a service: a real systemd in a container of its own, the units as they are shipped, and clients in processes that notice nothing.
//!
//! Each test boots a container, which takes less than a second, beside those of other tests, but alone where something is measured. They need root,
//! systemd and a cgroup2 that can be written, and say so where that is missing. What runs inside is this test program again, in the roles of
//! `systemd/role.rs`.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "systemd/gap.rs"]
mod gap;
#[path = "systemd/held.rs"]
mod held;
#[path = "systemd/kills.rs"]
mod kills;
#[path = "systemd/lab.rs"]
mod lab;
#[path = "systemd/load.rs"]
mod load;
#[path = "systemd/package.rs"]
mod package;
#[path = "systemd/parts.rs"]
mod parts;
#[path = "systemd/role.rs"]
mod role;
#[path = "systemd/service.rs"]
mod service;
#[path = "systemd/user.rs"]
mod user;
