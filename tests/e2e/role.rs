//! Clients in processes of their own: what they do.

pub use crate::process::{Process, hear, say};
use crate::process::{Role, play};
use crate::{crowd, dying, embedded, forks, holds, names, refusals, shortage, signals, stalls};

const ROLES: &[(&str, Role)] = &[
    ("crowd", crowd::fifty_clients),
    ("churn", dying::churn),
    ("peer", dying::peer),
    ("frozen", stalls::frozen),
    ("forks", forks::forks),
    ("counted", forks::counted),
    ("inside", forks::inside),
    ("starts", forks::starts),
    ("heir", holds::heir),
    ("lasting", holds::lasting),
    ("stranger", holds::stranger),
    ("guest", embedded::guest),
    ("host", embedded::host),
    ("greedy", shortage::greedy),
    ("without_fds", shortage::without_fds),
    ("by_environment", refusals::by_environment),
    ("shut_out", refusals::shut_out),
    ("turned_away", refusals::turned_away),
    ("welcome", refusals::welcome),
    ("disabled", refusals::disabled),
    ("subscriber", names::subscriber),
    ("signalled", signals::signalled),
];

#[test]
#[ignore = "a part that other tests start in a process of its own"]
fn role() {
    play(ROLES);
}
