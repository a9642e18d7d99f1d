//! The bytes on the wire are those of `vectors.txt`, and `SPEC.md` lists every kind.
//!
//! The vectors were written from the specification, so that a change of a type, of a field's order or of the codec can't change the wire unseen.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use evd_proto::What;
use evd_proto::frame::{self, Body, HEADER, Kind};
use evd_proto::notice::*;
use evd_proto::reply::*;
use evd_proto::request::*;
use evd_proto::sys::FileKind;
use std::collections::BTreeMap;
use std::fmt::Debug;

const VECTORS: &str = include_str!("vectors.txt");
const SPEC: &str = include_str!("../SPEC.md");

/// The vectors that no value was compared with yet, and the kinds that were compared.
struct Table {
    left: BTreeMap<&'static str, Vec<u8>>,
    kinds: Vec<Kind>,
}

impl Table {
    fn read() -> Table {
        let mut left = BTreeMap::new();
        for line in VECTORS.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (name, hex) = line.split_once(' ').expect("a name and bytes");
            let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
            assert!(left.insert(name, bytes.collect()).is_none(), "{name} is there twice");
        }
        Table { left, kinds: Vec::new() }
    }

    /// The value encodes to the vector, and the vector decodes to the value.
    fn same<B: Body + PartialEq + Debug>(&mut self, name: &str, serial: u64, fds: usize, value: B) {
        let golden = self.left.remove(name).unwrap_or_else(|| panic!("no vector is named {name}"));
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, serial, fds, &value).unwrap();
        assert_eq!(bytes, golden, "{name} encodes to other bytes");
        let header = frame::header(&golden).unwrap().expect("a whole header");
        assert_eq!((header.kind, header.serial, header.fds), (B::KIND, serial, fds), "{name}");
        assert_eq!(HEADER + header.len, golden.len(), "{name}");
        assert_eq!(frame::body::<B>(header.kind, &golden[HEADER..]).unwrap(), value, "{name}");
        self.kinds.push(B::KIND);
    }
}

/// All kinds there are, found as a peer would find them.
fn all_kinds() -> Vec<Kind> {
    let known = |n: u16| {
        let mut header = [0; HEADER];
        header[4..6].copy_from_slice(&n.to_le_bytes());
        frame::header(&header).ok().flatten().map(|h| h.kind)
    };
    (0..=u16::MAX).filter_map(known).collect()
}

fn text(s: &str) -> String {
    s.to_owned()
}

#[test]
fn every_kind_has_the_bytes_of_its_vectors() {
    let mut table = Table::read();
    requests(&mut table);
    control_requests(&mut table);
    replies(&mut table);
    pages(&mut table);
    notices(&mut table);
    assert!(table.left.is_empty(), "vectors without a value: {:?}", table.left.keys());
    for kind in all_kinds() {
        assert!(table.kinds.contains(&kind), "no vector for {kind:?}");
    }
}

