//! The parts that run in processes of their own.

use crate::process::{Role, play};
use crate::{attackers, honest, processes};

const ROLES: &[(&str, Role)] = &[
    ("honest", honest::honest),
    ("attacker", attackers::attacker),
    ("spinner", attackers::spinner),
    ("busy", processes::busy),
    ("forking", processes::forking),
];

#[test]
#[ignore = "a part that another test starts in a process of its own"]
fn role() {
    play(ROLES);
}
