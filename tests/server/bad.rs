//! What clients can do wrong, and what they are told.

use crate::wire::*;
use evd_proto::What;
use evd_proto::frame::{self, Kind};
use evd_proto::reply::{Code, Refused};
use evd_proto::request::{
    self as ask, Arm, ArmWatch, Disarm, Events, Follow, Hello, Hold, Selector, Status, Sync, Take, Trigger,
};
use evd_proto::sys;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

#[test]
fn a_client_of_another_version_is_told_ours() {
    let evd = Evd::start();
    for versions in [(7, 9), (0, 0)] {
        let mut c = Raw::connect(&evd.path());
        let serial = c.send(&Hello { versions, ..hello("future", "") });
        let refused: Refused = c.refused(serial);
        assert_eq!((refused.code, refused.limit, refused.value), (Code::Version, 1, 1), "{}", refused.text);
        assert!(c.next_or_end().is_none());
    }
    let mut c = Raw::connect(&evd.path());
    c.greet(&Hello { versions: (1, 9), ..hello("both", "") });
    assert_eq!(c.welcome.unwrap().version, 1);
    evd.serves();
}

#[test]
fn a_base_that_can_not_be_is_refused_with_what_could() {
    let evd = Evd::start();
    let avoid = |m: &str| Hello { avoid: vec![m.to_owned()], ..hello("a", m) };
    for (hello, word) in [
        (hello("a", "wepoll"), "epoll"),
        (avoid("epoll"), "avoided"),
        (Hello { require: 0x50, ..hello("a", "") }, "lacks 0x50, which is no feature"),
        (
            Hello { avoid: ["epoll", "poll", "select"].map(str::to_owned).to_vec(), ..hello("a", "") },
            "is avoided by",
        ),
    ] {
        let mut c = Raw::connect(&evd.path());
        c.send(&hello);
        let text = c.is_ended_with(Code::NoMethod);
        assert!(text.contains(word), "{text}");
    }
    let mut c = Raw::connect(&evd.path());
    c.send(&hello("no blanks", ""));
    assert!(c.is_ended_with(Code::BadName).contains("A-Z"));
    evd.serves();
}

/// What a client sends is shown to it and to whoever reads the log, but no more of it than a name can have: quotes are escaped there, and such an answer did not fit a frame and was none.
#[test]
fn a_name_that_is_none_is_answered_however_long_it_is() {
    let evd = Evd::start();
    let name = "\"".repeat(60_000);
    let mut control = evd.control();
    let by_name = || Selector::Name(name.clone());
    let serials = [
        control.send(&Trigger { name: name.clone() }),
        control.send(&Take { name: name.clone(), keep: false }),
        control.send(&ask::Drop { name: name.clone() }),
        control.send(&Events { base: by_name(), from: (0, 0) }),
        control.send(&Follow { base: Some(by_name()) }),
    ];
    for serial in serials {
        let refused = control.refused(serial);
        assert_eq!(refused.code, Code::BadName);
        assert!(refused.text.contains("A-Z") && refused.text.len() < 300, "{}", refused.text);
    }
    let mut c = Raw::connect(&evd.path());
    c.send(&hello("a", &name));
    let text = c.is_ended_with(Code::NoMethod);
    assert!(text.contains("epoll") && text.len() < 300, "{text}");
    evd.serves();
}

#[test]
fn the_first_frame_must_be_a_hello_without_fds() {
    let evd = Evd::start();
    let mut c = Raw::connect(&evd.path());
    c.send(&Sync {});
    assert!(c.is_ended_with(Code::Protocol).contains("Sync came first"));
    let mut c = Raw::connect(&evd.path());
    let mut first = Vec::new();
    frame::encode(&mut first, 0, 0, &hello("a", "")).unwrap();
    c.raw(&first, &[]);
    assert!(c.is_ended_with(Code::Protocol).contains("must increase"));
    let mut c = Raw::connect(&evd.path());
    let null = sys::reserve_fd().unwrap();
    c.send_fds(&hello("a", ""), &[null.as_raw_fd()]);
    assert!(c.is_ended_with(Code::Protocol).contains("Hello with this body takes 0 fds"));
    evd.serves();
}

