//! The service as systemd sees it: it is started by the first client, says when it is ready, reloads, and does not hang.

use crate::lab::{BOB, Lab, said};
use crate::parts::eventually;
use evd_proto::sys;
use serde_json::{Value, json};
use std::fs;

const UNIT: &str = "evd.service";

#[test]
fn the_first_client_starts_evd_and_it_is_ready_when_systemd_says_so() {
    let Some(lab) = Lab::boot() else { return };
    lab.install_evd();
    lab.run(&["systemctl", "enable", "--now", "evd.socket"]);
    assert_eq!((lab.show(UNIT, "ActiveState"), lab.evd_pid()), ("inactive".into(), None));
    let status: Value = serde_json::from_str(&lab.run(&["evctl", "status", "--json"])).unwrap();
    assert_eq!(status["bases"], json!([]));
    assert_eq!(lab.show(UNIT, "ActiveState"), "active");
    let owner = lab.run(&["stat", "-c", "%U:%G %a", "/run/evd/socket"]);
    assert_eq!(owner, "root:evd 660");

    lab.run(&["systemctl", "stop", UNIT]);
    assert_eq!((lab.show(UNIT, "ActiveState"), lab.evd_pid()), ("inactive".into(), None));
    lab.run(&["systemctl", "start", UNIT]);
    // READY=1 came, and with it this.
    assert_eq!(lab.show(UNIT, "StatusText"), "0 bases, 0 workers");
    assert_eq!(lab.show(UNIT, "Type"), "notify");
    assert_eq!(lab.show(UNIT, "NRestarts"), "0");
    let user = lab.run(&["stat", "-c", "%U", &format!("/proc/{}", lab.show(UNIT, "MainPID"))]);
    assert_eq!(user, "evd");

    // Both go, and the socket's file with them.
    lab.run(&["systemctl", "stop", UNIT, "evd.socket"]);
    assert!(!lab.path("/run/evd/socket").exists());
    let mut down = lab.command("evctl");
    let out = down.args(["status"]).output().unwrap();
    assert_eq!(out.status.code(), Some(3), "evd is not running");
}

#[test]
fn a_reload_looks_the_groups_up_again_and_ends_no_session() {
    let Some(lab) = Lab::boot() else { return };
    lab.install_evd();
    // Everybody reaches the socket, and evd itself decides.
    lab.write("/etc/systemd/system/evd.socket.d/open.conf", "[Socket]\nSocketMode=0666\n");
    lab.write("/etc/default/evd", "EVD_ALLOW_GID=evd,friends\n");
    lab.run(&["systemctl", "daemon-reload"]);
    lab.run(&["systemctl", "start", "evd.socket", UNIT]);
    let ask = |gid: u32| lab.command_as(BOB, gid, &[], "evctl").args(["status"]).output().unwrap();
    let others = 2200;
    assert_eq!(ask(others).status.code(), Some(4), "bob is none of these groups");
    assert!(ask(lab.group("friends")).status.success());

    let (pid, groups) = (lab.show(UNIT, "MainPID"), fs::read_to_string(lab.path("/etc/group")).unwrap());
    lab.write("/etc/group", &groups.replace("friends:x:2100:", &format!("friends:x:{others}:")));
    assert_eq!(ask(others).status.code(), Some(4), "nobody has looked yet");
    lab.run(&["systemctl", "reload", UNIT]);
    eventually("the group's new number is known", || ask(others).status.success());
    assert_eq!(ask(2100).status.code(), Some(4), "the old one is not");
    // A name that is no more changes nothing.
    lab.write("/etc/group", &groups.replace("friends:", "strangers:"));
    lab.run(&["systemctl", "reload", UNIT]);
    assert!(ask(others).status.success());
    assert_eq!(lab.show(UNIT, "MainPID"), pid);
    assert_eq!((lab.show(UNIT, "ActiveState"), lab.show(UNIT, "NRestarts")), ("active".into(), "0".into()));
}

#[test]
fn the_unit_lets_evd_give_up_more_than_the_unit_can() {
    let Some(lab) = Lab::boot() else { return };
    lab.install_evd();
    let filters = || {
        lab.run(&["systemctl", "restart", "evd.socket", UNIT]);
        said(lab.command("evctl").args(["wait"]));
        lab.filters(&lab.show(UNIT, "MainPID"))
    };
    let hardened = filters();
    lab.write("/etc/default/evd", "EVD_NO_HARDENING=1\n");
    let by_unit = filters();
    assert!(by_unit > 0, "systemd's own");
    assert_eq!(hardened, by_unit + 1);
}

#[test]
fn systemd_starts_an_evd_anew_that_hangs() {
    let Some(lab) = Lab::boot() else { return };
    lab.install_evd();
    lab.write(
        "/etc/systemd/system/evd.service.d/soon.conf",
        "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n",
    );
    lab.run(&["systemctl", "daemon-reload"]);
    lab.run(&["systemctl", "start", "evd.socket", UNIT]);
    let pid = lab.evd_pid().unwrap();
    // Many times its interval, and nobody asks it anything: it is fine.
    let heard = lab.show(UNIT, "WatchdogTimestampMonotonic");
    eventually("it says that it lives", || lab.show(UNIT, "WatchdogTimestampMonotonic") != heard);
    sys::send_signal(pid, libc::SIGSTOP).unwrap();
    eventually("another one runs", || lab.show(UNIT, "NRestarts") == "1" && lab.evd_pid().is_some());
    assert_ne!(lab.evd_pid(), Some(pid));
    said(lab.command("evctl").args(["wait"]));
    eventually("systemd knows that it is up", || lab.show(UNIT, "ActiveState") == "active");
}
