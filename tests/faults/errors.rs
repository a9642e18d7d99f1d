//! The kernel refuses evd a system call: once, at its first, second or third occurrence, or from then on. evd lives, its client loses nothing meanwhile
//! and is back at evd afterwards, and the books balance.

use crate::cases::*;
use crate::strace::Strace;
use crate::wire::{Raw, eventually, hello};
use evd_proto::frame::Kind;
use std::collections::BTreeSet;

/// One system call, and what it may give.
struct Row {
    call: &'static str,
    /// Errors that pass, and that may stay.
    errors: &'static [&'static str],
    /// Errors that only pass: whoever sees them asks again, and what stays so has another name.
    passing: &'static [&'static str],
}

const FULL: &[&str] = &["EMFILE", "ENFILE", "ENOMEM"];
const MEMORY: &[&str] = &["ENOMEM"];
const NONE: &[&str] = &[];

/// What a call can give to evd by its manual page, if evd makes no mistake and the machine is short of something.
const TABLE: &[Row] = &[
    Row {
        call: "accept4",
        errors: &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"],
        passing: &["EAGAIN", "EINTR", "ECONNABORTED"],
    },
    Row { call: "clone3", errors: &["EAGAIN", "ENOMEM"], passing: NONE },
    Row { call: "dup3", errors: &["EMFILE"], passing: &["EINTR", "EBUSY"] },
    Row { call: "epoll_create1", errors: FULL, passing: NONE },
    Row { call: "epoll_ctl", errors: &["ENOMEM", "ENOSPC"], passing: NONE },
    Row { call: "epoll_pwait2", errors: NONE, passing: &["EINTR"] },
    Row { call: "eventfd2", errors: FULL, passing: NONE },
    // SO_PEERPIDFD makes an fd.
    Row { call: "getsockopt", errors: FULL, passing: NONE },
    Row { call: "getrandom", errors: NONE, passing: &["EINTR"] },
    Row { call: "newfstatat", errors: MEMORY, passing: NONE },
    Row { call: "openat", errors: FULL, passing: &["EINTR"] },
    Row { call: "ppoll", errors: MEMORY, passing: &["EINTR"] },
    Row { call: "pselect6", errors: MEMORY, passing: &["EINTR"] },
    Row { call: "read", errors: NONE, passing: &["EINTR", "EAGAIN"] },
    Row { call: "readlink", errors: MEMORY, passing: NONE },
    Row { call: "recvmsg", errors: MEMORY, passing: &["EAGAIN", "EINTR"] },
    Row { call: "sendmsg", errors: &["ENOBUFS", "ENOMEM", "EPIPE"], passing: &["EAGAIN", "EINTR"] },
    Row { call: "statx", errors: MEMORY, passing: NONE },
    Row { call: "timerfd_create", errors: FULL, passing: NONE },
];

/// Calls of a session that fail for no reason that is not a mistake of evd's, or where a failure that strace makes up would be another one than the
/// kernel's: an fd that could not be closed is closed, and a wake-up of an eventfd or a futex that failed was not needed.
const SURE: &[&str] = &[
    "close",
    "exit",
    "fcntl",
    "futex",
    "getegid",
    "geteuid",
    "getpid",
    "gettid",
    "ioctl",
    // Memory that a program can't have ends it; that is a kill. What is given back, is.
    "brk",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "prctl",
    "prlimit64",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
    "timerfd_settime",
    "write",
];

#[derive(Clone, Copy, Debug)]
enum When {
    Nth(usize),
    From(usize),
    EveryOther,
}

#[derive(Debug)]
struct Refusal {
    method: &'static str,
    call: &'static str,
    error: &'static str,
    when: When,
}

impl Refusal {
    fn options(&self) -> [String; 4] {
        let Refusal { call, error, when, .. } = self;
        let when = match when {
            When::Nth(n) => n.to_string(),
            When::From(n) => format!("{n}+"),
            When::EveryOther => "1+2".to_owned(),
        };
        [
            "-e".into(),
            format!("trace={call}"),
            "-e".into(),
            format!("inject={call}:error={error}:when={when}"),
        ]
    }
}

fn cases() -> Vec<Refusal> {
    let methods: &[_] = if all() { &["epoll", "poll", "select"] } else { &["epoll"] };
    let most = if all() { OCCURRENCES } else { 1 };
    let mut cases = Vec::new();
    for method in methods.iter().copied() {
        let recorded = recorded(Side::Evd, method);
        let known: BTreeSet<&str> = TABLE.iter().map(|r| r.call).chain(SURE.iter().copied()).collect();
        let unknown: Vec<_> = recorded.keys().filter(|c| !known.contains(c.as_str())).collect();
        assert!(unknown.is_empty(), "which errors make sense for these calls? {unknown:?}");
        for Row { call, errors, passing } in TABLE {
            let Some(n) = recorded.get(*call) else { continue };
            let mut add = |error, when| cases.push(Refusal { method, call, error, when });
            for nth in 1..=most.min(*n) {
                errors.iter().chain(*passing).for_each(|e| add(e, When::Nth(nth)));
                errors.iter().for_each(|e| add(e, When::From(nth)));
            }
            passing.iter().for_each(|e| add(e, When::EveryOther));
        }
    }
    cases
}

#[test]
fn an_evd_that_is_refused_a_call_lives_and_its_books_balance() {
    if !can_trace() {
        return;
    }
    let cases = cases();
    let count = cases.len();
    most_hit("errors", each(cases, Host::start, refuses), count);
}

fn refuses(host: &mut Host, refusal: &Refusal) -> bool {
    let mut client = client(&host.evd, refusal.method);
    let strace = Strace::attach(host.evd.pid(), &refusal.options());
    works(&mut client);
    assert_eq!(host.evd.child.try_wait().unwrap(), None, "evd has ended");
    // Each new thread counts for itself, so it may stay until it is repaired in any case.
    let log = strace.detach();
    leaves(&mut client);
    client.ends();
    host.is_as_before();
    log.contains("(INJECTED)")
}

#[test]
fn an_evd_that_could_make_no_thread_serves_as_soon_as_it_can() {
    if !can_trace() {
        return;
    }
    let host = Host::start();
    let refusal = Refusal { method: "epoll", call: "clone3", error: "EAGAIN", when: When::From(1) };
    let strace = Strace::attach(host.evd.pid(), &refusal.options());
    // More than it lets wait to be refused.
    let mut all: Vec<Raw> = (0..100).map(|_| Raw::connect(&host.evd.path())).collect();
    all.iter_mut().for_each(|one| one.send_if_open(&hello("many", "")));
    eventually("it takes no more of them", || host.evd.fds() >= host.fds + 60);
    // Those that it has taken hear it at once, and need not wait for a thread that would close them.
    for mut one in all.drain(..60) {
        assert_eq!(one.next().kind, Kind::Refused);
    }
    strace.detach();
    host.evd.serves();
    for mut one in all {
        let got = one.next();
        assert!(matches!(got.kind, Kind::Refused | Kind::Welcome), "{got:?}");
    }
    host.is_as_before();
}
