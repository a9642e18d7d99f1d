//! What an idle evd does in 10 seconds, with 5,000 parked sockets and 5,000 timers that are far away, while their client runs its loop.
//!
//! Counted twice: how often its threads went to sleep by themselves (each wake-up is one at least), by /proc and with nothing attached; and its system calls, by
//! strace, if that is installed. Both must be 0.

use super::hoard::Hoard;
use crate::parts::{Evd, Outcome, Table, placements, slept};
use evd_proto::sys;
use std::error::Error;
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

const WATCHES: usize = 5_000;
const TIMERS: usize = 5_000;
const FOR: Duration = Duration::from_secs(10);

pub fn measure(table: &mut Table) -> Outcome {
    let Some(&place) = placements()?.first() else { return Ok(()) };
    let evd = Evd::start(None)?;
    let mut hoard = Hoard::start(place.ends, &evd)?;
    hoard.add(WATCHES, TIMERS)?;
    hoard.run()?;
    // What the client has to say when its loop begins is said then.
    std::thread::sleep(Duration::from_secs(2));

    let (before, client_before) = (evd.slept()?, slept(hoard.process.pid())?);
    std::thread::sleep(FOR);
    let (woken, client_woken) = (evd.slept()? - before, slept(hoard.process.pid())? - client_before);
    if client_woken == 0 {
        return Err("the client's loop does not run".into());
    }
    table.number("wake-ups in 10 s", "", woken as f64, Some(0.0));
    match system_calls(evd.pid())? {
        Some(calls) => table.number("system calls in 10 s", "", calls as f64, Some(0.0)),
        None => println!("  (system calls in 10 s: left out, strace is not installed or may not look)"),
    }
    Ok(())
}

/// Counts the system calls that a process begins within the time. `None`: strace is not there, or not allowed to.
fn system_calls(pid: u32) -> Result<Option<u64>, Box<dyn Error>> {
    let trace = std::env::temp_dir().join(format!("evd-figures-{}.strace", std::process::id()));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-p", &pid.to_string(), "-o"]).arg(&trace);
    let mut strace = match command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    std::thread::sleep(FOR);
    sys::send_signal(strace.id() as i32, libc::SIGINT)?;
    strace.wait()?;
    let text = std::fs::read_to_string(&trace).unwrap_or_default();
    let _ = std::fs::remove_file(&trace);
    if text.is_empty() {
        return Ok(None);
    }
    // Each thread is found inside its wait, which is neither begun nor ended by evd; strace ends its line when it leaves.
    let begun = text.lines().filter(|l| !l.contains("<unfinished ...>") && !l.contains("<detached ...>"));
    Ok(Some(begun.count() as u64))
}
