//! Random sequences of operations on the client's base and on libevent itself, compared step by step with a plain model of libevent's event core.
//!
//! What is compared after each operation and in each callback: what fired, with which bits and in which order; what each call and each loop returned; what is pending
//! of each event, its time left, its priority and count; how long each wait may last; the base's counts. The base has a clock that the test sets, so that years pass
//! in a second. See `model/plain.rs` for what the model leaves open.
//!
//! On Windows the fds are sockets. There it runs under Wine, where a sequence takes a hundred times as long; so there are fewer.
//!
//! `EVD_MODEL_SEED` is the first seed and `EVD_MODEL_SEQUENCES` the number of sequences of each test, for other or longer runs. A failure prints its seed, and the
//! sequence made short as a call of `replays`: paste it as a test.

// The lint knows test functions, but not the helpers of a test file.
#![allow(clippy::unwrap_used)]

#[path = "model/found.rs"]
mod found;
// It is compared on Unix only.
#[cfg_attr(windows, allow(dead_code))]
#[path = "model/libevent.rs"]
mod libevent;
#[path = "model/ops.rs"]
mod ops;
#[path = "model/plain.rs"]
mod plain;
#[path = "random/mod.rs"]
mod random;
#[path = "model/real.rs"]
mod real;
#[path = "model/run.rs"]
mod run;
#[cfg_attr(unix, path = "model/unix.rs")]
#[cfg_attr(windows, path = "model/windows.rs")]
mod system;
#[path = "model/wires.rs"]
mod wires;

use ops::{Op, Setup};
use real::Setting;
use std::path::PathBuf;
use std::sync::OnceLock;

/// One evd for all tests of this program, on threads of its own.
fn socket() -> PathBuf {
    static EVD: OnceLock<(PathBuf, evd::Daemon)> = OnceLock::new();
    let (path, _) = EVD.get_or_init(|| {
        let path = system::place();
        let daemon = evd::Daemon::builder().socket(&path).spawn().unwrap();
        (path, daemon)
    });
    path.clone()
}

fn local(method: &'static str) -> Setting {
    Setting { method, changelist: false, libevent: false, remote: None }
}

fn remote(method: &'static str) -> Setting {
    Setting { remote: Some(socket()), ..local(method) }
}

/// Runs a sequence on every kind of base.
fn replays(setup: Setup, ops: &[Op]) {
    for method in system::METHODS {
        run::replay(&local(method), setup, ops);
        run::replay(&remote(method), setup, ops);
    }
    #[cfg(unix)]
    on_unix::replays(setup, ops);
}

#[cfg(unix)]
mod on_unix {
    use super::*;

    pub fn changelist() -> Setting {
        Setting { changelist: true, ..local("epoll") }
    }

    /// libevent's own base, if it is installed.
    pub fn libevent(as_here: Setting) -> Option<Setting> {
        match libevent::program() {
            Ok(_) => Some(Setting { libevent: true, ..as_here }),
            Err(package) => {
                println!("skipped: needs {package}");
                None
            }
        }
    }

    pub fn replays(setup: Setup, ops: &[Op]) {
        run::replay(&changelist(), setup, ops);
        if libevent::program().is_ok() {
            run::replay(&libevent(local("epoll")).unwrap(), setup, ops);
        }
    }

    #[test]
    fn local_epoll() {
        run::random(&local("epoll"), 0, 25_000);
    }

    // In parts, so that they run at the same time.
    #[test]
    fn local_epoll_goes_on() {
        run::random(&local("epoll"), 1, 25_000);
    }

    #[test]
    fn local_epoll_goes_on_further() {
        run::random(&local("epoll"), 2, 25_000);
    }

    #[test]
    fn local_epoll_goes_on_to_the_end() {
        run::random(&local("epoll"), 3, 25_000);
    }

    #[test]
    fn local_epoll_with_changelist() {
        run::random(&changelist(), 0, 2_000);
    }

    #[test]
    fn local_poll() {
        run::random(&local("poll"), 0, 2_000);
    }

    #[test]
    fn local_select() {
        run::random(&local("select"), 0, 2_000);
    }

    #[test]
    fn remote_epoll() {
        run::random(&remote("epoll"), 0, 2_000);
    }

    #[test]
    fn remote_poll() {
        run::random(&remote("poll"), 0, 2_000);
    }

    #[test]
    fn remote_select() {
        run::random(&remote("select"), 0, 2_000);
    }

    #[test]
    fn libevent_epoll() {
        if let Some(libevent) = libevent(local("epoll")) {
            run::random(&libevent, 0, 15_000);
        }
    }

    #[test]
    fn libevent_epoll_with_changelist() {
        if let Some(libevent) = libevent(changelist()) {
            run::random(&libevent, 0, 2_000);
        }
    }

    #[test]
    fn libevent_poll() {
        if let Some(libevent) = libevent(local("poll")) {
            run::random(&libevent, 0, 2_000);
        }
    }

    #[test]
    fn libevent_select() {
        if let Some(libevent) = libevent(local("select")) {
            run::random(&libevent, 0, 2_000);
        }
    }
}

#[cfg(windows)]
mod on_windows {
    use super::*;

    #[test]
    fn local_wepoll() {
        run::random(&local("wepoll"), 0, 200);
    }

    #[test]
    fn local_win32() {
        run::random(&local("win32"), 0, 200);
    }

    #[test]
    fn remote_wepoll() {
        run::random(&remote("wepoll"), 0, 50);
    }

    #[test]
    fn remote_win32() {
        run::random(&remote("win32"), 0, 50);
    }
}
