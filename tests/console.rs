//! Ctrl-C at a console of Windows as the signal INT, which every base of every process there gets.
//!
//! Needs a console, which a program has that was started from one; `.ci/cross wine` makes one of a terminal.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use evd_client::{Event, EventBase, LoopFlags};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use windows_sys::Win32::System::Console::{CTRL_C_EVENT, GenerateConsoleCtrlEvent};

const INT: i32 = 2;
const CHILD: &str = "EVD_CONSOLE_CHILD";

/// Waits for INT, `times`, on a base of each method.
fn catches(times: u64, ready: impl FnOnce(), next: impl Fn()) {
    let bases =
        ["wepoll", "win32"].map(|m| EventBase::builder().local().ignore_env().method(m).build().unwrap());
    let events = bases.each_ref().map(|base| {
        let event = Event::signal(base, INT, |_, _| {}).unwrap();
        event.add(None).unwrap();
        event
    });
    ready();
    for count in 1..=times {
        next();
        for (base, event) in bases.iter().zip(&events) {
            while event.count() < count {
                base.loop_(LoopFlags::ONCE).unwrap();
            }
            assert_eq!(event.count(), count);
        }
    }
}

#[test]
#[ignore = "needs a console"]
fn ctrl_c_reaches_every_base_of_every_process_of_the_console() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(120));
        std::process::exit(1);
    });
    if std::env::var_os(CHILD).is_some() {
        return catches(1, || println!("ready"), || {});
    }
    let next = || {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.any(|line| line.contains("ready")), "it has ended");
        // SAFETY: it takes numbers; 0 is all who share the console.
        assert_ne!(unsafe { GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0) }, 0, "has this a console?");
        assert!(said.any(|line| line.contains("1 passed")));
        assert!(child.wait().unwrap().success());
    };
    catches(3, || {}, next);
}
