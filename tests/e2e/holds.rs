//! Fds that evd holds beyond their owner's life.

use crate::os;
use crate::parts::*;
use crate::role::{Process, hear, say};
use crate::wire::{PATIENCE, eventually};
use evd_client::hold::take_or;
use evd_client::{Error, Event, EventBase, HoldInfo, Refused, ToHold, What};
use evd_proto::reply::Code;
use evd_proto::sys::{self, FileKind};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Refused {
    match result {
        Err(Error::Refused(why)) => *why,
        other => panic!("not refused: {other:?}"),
    }
}

fn held(base: &EventBase, name: &str) -> Option<HoldInfo> {
    base.list_held().unwrap().into_iter().find(|h| h.name == name)
}

fn visit(port: u16) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn send(visitor: &BufReader<TcpStream>, line: &str) {
    visitor.get_ref().write_all(line.as_bytes()).unwrap();
}

fn answers(visitor: &mut BufReader<TcpStream>, line: &str) {
    let mut got = String::new();
    visitor.read_line(&mut got).expect("an answer");
    assert_eq!(got, line);
}

#[test]
fn a_successor_goes_on_talking_on_the_connections_of_a_killed_server() {
    let evd = evd();
    let base = base(&evd);
    let mut server = Process::start("heir", &evd.path(), &[]);
    let port: u16 = server.line().parse().unwrap();
    let mut first = visit(port);
    send(&first, "a\n");
    answers(&mut first, "1 a\n");
    let mut others = Vec::new();
    for round in 0..3 {
        let ready = |name: &str| held(&base, name).unwrap().ready.contains(What::READ);
        assert!(!ready("heir:listener") && !ready("heir:0"), "all is read");
        let pid = server.pid();
        assert_eq!(held(&base, "heir:0").unwrap().pid, pid);
        server.kill();
        // Nobody serves them: evd keeps them open, and shows that there is something to do.
        send(&first, "b\n");
        send(&first, "c\n");
        others.push(visit(port));
        send(others.last().unwrap(), "new\n");
        eventually("it shows what can be read", || ready("heir:listener") && ready("heir:0"));
        let info = held(&base, "heir:0").unwrap();
        assert_eq!((info.kind, info.giver.as_str(), info.left), (FileKind::Socket, "heir", 0));

        server = Process::start("heir", &evd.path(), &[]);
        assert_eq!(server.line().parse::<u16>().unwrap(), port);
        answers(&mut first, &format!("{} b\n", 2 * round + 2));
        answers(&mut first, &format!("{} c\n", 2 * round + 3));
        for (i, other) in others.iter_mut().enumerate() {
            if i < round {
                send(other, "again\n");
                answers(other, &format!("{} again\n", round - i + 1));
            } else {
                answers(other, "1 new\n");
            }
        }
    }
    server.tell("leave");
    server.ends();
    assert_eq!(base.list_held().unwrap().len(), 5, "who leaves in order leaves them held, too");
    for one in base.list_held().unwrap() {
        base.drop_held(&one.name).unwrap();
    }
    others.push(first);
    others.into_iter().for_each(|o| sees_end(o.into_inner()));
}

/// A role: answers each line with its number in its connection. Listener and connections are held, with the number of lines answered.
pub fn heir(socket: &Path, _: &[&str]) {
    let base = base_at(socket, "heir");
    let listener = match base.take_copy("heir:listener") {
        Ok(held) => {
            assert_eq!(held.attachment, b"listening");
            TcpListener::from(held.fd)
        }
        Err(e) => {
            assert_eq!(refused::<()>(Err(e)).code, Code::Unknown);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            base.hold("heir:listener", &listener, b"listening", None).unwrap();
            listener
        }
    };
    let held = base.list_held().unwrap();
    let connections: Vec<&str> = held.iter().map(|h| &*h.name).filter(|n| *n != "heir:listener").collect();
    for name in &connections {
        let held = base.take_copy(name).unwrap();
        let lines = String::from_utf8(held.attachment).unwrap().parse().unwrap();
        answer(&base, name, held.fd.into(), lines);
    }
    let (port, next) = (listener.local_addr().unwrap().port(), Cell::new(connections.len()));
    let accept = Event::new(&base, listener, READ, move |event, _| {
        while let Ok((stream, _)) = event.source().accept() {
            stream.set_nonblocking(true).unwrap();
            let name = format!("heir:{}", next.get());
            next.set(next.get() + 1);
            event.base().hold(&name, &stream, b"0", None).unwrap();
            answer(&event.base(), &name, stream, 0);
        }
    })
    .unwrap();
    accept.add(None).unwrap();
    say(port);
    let handle = base.handle();
    std::thread::spawn(move || {
        assert_eq!(hear(), "leave");
        handle.loopexit();
    });
    base.dispatch().unwrap();
}

