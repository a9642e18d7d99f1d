//! Holds outlive evd: real processes, killed at any moment, and a checker that has the other end of everything that is held.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "holds/calls.rs"]
mod calls;
#[path = "holds/counts.rs"]
mod counts;
#[path = "holds/damage.rs"]
mod damage;
#[path = "holds/keeper.rs"]
mod keeper;
#[path = "holds/kept.rs"]
mod kept;
#[path = "holds/kills.rs"]
mod kills;
#[path = "holds/manager.rs"]
mod manager;
#[path = "holds/shortage.rs"]
mod shortage;
#[path = "holds/whole.rs"]
mod whole;
#[path = "server/wire.rs"]
#[allow(dead_code)]
mod wire;
