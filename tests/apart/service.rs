//! evd as a service of Windows: it is made, started, asked, stopped and taken away again, by `sc`. On a real Windows that takes an administrator.

use crate::parts::*;
use std::io;
use std::process::Command;
use std::ptr::null;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use windows_sys::Win32::Foundation::ERROR_SERVICE_SPECIFIC_ERROR;
use windows_sys::Win32::System::Services::{
    CloseServiceHandle, OpenSCManagerW, OpenServiceW, QueryServiceStatus, SC_HANDLE, SC_MANAGER_CONNECT,
    SERVICE_ALL_ACCESS, SERVICE_RUNNING, SERVICE_START_PENDING, SERVICE_STATUS, SERVICE_STOPPED,
    StartServiceW,
};

fn sc(args: &[&str]) -> String {
    let out = Command::new("sc").args(args).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// One program at a time: Wine's manager takes whichever comes for the one that it has just started.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service; it goes with this.
struct Service(String);

impl Drop for Service {
    fn drop(&mut self) {
        sc(&["stop", &self.0]);
        sc(&["delete", &self.0]);
    }
}

impl Service {
    fn new(name: &str, at: &Place) -> Service {
        let service = Service(format!("evd-{name}-{}", std::process::id()));
        let command = format!("{} --service --socket {}", env!("CARGO_BIN_EXE_evd"), at.0.display());
        sc(&["create", &service.0, "binPath=", &command]);
        service
    }
}

/// The service, as programs ask for it.
struct Opened(SC_HANDLE, SC_HANDLE);

impl Opened {
    fn new(service: &Service) -> Opened {
        let name: Vec<u16> = service.0.encode_utf16().chain([0]).collect();
        // SAFETY: this machine, and its only database.
        let manager = unsafe { OpenSCManagerW(null(), null(), SC_MANAGER_CONNECT) };
        assert!(!manager.is_null(), "{}", io::Error::last_os_error());
        // SAFETY: an open manager, and a name that ends with a zero.
        let service = unsafe { OpenServiceW(manager, name.as_ptr(), SERVICE_ALL_ACCESS) };
        assert!(!service.is_null(), "{}", io::Error::last_os_error());
        Opened(manager, service)
    }

    fn start(&self) {
        // SAFETY: an open service, and no arguments.
        assert_ne!(unsafe { StartServiceW(self.1, 0, null()) }, 0, "{}", io::Error::last_os_error());
    }

    fn status(&self) -> SERVICE_STATUS {
        let mut status = SERVICE_STATUS::default();
        // SAFETY: an open service, and a live structure.
        assert_ne!(unsafe { QueryServiceStatus(self.1, &mut status) }, 0, "{}", io::Error::last_os_error());
        status
    }

    /// All that it is until it is `end`.
    fn states_until(&self, end: u32) -> Vec<SERVICE_STATUS> {
        let mut all: Vec<SERVICE_STATUS> = Vec::new();
        let limit = Instant::now() + PATIENCE;
        while all.last().is_none_or(|s| s.dwCurrentState != end) {
            let now = self.status();
            if all.last().is_none_or(|s| s.dwCurrentState != now.dwCurrentState) {
                all.push(now);
            }
            assert!(Instant::now() < limit, "it comes to {} and not to {end}", now.dwCurrentState);
        }
        all
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        for handle in [self.1, self.0] {
            // SAFETY: an open handle, which nobody uses after this.
            unsafe { CloseServiceHandle(handle) };
        }
    }
}

#[test]
fn a_service_that_runs_can_be_connected_to() {
    let _alone = alone();
    let at = Place::new();
    let service = Service::new("runs", &at);
    for _ in 0..3 {
        let opened = Opened::new(&service);
        opened.start();
        let states = opened.states_until(SERVICE_RUNNING);
        // Not `evctl wait`: it is there.
        let connected = evd_proto::sys::connect(&at.0);
        assert!(connected.is_ok(), "{connected:?}");
        for before in states.iter().filter(|s| s.dwCurrentState == SERVICE_START_PENDING) {
            // Before its program has said anything, there is no hint.
            assert!(before.dwCheckPoint == 0 || before.dwWaitHint == 10_000);
            assert_eq!(before.dwControlsAccepted, 0);
        }
        sc(&["stop", &service.0]);
        opened.states_until(SERVICE_STOPPED);
    }
}

#[test]
fn a_service_that_can_not_listen_never_runs_and_says_with_which_status_it_ended() {
    let _alone = alone();
    let evd = Evd::start();
    let service = Service::new("second", &evd.at);
    let opened = Opened::new(&service);
    for _ in 0..3 {
        opened.start();
        let states = opened.states_until(SERVICE_STOPPED);
        assert!(states.iter().all(|s| s.dwCurrentState != SERVICE_RUNNING), "it was said to run");
        let last = states.last().unwrap();
        // As at a console: another evd is there.
        assert_eq!(
            (last.dwWin32ExitCode, last.dwServiceSpecificExitCode),
            (ERROR_SERVICE_SPECIFIC_ERROR, 75)
        );
    }
}

#[test]
fn a_service_serves_until_it_is_stopped() {
    let _alone = alone();
    let at = Place::new();
    let service = Service::new("test", &at);
    let state = || sc(&["query", &service.0]);
    for _ in 0..2 {
        sc(&["start", &service.0]);
        evctl(&at.0, &["wait"]);
        let client = Process::start("echo", &at.0, &[]);
        let mut peer = dial(&client.line());
        client.says("parked");
        crate::watches::answers(&mut peer, b"hello");
        assert!(state().contains("RUNNING"), "{}", state());
        sc(&["stop", &service.0]);
        client.comes_to("away");
        eventually("it has stopped", || state().contains("STOPPED"));
        assert!(state().contains("EXIT_CODE    : 0"), "{}", state());
        assert_eq!(evctl_output(&at.0, &["status"]).status.code(), Some(3));
    }
}

#[test]
fn who_is_no_service_manager_is_told_so() {
    let _alone = alone();
    let at = Place::new();
    let out = command(&at.0).arg("--service").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("sc create"), "{text}");
}
