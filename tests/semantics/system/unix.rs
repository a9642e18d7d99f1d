//! What the suite asks of a Unix: the settings, an evd, and a signal for each test.

use super::{Setting, Shared, Silent};
use evd_client::Features;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::OnceLock;

pub use libc::{
    SIGALRM, SIGCONT, SIGHUP, SIGPIPE, SIGPROF, SIGTTOU, SIGURG, SIGUSR1, SIGVTALRM, SIGWINCH, SIGXCPU,
};

/// libevent's methods with their variables, best first.
pub const METHODS: [(&str, &str); 3] =
    [("epoll", "EVENT_NOEPOLL"), ("poll", "EVENT_NOPOLL"), ("select", "EVENT_NOSELECT")];

/// Who has a feature that not every method has.
pub const CHOSEN_BY: [(Features, &str); 3] =
    [(Features::ET, "epoll"), (Features::FDS, "poll"), (Features::FDS.union(Features::EARLY_CLOSE), "poll")];

/// The variables of methods that other systems have.
pub const FOREIGN: [&str; 2] = ["EVENT_NOKQUEUE", "EVENT_NOWIN32"];

/// In-process on each method; and with whatever is quiet at a live evd.
pub const SETTINGS: [Setting; 7] = [
    Setting { remote: false, method: "epoll" },
    Setting { remote: false, method: super::CHANGELIST },
    Setting { remote: false, method: "poll" },
    Setting { remote: false, method: "select" },
    Setting { remote: true, method: "epoll" },
    Setting { remote: true, method: "poll" },
    Setting { remote: true, method: "select" },
];

/// Whether a base may be at evd.
pub const REMOTE: &[bool] = &[false, true];

/// One evd for all tests of this program, on threads of its own.
pub fn socket() -> &'static PathBuf {
    static EVD: OnceLock<(PathBuf, evd::Daemon)> = OnceLock::new();
    let (path, _) = EVD.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("evd-semantics-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("socket");
        let daemon = evd::Daemon::builder().socket(&path).spawn().unwrap();
        (path, daemon)
    });
    path
}

/// A real-time signal of a test's own.
pub fn storm_signal() -> i32 {
    libc::SIGRTMIN() + 3
}

/// A right to signals.
pub struct Turn;

/// Each test has a signal of its own, so none waits for another.
pub fn turn() -> Turn {
    Turn
}

/// Ends this process after so many seconds, whatever it does then.
pub fn end_after(seconds: u32) {
    // SAFETY: alarm takes a number. Its signal ends this process.
    unsafe { libc::alarm(seconds) };
}

impl AsRawFd for Silent {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Silent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