fn answer(base: &EventBase, name: &str, stream: TcpStream, mut lines: usize) {
    let name = name.to_owned();
    let event = Event::new(base, stream, READ, move |event, _| {
        let mut buf = [0; 1000];
        let n = event.source().read(&mut buf).unwrap();
        assert!(n > 0, "the visitor has left");
        for line in buf[..n].split_inclusive(|b| *b == b'\n') {
            lines += 1;
            let text = String::from_utf8(line.to_vec()).unwrap();
            // First what a successor must know.
            event.base().hold_anew(&name, event.source(), lines.to_string().as_bytes(), None).unwrap();
            event.source().write_all(format!("{lines} {text}").as_bytes()).unwrap();
        }
    })
    .unwrap();
    event.add(None).unwrap();
    event.detach();
}

#[test]
fn a_hold_with_a_time_to_live_ends_with_it_and_not_before() {
    let evd = evd();
    let base = base(&evd);
    base.sync().unwrap();
    let fds = evd.fds();
    let (mut peers, start, ttl) = (Vec::new(), Instant::now(), 100 * MS);
    for name in ["ends", "replaced", "taken"] {
        let (near, far) = pair();
        base.hold(name, &near, b"", Some(ttl)).unwrap();
        assert!(held(&base, name).unwrap().left <= ttl.as_nanos() as u64);
        peers.push(far);
    }
    // What replaces it has its own time, and what is taken has none any more.
    let (stays, mut stays_far) = pair();
    base.hold_anew("replaced", &stays, b"", None).unwrap();
    drop(stays);
    let taken = base.take("taken").unwrap();
    assert!(taken.ttl.unwrap() <= ttl);
    sees_end(&peers[1]);
    sees_end(&peers[0]);
    assert!(start.elapsed() >= ttl);
    assert_eq!(refused(base.take("ends")).code, Code::Unknown);
    let left = held(&base, "replaced").unwrap();
    assert_eq!((left.left, base.list_held().unwrap().len()), (0, 1));
    stays_far.write_all(b"x").unwrap();
    UnixStream::from(base.take("replaced").unwrap().fd).read_exact(&mut [0]).unwrap();
    (&peers[2]).write_all(b"x").unwrap();
    UnixStream::from(taken.fd).read_exact(&mut [0]).unwrap();
    eventually("evd has let all of them go", || evd.fds() == fds);
}

