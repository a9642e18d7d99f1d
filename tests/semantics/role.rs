//! Parts of tests that need a process of their own: this test program starts itself again.

#[cfg(unix)]
use crate::privileged;
use crate::{config, fork, parts};
use std::path::Path;
use std::process::{Command, Output};

const ROLE: &str = "EVD_SEMANTICS_ROLE";

type Role = fn(socket: &Path, arg: &str);

const ROLES: &[(&str, Role)] = &[
    ("environment", config::environment),
    ("precise", config::precise),
    #[cfg(unix)]
    ("privileged", privileged::privileged),
    #[cfg(unix)]
    ("fork", fork::forks),
    ("again", fork::again),
    #[cfg(unix)]
    ("watcher", fork::watcher),
    #[cfg(unix)]
    ("silent", fork::silent_in_child),
];

#[test]
#[ignore = "a part that other tests start in a process of its own"]
fn role() {
    let Ok(words) = std::env::var(ROLE) else { return };
    parts::end_after(60);
    let words: Vec<&str> = words.split('\n').collect();
    let (_, run) = ROLES.iter().find(|(name, _)| *name == words[0]).unwrap();
    run(Path::new(words[1]), words[2]);
}

/// A command that plays a role.
pub fn command(program: &Path, role: &str, arg: &str) -> Command {
    let mut c = Command::new(program);
    c.args(["--exact", "role::role", "--ignored", "--nocapture", "--test-threads=1"]);
    let socket = if parts::REMOTE.contains(&true) { parts::socket().as_path() } else { Path::new("") };
    c.env(ROLE, format!("{role}\n{}\n{arg}", socket.display()));
    for method in evd::backend::methods() {
        c.env_remove(method.env);
    }
    c
}

/// Plays a role to its end, which must be a good one.
pub fn play(mut c: Command) -> Output {
    let out = c.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out
}

/// In this program, with this environment.
pub fn play_with(role: &str, arg: &str, environment: &[(&str, &str)]) -> Output {
    let mut c = command(&std::env::current_exe().unwrap(), role, arg);
    c.envs(environment.iter().copied());
    play(c)
}