fn requests(t: &mut Table) {
    let hello = Hello {
        versions: (1, 1),
        features: 0,
        role: Role::Client,
        name: text("web:443"),
        method: String::new(),
        avoid: vec![],
        require: 0,
    };
    t.same("hello", 1, 0, hello);
    let hello = Hello {
        versions: (1, 0xfffe),
        features: u64::MAX,
        role: Role::Control,
        name: text("evctl"),
        method: text("epoll"),
        avoid: vec![text("poll"), text("select")],
        require: 7,
    };
    t.same("hello-control", 1, 0, hello);
    let first = ArmWatch { id: 0, seq: 1, interest: What::READ, flags: 0 };
    let both = ArmWatch::EDGE | ArmWatch::KEEP;
    let second = ArmWatch { id: 7, seq: u32::MAX, interest: What::IO, flags: both };
    t.same("arm", 2, 2, Arm { watches: vec![first, second] });
    t.same("arm-nothing", 3, 0, Arm { watches: vec![] });
    t.same("disarm", 4, 1, Disarm { with_fd: vec![5], ids: vec![0, u32::MAX] });
    let set = vec![SetTimer { id: 0, deadline: 0 }, SetTimer { id: 9, deadline: u64::MAX }];
    t.same("timers", 5, 0, Timers { set, cancel: vec![3] });
    t.same("subscribe", 6, 0, Subscribe { id: 2, name: text("reload") });
    t.same("unsubscribe", 7, 0, Unsubscribe { id: 2 });
    t.same("daemon-signal", 8, 0, DaemonSignal { signo: 10, on: true });
    t.same("daemon-signal-off", 9, 0, DaemonSignal { signo: -1, on: false });
    t.same("trigger", 10, 0, Trigger { name: text("reload") });
    let hold = Hold { name: text("listener"), attachment: vec![0, 0xff], ttl: 5_000_000_000, replace: true };
    t.same("hold", 11, 1, hold);
    t.same("hold-forever", 12, 1, Hold { name: text("a"), attachment: vec![], ttl: 0, replace: false });
    t.same("take", 13, 0, Take { name: text("listener"), keep: false });
    t.same("take-copy", 14, 0, Take { name: text("listener"), keep: true });
    let one = |name: &str, attachment: &[u8], ttl| HoldOne {
        name: text(name),
        attachment: attachment.to_vec(),
        ttl,
    };
    let holds = vec![one("a", &[0, 0xff], 5), one("b:1", &[], 0)];
    t.same("hold-all", 23, 2, HoldAll { holds, replace: true });
    t.same("take-all", 24, 0, TakeAll { prefix: text("web:") });
    t.same("taken-all", 25, 0, TakenAll { holds: vec![7, 0x0102_0304_0506_0708] });
    t.same("attach", 26, 0, Attach { bytes: vec![1, 2, 3] });
    let first = ArmHandle { id: 0, seq: 1, interest: What::READ, handle: 4 };
    let interest = What::READ | What::WRITE;
    let second = ArmHandle { id: 7, seq: u32::MAX, interest, handle: 0x7fff_fffc };
    t.same("arm-handles", 27, 0, ArmHandles { watches: vec![first, second] });
    t.same("taken", 15, 0, Taken { hold: 0x0102_0304_0506_0708 });
    t.same("list-holds", 16, 0, ListHolds { after: String::new() });
    t.same("list-holds-after", 17, 0, ListHolds { after: text("listener") });
    t.same("drop", 18, 0, Drop { name: text("listener") });
    t.same("sync", u64::MAX, 0, Sync {});
}

fn control_requests(t: &mut Table) {
    let report = Report {
        local: vec![
            LocalWatch {
                id: 1,
                interest: What::READ | What::ET,
                kind: FileKind::Socket,
                ino: 4711,
                fired: 3,
                ready: What::READ,
            },
            LocalWatch {
                id: 2,
                interest: What::WRITE,
                kind: FileKind::EventFd,
                ino: u64::MAX,
                fired: u32::MAX,
                ready: What::all(),
            },
        ],
        gone: vec![8],
        labels: vec![(1, text("grüße"))],
        signals: 1 << 2 | 1,
        callbacks: 100,
        wakeups: 50,
    };
    t.same("report", 19, 0, report);
    t.same("report-nothing", 20, 0, Report::default());
    t.same("status", 1, 0, Status { after: 0 });
    t.same("events-by-id", 2, 0, Events { base: Selector::Id(12), from: (0, 0) });
    t.same("events-by-name", 3, 0, Events { base: Selector::Name(text("web:443")), from: (3, u32::MAX) });
    t.same("follow-all", 4, 0, Follow { base: None });
    t.same("follow-one", 5, 0, Follow { base: Some(Selector::Name(text("web:443"))) });
}

fn replies(t: &mut Table) {
    let welcome = Welcome {
        version: 1,
        features: 0,
        base: 12,
        method: text("epoll"),
        method_features: 0x0f,
        pid: 100,
        tid: 101,
        now: 123_456_789,
        limits: Limits {
            watches: 65_536,
            timers: 1_000_000,
            names: 1024,
            fds_per_frame: 253,
            attachment: 4096,
        },
    };
    t.same("welcome", 1, 0, welcome);
    t.same("done", 6, 0, Done {});
    let refused = |code, limit, value, why: &str, ids: &[(u32, u32)]| Refused {
        code,
        limit,
        value,
        text: text(why),
        ids: ids.to_vec(),
    };
    let ids = [(7, 1), (0, u32::MAX)];
    t.same("refused", 2, 0, refused(Code::NotWatchable, 0, 1, "EPERM: a regular file", &ids));
    t.same("refused-version", 1, 0, refused(Code::Version, 1, 1, "", &[]));
    t.same("refused-system", u64::MAX, 0, refused(Code::System, u64::MAX, 24, "x", &[]));
    t.same("triggered", 10, 0, Triggered { reached: 3, queued: 1 });
    t.same("took", 13, 1, Took { hold: 1, attachment: vec![0, 0xff], ttl: 4_999_999_999 });
    let one = |hold, name: &str, attachment: &[u8], ttl| TookOne {
        hold,
        name: text(name),
        attachment: attachment.to_vec(),
        ttl,
    };
    let holds = vec![one(7, "web:1", &[0xff], 9), one(8, "web:2", &[], 0)];
    t.same("took-all", 24, 2, TookAll { holds, more: true });
    t.same("took-all-none", 24, 0, TookAll { holds: vec![], more: false });
    t.same("attached", 24, 0, Attached { bytes: vec![1, 2] });
    t.same("took-copy", 14, 1, Took { hold: 0, attachment: vec![], ttl: 0 });
    let hold = HoldInfo {
        name: text("listener"),
        kind: FileKind::Socket,
        ino: 4711,
        ready: What::READ,
        count: 3,
        attachment: 2,
        age: 1000,
        left: 0,
        pid: 100,
        giver: text("web:443"),
    };
    t.same("holds", 16, 0, Holds { holds: vec![hold], more: true });
    t.same("holds-none", 17, 0, Holds { holds: vec![], more: false });
}