#[test]
fn what_can_not_be_held_or_taken_is_said_and_evd_goes_on() {
    sys::raise_open_files().unwrap();
    let evd = evd();
    let base = base(&evd);
    let link = base.link();
    let limit = evd.client("asks").welcome.unwrap().limits.attachment as usize;
    let (near, mut far) = pair();
    base.hold("full", &near, &vec![7; limit], None).unwrap();
    assert_eq!(base.take_copy("full").unwrap().attachment, vec![7; limit]);

    let why = refused(base.hold("too:long", &near, &vec![7; limit + 1], None));
    assert_eq!((why.code, why.limit, why.value), (Code::Limit, limit as u64, limit as u64 + 1));
    for much in [70_000, 200_000, 10_000_000] {
        let error = base.hold("too:long", &near, &vec![7; much], None).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&limit.to_string()), "{text}");
        assert!(matches!(error, Error::Refused(r) if r.code == Code::Limit), "{text}");
    }
    let exists = refused(base.hold("full", &near, b"", None));
    assert_eq!(exists.code, Code::Exists);
    assert!(exists.text.contains("full"), "{}", exists.text);
    assert_eq!(base.take_copy("full").unwrap().attachment.len(), limit, "it is as it was");
    for result in [base.take("no:such"), base.take_copy("no:such")] {
        let why = refused(result);
        assert!(why.code == Code::Unknown && why.text.contains("no:such"), "{why:?}");
    }
    assert_eq!(refused(base.drop_held("no:such")).code, Code::Unknown);
    for bad in ["", "a b", "a/b", &"x".repeat(65)] {
        assert!(matches!(base.hold(bad, &near, b"", None), Err(Error::BadName(_))), "{bad:?}");
        assert!(matches!(base.take(bad), Err(Error::BadName(_))), "{bad:?}");
    }
    assert!(base.hold("bad", os::bad_fd(), b"", None).is_err());

    let mut many = 0;
    let why = loop {
        many += 1;
        match base.hold(&format!("many:{many}"), &near, b"", None) {
            Ok(()) => {}
            result => break refused(result),
        }
    };
    // A share of what evd may open, which is as much as we may.
    let whole = sys::open_files().0 / 8 * 3;
    let most = (whole - whole / 16).min(16_384);
    assert_eq!((why.code, why.limit, why.value), (Code::Limit, most, many));
    assert!(why.text.contains(&most.to_string()), "{}", why.text);
    assert_eq!(base.list_held().unwrap().len() as u64, most);
    base.drop_held("many:1").unwrap();
    base.hold("one:more", &near, b"", None).unwrap();

    let (_event, got) = reader(&base, near);
    park(&base, 1);
    far.write_all(b"x").unwrap();
    until(&base, "events come as before", || got.get() == 1);
    assert_eq!(base.link(), link);
}

#[test]
fn thousands_of_connections_go_in_and_come_back_in_batches() {
    sys::raise_open_files().unwrap();
    let evd = evd();
    let base = base(&evd);
    let count = 5000;
    let pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().unwrap()).collect();
    let names: Vec<String> = (0..count).map(|n| format!("c:{n:04}")).collect();
    let long = vec![9; 60_000];
    let attached = |n: usize| if n == 1234 { &long[..] } else { names[n].as_bytes() };
    let to_hold = |n: usize| ToHold {
        name: &names[n],
        fd: pairs[n].1.as_fd(),
        attachment: attached(n),
        ttl: Some(Duration::from_secs(600)),
    };
    let mut best = (Duration::MAX, Duration::MAX);
    for round in 0..5 {
        let start = Instant::now();
        base.hold_all((0..count).map(to_hold), false).unwrap();
        best.0 = best.0.min(start.elapsed());
        assert_eq!(refused(base.hold_all([to_hold(7)], false)).code, Code::Exists);
        let ready = [4321, 17];
        ready.iter().for_each(|n| (&pairs[*n].0).write_all(b"x").unwrap());
        let mut came = Vec::new();
        let start = Instant::now();
        let taken = base.take_all("c:", |name, held| came.push((name, held))).unwrap();
        best.1 = best.1.min(start.elapsed());
        assert_eq!((taken, came.len()), (count, count));
        assert_eq!(
            (came[0].0.as_str(), came[1].0.as_str()),
            ("c:0017", "c:4321"),
            "what can be read is first"
        );
        for (name, held) in came {
            let n: usize = name[2..].parse().unwrap();
            assert!(held.attachment == attached(n) && held.ttl.is_some(), "{name}");
            if ready.contains(&n) {
                UnixStream::from(held.fd).read_exact(&mut [0]).unwrap();
            }
        }
        assert_eq!(base.list_held().unwrap().len(), 0, "round {round}");
    }
    println!("{count} held in {:?}, back in {:?}", best.0, best.1);
    assert!(matches!(base.hold_all([ToHold { name: "a b", ..to_hold(0) }], true), Err(Error::BadName(_))));
    assert_eq!(base.take_all("", |_, _| panic!("nothing is held")).unwrap(), 0);
}

