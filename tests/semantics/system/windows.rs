//! What the suite asks of Windows: the settings, all in-process as evd is not there, and signals, which are only three.

use super::{Setting, Shared, Silent};
use evd_client::Features;
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, RawSocket};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

// The suite's tests have signals of their own on Unix. Here they share three, and so take turns.
pub const SIGUSR1: i32 = 2;
pub const SIGALRM: i32 = 2;
pub const SIGPIPE: i32 = 2;
pub const SIGCONT: i32 = 15;
pub const SIGPROF: i32 = 15;
pub const SIGWINCH: i32 = 15;
pub const SIGXCPU: i32 = 15;
pub const SIGHUP: i32 = 21;
pub const SIGTTOU: i32 = 21;
pub const SIGURG: i32 = 21;
pub const SIGVTALRM: i32 = 21;

/// libevent's methods with their variables, best first.
pub const METHODS: [(&str, &str); 2] = [("wepoll", "EVENT_NOWEPOLL"), ("win32", "EVENT_NOWIN32")];

/// Who has a feature that not every method has.
pub const CHOSEN_BY: [(Features, &str); 2] = [(Features::O1, "wepoll"), (Features::EARLY_CLOSE, "wepoll")];

/// The variables of methods that other systems have.
pub const FOREIGN: [&str; 2] = ["EVENT_NOKQUEUE", "EVENT_NOEPOLL"];

/// In-process on each method.
pub const SETTINGS: [Setting; 2] =
    [Setting { remote: false, method: "wepoll" }, Setting { remote: false, method: "win32" }];

/// No base is at evd.
pub const REMOTE: &[bool] = &[false];

/// Where evd would be.
pub fn socket() -> &'static PathBuf {
    unreachable!("evd is not there")
}

/// BREAK.
pub fn storm_signal() -> i32 {
    21
}

/// Waits until no other test has to do with signals.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process after so many seconds, whatever it does then.
pub fn end_after(seconds: u32) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds.into()));
        std::process::exit(1);
    });
}

impl AsRawSocket for Silent {
    fn as_raw_socket(&self) -> RawSocket {
        self.0.as_raw_socket()
    }
}

impl AsSocket for Silent {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        self.0.as_socket()
    }
}

impl AsSocket for Shared {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        self.0.as_socket()
    }
}
