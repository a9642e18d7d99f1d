//! evd, clients and evctl, each in a process of its own, on every system that evd runs on: what is here is built of the standard library, the client crate and the two programs, and is the
//! same on Windows (named pipes, sockets by `WSADuplicateSocket`) as elsewhere.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[cfg(windows)]
#[path = "apart/claims.rs"]
mod claims;
#[cfg(windows)]
#[path = "apart/handles.rs"]
mod handles;
#[path = "apart/holds.rs"]
mod holds;
#[path = "apart/kills.rs"]
mod kills;
#[path = "apart/parts.rs"]
mod parts;
#[path = "random/mod.rs"]
#[allow(dead_code)]
mod random;
#[cfg(windows)]
#[path = "apart/service.rs"]
mod service;
#[path = "apart/watches.rs"]
mod watches;

/// Clients in processes of their own.
mod role {
    use crate::parts::{Role, play};
    use crate::{holds, kills, watches};

    const ROLES: &[(&str, Role)] = &[
        ("echo", watches::echo),
        ("named", watches::named),
        ("host", watches::host),
        ("server", holds::server),
        ("taker", holds::taker),
        ("sink", kills::sink),
        #[cfg(windows)]
        ("waiter", crate::handles::waiter),
        #[cfg(windows)]
        ("owner", crate::claims::owner),
    ];

    #[test]
    #[ignore = "a part that other tests start in a process of its own"]
    fn role() {
        play(ROLES);
    }
}