#[test]
fn one_line_makes_a_listener_outlive_its_server() {
    let evd = evd();
    let base = base(&evd);
    let server = Process::start("lasting", &evd.path(), &[]);
    let port: u16 = server.line().parse().unwrap();
    server.kill();
    // Nobody serves: it waits in the backlog.
    let mut visitor = visit(port);
    let mut server = Process::start("lasting", &evd.path(), &[]);
    assert_eq!(server.line().parse::<u16>().unwrap(), port);
    answers(&mut visitor, "welcome\n");
    assert!(held(&base, "lasting:443").is_some(), "evd goes on holding it");
    server.tell("leave");
    server.ends();
    // Those who start at once have one listener.
    base.drop_held("lasting:443").unwrap();
    let mut servers: Vec<Process> = (0..6).map(|_| Process::start("lasting", &evd.path(), &[])).collect();
    let mut ports: Vec<String> = servers.iter().map(Process::line).collect();
    ports.dedup();
    assert_eq!(ports.len(), 1, "{ports:?}");
    servers.iter_mut().for_each(|server| server.tell("leave"));
    servers.into_iter().for_each(|server| server.ends());
    // Without evd it is just made.
    let mut alone = Process::start("lasting", Path::new("/nowhere"), &[]);
    assert_ne!(alone.line().parse::<u16>().unwrap(), port);
    alone.tell("leave");
    alone.ends();
}

/// A role: a server whose listener is made or taken over by one line.
pub fn lasting(socket: &Path, _: &[&str]) {
    // SAFETY: no other thread of this process reads or writes the environment.
    unsafe { std::env::set_var("EVD_SOCKET", socket) };
    let nameless: Result<UnixStream, String> = take_or("not a name", || Ok(pair().0));
    nameless.expect("it is just made");
    let failed: Result<UnixStream, String> = take_or("lasting:none", || Err("made in vain".to_owned()));
    assert_eq!(failed.unwrap_err(), "made in vain");
    let listener = take_or("lasting:443", || TcpListener::bind("127.0.0.1:0")).unwrap();
    say(listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"welcome\n").unwrap();
        }
    });
    assert_eq!(hear(), "leave");
}

#[test]
fn without_evd_nothing_is_held() {
    let base = EventBase::local().unwrap();
    let (near, _far) = pair();
    assert!(matches!(base.hold("x", &near, b"", None), Err(Error::NeedsEvd)));
    assert!(matches!(base.take("x"), Err(Error::NeedsEvd)));
    assert!(matches!(base.list_held(), Err(Error::NeedsEvd)));
}

#[test]
fn each_user_has_holds_and_names_of_its_own() {
    if sys::effective_ids().0 != 0 {
        println!("skipped: only root can be somebody else");
        return;
    }
    let evd = crate::wire::Evd::start_with(|c| {
        dies_with_us(c).args(["--allow-uid", "4711"]);
    });
    lets_others_in(&evd);
    let base = base(&evd);
    let (mine, mut far) = pair();
    base.hold("one", &mine, b"root's", None).unwrap();
    base.hold("root:only", &mine, b"", None).unwrap();
    let named = Event::named(&base, "hello", |_, _| panic!("somebody else's")).unwrap();
    named.add(None).unwrap();
    base.sync().unwrap();
    let mut other = Process::start_as(4711, "stranger", &evd.path());
    other.says("has its own");
    let names: Vec<String> = base.list_held().unwrap().into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["one", "root:only"]);
    let held = base.take("one").unwrap();
    assert_eq!(held.attachment, b"root's");
    far.write_all(b"x").unwrap();
    UnixStream::from(held.fd).read_exact(&mut [0]).unwrap();
    other.tell("look");
    other.says("it is still there");
    run_for(&base, 10 * MS);
    other.ends();
}

/// A role: another user, with the same names.
pub fn stranger(socket: &Path, _: &[&str]) {
    let base = base_at(socket, "stranger");
    assert!(base.list_held().unwrap().is_empty());
    assert_eq!(refused(base.take("one")).code, Code::Unknown);
    assert_eq!(refused(base.drop_held("root:only")).code, Code::Unknown);
    assert_eq!(refused(base.trigger("hello")).code, Code::Unknown);
    let (near, _far) = pair();
    base.hold("one", near.as_fd(), b"the stranger's", Some(Duration::from_secs(600))).unwrap();
    say("has its own");
    assert_eq!(hear(), "look");
    assert_eq!(base.take("one").unwrap().attachment, b"the stranger's");
    say("it is still there");
}
