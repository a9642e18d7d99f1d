//! The Debian package: installed, upgraded under load, removed, purged.

use crate::lab::{Lab, said};
use crate::load::{CHECKER, Load};
use crate::parts::eventually;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const UNIT: &str = "evd.service";

/// Builds the package from the programs of this build.
fn build(version: &str, into: &Path) -> PathBuf {
    let bin = Path::new(env!("CARGO_BIN_EXE_evd")).parent().unwrap();
    let mut c = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/deb/build"));
    c.args(["--version", version, "--compress", "none", "--bin"]).arg(bin).arg(into);
    PathBuf::from(said(&mut c))
}

/// All paths of the container, but for the records of dpkg and systemd, and what was set aside when accounts were changed.
fn paths(lab: &Lab) -> BTreeSet<String> {
    let all = lab.run(&["find", "/etc", "/usr", "/var", "/run", "/tmp", "/root", "-xdev"]);
    let ours = |path: &&str| {
        let records = ["/var/lib/dpkg/", "/var/log/", "/run/systemd/", "/run/credentials"];
        !records.iter().any(|r| path.starts_with(r))
            && !["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock"]
                .contains(path)
    };
    all.lines().filter(ours).map(str::to_owned).collect()
}

fn accounts(lab: &Lab) -> Vec<String> {
    ["passwd", "group", "shadow", "gshadow"]
        .map(|f| fs::read_to_string(lab.path(&format!("/etc/{f}"))).unwrap())
        .to_vec()
}

#[test]
fn the_package_installs_upgrades_under_load_and_leaves_nothing() {
    let tool = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if !tool("dpkg-deb") || !tool("strip") || !tool("deb-systemd-helper") {
        println!("skipped: needs dpkg and binutils");
        return;
    }
    let Some(lab) = Lab::boot() else { return };
    let packages = ["0.1.0", "0.1.1~next"].map(|version| {
        let built = build(version, lab.scratch());
        // Not in the container's /tmp: that is looked through.
        let inside = format!("/var/log/{version}.deb");
        fs::copy(built, lab.path(&inside)).unwrap();
        inside
    });
    let (before, accounts_before) = (paths(&lab), accounts(&lab));

    lab.run(&["dpkg", "--install", &packages[0]]);
    assert_eq!(lab.run(&["systemctl", "is-enabled", "evd.socket"]), "enabled");
    assert_eq!(lab.show("evd.socket", "ActiveState"), "active");
    assert_eq!(lab.show(UNIT, "ActiveState"), "inactive", "nobody has used it yet");
    lab.run(&["evctl", "status"]);
    assert_eq!(lab.show(UNIT, "ActiveState"), "active");
    for file in ["man/man8/evd.8.gz", "man/man1/evctl.1.gz", "bash-completion/completions/evctl"] {
        assert!(lab.path(&format!("/usr/share/{file}")).exists(), "{file}");
    }
    // What the administrator changes stays.
    lab.write("/etc/default/evd", "EVD_LOG_LEVEL=debug\n");
    lab.run(&["systemctl", "restart", UNIT]);

    let mut load = Load::start(&lab, 10);
    let (pid, socket) = (lab.evd_pid(), lab.show("evd.socket", "ActiveEnterTimestampMonotonic"));
    lab.run(&["dpkg", "--install", &packages[1]]);
    assert_ne!(lab.evd_pid(), pid, "the old one runs on");
    assert_eq!(lab.show("evd.socket", "ActiveEnterTimestampMonotonic"), socket, "the socket stays");
    assert_eq!(lab.run(&["dpkg-query", "-W", "-f", "${Version}", "evd"]), "0.1.1~next");
    assert_eq!(lab.run(&["cat", "/etc/default/evd"]), "EVD_LOG_LEVEL=debug");
    load.is_up();
    assert!(load.losses() > 0);
    println!("an upgrade of the package: {}", load.verdict());
    // A second time the same: programs may stay away while evd is not used, and it is not started then.
    lab.run(&["systemctl", "stop", UNIT]);
    lab.run(&["dpkg", "--install", &packages[1]]);
    assert_eq!(lab.show(UNIT, "ActiveState"), "inactive");
    lab.run(&["evctl", "status"]);

    lab.run(&["dpkg", "--remove", "evd"]);
    eventually("evd has ended", || lab.evd_pid().is_none());
    assert!(!lab.path("/run/evd/socket").exists() && !lab.path("/usr/bin/evd").exists());
    assert!(lab.path("/etc/default/evd").exists(), "only a purge removes what the administrator wrote");

    lab.run(&["dpkg", "--purge", "evd"]);
    let mut after = paths(&lab);
    after.remove(CHECKER);
    let left: Vec<_> = after.difference(&before).collect();
    let gone: Vec<_> = before.difference(&after).collect();
    assert!(left.is_empty() && gone.is_empty(), "left: {left:?}; gone: {gone:?}");
    assert_eq!(accounts(&lab), accounts_before);
    let state = lab.command("systemctl").args(["is-active", "evd.socket"]).output().unwrap();
    assert_eq!(state.stdout, b"inactive\n");
}
