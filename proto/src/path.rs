//! Where evd is: one order for evd itself, its clients and evctl.

use crate::sys::RUN_DIRECTORY;
use std::env;
use std::path::{Path, PathBuf};

/// The environment variable that names evd's socket.
pub const SOCKET_VARIABLE: &str = "EVD_SOCKET";

/// `EVD_SOCKET`, else `$XDG_RUNTIME_DIR/evd/socket`, else `/run/evd/socket` (`/var/run` on other systems than Linux). Empty variables count as unset.
pub fn socket_path() -> PathBuf {
    pick(|name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
}

fn pick(var: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    if let Some(path) = var(SOCKET_VARIABLE) {
        return path;
    }
    match var("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("evd/socket"),
        None => Path::new(RUN_DIRECTORY).join("evd/socket"),
    }
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
        assert_eq!(set(&[("XDG_RUNTIME_DIR", "/r")]), PathBuf::from("/r/evd/socket"));
        assert_eq!(set(&[]), Path::new(RUN_DIRECTORY).join("evd/socket"));
    }
}
