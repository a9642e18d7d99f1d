//! libevent's event core in Rust: every capability, with the behaviour that libevent has, in-process on each method and with what is quiet at a live evd.
//!
//! `client/SEMANTICS.md` is the table of what is proven here. A test is a function over a base that is made for it, and runs in each setting of
//! [`parts::SETTINGS`]; it says in which one when it fails.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "semantics/activation.rs"]
mod activation;
#[path = "semantics/config.rs"]
mod config;
#[path = "semantics/control.rs"]
mod control;
#[path = "semantics/events.rs"]
mod events;
#[path = "semantics/fork.rs"]
mod fork;
#[path = "semantics/getters.rs"]
mod getters;
#[path = "semantics/inspect.rs"]
mod inspect;
#[path = "semantics/once.rs"]
mod once;
#[cfg_attr(unix, path = "conformance/os.rs")]
#[cfg_attr(windows, path = "conformance/windows.rs")]
#[allow(dead_code)]
mod os;
#[path = "semantics/parts.rs"]
mod parts;
#[path = "semantics/priorities.rs"]
mod priorities;
#[cfg(unix)]
#[path = "semantics/privileged.rs"]
mod privileged;
#[path = "semantics/races.rs"]
mod races;
#[path = "semantics/role.rs"]
mod role;
#[path = "semantics/signals.rs"]
mod signals;
#[path = "semantics/table.rs"]
mod table;
#[path = "semantics/threads.rs"]
mod threads;
#[path = "semantics/time.rs"]
mod time;
#[path = "semantics/timers.rs"]
mod timers;
#[path = "semantics/watchers.rs"]
mod watchers;
