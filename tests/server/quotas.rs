//! What users may have: each limit is said with its name and its value, what is used is counted, and when all are gone all is zero.

use crate::users::{as_user, is_root, let_in, socket_of_test};
use crate::wire::*;
use evd_proto::What;
use evd_proto::frame::Kind;
use evd_proto::reply::{AccountInfo, Code, Done, Refused, Resource, StatusPage, Use};
use evd_proto::request::{
    ArmWatch, Attach, Drop as DropHold, Events, Follow, Hold, LocalWatch, Report, Selector, Status,
    Subscribe, Unsubscribe,
};
use evd_proto::sys::{self, Wake};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

/// An evd with these limits.
fn evd_with(quotas: &str) -> Evd {
    Evd::start_with(|c| {
        c.args(["--quota", quotas]);
    })
}

fn accounts(control: &mut Raw) -> Vec<AccountInfo> {
    control.ask::<_, StatusPage>(&Status { after: 0 }).accounts
}

/// What this process's user uses of something.
fn mine(control: &mut Raw, what: Resource) -> Use {
    let own = sys::effective_ids().0;
    let all = accounts(control);
    let account = all.iter().find(|a| a.uid == own).expect("we are connected");
    *account.uses.iter().find(|u| u.what == what).unwrap()
}

fn sockets(n: usize) -> Vec<(UnixStream, UnixStream)> {
    (0..n).map(|_| UnixStream::pair().unwrap()).collect()
}

fn is_limit(refused: &Refused, what: Resource, limit: u64, value: u64) {
    assert_eq!((refused.code, refused.limit, refused.value), (Code::Limit, limit, value), "{}", refused.text);
    assert!(refused.text.contains(what.name()), "{}", refused.text);
}

fn arm_all(c: &mut Raw, pairs: &[(UnixStream, UnixStream)], seq: u32) -> u64 {
    let watches: Vec<_> = (0..pairs.len() as u32).map(|id| (id, seq, What::READ)).collect();
    let fds: Vec<_> = pairs.iter().map(|p| p.0.as_raw_fd()).collect();
    c.arm(&watches, &fds)
}

#[test]
fn watches_over_the_limit_are_refused_and_room_is_given_below_the_low_mark() {
    let evd = evd_with("watches=20");
    let mut control = evd.control();
    let mut c = evd.client("watches");
    let pairs = sockets(25);
    let serial = arm_all(&mut c, &pairs, 1);
    let refused = c.refused(serial);
    is_limit(&refused, Resource::Watches, 20, 20);
    assert_eq!(refused.ids, (20..25).map(|id| (id, 1)).collect::<Vec<_>>());
    assert!(c.sync().is_empty(), "one refusal for all");
    let used = mine(&mut control, Resource::Watches);
    assert_eq!((used.used, used.limit, used.refused > 0), (20, 20, true));
    // A watch that is armed may be armed again at the limit.
    c.arm(&[(0, 2, What::READ)], &[pairs[0].0.as_raw_fd()]);
    assert!(c.sync().is_empty());
    let mut other = evd.client("other");
    let serial = other.arm(&[(0, 1, What::READ)], &[pairs[24].0.as_raw_fd()]);
    is_limit(&other.refused(serial), Resource::Watches, 20, 20);
    let disarm = |c: &mut Raw, ids: &[u32]| {
        c.send(&evd_proto::request::Disarm { with_fd: vec![], ids: ids.to_vec() });
        assert!(c.sync().is_empty());
    };
    // What a session does not use any more is its own to use again, and given back when that is more than half.
    disarm(&mut c, &[0, 1, 2]);
    let again: Vec<_> = (0..3).map(|id| (id, 3, What::READ)).collect();
    c.arm(&again, &[0, 1, 2].map(|i: usize| pairs[i].0.as_raw_fd()));
    assert!(c.sync().is_empty());
    drop(c);
    eventually("its watches are gone", || mine(&mut control, Resource::Watches).used == 0);
    let serial = arm_all(&mut other, &pairs[..18], 2);
    other.sync();
    let serial = serial.max(other.arm(&[(18, 1, What::READ)], &[pairs[18].0.as_raw_fd()]));
    assert!(other.sync().is_empty(), "it was below the low mark: {serial}");
}

