//! One evd for a user, without root: `systemd --user` as it runs for a session.

use crate::lab::{ALICE, BOB, Lab, said};
use crate::parts::eventually;
use serde_json::Value;

const RUNTIME: &str = "XDG_RUNTIME_DIR=/run/user/2001";

/// What logind and user@.service do for a session, without both.
const MANAGER: &str = "[Unit]
DefaultDependencies=no
[Service]
Type=notify
User=alice
Environment=XDG_RUNTIME_DIR=/run/user/2001 HOME=/tmp/alice
ExecStart=/lib/systemd/systemd --user --log-target=console
Delegate=yes
KillMode=mixed
";

#[test]
fn a_user_has_an_evd_of_his_own() {
    let Some(lab) = Lab::boot() else { return };
    lab.install_evd();
    lab.write("/etc/systemd/system/alice.service", MANAGER);
    lab.run(&["install", "-d", "-m", "700", "-o", "alice", "-g", "alice", "/run/user/2001", "/tmp/alice"]);
    lab.run(&["systemctl", "daemon-reload"]);
    lab.run(&["systemctl", "start", "alice.service"]);
    let alice = |words: &[&str]| {
        said(lab.command_as(ALICE, ALICE, &[RUNTIME, "HOME=/tmp/alice"], words[0]).args(&words[1..]))
    };
    let show = |property: &str| alice(&["systemctl", "--user", "show", "-P", property, "evd.service"]);
    alice(&["systemctl", "--user", "enable", "--now", "evd.socket"]);
    assert_eq!(show("ActiveState"), "inactive");
    let status: Value = serde_json::from_str(&alice(&["evctl", "status", "--json"])).unwrap();
    assert_eq!(status["uid"], ALICE);
    assert_eq!(show("ActiveState"), "active");
    assert_eq!(alice(&["stat", "-c", "%U %a", "/run/user/2001/evd/socket"]), "alice 600");
    assert_eq!(show("WatchdogUSec"), "10s");

    let pid = show("MainPID");
    let hardened = lab.filters(&pid);
    alice(&["kill", "-9", &pid]);
    eventually("it is back", || show("NRestarts") == "1" && show("ActiveState") == "active");
    alice(&["evctl", "wait"]);
    alice(&["systemctl", "--user", "reload", "evd.service"]);
    alice(&["systemctl", "--user", "restart", "evd.service"]);
    alice(&["evctl", "status"]);
    // What evd gives up by itself.
    alice(&["install", "-d", "/tmp/alice/.config/evd"]);
    lab.write("/tmp/alice/.config/evd/environment", "EVD_NO_HARDENING=1\n");
    alice(&["systemctl", "--user", "restart", "evd.service"]);
    alice(&["evctl", "wait"]);
    assert_eq!(lab.filters(&show("MainPID")) + 1, hardened);
    // It is nobody else's.
    let out = lab.command_as(BOB, BOB, &[RUNTIME], "evctl").args(["status"]).output().unwrap();
    assert_ne!(out.status.code(), Some(0));
    alice(&["systemctl", "--user", "stop", "evd.service", "evd.socket"]);
    assert!(!lab.path("/run/user/2001/evd/socket").exists());
}
