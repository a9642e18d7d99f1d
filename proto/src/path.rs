//! Where evd is: one order for evd itself, its clients and evctl.

use crate::sys::default_socket;
use std::env;
use std::path::PathBuf;

/// The environment variable that names evd's socket.
pub const SOCKET_VARIABLE: &str = "EVD_SOCKET";

/// `EVD_SOCKET`, else `$XDG_RUNTIME_DIR/evd/socket`, else `/run/evd/socket` (`/var/run` on other systems than Linux); on Windows
/// `EVD_SOCKET`, else the pipe `\\.\pipe\evd-USER`. Empty variables count as unset.
pub fn socket_path() -> PathBuf {
    pick(|name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
}

fn pick(var: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    if let Some(path) = var(SOCKET_VARIABLE) {
        return path;
    }
    default_socket(var("XDG_RUNTIME_DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_variable_runtime_dir_run() {
        let set = |pairs: &'static [(&str, &str)]| {
            pick(move |n| pairs.iter().find(|(k, _)| *k == n).map(|(_, v)| PathBuf::from(v)))
        };
        assert_eq!(set(&[("EVD_SOCKET", "/a"), ("XDG_RUNTIME_DIR", "/r")]), PathBuf::from("/a"));
        assert_eq!(set(&[("XDG_RUNTIME_DIR", "/r")]), default_socket(Some("/r".into())));
        assert_eq!(set(&[]), default_socket(None));
    }
}