#[test]
fn entries_of_files_that_are_closed_are_not_counted_for_ever() {
    let evd = evd_with("entries=64");
    let mut c = evd.client("churn");
    for seq in 1..1000 {
        let (_near, far) = UnixStream::pair().unwrap();
        let serial = c.arm(&[(seq % 7, seq, What::READ)], &[far.as_raw_fd()]);
        // A child that another test has just forked may keep `far` open for a moment, and then it is told of the other end's close.
        let refused = c.sync().into_iter().find(|got| got.serial == serial);
        assert!(refused.is_none(), "{seq}: {:?}", refused.and_then(|got| got.refusal()));
    }
    // Those that stay open are: the kernel has them though their ids are used anew.
    let pairs = sockets(80);
    let mut refused = 0;
    for (seq, (near, _)) in (1000..).zip(&pairs) {
        let serial = c.arm(&[(0, seq, What::READ)], &[near.as_raw_fd()]);
        if let Some(got) = c.sync().iter().find(|got| got.serial == serial) {
            is_limit(&got.read(), Resource::Entries, 64, 64);
            refused += 1;
        }
    }
    assert!((10..=20).contains(&refused), "{refused}");
    drop(c);
    eventually("they are gone with it", || {
        evd.control().ask::<_, StatusPage>(&Status { after: 0 }).bases.is_empty()
    });
    evd.serves();
}

#[test]
fn every_limit_is_said_with_its_name_and_its_value() {
    let evd = evd_with("timers=3,names=2,holds=2,hold-bytes=100,copies=4,table-bytes=60000,threads=1");
    let mut control = evd.control();
    let mut c = evd.client("all");
    let far = sys::monotonic_ns() + 3_600_000_000_000;
    let serial = c.timers(&[(0, far), (1, far), (2, far), (3, far), (9, far)], &[]);
    let refused = c.refused(serial);
    is_limit(&refused, Resource::Timers, 3, 3);
    assert_eq!(refused.ids, [(3, 0), (9, 0)]);
    c.timers(&[(1, far + 1)], &[]);
    assert!(c.sync().is_empty(), "one that is set may be moved");

    for (id, name) in [(0, "a"), (1, "b")] {
        c.ask::<_, Done>(&Subscribe { id, name: name.into() });
    }
    let serial = c.send(&Subscribe { id: 2, name: "c".into() });
    is_limit(&c.refused(serial), Resource::Names, 2, 2);
    c.send(&Unsubscribe { id: 0 });
    c.send(&Unsubscribe { id: 1 });
    c.ask::<_, Done>(&Subscribe { id: 2, name: "c".into() });

    let (near, _far) = UnixStream::pair().unwrap();
    let mut hold = |name: &str, bytes: usize, replace| {
        let hold = Hold { name: name.into(), attachment: vec![7; bytes], ttl: 0, replace };
        let serial = c.send_fds(&hold, &[near.as_raw_fd()]);
        let got = c.answer(serial);
        (got.kind == Kind::Refused).then(|| got.read::<Refused>())
    };
    assert!(hold("one", 60, false).is_none());
    let over = hold("two", 60, false).unwrap();
    is_limit(&over, Resource::HoldBytes, 100, 60);
    assert!(
        over.text.ends_with("has 60 hold-bytes of at most 100, and 60 more are asked for"),
        "{}",
        over.text
    );
    assert!(hold("two", 40, false).is_none() && hold("two", 10, true).is_none());
    is_limit(&hold("three", 0, false).unwrap(), Resource::Holds, 2, 2);
    let used = [Resource::Holds, Resource::HoldBytes].map(|what| mine(&mut control, what).used);
    assert_eq!(used, [2, 70]);

    let wakes: Vec<Wake> = (0..6).map(|_| Wake::new().unwrap()).collect();
    let fds: Vec<_> = wakes.iter().map(|w| w.as_fd().as_raw_fd()).collect();
    let watches: Vec<_> = (0..6).map(|id| (id, 1, What::READ)).collect();
    let serial = c.arm_with(ArmWatch::KEEP, &watches, &fds);
    let refused = c.refused(serial);
    is_limit(&refused, Resource::Copies, 4, 4);
    assert_eq!(refused.ids.len(), 2);

    // Ids far apart cost memory: it is counted, and what is only shown is left out.
    let mut sparse = evd.client("sparse");
    let pairs = sockets(40);
    let watches: Vec<_> = (0..40).map(|i| (i * 1000, 1, What::READ)).collect();
    let fds: Vec<_> = pairs.iter().map(|p| p.0.as_raw_fd()).collect();
    let serial = sparse.arm(&watches, &fds);
    let refused = sparse.refused(serial);
    assert_eq!((refused.code, refused.limit), (Code::Limit, 60_000), "{}", refused.text);
    assert!(refused.text.contains("table-bytes") && refused.ids.len() > 10, "{refused:?}");
    let local = |i: u32| LocalWatch {
        id: i * 64,
        interest: What::READ,
        kind: sys::FileKind::Socket,
        ino: 1,
        fired: 1,
        ready: What::READ,
    };
    let labels = (0..500).map(|i| (i * 64, "x".repeat(60))).collect();
    sparse.send(&Report { local: (0..500).map(local).collect(), labels, ..Report::default() });
    assert!(sparse.sync().is_empty());
    assert!(mine(&mut control, Resource::Tables).used <= 60_000);

    drop(sparse);
    let _poll = Raw::hello(&evd.path(), "poll", "poll");
    let mut more = Raw::connect(&evd.path());
    more.send(&hello("more", "select"));
    assert!(more.is_ended_with(Code::Limit).contains("threads"));
    eventually("there is room", || mine(&mut control, Resource::Tables).used < 40_000);
    evd.serves();
}

