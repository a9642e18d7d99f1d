//! How long a parked fd is without evd when evd is restarted, as its client sees it.

use crate::lab::Lab;
use crate::parts::{number, percentile};
use crate::role::{Process, SOCKET, say};
use evd_client::{Event, EventBase, LinkState, LoopFlags, What};
use evd_proto::sys;
use serde_json::json;
use std::io::BufRead;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};

const PROCESSES: usize = 10;
/// Clients of a process, each on a thread.
const CLIENTS: usize = 10;
/// Watches of a client.
const WATCHES: usize = 100;

#[test]
fn the_gap_of_a_restart_is_short() {
    let Some(lab) = Lab::boot_alone() else { return };
    lab.install_evd();
    lab.run(&["systemctl", "start", "evd.socket", "evd.service"]);
    let rounds = number("EVD_LAB_GAPS", 3);
    for way in ["kill -9", "systemctl restart"] {
        let (mut gaps, mut starts, mut readies) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            // New ones each time: who loses evd twice in a few seconds waits longer before the next try, as it should.
            let start = |i: usize| Process::start(&lab, (0, 0), &format!("crowd {i}"));
            let crowd: Vec<Process> = (0..PROCESSES).map(start).collect();
            all_parked(&crowd);
            let at = sys::monotonic_ns();
            if way == "kill -9" {
                sys::send_signal(lab.evd_pid().unwrap(), libc::SIGKILL).unwrap();
            } else {
                lab.run(&["systemctl", "restart", "evd.service"]);
            }
            gaps.extend(all_parked(&crowd).into_iter().map(|t| (t - at) / 1000));
            // When systemd made the new process, and when that was ready, by systemd's own clock.
            let since = |property: &str| {
                lab.show("evd.service", property).parse::<u64>().unwrap().saturating_sub(at / 1000)
            };
            starts.push(since("ExecMainStartTimestampMonotonic"));
            readies.push(since("ActiveEnterTimestampMonotonic"));
            crowd.into_iter().for_each(Process::ends);
        }
        let (p50, p99) = (percentile(&mut gaps, 0.5) / 1000, percentile(&mut gaps, 0.99) / 1000);
        let count = PROCESSES * CLIENTS;
        println!("gap after {way}, {count} clients, {} watches: p50 {p50} ms, p99 {p99} ms", count * WATCHES);
        let (start, ready) = (percentile(&mut starts, 0.5) / 1000, percentile(&mut readies, 0.5) / 1000);
        println!("  evd's new process was made after {start} ms, and ready after {ready} ms");
        // How long it is depends on the machine; this only says that nobody waits for a time-out.
        assert!(p99 < 2000, "p99 {p99} ms");
    }
}

/// When the last watch of each client was at evd.
fn all_parked(crowd: &[Process]) -> Vec<u64> {
    let mut times = Vec::new();
    for p in crowd {
        times.extend(p.json().as_array().unwrap().iter().map(|t| t.as_u64().unwrap()));
    }
    assert_eq!(times.len(), PROCESSES * CLIENTS);
    times
}

/// A role: clients with watches that are all parked. Says when that was, at first and after each loss.
pub fn crowd(args: &[&str]) {
    sys::raise_open_files().unwrap();
    let (to, parked) = channel();
    for i in 0..CLIENTS {
        let (name, to) = (format!("crowd-{}-{i}", args[0]), to.clone());
        std::thread::spawn(move || one(&name, &to));
    }
    std::thread::spawn(move || {
        loop {
            let times: Vec<u64> = (0..CLIENTS).map(|_| parked.recv().unwrap()).collect();
            say(json!(times));
        }
    });
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

fn one(name: &str, parked: &Sender<u64>) {
    let base = EventBase::builder().socket(SOCKET).name(name).connect().build().unwrap();
    let pairs: Vec<_> = (0..WATCHES).map(|_| UnixStream::pair().unwrap()).collect();
    let watch = |near: &UnixStream| {
        let fd = near.try_clone().unwrap();
        let event = Event::new(&base, fd, What::READ | What::PERSIST, |_, _| panic!("nothing was sent"));
        let event = event.unwrap();
        event.add(None).unwrap();
        event
    };
    let events: Vec<_> = pairs.iter().map(|(near, _)| watch(near)).collect();
    // It runs as a program does that has nothing to do: nothing wakes it but evd's end and evd's welcome.
    base.on_link(|base, state| {
        if matches!(state, LinkState::Up { .. }) {
            base.loopbreak();
        }
    });
    loop {
        // Parks what is quiet, as a wait does, and asks evd whether it has it.
        if base.sync().is_ok() && base.watches() == (WATCHES, 0) {
            parked.send(sys::monotonic_ns()).unwrap();
        }
        base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
        assert!(events.len() == WATCHES);
    }
}
