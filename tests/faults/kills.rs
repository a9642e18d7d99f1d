//! evd, or a client, is killed at the first, second and third occurrence of each system call of a session.

use crate::cases::*;
use crate::parts::*;
use crate::strace::Strace;
use crate::wire::{Evd, eventually};
use evd_client::EventBase;
use std::os::unix::process::ExitStatusExt;

#[derive(Debug)]
struct Kill {
    method: &'static str,
    call: String,
    nth: usize,
}

impl Kill {
    fn options(&self) -> [String; 4] {
        let Kill { call, nth, .. } = self;
        ["-e".into(), format!("trace={call}"), "-e".into(), format!("inject={call}:signal=KILL:when={nth}")]
    }
}

/// The cases of one side: all that a recording shows, or those of them that CI has time for.
fn cases(side: Side) -> Vec<Kill> {
    let methods: &[_] = if all() { &["epoll", "poll", "select"] } else { &["epoll"] };
    let most = if all() { usize::MAX } else { OCCURRENCES };
    let of = |method: &'static str| {
        recorded(side, method).into_iter().flat_map(move |(call, n)| {
            (1..=n.min(most)).map(move |nth| Kill { method, call: call.clone(), nth })
        })
    };
    methods.iter().copied().flat_map(of).collect()
}

#[test]
fn an_evd_that_is_killed_at_any_call_costs_its_client_nothing() {
    if !can_trace() {
        return;
    }
    let cases = cases(Side::Evd);
    let count = cases.len();
    most_hit("evd", each(cases, || (), |(), kill| kills_evd(kill)), count);
}

/// After its end by SIGKILL.
fn comes_back(evd: &mut Evd) -> bool {
    let status = evd.child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    start_again(evd);
    true
}

fn kills_evd(kill: &Kill) -> bool {
    let mut host = Host::start();
    let mut client = client(&host.evd, kill.method);
    let mut strace = Strace::attach(host.evd.pid(), &kill.options());
    let mut hit = false;
    std::thread::scope(|scope| {
        let script = scope.spawn(|| {
            works(&mut client);
            leaves(&mut client);
        });
        // Also while its last worker ends.
        let is_over = |evd: &Evd| script.is_finished() && workers(evd) == 0;
        while !hit && !is_over(&host.evd) {
            hit = strace.process_has_ended() && comes_back(&mut host.evd);
            std::thread::sleep(MS);
        }
        script.join().unwrap();
    });
    drop(strace);
    // The last thread that is left may be just ending.
    if !hit && EventBase::builder().socket(host.evd.path()).connect().build().is_err() {
        hit = comes_back(&mut host.evd);
    }
    client.ends();
    host.is_as_before();
    hit
}

#[test]
fn a_client_that_is_killed_at_any_call_leaves_nothing_behind() {
    if !can_trace() {
        return;
    }
    let cases = cases(Side::Client);
    let count = cases.len();
    most_hit("clients", each(cases, Host::start, kills_client), count);
}

fn kills_client(host: &mut Host, kill: &Kill) -> bool {
    let mut client = client(&host.evd, kill.method);
    let mut strace = Strace::attach(client.pid(), &kill.options());
    let mut does = |word, answer| client.try_tell(word) && client.line_or_end().is_some_and(|l| l == answer);
    let lives = does("go", "worked") && does("return", "left");
    eventually("it has ended", || strace.process_has_ended());
    let status = client.status();
    let hit = status.signal() == Some(libc::SIGKILL);
    assert!(hit || (lives && status.success()), "it failed by itself: {status}");
    lets_go(&host.evd);
    host.is_as_before();
    hit
}

/// Nothing is held any more; what a dead client was just taking is there again first.
fn lets_go(evd: &Evd) {
    eventually("no base is left", || status(evd)["bases"].as_array().unwrap().is_empty());
    let base: EventBase = base(evd);
    for held in base.list_held().unwrap() {
        base.drop_held(&held.name).unwrap();
    }
}
