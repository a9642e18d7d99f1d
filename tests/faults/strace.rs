//! strace on a process that runs: which system calls it makes, and what is done to them.

use crate::parts::{MS, dies_with_us};
use crate::wire::{Dir, eventually};
use evd_proto::sys;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An strace that has not ended by then is killed.
const LONGEST_END: Duration = Duration::from_secs(2);

/// An strace that is attached to all threads of a process, until it is dropped.
pub struct Strace {
    child: Child,
    pid: i32,
    log: PathBuf,
    _dir: Dir,
}

impl Strace {
    /// Attaches; what happens from now on is seen. `options` say which calls, and what is done to them.
    pub fn attach(pid: i32, options: &[String]) -> Strace {
        let dir = Dir::new();
        let log = dir.0.join("log");
        let mut c = Command::new("strace");
        c.args(["-f", "-q", "-p", &pid.to_string(), "-e", "signal=none", "-o"]).arg(&log).args(options);
        let child = dies_with_us(&mut c).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let strace = Strace { child, pid, log, _dir: dir };
        eventually("strace is attached", || tracers(pid).iter().all(|by| *by == strace.child.id()));
        strace
    }

    /// Lets the process go on alone, if it lives; returns what was seen.
    pub fn detach(mut self) -> String {
        self.end();
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Whether the process has ended. Then it is let go, so that it can be waited for.
    pub fn process_has_ended(&mut self) -> bool {
        let ended = tracers(self.pid).is_empty();
        if ended {
            self.end();
        }
        ended
    }

    fn end(&mut self) {
        if !tracers(self.pid).is_empty() && self.child.try_wait().unwrap().is_none() {
            let _ = sys::send_signal(self.child.id() as i32, libc::SIGTERM);
        }
        let until = Instant::now() + LONGEST_END;
        while self.child.try_wait().unwrap().is_none() {
            // With its last thread it should end by itself, but where several end at once it may wait for ever.
            if tracers(self.pid).is_empty() || Instant::now() > until {
                let _ = self.child.kill();
            }
            std::thread::sleep(MS);
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.end();
    }
}

/// Who traces each thread of a process that has not ended; 0: nobody.
fn tracers(pid: i32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let tracer = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("status")).ok()?;
        let field = |name| text.lines().find_map(|l| l.strip_prefix(name));
        let has_ended = field("State:")?.trim().starts_with(['Z', 'X']);
        field("TracerPid:")?.trim().parse().ok().filter(|_| !has_ended)
    };
    tasks.filter_map(|t| tracer(t.unwrap().path())).collect()
}

/// Whether a process of ours may be traced here.
pub fn is_allowed() -> bool {
    let mut c = Command::new("strace");
    let c = c.args(["-f", "-q", "-o", "/dev/null", "true"]);
    c.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// How often each call occurs in a log of `strace -f`, in the thread that makes it most often.
pub fn calls(log: &str) -> BTreeMap<String, usize> {
    let mut by_thread: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            *by_thread.entry((thread, name)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, name), n) in by_thread {
        let of: &mut usize = most.entry(name.to_owned()).or_default();
        *of = n.max(*of);
    }
    most
}
