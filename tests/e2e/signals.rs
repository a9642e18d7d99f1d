//! Signals: those of a client's own process, and those that are sent to evd.

use crate::parts::*;
use crate::role::{Process, hear, say};
use evd_client::{Error, Event, EventBase, What};
use evd_proto::sys;
use std::path::Path;
use std::rc::Rc;

/// Adds an event for a signal that says each call.
fn says_each(base: &EventBase, signo: i32, of_evd: bool) -> Event {
    let call = move |_: &Event, what: What| {
        assert_eq!(what, What::SIGNAL);
        say(sys::signal_name(signo));
    };
    let event = match of_evd {
        true => Event::daemon_signal(base, signo, call),
        false => Event::signal(base, signo, call),
    };
    let event = event.unwrap();
    event.add(None).unwrap();
    event
}

/// A role: says each signal that comes to it, or to evd, besides what it has at evd.
pub fn signalled(socket: &Path, args: &[&str]) {
    let base = base_at(socket, "signalled");
    let (near, _far) = pair();
    let (_event, _) = reader(&base, near);
    let signals = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGRTMIN() + 3];
    let _events: Vec<Event> = signals.iter().map(|s| says_each(&base, *s, args[0] == "of evd")).collect();
    park(&base, 1);
    say("ready");
    let handle = base.handle();
    std::thread::spawn(move || {
        assert_eq!(hear(), "leave");
        handle.loopexit();
    });
    base.dispatch().unwrap();
}

fn signalled_process(evd: &crate::wire::Evd, what: &str) -> Process {
    let process = Process::start("signalled", &evd.path(), &[what]);
    process.says("ready");
    process
}

#[test]
fn each_signal_to_a_client_calls_its_callback_once() {
    let evd = evd();
    let mut process = signalled_process(&evd, "own");
    for i in 0..100 {
        let signo = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGRTMIN() + 3][i % 3];
        process.signal(signo);
        process.says(&sys::signal_name(signo));
    }
    // evd shows what is caught, and gets none of it itself.
    let shown = evctl(&evd.path(), &["status"]);
    assert!(shown.contains("USR1") && shown.contains("USR2"), "{shown}");
    // Real-time ones are queued by the kernel: none of a burst is lost.
    let rt = libc::SIGRTMIN() + 3;
    (0..50).for_each(|_| process.signal(rt));
    (0..50).for_each(|_| process.says(&sys::signal_name(rt)));
    process.tell("leave");
    process.ends();
}

#[test]
fn signals_to_evd_reach_each_base_that_asked_and_no_other() {
    let evd = evd();
    let base = base(&evd);
    let fired = Count::default();
    let of = Rc::clone(&fired);
    let usr2 = Event::daemon_signal(&base, libc::SIGUSR2, move |_, _| count(&of)).unwrap();
    usr2.add(None).unwrap();
    base.sync().unwrap();
    let all: Vec<Process> = (0..3).map(|_| signalled_process(&evd, "of evd")).collect();
    for i in 1..=30 {
        let signo = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGRTMIN() + 3][i % 3];
        evd.signal(signo);
        all.iter().for_each(|p| p.says(&sys::signal_name(signo)));
    }
    until(&base, "a third of them", || fired.get() == 10);
    run_for(&base, 5 * MS);
    assert_eq!(fired.get(), 10);
    for process in all {
        process.kill();
    }
    evd.signal(libc::SIGUSR2);
    until(&base, "it goes on for who is left", || fired.get() == 11);
}

#[test]
fn a_signal_to_evd_that_nobody_wants_does_not_end_it() {
    let evd = evd();
    let base = base(&evd);
    let all = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH, libc::SIGRTMIN(), libc::SIGRTMAX()];
    for signo in all {
        evd.signal(signo);
        base.sync().unwrap();
        let event = Event::daemon_signal(&base, signo, |_, _| panic!("not any more")).unwrap();
        event.add(None).unwrap();
        base.sync().unwrap();
        event.del().unwrap();
        base.sync().unwrap();
        evd.signal(signo);
        base.sync().unwrap();
    }
    evd.serves();
    assert!(is_up(&base), "{:?}", base.link());
}

#[test]
fn signals_that_evd_needs_itself_are_refused_with_what_there_is() {
    let evd = evd();
    let base = base(&evd);
    for signo in
        [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD, libc::SIGKILL, libc::SIGSEGV, 0, 99]
    {
        let error = Event::daemon_signal(&base, signo, |_, _| {}).unwrap_err();
        assert!(matches!(error, Error::OutOfRange(_)), "{error:?}");
        assert!(error.to_string().contains("USR1, USR2, WINCH and real-time"), "{error}");
    }
    for signo in [0, -1, 65, 1000] {
        assert!(matches!(Event::signal(&base, signo, |_, _| {}), Err(Error::OutOfRange(_))), "{signo}");
    }
    for signo in [libc::SIGKILL, libc::SIGSTOP] {
        let event = Event::signal(&base, signo, |_, _| {}).unwrap();
        let error = event.add(None).unwrap_err();
        assert!(error.to_string().contains("can't be caught"), "{error}");
    }
    base.sync().unwrap();
}