#[test]
fn connections_over_the_limit_are_refused_at_once() {
    let evd = evd_with("connections=10");
    let mut all: Vec<Raw> = (0..9).map(|_| evd.client("many")).collect();
    all.push(evd.control());
    for _ in 0..5 {
        let mut more = Raw::connect(&evd.path());
        let text = more.is_ended_with(Code::Limit);
        assert!(text.contains("10 connections of at most 10"), "{text}");
    }
    let used = mine(&mut all[9], Resource::Connections);
    assert_eq!((used.used, used.limit, used.refused), (10, 10, 5));
    all.drain(..2);
    eventually("there is room", || {
        let mut one = Raw::connect(&evd.path());
        one.send(&hello("again", ""));
        one.next().kind == Kind::Welcome
    });
}

#[test]
fn who_is_refused_lets_nobody_wait_until_what_it_sent_has_lingered() {
    let evd = evd_with("connections=10");
    let mut control = evd.control();
    let _all: Vec<Raw> = (0..9).map(|_| evd.client("many")).collect();
    // More than may wait to be refused; each would take an hour to close.
    let (mut refused, mut receivers) = (Vec::new(), Vec::new());
    evd.signal(libc::SIGSTOP);
    for _ in 0..100 {
        let (_listener, never_reads, lingers) = lingering(3600);
        let socket = UnixStream::connect(evd.path()).unwrap();
        // In flight to it, also within what is in flight.
        let (inner, outer) = UnixStream::pair().unwrap();
        assert_eq!(sys::send(inner.as_fd(), b"x", &[lingers.as_raw_fd()]).unwrap(), 1);
        assert_eq!(sys::send(socket.as_fd(), b"x", &[lingers.as_raw_fd(), outer.as_raw_fd()]).unwrap(), 1);
        refused.push(socket);
        receivers.push(never_reads);
    }
    evd.signal(libc::SIGCONT);
    for socket in &mut refused {
        let mut said = Vec::new();
        // Reset: evd has not read what came.
        let _ = socket.read_to_end(&mut said);
        assert!(said.windows(11).any(|part| part == b"connections"), "{said:?}");
    }
    drop(refused);
    // Closed they are, and what was written comes, then the end.
    for mut receiver in receivers {
        receiver.set_nonblocking(false).unwrap();
        std::io::copy(&mut receiver, &mut std::io::sink()).unwrap();
    }
    let used = mine(&mut control, Resource::Connections);
    assert_eq!((used.used, used.refused), (10, 100));
    eventually("nobody closes any more", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", evd.pid())).unwrap();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
        tasks.filter_map(|task| name(task.unwrap()).ok()).all(|name| name.trim_end() != "evd-close")
    });
}

