//! evd as a service of Windows: it is made, started, asked, stopped and taken away again, by `sc`. On a real Windows that takes an administrator.

use crate::parts::*;
use std::process::Command;

fn sc(args: &[&str]) -> String {
    let out = Command::new("sc").args(args).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The service; it goes with this.
struct Service(String);

impl Drop for Service {
    fn drop(&mut self) {
        sc(&["stop", &self.0]);
        sc(&["delete", &self.0]);
    }
}

#[test]
fn a_service_serves_until_it_is_stopped() {
    let at = Place::new();
    let service = Service(format!("evd-test-{}", std::process::id()));
    let command = format!("{} --service --socket {}", env!("CARGO_BIN_EXE_evd"), at.0.display());
    sc(&["create", &service.0, "binPath=", &command]);
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
    let at = Place::new();
    let out = command(&at.0).arg("--service").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("sc create"), "{text}");
}