#[test]
fn broken_streams_end_their_session_and_no_other() {
    let evd = Evd::start();
    let mut beside = evd.client("beside");
    let before = evd.fds();
    let hold = |serial| {
        let mut b = Vec::new();
        let hold = Hold { name: "x".into(), attachment: vec![], ttl: 0, replace: false };
        frame::encode(&mut b, serial, 0, &hold).unwrap();
        b
    };
    let body = |kind, bytes: &[u8]| [header(kind, bytes.len() as u32, 0, 0, 9), bytes.to_vec()].concat();
    let mut unknown = header(Kind::Sync, 0, 0, 0, 9);
    unknown[4] = 0x77;
    let mut trailing = header(Kind::Sync, 3, 0, 0, 9);
    trailing.extend_from_slice(b"xyz");
    let mut bomb = header(Kind::Disarm, 8, 0, 0, 9);
    bomb.extend_from_slice(&u64::MAX.to_le_bytes());
    let bad: [(&str, Vec<u8>, &str); 13] = [
        ("garbage", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "unknown kind"),
        ("an unknown kind", unknown, "unknown kind"),
        ("unknown flags", header(Kind::Sync, 0, 0, 4, 9), "unknown flags"),
        ("too long", header(Kind::Report, 70_000, 0, 0, 9), "65536"),
        ("too long for one with fds", header(Kind::Arm, 17_000, 1, 0, 9), "16368"),
        ("bytes behind the body", trailing, "3 bytes after"),
        ("a length bomb", bomb, "bytes or more are missing"),
        (
            "a string that is none",
            body(Kind::Drop, &[2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0x28]),
            "a string is not UTF-8",
        ),
        ("a bool of 2", body(Kind::DaemonSignal, &[10, 0, 0, 0, 2]), "a bool is 2, and not 0 or 1"),
        ("more fds than may be", header(Kind::Arm, 8, 254, 0, 9), "254 fds, at most 253"),
        ("a reply", header(Kind::Done, 0, 0, 0, 9), "Done is not a request"),
        ("fds that do not come", header(Kind::Sync, 0, 3, 0, 9), "3 fds, but 0"),
        ("a hold without its fd", hold(9), "1 fds, but 0"),
    ];
    for (what, bytes, word) in bad {
        let mut c = evd.client("bad");
        c.raw(&bytes, &[]);
        let text = c.is_ended_with(Code::Protocol);
        assert!(text.contains(word), "{what}: {text}");
        assert!(beside.sync().is_empty());
    }
    for serial in [0, 1, 5] {
        let mut c = evd.client("bad");
        c.raw(&header(Kind::Sync, 0, 0, 0, 5), &[]);
        assert_eq!(c.next().serial, 5);
        c.raw(&header(Kind::Sync, 0, 0, 0, serial), &[]);
        assert!(c.is_ended_with(Code::Protocol).contains("must increase"));
    }
    let mut c = evd.client("twice");
    c.send(&hello("twice", ""));
    assert!(c.is_ended_with(Code::Protocol).contains("Hello is not allowed"));
    eventually("its fds are back", || evd.fds() == before);
    evd.serves();
}

/// What comes in one piece with the Hello is looked at before there is a session.
#[test]
fn the_log_names_who_broke_the_stream_at_once() {
    let dir = Dir::new();
    let log = dir.0.join("log");
    let evd = Evd::start_with(|c| {
        c.env("EVD_LOG_LEVEL", "info").stderr(std::fs::File::create(&log).unwrap());
    });
    let mut both = Vec::new();
    frame::encode(&mut both, 1, 0, &hello("early", "")).unwrap();
    both.extend_from_slice(&[header(Kind::Sync, 1, 0, 0, 2), vec![0]].concat());
    let mut c = Raw::connect(&evd.path());
    c.raw(&both, &[]);
    assert_eq!(c.next().kind, Kind::Welcome);
    c.is_ended_with(Code::Protocol);
    let line = format!("refused early (process {}) of user ", std::process::id());
    eventually("it is logged", || std::fs::read_to_string(&log).unwrap().contains(&line));
}

#[test]
fn fds_must_be_as_many_as_announced() {
    let evd = Evd::start();
    let before = evd.fds();
    let null = sys::reserve_fd().unwrap();
    let two = [null.as_raw_fd(); 2];
    let mut c = evd.client("more");
    c.raw(&header(Kind::Sync, 0, 1, 0, 9), &two);
    assert!(c.is_ended_with(Code::Protocol).contains("1 fds, but 2"));
    // The frame's own number is right, but its body speaks of another one.
    let mut c = evd.client("body");
    c.arm(&[(0, 1, What::READ)], &two);
    assert!(c.is_ended_with(Code::Protocol).contains("Arm with this body takes 1 fds, but 2"));
    let mut c = evd.client("sync");
    c.raw(&header(Kind::Sync, 0, 2, 0, 9), &two);
    assert!(c.is_ended_with(Code::Protocol).contains("0 fds, but 2"));
    eventually("its fds are back", || evd.fds() == before);
    evd.serves();
}

#[test]
fn a_frame_that_is_cut_at_any_byte_has_no_effect() {
    let evd = Evd::start();
    let before = evd.fds();
    let mut whole = Vec::new();
    frame::encode(&mut whole, 1, 0, &hello("cut", "")).unwrap();
    for n in 0..whole.len() {
        let mut c = Raw::connect(&evd.path());
        c.raw(&whole[..n], &[]);
    }
    let (_near, far) = UnixStream::pair().unwrap();
    let mut arm = Vec::new();
    let watch = ArmWatch { id: 0, seq: 1, interest: What::READ, flags: ArmWatch::KEEP };
    frame::encode(&mut arm, 2, 1, &Arm { watches: vec![watch] }).unwrap();
    for n in 1..arm.len() {
        let mut c = evd.client("cut");
        c.raw(&arm[..n], &[far.as_raw_fd()]);
    }
    eventually("its fds are back", || evd.fds() == before);
    evd.serves();
}

