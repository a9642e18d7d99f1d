//! Sockets that are passed to evd, outlive the process that had them, and are taken by another.

use crate::parts::*;
use evd_client::Error;
use evd_proto::reply::Code;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// Serves one connection after the other on a listener that outlives it: answers with its word to whatever comes.
pub fn server(socket: &Path, args: &[&str]) {
    // As `hold::take_or`, which goes on without evd if it does not answer in two seconds.
    let base = base(socket, "server");
    let listener = match insist(|| base.take_copy("apart:web")) {
        Ok(held) => TcpListener::from(held.fd),
        Err(Error::Refused(why)) if why.code == Code::Unknown => {
            let made = listener();
            insist(|| base.hold_anew("apart:web", &made, b"", None)).unwrap();
            made
        }
        Err(e) => panic!("{e}"),
    };
    listener.set_nonblocking(false).unwrap();
    say(port(&listener));
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nonblocking(false).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(args[0].as_bytes()).unwrap();
        say("served");
    }
}

/// Holds a connection, or takes it and writes to it.
pub fn taker(socket: &Path, args: &[&str]) {
    let base = base(socket, "taker");
    match args {
        ["hold", port] => {
            let stream = dial(port);
            insist(|| base.hold_anew("apart:conn", &stream, b"state of it", None)).unwrap();
            say("held");
            hear();
        }
        ["take"] => {
            let held = base.take("apart:conn").unwrap();
            assert_eq!(held.attachment, b"state of it");
            let mut stream = TcpStream::from(held.fd);
            stream.set_nonblocking(false).unwrap();
            stream.write_all(b"successor").unwrap();
            insist(|| base.sync()).unwrap();
            assert!(base.take("apart:conn").is_err(), "it is held no longer");
            say("taken");
        }
        other => panic!("{other:?}"),
    }
}

fn asks(port: &str) -> String {
    let mut stream = dial(port);
    stream.write_all(b"?").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_listener_outlives_its_server_and_who_came_in_between_is_served_by_the_next() {
    let evd = Evd::start();
    let mut first = Process::start("server", evd.socket(), &["first"]);
    let at = first.line();
    assert_eq!(asks(&at), "first");
    first.says("served");
    first.kill();
    // Nobody accepts now, and nobody is refused: evd has the listener.
    let mut waiting = dial(&at);
    waiting.write_all(b"?").unwrap();
    let held = evctl(evd.socket(), &["fd", "ls"]);
    assert!(held.contains("apart:web"), "{held}");
    let mut second = Process::start("server", evd.socket(), &["second"]);
    second.says(&at);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "second");
    second.kill();
    evctl(evd.socket(), &["fd", "rm", "apart:web"]);
    // With the last one who has it the listener is closed.
    eventually("nobody listens", || TcpStream::connect(("127.0.0.1", at.parse().unwrap())).is_err());
}

#[test]
fn a_connection_changes_hands_and_its_peer_does_not_notice() {
    let evd = Evd::start();
    let listener = listener();
    let mut giver = Process::start("taker", evd.socket(), &["hold", &port(&listener).to_string()]);
    let (mut peer, _) = listener.accept().unwrap();
    giver.says("held");
    giver.kill();
    let taker = Process::start("taker", evd.socket(), &["take"]);
    taker.says("taken");
    taker.ends();
    let mut text = String::new();
    peer.read_to_string(&mut text).unwrap();
    assert_eq!(text, "successor", "and then the end: nobody else has it");
}

#[test]
fn holds_in_memory_end_with_evd_and_it_says_so() {
    let mut evd = Evd::start();
    let mut giver = Process::start("server", evd.socket(), &["x"]);
    giver.line();
    giver.kill();
    let status = evctl(evd.socket(), &["status"]);
    assert!(status.contains("they do not survive evd"), "{status}");
    assert!(evctl(evd.socket(), &["fd", "ls"]).contains("apart:web"));
    evd.kill();
    evd.start_again();
    assert!(!evctl(evd.socket(), &["fd", "ls"]).contains("apart:web"));
}
