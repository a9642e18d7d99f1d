//! The conformance suite on the client's `EventBase` with everything that is quiet at a live evd, for each method.

// The lint knows test functions, but not the helpers of a test file.
#![allow(clippy::unwrap_used)]

mod conformance;

use conformance::client::ClientLoop;
use conformance::{Closed, Files, Fired, Id, Loop, Refused};
use evd::backend::{Features, Mode};
use evd_client::EventBase;
use evd_proto::What;
use evd_proto::sys::BorrowedFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// How long evd may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// One evd for all cases of this program, on threads of its own.
fn socket() -> &'static PathBuf {
    static EVD: OnceLock<(PathBuf, evd::Daemon)> = OnceLock::new();
    let (path, _) = EVD.get_or_init(|| {
        let name = format!("evd-remote-{}", std::process::id());
        let path = if cfg!(windows) {
            PathBuf::from(format!(r"\\.\pipe\{name}"))
        } else {
            let dir = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&dir).unwrap();
            dir.join("socket")
        };
        let daemon = evd::Daemon::builder().socket(&path).spawn().unwrap();
        (path, daemon)
    });
    path
}

/// Parks whatever is quiet at once: no case is served in-process because it was busy.
struct RemoteLoop(ClientLoop, EventBase);

impl Loop for RemoteLoop {
    fn open(method: &str) -> Option<RemoteLoop> {
        evd::backend::methods().iter().find(|m| m.name == method)?;
        let builder = EventBase::builder().socket(socket()).connect().method(method).ignore_env();
        // A machine that is slow, as one is under Wine with others beside, is no evd that is stuck.
        let base = builder.linger(Duration::ZERO).patience(PATIENCE).liveness(PATIENCE).build().unwrap();
        assert_eq!(base.method(), method);
        Some(RemoteLoop(ClientLoop::over(base.clone()), base))
    }

    fn features(&self) -> Features {
        self.0.features()
    }

    fn files(&self) -> Files {
        self.0.files()
    }

    fn closed(&self) -> Closed {
        self.0.closed()
    }

    fn watch(&mut self, old: Option<Id>, fd: BorrowedFd<'_>, what: What, mode: Mode) -> Result<Id, Refused> {
        self.0.watch(old, fd, what, mode)
    }

    fn unwatch(&mut self, id: Id) {
        self.0.unwatch(id);
    }

    fn timer(&mut self, old: Option<Id>, after: Duration) -> Id {
        self.0.timer(old, after)
    }

    fn cancel(&mut self, id: Id) {
        self.0.cancel(id);
    }

    fn catch_signal(&mut self, signo: i32) {
        self.0.catch_signal(signo);
    }

    fn waker(&mut self) -> Box<dyn Fn() + Send> {
        self.0.waker()
    }

    fn wait(&mut self, ms: u64) -> Vec<Fired> {
        let fired = self.0.wait(ms);
        assert!(matches!(self.1.link(), evd_client::LinkState::Up { .. }), "{:?}", self.1.link());
        fired
    }

    fn poll_outside(&mut self, ms: u64) -> bool {
        self.0.poll_outside_for_something(ms)
    }
}

#[cfg(unix)]
conformance!(RemoteLoop: epoll = "epoll", poll = "poll", select = "select");
#[cfg(windows)]
conformance!(RemoteLoop: wepoll = "wepoll", win32 = "win32");
#[cfg(windows)]
mod on_handles {
    use super::*;

    use conformance::handles::{event, process};
    use evd_proto::sys::{AsFd, WaitHandle};
    use std::os::windows::io::AsHandle;

    handles!(RemoteLoop: wepoll = "wepoll", win32 = "win32");

    #[test]
    fn what_a_wait_changes_nothing_of_is_parked_and_the_rest_stays() {
        for method in ["wepoll", "win32"] {
            let mut l = RemoteLoop::open(method).unwrap();
            let (manual, auto, child) = (event(true), event(false), process());
            for handle in
                [WaitHandle(manual.as_handle()), WaitHandle(auto.as_handle()), WaitHandle(child.as_handle())]
            {
                l.watch(None, handle.as_fd(), What::READ, Mode::Level).unwrap();
            }
            assert_eq!(l.wait(20), []);
            assert_eq!(l.1.watches(), (2, 1), "parked and local");
            let held = l.1.hold("remote:handle", WaitHandle(manual.as_handle()), b"", None);
            assert!(held.unwrap_err().to_string().contains("only sockets are passed and held"));
        }
    }
}