fn pages(t: &mut Table) {
    let worker = WorkerInfo { id: 1, uid: 1000, tid: 101, method: text("epoll"), sessions: 2, busy: 0 };
    let base = BaseInfo {
        id: 12,
        name: text("web:443"),
        pid: 100,
        uid: 1000,
        worker: 1,
        age: 1_000_000_000,
        method: text("epoll"),
        features: 0x0f,
        parked: 5,
        local: 1,
        timers: 2,
        signals: 1 << 15,
        daemon_signals: 1 << 10,
        names: vec![text("reload")],
        activations: 99,
        per_second: 3,
        wakeups: 77,
        callbacks: 98,
        unread: 0,
    };
    let page = StatusPage {
        version: text("0.1.0"),
        protocol: 1,
        pid: 100,
        uid: 0,
        uptime: 10_000_000_000,
        methods: vec![text("epoll"), text("poll"), text("select")],
        workers: vec![worker],
        accounts: vec![AccountInfo {
            uid: 1000,
            uses: vec![Use { what: Resource::Output, used: 512, limit: 1_048_576, refused: 2 }],
        }],
        bases: vec![base],
        holds: 1,
        mortal: text("no service manager"),
        names: 2,
        more: false,
    };
    t.same("status-page", 1, 0, page);
    let page = StatusPage {
        version: String::new(),
        protocol: 0,
        pid: i32::MIN,
        uid: u32::MAX,
        uptime: 0,
        methods: vec![],
        workers: vec![],
        accounts: vec![],
        bases: vec![],
        holds: 0,
        mortal: String::new(),
        names: 0,
        more: true,
    };
    t.same("status-page-empty", 2, 0, page);
    let watch = |id, place, interest, kind, ino, label: &str, count, last| WatchInfo {
        id,
        place,
        interest,
        kind,
        ino,
        label: text(label),
        count,
        last,
    };
    let edge = What::WRITE | What::ET;
    let page = EventsPage {
        base: 12,
        name: text("web:443"),
        watches: vec![
            watch(0, Place::Parked, What::READ, Some(FileKind::Socket), 4711, "listener", 5, 1000),
            watch(1, Place::Local, edge, Some(FileKind::Other), 0, "", 0, 0),
            watch(2, Place::Between, What::empty(), None, 0, "", u64::MAX, u64::MAX),
        ],
        timers: vec![TimerInfo { id: 9, left: 500 }],
        names: vec![NameInfo { id: 2, name: text("reload"), count: 4 }],
        signals: vec![SignalInfo { signo: 10, count: 1 }],
        next: Some((1, 10)),
    };
    t.same("events-page", 2, 0, page);
    let page = EventsPage {
        base: 0,
        name: String::new(),
        watches: vec![],
        timers: vec![],
        names: vec![],
        signals: vec![],
        next: None,
    };
    t.same("events-page-last", 3, 0, page);
}