#[test]
fn the_memory_of_who_has_left_is_given_back() {
    let evd = Evd::start();
    let crowd = || {
        let label = |i: u32| (i, "x".repeat(60));
        let client = |i: usize| {
            let mut c = evd.client("labels");
            let labels = (0..500).map(|at| label(at * 8 + i as u32 % 8)).collect();
            c.send(&Report { labels, ..Report::default() });
            assert!(c.sync().is_empty());
            c
        };
        (0..150).map(client).collect::<Vec<Raw>>()
    };
    evd.serves();
    let few = 3 << 20;
    let start = evd.resident();
    let all = crowd();
    // What it has lies behind all of theirs.
    let _stays = crowd().pop();
    assert!(evd.resident() > start + few, "it was worth to be given back: {start}, {}", evd.resident());
    drop(all);
    eventually("it is given back", || evd.resident() < start + few / 3);
}

#[test]
fn answers_that_are_not_read_are_not_made() {
    let evd = evd_with("output-bytes=300000");
    let bases: Vec<Raw> = (0..50).map(|_| evd.client(&"n".repeat(64))).collect();
    let before = evd.resident();
    let mut control = evd.control();
    for i in 0..20_000 {
        control.send_unread(&Status { after: i % 2 });
    }
    let (mut pages, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let got = control.next();
        match got.kind {
            Kind::Refused => {
                let why: Refused = got.read();
                assert!(why.code == Code::Limit && why.limit > 0 && why.text.contains("read"), "{why:?}");
                refused += 1;
            }
            _ => pages += 1,
        }
    }
    assert!(pages > 3 && refused > 100, "{pages} pages, {refused} refusals");
    let grown = evd.resident().saturating_sub(before);
    assert!(grown < 12 << 20, "{grown} bytes more");
    let mut other = evd.control();
    eventually("nothing waits", || mine(&mut other, Resource::Output).used == 0);
    drop(bases);
}

#[test]
fn pieces_of_an_attachment_cost_only_their_bytes() {
    let evd = evd_with("hold-bytes=1000");
    let mut c = evd.client("pieces");
    let send = |c: &mut Raw, bytes: &[u8], n: u32| {
        for _ in 0..n {
            c.send_unread(&Attach { bytes: bytes.to_vec() });
        }
        c.sync();
    };
    send(&mut c, b"", 1000);
    let before = evd.resident();
    send(&mut c, b"", 300_000);
    let grown = evd.resident().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    // Those that have some are charged, until it is too much or the fd comes.
    let mut control = evd.control();
    let used = |control: &mut Raw| mine(control, Resource::HoldBytes).used;
    send(&mut c, b"x", 700);
    assert_eq!(used(&mut control), 700);
    send(&mut c, b"x", 700);
    assert_eq!(used(&mut control), 0, "it is not kept");
    let null = sys::reserve_fd().unwrap();
    let hold = Hold { name: "x".into(), attachment: vec![], ttl: 0, replace: true };
    let serial = c.send_fds(&hold, &[null.as_raw_fd()]);
    is_limit(&c.refused(serial), Resource::HoldBytes, 1000, 1000);
    send(&mut c, b"y", 70);
    let serial = c.send_fds(&hold, &[null.as_raw_fd()]);
    c.answer(serial).read::<Done>();
    assert_eq!(used(&mut control), 70);
    drop(c);
}

#[test]
fn following_again_and_again_is_one_following_and_there_are_not_many() {
    let evd = Evd::start();
    let bases: Vec<Raw> = (0..70).map(|_| evd.client("b")).collect();
    let mut c = evd.control();
    for _ in 0..100 {
        c.ask::<_, Done>(&Follow { base: Some(Selector::Id(bases[0].base())) });
    }
    let answers: Vec<Kind> = bases
        .iter()
        .map(|b| {
            let serial = c.send(&Follow { base: Some(Selector::Id(b.base())) });
            c.answer(serial).kind
        })
        .collect();
    assert!(
        answers[..64].iter().all(|k| *k == Kind::Done) && answers[64..].iter().all(|k| *k == Kind::Refused)
    );
    evd.serves();
}

