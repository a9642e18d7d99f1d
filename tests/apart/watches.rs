//! What is parked at evd wakes its client, and a client goes on when its evd goes.

use crate::parts::*;
use evd_client::{Event, EventBase, LinkState, What};
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::rc::Rc;

/// Echoes what comes on one connection, and tells of its link, and when all is parked after that or an echo, until the connection ends.
pub fn echo(socket: &Path, _args: &[&str]) {
    let base = base(socket, "echo");
    let (done, news) = (Flag::default(), Flag::default());
    news.set(true);
    let of = Rc::clone(&news);
    base.on_link(move |_, state| {
        of.set(true);
        say(match state {
            LinkState::Up { .. } => "up",
            LinkState::Away { .. } => "away",
            _ => "local",
        });
    });
    let listener = listener();
    say(port(&listener));
    let (stream, _) = listener.accept().unwrap();
    let _event = echoes(&base, stream, Rc::clone(&done), Rc::clone(&news));
    serve(&base, || {
        if news.get() && base.watches() == (1, 0) {
            news.set(false);
            say("parked");
        }
        done.get()
    });
    say("done");
}

type Flag = Rc<Cell<bool>>;

/// An event that echoes, added.
fn echoes(base: &EventBase, stream: TcpStream, done: Flag, news: Flag) -> Event<TcpStream> {
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
    let event = Event::new(base, stream, What::READ | What::PERSIST, move |event, _| {
        let mut buf = [0; 256];
        match event.source().read(&mut buf) {
            Ok(0) => {
                done.set(true);
                event.del().unwrap();
            }
            Ok(n) => {
                event.source().write_all(&buf[..n]).unwrap();
                news.set(true);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("{e}"),
        }
    });
    let event = event.unwrap();
    event.add(None).unwrap();
    event
}

#[track_caller]
pub fn answers(to: &mut TcpStream, text: &[u8]) {
    to.write_all(text).unwrap();
    let mut got = vec![0; text.len()];
    to.read_exact(&mut got).unwrap();
    assert_eq!(got, text);
}

#[test]
fn a_parked_connection_wakes_its_client_and_evctl_shows_it() {
    let evd = Evd::start();
    let client = Process::start("echo", evd.socket(), &[]);
    let mut peer = dial(&client.line());
    client.says("parked");
    let status = evctl(evd.socket(), &["status", "--json"]);
    assert!(status.contains("\"echo\""), "{status}");
    let events = evctl(evd.socket(), &["events", "--base", "echo"]);
    assert!(events.contains("parked") && events.contains("READ"), "{events}");
    for _ in 0..3 {
        answers(&mut peer, b"hello");
        client.says("parked");
    }
    // Its peer's end is an event like any other.
    drop(peer);
    client.says("done");
    client.ends();
    eventually("its base is gone", || !evctl(evd.socket(), &["bases"]).contains("echo"));
}

#[test]
fn a_client_goes_on_without_evd_and_parks_again_with_the_next_one() {
    let mut evd = Evd::start();
    let client = Process::start("echo", evd.socket(), &[]);
    let mut peer = dial(&client.line());
    client.says("parked");
    for _ in 0..2 {
        evd.kill();
        client.says("away");
        answers(&mut peer, b"alone");
        evd.start_again();
        client.says("up");
        client.says("parked");
        answers(&mut peer, b"together");
        client.says("parked");
    }
    drop(peer);
    client.says("done");
    client.ends();
}

#[test]
fn many_clients_at_once_are_served_and_leave_nothing_behind_when_they_are_killed() {
    let evd = Evd::start();
    let mut clients: Vec<_> = (0..12).map(|_| Process::start("echo", evd.socket(), &[])).collect();
    let mut peers: Vec<_> = clients.iter().map(|c| dial(&c.line())).collect();
    clients.iter().for_each(|c| c.says("parked"));
    peers.iter_mut().for_each(|p| answers(p, b"here"));
    let (dead, alive) = clients.split_at_mut(6);
    dead.iter_mut().for_each(Process::kill);
    eventually("evd has noticed", || evctl(evd.socket(), &["bases"]).matches("echo").count() == 6);
    // What they had parked is closed with them: nobody else has their ends.
    for peer in &mut peers[..6] {
        let end = peer.read(&mut [0]);
        assert!(matches!(&end, Ok(0)) || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    }
    peers[6..].iter_mut().for_each(|p| answers(p, b"still"));
    drop(peers);
    alive.iter().for_each(|c| c.comes_to("done"));
}

/// Subscribes to a name, and tells when it is triggered.
pub fn named(socket: &Path, args: &[&str]) {
    let base = base(socket, "named");
    let event = Event::named(&base, args[0], |_, _| say("triggered")).unwrap();
    event.add(None).unwrap();
    insist(|| base.sync()).unwrap();
    say("subscribed");
    let (handle, of) = (base.handle(), base.clone());
    std::thread::spawn(move || {
        while !hear().is_empty() {}
        handle.loopbreak();
    });
    of.dispatch().unwrap();
}

#[test]
fn a_name_that_is_triggered_wakes_who_subscribed_to_it() {
    let evd = Evd::start();
    let clients = [0, 1].map(|_| Process::start("named", evd.socket(), &["web:reload"]));
    clients.iter().for_each(|c| c.says("subscribed"));
    for _ in 0..3 {
        evctl(evd.socket(), &["trigger", "web:reload"]);
        clients.iter().for_each(|c| c.says("triggered"));
    }
    clients.into_iter().for_each(Process::ends);
    eventually("nobody is subscribed", || {
        let out = evctl_output(evd.socket(), &["trigger", "web:reload"]);
        out.status.code() == Some(1)
    });
}

/// An evd on threads of this process.
pub fn host(socket: &Path, _args: &[&str]) {
    let evd = evd::Daemon::builder().socket(socket).spawn().unwrap();
    say("there");
    hear();
    evd.stop().unwrap();
    say("stopped");
}

#[test]
fn an_evd_that_is_told_to_stop_says_goodbye_and_leaves_its_place() {
    let at = Place::new();
    let mut host = Process::start("host", &at.0, &[]);
    host.says("there");
    let client = Process::start("echo", &at.0, &[]);
    let mut peer = dial(&client.line());
    client.says("parked");
    host.tell("stop");
    client.says("away");
    host.says("stopped");
    answers(&mut peer, b"alone");
    assert_eq!(evctl_output(&at.0, &["status"]).status.code(), Some(3), "nobody is there");
    // Another process takes the place, and the client finds it.
    let second = Process::start("host", &at.0, &[]);
    second.says("there");
    client.says("up");
    client.says("parked");
    answers(&mut peer, b"together");
}

#[test]
fn a_second_evd_at_one_place_is_refused() {
    let evd = Evd::start();
    let out = command(evd.socket()).output().unwrap();
    assert_eq!(out.status.code(), Some(75));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("another evd serves"), "{text}");
    evctl(evd.socket(), &["status"]);
}
