//! Where evd is: one order for evd itself, its clients and evctl.
//!
//! A user may have an evd of his own beside the system's. evd listens at one place; clients look at both, and the user's own goes first where it is there.

use crate::sys::default_socket;
use std::env;
use std::path::{Path, PathBuf};

/// The environment variable that names evd's socket.
pub const SOCKET_VARIABLE: &str = "EVD_SOCKET";

/// Where an evd listens that is told nothing else: `EVD_SOCKET`, else `$XDG_RUNTIME_DIR/evd/socket`, else `/run/evd/socket` (`/var/run` on other systems than
/// Linux); on Windows `EVD_SOCKET`, else the pipe `\\.\pipe\evd-USER`. Empty variables count as unset.
pub fn listen_path() -> PathBuf {
    places(variable).swap_remove(0)
}

/// Where a client finds evd: `EVD_SOCKET`, and then nothing else; else `$XDG_RUNTIME_DIR/evd/socket` if there is something, which is the user's own evd; else
/// `/run/evd/socket` (`/var/run` on other systems than Linux), the system's. If neither is there: the first of the two. Empty variables count as unset.
pub fn socket_path() -> PathBuf {
    pick(places(variable), exists)
}

/// Where else a client has looked that found no socket at `path`.
pub fn looked_at_too(path: &Path) -> Option<PathBuf> {
    let mut places = places(variable);
    (places.len() > 1 && places[0] == path).then(|| places.swap_remove(1))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Whether there is something that this user can see: a runtime directory of somebody else, as after su(1), counts as empty.
fn exists(path: &Path) -> bool {
    path.metadata().is_ok()
}

/// All places, the first first; there is at least one.
fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(path) = variable(SOCKET_VARIABLE) {
        return vec![path];
    }
    let system = default_socket(None);
    let user = variable("XDG_RUNTIME_DIR").map(|dir| default_socket(Some(dir)));
    user.into_iter().filter(|user| *user != system).chain([system.clone()]).collect()
}

fn pick(mut places: Vec<PathBuf>, exists: impl Fn(&Path) -> bool) -> PathBuf {
    // With one there is no choice, and nothing to look at.
    let found = if places.len() > 1 { places.iter().position(|p| exists(p)) } else { None };
    places.swap_remove(found.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &'static [(&str, &str)]) -> Vec<PathBuf> {
        places(move |n| pairs.iter().find(|(k, _)| *k == n).map(|(_, v)| PathBuf::from(v)))
    }

    #[test]
    fn the_order_is_variable_runtime_dir_run() {
        let (user, system) = (default_socket(Some("/r".into())), default_socket(None));
        assert_eq!(set(&[("EVD_SOCKET", "/a"), ("XDG_RUNTIME_DIR", "/r")]), [PathBuf::from("/a")]);
        // On Windows there is one place.
        let mut both = vec![user, system.clone()];
        both.dedup();
        assert_eq!(set(&[("XDG_RUNTIME_DIR", "/r")]), both);
        assert_eq!(set(&[]), [system]);
    }

    #[test]
    fn a_client_takes_the_users_own_if_it_is_there_and_else_the_systems() {
        let (user, system) = (Path::new("/r/evd/socket"), Path::new("/run/evd/socket"));
        let both = || vec![user.to_owned(), system.to_owned()];
        assert_eq!(pick(both(), |_| true), user);
        assert_eq!(pick(both(), |p| p == user), user);
        assert_eq!(pick(both(), |p| p == system), system);
        assert_eq!(pick(both(), |_| false), user, "evd would be started there");
        // What is named is meant, also if it is not there.
        let named = || set(&[("EVD_SOCKET", "/a"), ("XDG_RUNTIME_DIR", "/r")]);
        assert_eq!(pick(named(), |p| p == system), Path::new("/a"));
    }
}
