//! evd as its clients meet it: a real process on a private socket, and a client that speaks the bare protocol. Whatever a client does wrong, one that does no
//! wrong beside it notices nothing.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "server/access.rs"]
mod access;
#[path = "server/bad.rs"]
mod bad;
#[path = "server/fuse.rs"]
mod fuse;
#[path = "server/harden.rs"]
mod harden;
#[path = "server/kinds.rs"]
mod kinds;
#[path = "server/life.rs"]
mod life;
#[path = "server/quotas.rs"]
mod quotas;
#[path = "server/readers.rs"]
mod readers;
#[path = "server/shared.rs"]
mod shared;
#[path = "server/users.rs"]
mod users;
#[path = "server/watches.rs"]
mod watches;
#[path = "server/wire.rs"]
mod wire;
