//! evd is killed, restarted, stopped, frozen and replaced while twenty clients work: they lose nothing.

use crate::lab::{Lab, said};
use crate::load::Load;
use crate::parts::{Jitter, MS, eventually, number};
use evd_proto::sys;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const CLIENTS: usize = 20;
const UNIT: &str = "evd.service";

/// evd as installed, watched more closely than as shipped; and how many fds it has when it serves nobody.
fn start(lab: &Lab) -> usize {
    lab.install_evd();
    lab.write(
        "/etc/systemd/system/evd.service.d/soon.conf",
        "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n",
    );
    lab.run(&["systemctl", "daemon-reload"]);
    lab.run(&["systemctl", "enable", "--now", "evd.socket", UNIT]);
    fds_at_rest(lab)
}

fn fds_at_rest(lab: &Lab) -> usize {
    lab.run(&["evctl", "status"]);
    eventually("nobody is served", || lab.show(UNIT, "StatusText") == "0 bases, 0 workers");
    let threads = || std::fs::read_dir(format!("/proc/{}/task", lab.evd_pid().unwrap())).unwrap().count();
    eventually("its workers have ended", || threads() == 1);
    lab.evd_fds()
}

/// Kills evd at a moment that has nothing to do with what it does; it may just be starting.
fn kill(lab: &Lab, dice: &mut Jitter) {
    // Some clients have parked again by then, some have just connected, and some wait before they try; now and then evd itself is just starting.
    let most = if dice.below(4) == 0 { 40_000 } else { 800_000 };
    std::thread::sleep(Duration::from_micros(dice.below(most)));
    let mut pid = None;
    eventually("there is an evd", || {
        pid = lab.evd_pid();
        pid.is_some_and(|pid| sys::send_signal(pid, libc::SIGKILL).is_ok())
    });
    eventually("it has gone", || lab.evd_pid() != pid);
}

#[test]
fn kills_under_load_lose_nothing() {
    let Some(lab) = Lab::boot() else { return };
    let fds = start(&lab);
    let kills = number("EVD_LAB_KILLS", 60);
    let mut load = Load::start(&lab, CLIENTS);
    let mut dice = Jitter::new(1);
    for _ in 0..kills {
        kill(&lab, &mut dice);
    }
    eventually("systemd counted them", || lab.show(UNIT, "NRestarts") == kills.to_string());
    load.is_up();
    assert!(load.losses() >= kills as u64, "they noticed too little");
    println!("{kills} kills: {}", load.verdict());
    assert_eq!(fds_at_rest(&lab), fds, "evd has other fds than at first");
}

#[test]
fn restart_stop_hang_and_upgrade_under_load_lose_nothing() {
    let Some(lab) = Lab::boot() else { return };
    let fds = start(&lab);
    let mut load = Load::start(&lab, CLIENTS);
    for _ in 0..5 {
        lab.run(&["systemctl", "restart", UNIT]);
        load.is_up();
    }
    lab.run(&["systemctl", "reload", UNIT]);

    // Without its socket nobody can start it.
    lab.run(&["systemctl", "stop", UNIT, "evd.socket"]);
    assert_eq!(lab.evd_pid(), None);
    std::thread::sleep(300 * MS);
    lab.run(&["systemctl", "start", "evd.socket", UNIT]);
    load.is_up();

    let frozen = lab.evd_pid().unwrap();
    sys::send_signal(frozen, libc::SIGSTOP).unwrap();
    eventually("systemd has it replaced", || lab.evd_pid().is_some_and(|pid| pid != frozen));
    load.is_up();

    // The new program lies there before the old one ends.
    lab.install(Path::new(env!("CARGO_BIN_EXE_evd")), "/usr/bin/evd");
    let runs = |lab: &Lab| std::fs::metadata(format!("/proc/{}/exe", lab.evd_pid().unwrap())).unwrap().ino();
    let new = std::fs::metadata(lab.path("/usr/bin/evd")).unwrap().ino();
    assert_ne!(runs(&lab), new);
    lab.run(&["systemctl", "try-restart", UNIT]);
    assert_eq!(runs(&lab), new);
    said(lab.command("evctl").args(["wait"]));
    load.is_up();
    println!("restarts, a stop, a hang, an upgrade: {}", load.verdict());
    assert_eq!(fds_at_rest(&lab), fds, "evd has other fds than at first");
}
