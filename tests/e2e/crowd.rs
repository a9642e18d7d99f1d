//! Two hundred clients at once.

use crate::os;
use crate::parts::*;
use crate::role::{Process, hear, say};
use crate::wire::PATIENCE;
use evd_client::{Event, EventBase, Handle, LoopFlags};
use evd_proto::sys;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};

const PROCESSES: usize = 4;
const CLIENTS: usize = 50;
/// Bytes that are written to each file of a client, one at a time.
const BYTES: usize = 20;
/// Two sockets and a pipe for those, and a listener.
const WATCHES: usize = 4;

/// What a client's thread has to say.
enum Word {
    Ready { port: u16, handle: Handle, sockets: Vec<UnixStream>, pipe: File },
    GotAll,
}

#[test]
fn two_hundred_clients_at_once_get_all_their_events_and_leave_nothing() {
    let evd = evd();
    let fds = fds_at_rest(&evd);
    let start = |i: usize| Process::start("crowd", &evd.path(), &[&i.to_string()]);
    let mut processes: Vec<Process> = (0..PROCESSES).map(start).collect();
    let mut ports = Vec::new();
    for p in &processes {
        ports.extend((0..CLIENTS).map(|_| p.line().parse::<u16>().unwrap()));
    }
    let bases = status(&evd)["bases"].as_array().unwrap().clone();
    assert_eq!(bases.len(), PROCESSES * CLIENTS);
    assert!(bases.iter().all(|b| b["parked"] == WATCHES && b["names"].as_array().unwrap().len() == 1));

    let mut visitors: Vec<TcpStream> =
        ports.iter().map(|port| TcpStream::connect(("127.0.0.1", *port)).unwrap()).collect();
    processes.iter_mut().for_each(|p| p.tell("write"));
    for round in 0..3 {
        for v in &mut visitors {
            v.set_read_timeout(Some(PATIENCE)).unwrap();
            v.write_all(&[round]).unwrap();
        }
        for v in &mut visitors {
            let mut echo = [9];
            v.read_exact(&mut echo).expect("an echo");
            assert_eq!(echo, [round]);
        }
    }
    processes.iter().for_each(|p| p.says("got all"));
    let said = evctl(&evd.path(), &["trigger", "crowd"]);
    assert!(said.contains(&(PROCESSES * CLIENTS).to_string()), "{said}");
    processes.iter().for_each(|p| p.says("triggered"));
    processes.iter_mut().for_each(|p| p.tell("leave"));
    processes.into_iter().for_each(Process::ends);
    visitors.iter().for_each(sees_end);
    is_clean(&evd, fds);
}

/// A role: clients on threads of one process.
pub fn fifty_clients(socket: &Path, args: &[&str]) {
    sys::raise_open_files().unwrap();
    let (to, words) = channel();
    let threads: Vec<_> = (0..CLIENTS)
        .map(|i| {
            let (socket, name, to) = (socket.to_owned(), format!("crowd-{}-{i}", args[0]), to.clone());
            std::thread::spawn(move || client(&socket, &name, &to))
        })
        .collect();
    let (mut handles, mut files) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let Word::Ready { port, handle, sockets, pipe } = words.recv().unwrap() else { panic!("too early") };
        handles.push(handle);
        files.push((sockets, pipe));
        say(port);
    }
    assert_eq!(hear(), "write");
    for _ in 0..BYTES {
        for (sockets, pipe) in &mut files {
            sockets.iter_mut().for_each(|s| s.write_all(b"x").unwrap());
            pipe.write_all(b"x").unwrap();
        }
    }
    for said in ["got all", "triggered"] {
        for _ in 0..CLIENTS {
            assert!(matches!(words.recv().unwrap(), Word::GotAll));
        }
        say(said);
    }
    assert_eq!(hear(), "leave");
    handles.iter().for_each(Handle::loopexit);
    threads.into_iter().for_each(|t| t.join().unwrap());
}

fn client(socket: &Path, name: &str, to: &Sender<Word>) {
    let base = base_at(socket, name);
    let got = Count::default();
    let (near, far): (Vec<_>, Vec<_>) = [pair(), pair()].into_iter().unzip();
    let (r, w) = os::pipe();
    let mut events = Vec::new();
    for stream in near {
        let (got, to) = (Rc::clone(&got), to.clone());
        let event = Event::new(&base, stream, READ, move |event, _| counts(event.source(), &got, &to));
        events.push(event.unwrap());
    }
    let (sum, tell) = (Rc::clone(&got), to.clone());
    let pipe = Event::new(&base, r, READ, move |event, _| {
        let mut byte = [0];
        assert_eq!(event.source().read(&mut byte).unwrap(), 1);
        counted(1, &sum, &tell);
    })
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let accept = Event::new(&base, listener, READ, |event, _| {
        while let Ok((stream, _)) = event.source().accept() {
            echoes(&event.base(), stream);
        }
    })
    .unwrap();
    let tell = to.clone();
    let named = Event::named(&base, "crowd", move |_, _| tell.send(Word::GotAll).unwrap()).unwrap();
    events.iter().for_each(|e| e.add(None).unwrap());
    pipe.add(None).unwrap();
    accept.add(None).unwrap();
    named.add(None).unwrap();
    base.sync().unwrap();
    assert_eq!(base.watches(), (WATCHES, 0));
    to.send(Word::Ready { port, handle: base.handle(), sockets: far, pipe: w }).unwrap();
    base.loop_(LoopFlags::NO_EXIT_ON_EMPTY).unwrap();
}

fn counts(stream: &UnixStream, got: &Count, to: &Sender<Word>) {
    counted(drain(stream).0, got, to);
}

fn counted(n: usize, got: &Count, to: &Sender<Word>) {
    got.set(got.get() + n);
    if n > 0 && got.get() == 3 * BYTES {
        to.send(Word::GotAll).unwrap();
    }
}

fn echoes(base: &EventBase, stream: TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let event = Event::new(base, stream, READ, |event, _| {
        let mut buf = [0; 64];
        match event.source().read(&mut buf) {
            Ok(n) if n > 0 => event.source().write_all(&buf[..n]).unwrap(),
            _ => event.free().unwrap(),
        }
    })
    .unwrap();
    event.add(None).unwrap();
    event.detach();
}