#[test]
fn questions_to_a_worker_that_does_not_answer_are_few() {
    let evd = Evd::start_with(|c| {
        c.args(["--workers-per-uid", "2", "--quota", "requests=5"]);
    });
    let (one, other) = (evd.client("one"), evd.client("other"));
    let mut control = evd.control();
    for c in [&one, &other].iter().cycle().take(2000) {
        control.send_unread(&Events { base: Selector::Id(c.base()), from: (0, 0) });
    }
    let mut refused = 0;
    for _ in 0..2000 {
        let got = control.next();
        if got.kind == Kind::Refused {
            is_limit(&got.read(), Resource::Requests, 5, 5);
            refused += 1;
        }
    }
    assert!(refused > 0);
    eventually("none is open", || mine(&mut control, Resource::Requests).used == 0);
}

#[test]
fn when_all_are_gone_all_is_zero() {
    let evd = evd_with("watches=40");
    let pairs = sockets(50);
    for method in evd::backend::supported(false) {
        for round in 0..3 {
            let mut c = Raw::hello(&evd.path(), "busy", method);
            arm_all(&mut c, &pairs, 1);
            let now = sys::monotonic_ns();
            let timers: Vec<_> = (0..100).map(|i| (i, now + u64::from(i) * 1_000_000)).collect();
            c.timers(&timers, &[3, 4]);
            c.send(&Subscribe { id: 1, name: "x".into() });
            c.send(&Report { labels: vec![(5, "label".into())], ..Report::default() });
            let hold = Hold { name: "h".into(), attachment: vec![1; 9], ttl: 0, replace: true };
            c.send_fds(&hold, &[pairs[0].0.as_raw_fd()]);
            for p in &pairs[..30] {
                std::io::Write::write_all(&mut &p.1, b"x").unwrap();
            }
            if round > 0 {
                c.sync();
            }
        }
    }
    let mut control = evd.control();
    control.ask::<_, Done>(&DropHold { name: "h".into() });
    eventually("only we are left", || {
        let all = accounts(&mut control);
        let used: Vec<u64> = all[0].uses.iter().map(|u| u.used).collect();
        let even = all.len() == 1 && used[0] == 1 && used[1..].iter().all(|n| *n == 0);
        if !even {
            println!("{all:?}");
        }
        even
    });
    // As evctl shows it.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_evctl"))
        .args(["status", "--json", "--socket"])
        .arg(evd.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\"watches\": {\n        \"limit\": 40,\n        \"refused\": "), "{text}");
    drop(control);
    evd.signal(libc::SIGTERM);
    let mut evd = evd;
    assert!(evd.child.wait().unwrap().success(), "its books are even, or it would have said so");
}

/// Asks for copies of eventfds until there are none left; returns how many there were.
fn greedy(c: &mut Raw) -> usize {
    let wake = Wake::new().unwrap();
    let mut have = 0;
    for id in 0..500 {
        c.arm_with(ArmWatch::KEEP, &[(id, 1, What::READ)], &[wake.as_fd().as_raw_fd()]);
        match c.sync().first() {
            None => have += 1,
            Some(got) => {
                let why: Refused = got.read();
                assert!(why.code == Code::Limit && why.text.contains("copies"), "{why:?}");
                return have;
            }
        }
    }
    have
}

#[test]
#[ignore = "run by others, as another user"]
fn helper_takes_what_it_gets() {
    let mut c = Raw::hello(&socket_of_test(), "greedy", "");
    let have = greedy(&mut c);
    // 128 for all: three quarters for one of two.
    assert_eq!(have, 96);
    c.send(&Subscribe { id: 0, name: "full".into() });
    c.sync();
    // Until the other user has looked.
    while c.next_or_end().is_some() {}
}

#[test]
fn one_user_of_two_gets_three_quarters_and_the_other_most_of_the_rest() {
    if !is_root() {
        return;
    }
    let evd = Evd::start_with(|c| {
        c.args(["--allow-uid", "4711"]);
        limit_files(c, 256);
    });
    let_in(&evd);
    let mut mine = evd.client("mine");
    mine.sync();
    let mut control = evd.control();
    let helper = as_user(4711, "quotas::helper_takes_what_it_gets", &evd.path());
    eventually("the other has all it gets", || {
        let all = accounts(&mut control);
        let other = all.iter().find(|a| a.uid == 4711);
        other.is_some_and(|o| o.uses[Resource::Names as usize].used == 1)
    });
    assert_eq!(greedy(&mut mine), 24, "three quarters of the 32 that are left");
    drop((mine, control));
    evd.signal(libc::SIGTERM);
    assert!(helper.succeeded());
}
