//! evd's start: killed at a system call of it, the next start succeeds; refused a system call, it serves all the same, or says why not and ends.

use crate::cases::{OCCURRENCES, can_trace, each, most_hit};
use crate::parts::*;
use crate::wire::{Dir, Evd, command, eventually};
use evd_client::EventBase;
use evd_proto::sys;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// What a call of the start can give by its manual page.
const TABLE: &[(&str, &[&str])] = &[
    ("bind", &["ENOMEM"]),
    ("chmod", &["ENOMEM"]),
    ("epoll_create1", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("eventfd2", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("flock", &["ENOLCK"]),
    ("openat", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("prlimit64", &["EPERM"]),
    ("rename", &["ENOMEM"]),
    ("socket", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
    ("statx", &["ENOMEM"]),
    ("timerfd_create", &["EMFILE", "ENFILE", "ENOMEM"]),
];

#[derive(Debug)]
struct Case {
    call: String,
    nth: usize,
    /// `None`: it is killed.
    error: Option<&'static str>,
}

/// An evd that strace has from its first system call on; it is our own child all the same.
fn start(dir: &Dir, options: &[String]) -> Child {
    let evd = command(&dir.socket());
    let mut c = Command::new("strace");
    c.args(["-D", "-f", "-q", "-e", "signal=none", "-o"]).arg(dir.0.join("trace")).args(options);
    c.arg("--").arg(evd.get_program()).args(evd.get_args()).env("EVD_LOG_LEVEL", "warn");
    let said = File::create(dir.0.join("said")).unwrap();
    dies_with_us(&mut c).stdin(Stdio::null()).stderr(said).spawn().unwrap()
}

/// Waits until it serves, or has ended.
fn outcome(dir: &Dir, child: &mut Child) -> Option<ExitStatus> {
    let mut ended = None;
    eventually("it serves, or ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
            || EventBase::builder().socket(dir.socket()).patience(50 * MS).connect().build().is_ok()
    });
    ended
}

/// How often each call occurs: before evd raises its limit of open files, which is the first that it does itself, and after that until it listens.
fn recorded() -> BTreeMap<String, (usize, usize)> {
    let dir = Dir::new();
    let mut child = start(&dir, &[]);
    assert_eq!(outcome(&dir, &mut child), None);
    sys::send_signal(child.id() as i32, libc::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    let (mut calls, mut own) = (BTreeMap::<String, (usize, usize)>::new(), false);
    for line in std::fs::read_to_string(dir.0.join("trace")).unwrap().lines() {
        own |= line.contains("RLIMIT_NOFILE");
        let Some((name, _)) = line.split_once(' ').and_then(|(_, rest)| rest.trim_start().split_once('('))
        else {
            continue;
        };
        if name == "epoll_pwait2" {
            break;
        }
        let of = calls.entry(name.to_owned()).or_default();
        if own { of.1 += 1 } else { of.0 += 1 }
    }
    calls
}

fn faulty(case: &Case, dir: &Dir) -> (Child, Option<ExitStatus>) {
    let Case { call, nth, error } = case;
    let what = error.map_or("signal=KILL".to_owned(), |e| format!("error={e}"));
    let options =
        ["-e".into(), format!("trace={call}"), "-e".into(), format!("inject={call}:{what}:when={nth}")];
    let mut child = start(dir, &options);
    let ended = outcome(dir, &mut child);
    (child, ended)
}

/// The next one on that socket serves and ends in an orderly way.
fn next_serves(dir: Dir) {
    let mut evd = Evd { child: evd_at(&dir.socket()), dir };
    evd.serves();
    evd.signal(libc::SIGTERM);
    assert!(evd.child.wait().unwrap().success());
}

#[test]
fn after_an_evd_that_was_killed_while_it_started_another_starts() {
    if !can_trace() {
        return;
    }
    let case = |(call, (before, own)): (String, (usize, usize))| {
        let nths = before + 1..=before + own.min(OCCURRENCES);
        nths.map(move |nth| Case { call: call.clone(), nth, error: None })
    };
    let cases: Vec<Case> = recorded().into_iter().flat_map(case).collect();
    let count = cases.len();
    let kills = |_: &mut (), case: &Case| {
        let dir = Dir::new();
        let (mut child, ended) = faulty(case, &dir);
        let hit = ended.is_some_and(|s| s.signal() == Some(libc::SIGKILL));
        let _ = child.kill();
        let _ = child.wait();
        next_serves(dir);
        hit
    };
    most_hit("starts", each(cases, || (), kills), count);
}

#[test]
fn an_evd_that_is_refused_a_call_of_its_start_serves_or_says_why_not() {
    if !can_trace() {
        return;
    }
    let recorded = recorded();
    let case = |(call, errors): &(&'static str, &'static [&'static str])| {
        let (before, own) = recorded.get(*call).copied().unwrap_or_default();
        let nths = before + 1..=before + own.min(OCCURRENCES);
        let (call, errors) = (*call, *errors);
        nths.flat_map(move |nth| {
            errors.iter().map(move |e| Case { call: call.to_owned(), nth, error: Some(e) })
        })
    };
    let cases: Vec<Case> = TABLE.iter().flat_map(case).collect();
    let count = cases.len();
    let refuses = |_: &mut (), case: &Case| {
        let dir = Dir::new();
        let (mut child, ended) = faulty(case, &dir);
        let said = || std::fs::read_to_string(dir.0.join("said")).unwrap();
        match ended {
            Some(status) => {
                assert_eq!(status.code(), Some(1), "{}", said());
                assert!(said().starts_with("evd: ") && said().lines().count() == 1, "{}", said());
                assert!(!dir.socket().exists(), "{}", said());
            }
            None => {
                assert!(!said().contains("panicked"), "{}", said());
                sys::send_signal(child.id() as i32, libc::SIGTERM).unwrap();
                assert!(child.wait().unwrap().success(), "{}", said());
            }
        }
        let hit = std::fs::read_to_string(dir.0.join("trace")).unwrap().contains("(INJECTED)");
        next_serves(dir);
        hit
    };
    most_hit("errors at the start", each(cases, || (), refuses), count);
}