fn notices(t: &mut Table) {
    let active = Active {
        watches: vec![ActiveWatch { id: 7, seq: 1, ready: What::READ | What::CLOSED }],
        timers: vec![ActiveTimer { id: 9, deadline: 123 }],
        names: vec![ActiveName { id: 2, count: 3 }],
        signals: vec![ActiveSignal { signo: 10, count: 1, pid: 100, uid: 1000, code: -6 }],
    };
    t.same("active", 0, 0, active);
    t.same("active-nothing", 0, 0, Active::default());
    t.same("closing", 0, 0, Closing { reason: text("SIGTERM") });
    let entry =
        |source, id, ready, label: &str| TraceEntry { source, id, ready, count: 1, label: text(label) };
    let entries = vec![
        entry(TraceSource::Parked, 0, What::READ, "a"),
        entry(TraceSource::Local, 1, What::WRITE, ""),
        entry(TraceSource::Timer, 2, What::TIMEOUT, ""),
        entry(TraceSource::Name, 3, What::empty(), "reload"),
        entry(TraceSource::Signal, 4, What::SIGNAL, ""),
    ];
    t.same("trace", 0, 0, Trace { base: 12, name: text("web:443"), at: 123_456_789, entries, lost: 2 });
    t.same("attend", 0, 0, Attend { on: true });
    t.same("attend-off", 0, 0, Attend { on: false });
}

/// Each code, file kind and so on has the number that `SPEC.md` says, in both directions.
#[test]
fn enum_variants_have_the_numbers_of_the_specification() {
    let codes = [
        Code::Version,
        Code::NotAllowed,
        Code::BadName,
        Code::BadRequest,
        Code::Protocol,
        Code::Limit,
        Code::OutOfFds,
        Code::FdsLost,
        Code::Unknown,
        Code::Exists,
        Code::Busy,
        Code::NoMethod,
        Code::NotWatchable,
        Code::Stopping,
        Code::System,
    ];
    for (n, code) in codes.into_iter().enumerate() {
        let value = Refused { code, limit: 0, value: 0, text: String::new(), ids: vec![] };
        variant(n, &format!("{code:?}"), &value, 0);
    }
    let kinds = [
        FileKind::Socket,
        FileKind::Pipe,
        FileKind::Char,
        FileKind::Regular,
        FileKind::EventFd,
        FileKind::TimerFd,
        FileKind::PidFd,
        FileKind::Inotify,
        FileKind::Epoll,
        FileKind::SignalFd,
        FileKind::IoUring,
        FileKind::Other,
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let local = LocalWatch { id: 0, interest: What::READ, kind, ino: 0, fired: 0, ready: What::empty() };
        // Behind the length of the list, the id and the interest.
        variant(n, &format!("{kind:?}"), &Report { local: vec![local], ..Report::default() }, 8 + 4 + 1);
    }
    assert!(frame::body::<Refused>(Kind::Refused, &refused_with_code(codes.len() as u32)).is_err());
}

fn refused_with_code(n: u32) -> Vec<u8> {
    let mut body = n.to_le_bytes().to_vec();
    body.resize(4 + 4 * 8, 0);
    body
}

/// The variant at offset `at` of the body is `n`, and the specification has a row `| n | name |`.
fn variant<B: Body>(n: usize, name: &str, body: &B, at: usize) {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, 0, 0, body).unwrap();
    assert_eq!(bytes[HEADER + at..][..4], (n as u32).to_le_bytes(), "{name}");
    assert!(SPEC.contains(&format!("| {n} | {name} |")), "SPEC.md has no row for {n} {name}");
}

#[test]
fn the_specification_lists_every_kind_with_its_number_and_every_vector_exists() {
    for kind in all_kinds() {
        let row = format!("| `{:#05x}` | {kind:?} |", kind as u16);
        assert!(SPEC.contains(&row), "SPEC.md has no row that starts with {row}");
        let section = format!("\n#### {kind:?} (`{:#05x}`)\n", kind as u16);
        assert!(SPEC.contains(&section), "SPEC.md does not describe the body of {kind:?}");
    }
    let version = format!("protocol version {}", evd_proto::PROTOCOL_VERSION);
    assert!(SPEC.contains(&version), "SPEC.md is of another version");
    // Vectors are named in lines like "Golden: `a`, `b`".
    let table = Table::read();
    let mut quoted = 0;
    for line in SPEC.lines() {
        let Some(names) = line.strip_prefix("Golden: ") else { continue };
        for name in names.split('`').skip(1).step_by(2) {
            assert!(table.left.contains_key(name), "SPEC.md names a vector {name}");
            quoted += 1;
        }
    }
    assert_eq!(quoted, table.left.len(), "every vector is named once in SPEC.md");
    // And the one that is printed in full has its bytes.
    let printed: String = SPEC
        .lines()
        .skip_while(|l| !l.starts_with("<!-- vector hello -->"))
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.strip_prefix("    "))
        .map(|l| l.split('#').next().unwrap_or_default().replace(' ', ""))
        .collect();
    let hello: String = table.left["hello"].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(printed, hello, "the bytes printed in SPEC.md");
}