#[test]
fn frames_may_come_byte_by_byte_and_all_at_once() {
    let evd = Evd::start();
    let mut all = Vec::new();
    frame::encode(&mut all, 1, 0, &hello("split", "")).unwrap();
    for serial in 2..20 {
        frame::encode(&mut all, serial, 0, &Sync {}).unwrap();
    }
    let mut whole = Raw::connect(&evd.path());
    whole.raw(&all, &[]);
    let mut split = Raw::connect(&evd.path());
    for b in &all {
        split.raw(&[*b], &[]);
    }
    for c in [&mut whole, &mut split] {
        for serial in 1..20 {
            assert_eq!(c.next().serial, serial);
        }
    }
}

#[test]
fn ids_and_flags_that_can_not_be_are_refused_one_by_one() {
    let evd = Evd::start();
    let mut c = evd.client("ids");
    let limit = c.welcome.as_ref().unwrap().limits.watches;
    let (_near, far) = UnixStream::pair().unwrap();
    let fd = far.as_raw_fd();
    let serial = c.arm(&[(limit, 1, What::READ), (3, 1, What::WRITE), (u32::MAX, 2, What::READ)], &[fd; 3]);
    let first = c.refused(serial);
    assert_eq!((first.code, first.limit), (Code::Limit, u64::from(limit)));
    assert_eq!(first.ids, [(limit, 1)]);
    assert_eq!(c.refused(serial).ids, [(u32::MAX, 2)]);
    assert_eq!(c.active().watches[0].id, 3, "the others stand");
    for (flags, what) in [
        (0x40, What::READ),
        (0, What::empty()),
        (0, What::TIMEOUT | What::READ),
        (0, What::READ | What::ET),
        (0, What::SIGNAL),
    ] {
        let serial = c.arm_with(flags, &[(4, 1, what)], &[fd]);
        let refused = c.refused(serial);
        assert_eq!((refused.code, refused.ids.as_slice()), (Code::BadRequest, &[(4, 1)][..]));
    }
    let serial = c.arm(&[(3, 1, What::READ)], &[fd]);
    assert!(c.refused(serial).text.contains("not newer"));
    // What is wrong with one says nothing of the other.
    let serial = c.arm(&[(5, 1, What::TIMEOUT), (6, 1, What::empty()), (3, 1, What::READ)], &[fd; 3]);
    for (id, word) in
        [(5, "watch 5: TIMEOUT can't"), (6, "watch 6: nothing can't"), (3, "watch 3: seq 1 is not newer")]
    {
        let refused = c.refused(serial);
        assert!(refused.ids == [(id, 1)] && refused.text.contains(word), "{refused:?}");
    }
    c.send(&Disarm { with_fd: vec![], ids: vec![0, 77, limit, u32::MAX] });
    assert!(c.sync().is_empty(), "unknown ones are not an error");
    let serial = c.timers(&[(limit, 1), (0, u64::MAX)], &[5, u32::MAX]);
    assert_eq!(c.refused(serial).code, Code::Limit);
    evd.serves();
}

#[test]
fn files_that_can_not_be_watched_are_refused_with_the_reason() {
    let evd = Evd::start();
    let mut c = evd.client("files");
    let regular = std::fs::File::open(env!("CARGO_BIN_EXE_evd")).unwrap();
    let directory = std::fs::File::open("/").unwrap();
    let null = sys::reserve_fd().unwrap();
    for fd in [regular.as_fd(), directory.as_fd(), null.as_fd()] {
        let serial = c.arm(&[(1, 1, What::READ)], &[fd.as_raw_fd()]);
        let refused = c.refused(serial);
        assert_eq!((refused.code, refused.value), (Code::NotWatchable, libc::EPERM as u64));
        assert!(refused.text.contains("always ready"), "{}", refused.text);
    }
    // SAFETY: an empty set of signals is plain data.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a live signal set.
    unsafe { libc::sigemptyset(&mut set) };
    // SAFETY: as above; the result is a new fd, closed with the process.
    let signalfd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC) };
    let serial = c.arm_with(ArmWatch::KEEP, &[(1, 1, What::READ)], &[signalfd]);
    assert!(c.refused(serial).text.contains("signalfd"));
    // A closed fd can't even be sent.
    let (socket, _, out) = c.channel.split();
    let closed = out.send_with_fds(socket, 99, &Sync {}, &[1_000_000]).unwrap_err();
    assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
    assert!(c.sync().is_empty());
    evd.serves();
}

#[test]
fn each_role_has_its_requests() {
    let evd = Evd::start();
    let mut client = evd.client("client");
    let serial = client.send(&Status { after: 0 });
    assert_eq!(client.refused(serial).code, Code::NotAllowed);
    let mut control = evd.control();
    assert_eq!(control.base(), 0);
    let null = sys::reserve_fd().unwrap();
    let serial = control.arm(&[(0, 1, What::READ)], &[null.as_raw_fd()]);
    assert_eq!(control.refused(serial).code, Code::NotAllowed);
    let serial = control.send(&Take { name: "nothing".into(), keep: false });
    assert_eq!(control.refused(serial).code, Code::Unknown);
    evd.serves();
}
