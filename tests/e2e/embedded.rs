//! An evd on threads of a host, with clients in other processes.

use crate::parts::*;
use crate::role::{Process, say};
use crate::wire::{PATIENCE, eventually};
use evd::Daemon;
use evd_client::{Error, Event, EventBase, LinkState};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// A client in a process of its own, and a connection to it.
struct Guest {
    process: Process,
    stream: UnixStream,
}

impl Guest {
    fn start(socket: &Path, meeting: &UnixListener, path: &Path) -> Guest {
        let process = Process::start("guest", socket, &[path.to_str().unwrap()]);
        let stream = meeting.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Guest { process, stream }
    }

    fn echoes(&mut self) {
        self.stream.write_all(b"x").unwrap();
        self.stream.read_exact(&mut [0]).expect("an echo");
    }
}

/// A role: echoes what comes on one connection, and says how it stands with evd.
pub fn guest(socket: &Path, args: &[&str]) {
    let base = base_at(socket, "guest");
    let stream = UnixStream::connect(args[0]).unwrap();
    stream.set_nonblocking(true).unwrap();
    let echo = Event::new(&base, stream, READ, |event, _| {
        let mut buf = [0; 100];
        match event.source().read(&mut buf) {
            Ok(0) => event.base().loopexit(None).unwrap(),
            Ok(n) => event.source().write_all(&buf[..n]).unwrap(),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
        }
    })
    .unwrap();
    echo.add(None).unwrap();
    let named = Event::named(&base, "guests", |event, _| say(format!("triggered {}", event.times())));
    let named = named.unwrap();
    named.add(None).unwrap();
    base.on_link(|base, state| match state {
        LinkState::Away { why } => say(why),
        _ => {
            base.sync().unwrap();
            say("back");
        }
    });
    park(&base, 1);
    say("parked");
    base.dispatch().unwrap();
}

#[test]
fn a_host_serves_other_processes_until_it_drops_its_evd_and_they_go_on() {
    let d = dir();
    let path = d.0.join("meeting");
    let meeting = UnixListener::bind(&path).unwrap();
    let host = || Daemon::builder().socket(d.socket()).spawn().unwrap();
    let mut daemon = host();
    let mut guests: Vec<Guest> = (0..4).map(|_| Guest::start(&d.socket(), &meeting, &path)).collect();
    guests.iter().for_each(|g| g.process.says("parked"));
    for _ in 0..3 {
        // The host is a client of its own evd like any other.
        let base = base_at(&d.socket(), "host");
        let (near, mut far) = pair();
        let (_event, got) = reader(&base, near);
        park(&base, 1);
        assert_eq!(base.trigger("guests").unwrap().reached, 4);
        guests.iter().for_each(|g| g.process.says("triggered 1"));
        guests.iter_mut().for_each(Guest::echoes);
        let shown = evctl(&d.socket(), &["status", "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(
            (&shown["pid"], shown["bases"].as_array().unwrap().len()),
            (&std::process::id().into(), 5)
        );

        drop(daemon);
        assert!(!d.socket().exists());
        assert!(matches!(
            EventBase::builder().patience(PATIENCE).socket(d.socket()).connect().build(),
            Err(Error::NotRunning { .. })
        ));
        guests.iter().for_each(|g| g.process.says("evd ended: evd stops"));
        guests.iter_mut().for_each(Guest::echoes);
        far.write_all(b"x").unwrap();
        until(&base, "the host's own base goes on, too", || got.get() == 1 && !is_up(&base));
        drop(base);
        daemon = host();
        guests.iter().for_each(|g| g.process.says("back"));
    }
    for Guest { process, stream } in guests {
        drop(stream);
        process.ends();
    }
}

#[test]
fn an_evd_that_is_dropped_leaves_no_thread_and_no_fd_in_its_host() {
    let d = dir();
    let process = Process::start("host", &d.socket(), &[]);
    process.says("nothing is left");
    process.ends();
}

/// A role: has an evd in itself, and then not any more.
pub fn host(socket: &Path, _: &[&str]) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let now = || (count("task"), count("fd"));
    let before = now();
    for _ in 0..5 {
        let daemon = Daemon::builder().socket(socket).spawn().unwrap();
        let mut all = Vec::new();
        for method in ["epoll", "poll", "select"] {
            let builder = EventBase::builder().patience(PATIENCE).socket(socket).connect().method(method);
            let base = builder.ignore_env().build().unwrap();
            let (near, far) = pair();
            let (event, _) = reader(&base, near);
            base.hold(method, event.source(), b"", None).unwrap();
            park(&base, 1);
            all.push((base, event, far));
        }
        drop(daemon);
        drop(all);
        // A thread that was waited for is in the list for a moment more.
        eventually("nothing is left", || now() == before);
    }
    say("nothing is left");
}
