//! A client dies, at any moment.

use crate::parts::*;
use crate::role::{Process, say};
use crate::wire::{Evd, PATIENCE, eventually};
use evd_client::{Event, EventBase, LoopFlags, What};
use evd_proto::sys;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

const METHODS: [&str; 3] = ["epoll", "poll", "select"];

#[test]
fn a_client_that_is_killed_at_any_moment_leaves_nothing_behind() {
    let evd = evd();
    let fds = fds_at_rest(&evd);
    let mut resident = Vec::new();
    for _ in 0..3 {
        kill_some(&evd);
        is_clean(&evd, fds);
        let most = resident.first().map_or(u64::MAX, |first| first + (1 << 20));
        eventually("its memory is given back", || evd.resident() < most);
        resident.push(evd.resident());
    }
    println!("resident after each: {resident:?}");
}

/// Starts clients and kills them, at moments that have nothing to do with what they do; what they had held is let go.
fn kill_some(evd: &Evd) {
    for method in METHODS.iter().cycle().take(12) {
        let process = Process::start("churn", &evd.path(), &[method]);
        process.says("busy");
        // Any moment: nothing is waited for.
        std::thread::sleep(Duration::from_micros(sys::monotonic_ns() % 30_000));
        process.kill();
    }
    eventually("no base is left", || status(evd)["bases"].as_array().unwrap().is_empty());
    let base = base(evd);
    for held in base.list_held().unwrap() {
        base.drop_held(&held.name).unwrap();
    }
}

/// A role: does all that a client can do, in no order, without end.
pub fn churn(socket: &Path, args: &[&str]) {
    let builder = EventBase::builder().socket(socket).name("churn").connect().method(args[0]);
    let base = builder.ignore_env().linger(MS).build().unwrap();
    let (mut events, mut timers, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let soon = Event::timer(&base, What::empty(), |_, _| {}).unwrap();
    let mut x = sys::monotonic_ns() | 1;
    say("busy");
    loop {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let at = |len: usize| (x >> 8) as usize % len.max(1);
        match x % 10 {
            0 | 1 if events.len() < 100 => {
                let (near, far) = pair();
                events.push((reader(&base, near), far));
            }
            2 => drop(events.get(at(events.len())).map(|(_, far): &(_, UnixStream)| (&*far).write_all(b"x"))),
            3 if events.len() > 50 => drop(events.swap_remove(at(events.len()))),
            4 if timers.len() < 100 => {
                let timer = Event::timer(&base, What::empty(), |_, _| {}).unwrap();
                timer.add(Some(Duration::from_micros(x % 100_000))).unwrap();
                timers.push(timer);
            }
            5 if timers.len() > 50 => drop(timers.swap_remove(at(timers.len()))),
            6 => {
                let name = format!("churn:{}", x % 20);
                let named = Event::named(&base, &name, |_, _| {}).unwrap();
                named.add(None).unwrap();
                names.push(named);
                if names.len() > 20 {
                    names.remove(0);
                }
                base.trigger(&name).unwrap();
            }
            7 => {
                let name = format!("churn:{}", x % 20);
                base.hold_anew(&name, std::io::stdin(), b"attached", None).unwrap();
                if x & 0x100 == 0 {
                    base.take(&name).unwrap();
                }
            }
            8 => base.sync().unwrap(),
            _ => {
                soon.add(Some(MS / 10)).unwrap();
                base.loop_(LoopFlags::ONCE).unwrap();
            }
        }
    }
}

#[test]
fn the_peers_of_a_client_that_is_killed_see_the_end() {
    for method in METHODS {
        let (evd, meeting) = (evd(), dir());
        let listener = UnixListener::bind(meeting.socket()).unwrap();
        let process = Process::start("peer", &evd.path(), &[meeting.socket().to_str().unwrap(), method]);
        let peers: Vec<UnixStream> = (0..20).map(|_| listener.accept().unwrap().0).collect();
        process.says("parked");
        process.kill();
        for peer in peers {
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            sees_end(&peer);
        }
    }
}

/// A role: has connections, all parked but the last, whose arm is on its way.
pub fn peer(socket: &Path, args: &[&str]) {
    let builder = EventBase::builder().socket(socket).connect().method(args[1]);
    let base = builder.ignore_env().build().unwrap();
    let connect = |_| {
        let stream = UnixStream::connect(args[0]).unwrap();
        stream.set_nonblocking(true).unwrap();
        reader(&base, stream)
    };
    let _most: Vec<_> = (0..19).map(connect).collect();
    park(&base, 19);
    let _last = connect(19);
    let says = Event::timer(&base, What::empty(), |_, _| say("parked")).unwrap();
    says.add(Some(Duration::ZERO)).unwrap();
    base.dispatch().unwrap();
}
