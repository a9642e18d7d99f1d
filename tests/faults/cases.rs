//! The cases of a test: which there are, an evd for each of them, and what must hold when it is over.

use crate::parts::*;
use crate::process::Process;
use crate::strace::{Strace, calls, is_allowed};
use crate::wire::{Dir, Evd, eventually};
use evd_proto::reply::{Resource, StatusPage};
use evd_proto::request::Status;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::Mutex;

/// So many cases run at once.
const AT_ONCE: usize = 2;
/// Of each call so many occurrences are looked at in CI.
pub const OCCURRENCES: usize = 3;

/// Whether all of it is asked for.
pub fn all() -> bool {
    std::env::var("EVD_FAULTS").is_ok_and(|v| v == "all")
}

/// `false`: strace can't be used here, and that was said.
pub fn can_trace() -> bool {
    let can = is_allowed();
    if !can {
        println!("skipped: needs ptrace");
    }
    can
}

/// An evd that lives, and what it has when it serves nobody.
pub struct Host {
    pub evd: Evd,
    pub fds: usize,
    log: Dir,
}

impl Host {
    pub fn start() -> Host {
        Host::start_with("debug")
    }

    /// One that says little.
    pub fn start_quiet() -> Host {
        Host::start_with("warn")
    }

    fn start_with(level: &str) -> Host {
        let log = Dir::new();
        let to = File::create(log.0.join("log")).unwrap();
        let evd = Evd::start_with(|c| {
            dies_with_us(c).env("EVD_LOG_LEVEL", level).stderr(to);
        });
        let fds = fds_at_rest(&evd);
        Host { evd, fds, log }
    }

    fn is_clean(&self) {
        eventually("no base and no name is left", || {
            let s = status(&self.evd);
            s["bases"].as_array().unwrap().is_empty() && s["names"] == 0 && s["holds"] == 0
        });
        eventually("its workers have ended", || workers(&self.evd) == 0);
        eventually("its fds are closed", || self.evd.fds() == self.fds);
    }

    /// Nobody is connected, and evd is as it was before.
    pub fn is_as_before(&self) {
        self.is_clean();
        let mut control = self.evd.control();
        eventually("the books are even", || {
            let page: StatusPage = control.ask(&Status { after: 0 });
            let open = |a: &evd_proto::reply::AccountInfo| {
                a.uses.iter().any(|u| u.used != u64::from(u.what == Resource::Connections))
            };
            !page.accounts.iter().any(open)
        });
        drop(control);
        self.evd.serves();
        self.is_clean();
        let said = std::fs::read_to_string(self.log.0.join("log")).unwrap();
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// How many threads serve somebody. The one that refuses is made once and stays.
pub fn workers(evd: &Evd) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", evd.pid())).unwrap();
    let name = |path: std::path::PathBuf| std::fs::read_to_string(path.join("comm")).unwrap_or_default();
    tasks.filter(|t| name(t.as_ref().unwrap().path()).starts_with("evd-uid")).count()
}

/// A client that is ready for its session on this method.
pub fn client(evd: &Evd, method: &str) -> Process {
    let process = Process::start("session", &evd.path(), &[method]);
    process.says("ready");
    process
}

/// The client's way from its start to its end.
pub fn works(client: &mut Process) {
    client.tell("go");
    client.says("worked");
}

pub fn leaves(client: &mut Process) {
    client.tell("return");
    client.says("left");
}

/// Who is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Evd,
    Client,
}

/// The calls of a session, and how often each occurs in one thread: what two sessions have in common.
pub fn recorded(side: Side, method: &str) -> BTreeMap<String, usize> {
    let record = || {
        let host = Host::start();
        let mut client = client(&host.evd, method);
        let pid = if side == Side::Evd { host.evd.pid() } else { client.pid() };
        let mut strace = Strace::attach(pid, &[]);
        works(&mut client);
        leaves(&mut client);
        eventually("it is over", || match side {
            Side::Evd => workers(&host.evd) == 0,
            Side::Client => strace.process_has_ended(),
        });
        calls(&strace.detach())
    };
    let (first, second) = (record(), record());
    let common = |(name, n): (String, usize)| second.get(&name).map(|m| (name, n.min(*m)));
    first.into_iter().filter_map(common).collect()
}

/// Runs all cases, some at once; each thread has something of its own, made by `start`. Returns how many cases `run` says did what they should.
pub fn each<C: Send + std::fmt::Debug, T>(
    cases: Vec<C>,
    start: impl Fn() -> T + Sync,
    run: impl Fn(&mut T, &C) -> bool + Sync,
) -> usize {
    let queue = Mutex::new(VecDeque::from(cases));
    let work = || {
        let (mut own, mut hits) = (start(), 0);
        loop {
            let Some(case) = queue.lock().unwrap().pop_front() else { return hits };
            // Shown if it fails.
            eprintln!("{case:?}");
            let start = std::time::Instant::now();
            let hit = run(&mut own, &case);
            eprintln!("{case:?} took {:?}", start.elapsed());
            hits += usize::from(hit);
            if !hit {
                eprintln!("{case:?} did not occur");
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    })
}

/// What the recording shows occurs nearly always: which thread does it may depend on the moment.
pub fn most_hit(what: &str, hits: usize, of: usize) {
    println!("{what}: {hits} of {of} hit");
    assert!(hits * 10 >= of * 9, "{hits} of {of}");
}
