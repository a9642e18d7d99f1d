//! What `evctl` shows: status, bases, events, and following them.

use crate::fake::{Fake, Next, Peer, evctl, run, shown};
use evd_proto::What;
use evd_proto::channel::Frame;
use evd_proto::frame::Kind;
use evd_proto::notice::{Closing, Trace, TraceEntry, TraceSource};
use evd_proto::reply::*;
use evd_proto::request::{Events, Follow, Selector, Status};
use evd_proto::sys::{self, FileKind};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Stdio;

const S: u64 = 1_000_000_000;

fn base(id: u64, name: &str) -> BaseInfo {
    BaseInfo {
        id,
        name: name.to_owned(),
        pid: 4000 + id as i32,
        uid: 1000,
        worker: 1,
        age: 312 * S,
        method: "epoll".to_owned(),
        features: 0x0b,
        parked: 120,
        local: 3,
        timers: 12,
        signals: 1 << 2 | 1 << 15,
        daemon_signals: 1 << 10,
        names: vec!["reload".to_owned(), "flush".to_owned()],
        activations: 12_034,
        per_second: 15,
        wakeups: 9000,
        callbacks: 12_040,
        unread: 0,
    }
}

fn page(bases: Vec<BaseInfo>, more: bool) -> StatusPage {
    let worker = |id, uid, sessions, busy| WorkerInfo {
        id,
        uid,
        tid: 4242 + id as i32,
        method: "epoll".to_owned(),
        sessions,
        busy,
    };
    StatusPage {
        version: "0.1.0".to_owned(),
        protocol: 1,
        pid: 4242,
        uid: 0,
        uptime: (2 * 86_400 + 3 * 3600) * S,
        methods: vec!["epoll".to_owned(), "poll".to_owned(), "select".to_owned()],
        workers: vec![worker(1, 1000, 2, 0), worker(2, 0, 1, 3 * S + S / 4), worker(3, 33, 10, 12_000_000)],
        accounts: vec![AccountInfo {
            uid: 1000,
            uses: vec![
                Use { what: Resource::Connections, used: 3, limit: 1024, refused: 0 },
                Use { what: Resource::Watches, used: 120, limit: 120, refused: 7 },
                Use { what: Resource::Copies, used: 0, limit: 512, refused: 0 },
            ],
        }],
        bases,
        holds: 3,
        mortal: String::new(),
        names: 2,
        more,
    }
}

/// Two pages of one base each; the second one does not read.
fn two_bases() -> Fake {
    Fake::start(|peer, frame| match frame.read::<Status>().unwrap().after {
        0 => peer.reply(&page(vec![base(7, "web")], true)),
        7 => {
            let quiet = BaseInfo {
                signals: 0,
                daemon_signals: 0,
                names: Vec::new(),
                unread: 65 * S,
                features: 0,
                ..base(9, "mailer-long")
            };
            peer.reply(&page(vec![quiet], false))
        }
        after => panic!("nothing is after {after}"),
    })
}

#[test]
fn status_is_a_head_workers_and_a_block_for_each_base() {
    let expected = "\
evd 0.1.0
  protocol  1
  process   pid 4242, uid 0, up 2d 3h
  methods   epoll poll select
  bases     2
  holds     3
  names     2

WORKER  UID   TID   METHOD  SESSIONS  STATE    BUSY
1       1000  4243  epoll   2         waiting  -
2       0     4244  epoll   1         stuck    3.2s
3       33    4245  epoll   10        busy     12ms

UID   USES         NOW  LIMIT  REFUSED
1000  connections  3    1024   0
1000  watches      120  120    7

base 7 web
  owner     pid 4007, uid 1000, connected 5m 12s ago, worker 1
  method    epoll (ET O1 EARLY_CLOSE)
  watches   120 parked, 3 local
  timers    12
  signals   own INT TERM, of evd USR1
  names     reload flush
  activity  12034 activations (15 in the last second), 9000 wake-ups, 12040 callbacks

base 9 mailer-long
  owner     pid 4009, uid 1000, connected 5m 12s ago, worker 1
  method    epoll (-)
  watches   120 parked, 3 local
  timers    12
  signals   own -, of evd -
  names     -
  activity  12034 activations (15 in the last second), 9000 wake-ups, 12040 callbacks
  stalled   the client has not read for 1m 5s
";
    assert_eq!(shown(&two_bases().path, &["status"]), expected);
}

#[test]
fn bases_are_a_line_each_with_stable_columns() {
    let expected = [
        "BASE  NAME         PID   UID   WORKER  AGE    METHOD  PARKED  LOCAL  TIMERS  SIGNALS            ACTIVE  PER-S  \
         WAKE-UPS  CALLBACKS  UNREAD  NAMES",
        "7     web          4007  1000  1       5m12s  epoll   120     3      12      INT,TERM,evd:USR1  12034   15     \
         9000      12040      -       reload flush",
        "9     mailer-long  4009  1000  1       5m12s  epoll   120     3      12      -                  12034   15     \
         9000      12040      1m5s    -",
    ];
    assert_eq!(shown(&two_bases().path, &["bases"]), expected.join("\n") + "\n");
}

#[test]
fn json_has_a_schema_version_and_nanoseconds() {
    let fake = two_bases();
    let status: Value = serde_json::from_str(&shown(&fake.path, &["status", "--json"])).unwrap();
    assert_eq!(status["schema_version"], 1);
    assert_eq!(status["uptime_ns"], (2 * 86_400 + 3 * 3600) * S);
    assert_eq!(status["workers"][1]["stuck"], true);
    assert_eq!(status["workers"][2]["stuck"], false);
    let watches = serde_json::json!({ "used": 120, "limit": 120, "refused": 7 });
    assert_eq!(
        (&status["accounts"][0]["uid"], &status["accounts"][0]["watches"]),
        (&Value::from(1000), &watches)
    );
    assert_eq!(status["bases"][0]["features"], serde_json::json!(["ET", "O1", "EARLY_CLOSE"]));
    assert_eq!(status["bases"][0]["signals"], serde_json::json!(["INT", "TERM"]));
    assert_eq!(status["bases"][1]["unread_ns"], 65 * S);
    let bases: Value = serde_json::from_str(&shown(&fake.path, &["bases", "--json"])).unwrap();
    assert_eq!((&bases["schema_version"], &bases["bases"]), (&Value::from(1), &status["bases"]));
}

fn watch(id: u32, kind: Option<FileKind>, ino: u64, label: &str) -> WatchInfo {
    let (place, interest) = (Place::Parked, What::READ);
    WatchInfo { id, place, interest, kind, ino, label: label.to_owned(), count: 0, last: 0 }
}

/// A base of two pages: a listener, a connection, an eventfd and an unknown file; then the rest.
fn events(peer: &mut Peer, frame: Frame<'_>, sockets: [u64; 2]) -> Next {
    let asked: Events = frame.read().unwrap();
    let mut page = EventsPage {
        base: 7,
        name: "web".to_owned(),
        watches: Vec::new(),
        timers: Vec::new(),
        names: Vec::new(),
        signals: Vec::new(),
        next: None,
    };
    match (asked.base, asked.from) {
        (Selector::Id(7), (0, 0)) | (Selector::Name(_), (0, 0)) => {
            let busy = WatchInfo {
                place: Place::Local,
                interest: What::READ | What::WRITE,
                count: 42,
                last: 3 * S + S / 4,
                ..watch(1, Some(FileKind::Socket), sockets[1], "conn 5")
            };
            page.watches = vec![watch(0, Some(FileKind::Socket), sockets[0], ""), busy];
            page.watches.push(watch(2, Some(FileKind::EventFd), 9, ""));
            page.next = Some((0, 3));
        }
        (Selector::Id(7), (0, 3)) => {
            page.watches = vec![watch(3, Some(FileKind::Pipe), 77, ""), watch(4, None, 0, "")];
            page.timers = vec![TimerInfo { id: 5, left: 312 * S }];
            page.names = vec![NameInfo { id: 0, name: "reload".to_owned(), count: 4 }];
            page.signals = vec![SignalInfo { signo: 10, count: 1 }];
        }
        other => panic!("{other:?}"),
    }
    peer.reply(&page)
}

#[test]
fn events_say_what_each_watch_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap();
    let client = TcpStream::connect(here).unwrap();
    let (server, there) = listener.accept().unwrap();
    let ino = |fd: std::os::fd::BorrowedFd<'_>| sys::identify(fd).unwrap().ino;
    let sockets = [ino(listener.as_fd()), ino(server.as_fd())];
    let fake = Fake::start(move |peer, frame| match frame.header.kind {
        Kind::Status => peer.reply(&page(vec![base(7, "web"), base(8, "gone")], false)),
        _ if frame.read::<Events>().unwrap().base == Selector::Id(8) => {
            peer.refuse(Code::Unknown, "it has ended")
        }
        _ => events(peer, frame, sockets),
    });
    let expected = format!(
        "\
BASE  NAME  SOURCE  ID  PLACE   INTEREST    COUNT  LAST  LABEL   WHAT
7     web   watch   0   parked  READ        0      -     -       tcp {here} listen
7     web   watch   1   local   READ|WRITE  42     3.2s  conn_5  tcp {here} <- {there}
7     web   watch   2   parked  READ        0      -     -       eventfd
7     web   watch   3   parked  READ        0      -     -       pipe [77]
7     web   watch   4   parked  READ        0      -     -       -
7     web   timer   5   -       TIMEOUT     -      -     -       in 5m 12s
7     web   name    0   -       -           4      -     -       reload
7     web   signal  10  -       SIGNAL      1      -     -       USR1
"
    );
    for args in [&["events"][..], &["events", "--base", "7"], &["events", "--base", "web"]] {
        assert_eq!(shown(&fake.path, args), expected, "{args:?}");
    }
    let json: Value = serde_json::from_str(&shown(&fake.path, &["events", "--json"])).unwrap();
    let watches = &json["bases"][0]["watches"];
    assert_eq!(watches[0]["what"], format!("tcp {here} listen"));
    assert_eq!((&watches[0]["last_ns"], &watches[1]["last_ns"]), (&Value::Null, &(3 * S + S / 4).into()));
    assert_eq!(json["bases"][0]["timers"][0]["left_ns"], 312 * S);
    assert_eq!(json["schema_version"], 1);
    drop(client);
}

#[test]
fn an_unknown_base_is_an_error() {
    let fake = Fake::start(|peer, _| peer.refuse(Code::Unknown, "there is no base of this name"));
    let (code, out, err) = run(&fake.path, &["events", "--base", "nobody"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "evctl: unknown: there is no base of this name\n");
}

fn trace() -> Trace {
    let entry = |source, id, ready, count, label: &str| TraceEntry {
        source,
        id,
        ready,
        count,
        label: label.to_owned(),
    };
    Trace {
        base: 7,
        name: "web".to_owned(),
        at: sys::monotonic_ns(),
        entries: vec![
            entry(TraceSource::Parked, 3, What::READ | What::CLOSED, 1, "conn 5"),
            entry(TraceSource::Local, 4, What::READ, 9, ""),
            entry(TraceSource::Timer, 5, What::TIMEOUT, 1, ""),
            entry(TraceSource::Name, 0, What::empty(), 2, "reload"),
            entry(TraceSource::Signal, 10, What::SIGNAL, 1, ""),
        ],
        lost: 6,
    }
}

/// The base that is followed: a pipe, an eventfd, a watch of which nothing is known.
fn followed() -> EventsPage {
    let watch = |id, kind, ino| WatchInfo {
        id,
        interest: What::READ,
        place: Place::Parked,
        kind,
        ino,
        count: 1,
        last: 0,
        label: String::new(),
    };
    EventsPage {
        base: 7,
        name: "web".to_owned(),
        watches: vec![watch(3, Some(FileKind::Pipe), 77), watch(4, None, 0)],
        timers: Vec::new(),
        names: Vec::new(),
        signals: Vec::new(),
        next: None,
    }
}

#[test]
fn follow_prints_a_line_for_each_activation_until_evd_ends() {
    let fake = Fake::start(|peer, frame| match frame.header.kind {
        Kind::Follow => {
            assert_eq!(frame.read::<Follow>().unwrap().base, Some(Selector::Name("web".to_owned())));
            // One before the answer: what is followed may become active at once.
            peer.notice(&trace());
            peer.reply(&Done {})
        }
        _ => {
            assert_eq!(frame.read::<Events>().unwrap().base, Selector::Id(7));
            peer.reply(&followed());
            peer.notice(&Closing { reason: "stopped\x1b[2J".to_owned() })
        }
    });
    let (code, out, err) = run(&fake.path, &["events", "--base", "web", "--follow"]);
    assert_eq!((code, err.as_str()), (3, "evctl: evd is stopping: stopped?[2J\n"));
    let lines: Vec<(&str, &str)> = out.lines().map(|l| l.split_once(' ').unwrap()).collect();
    let expected = [
        "7 web parked 3 READ|CLOSED 1 conn_5 pipe [77]",
        "7 web local 4 READ 9 - -",
        "7 web timer 5 TIMEOUT 1 - -",
        "7 web name 0 - 2 - reload",
        "7 web signal 10 SIGNAL 1 - USR1",
        "7 web lost - - 6 - -",
    ];
    assert_eq!(lines.iter().map(|l| l.1).collect::<Vec<_>>(), expected);
    for (time, _) in lines {
        let parts: Vec<usize> = time.split([':', '.']).map(str::len).collect();
        assert_eq!(parts, [2, 2, 2, 6], "{time}");
    }
}

#[test]
fn follow_as_json_is_an_object_a_line() {
    // It ends while it is asked what the watches are: what it had told is shown all the same.
    let fake = Fake::start(|peer, frame| match frame.header.kind {
        Kind::Follow => {
            peer.reply(&Done {});
            peer.notice(&trace())
        }
        _ => Next::Close,
    });
    let (code, out, err) = run(&fake.path, &["events", "--follow", "--json"]);
    assert_eq!(code, 3);
    assert!(err.contains("has closed the connection"), "{err}");
    let lines: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0]["ready"], serde_json::json!(["READ", "CLOSED"]));
    assert_eq!((&lines[0]["label"], &lines[0]["what"]), (&"conn 5".into(), &"".into()));
    assert_eq!((&lines[3]["what"], &lines[3]["count"]), (&"reload".into(), &2.into()));
    assert_eq!((&lines[5]["source"], &lines[5]["count"]), (&"lost".into(), &6.into()));
    assert!(lines.iter().all(|l| l["time_ns"].as_u64().unwrap() > 1_600_000_000 * S));
}

#[test]
fn follow_gives_each_line_at_once_and_ends_with_its_reader() {
    // This evd says nothing more and keeps the connection: only the reader can end it.
    let fake = Fake::start(|peer, frame| match frame.header.kind {
        Kind::Follow => {
            peer.reply(&Done {});
            peer.notice(&trace())
        }
        _ => peer.refuse(Code::Unknown, "that base has ended"),
    });
    let mut child = evctl(&fake.path, &["events", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..6 {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "{line:?}");
    }
    drop(out);
    let rest = child.wait_with_output().unwrap();
    assert_eq!((rest.status.code(), rest.stderr.as_slice()), (Some(0), &[][..]));
}

#[test]
fn what_clients_chose_can_not_steer_a_terminal() {
    const EVIL: &str = "a\x1b[31m\x07b\u{9b}2J\x7f\u{202e}\r\nc";
    let fake = Fake::start(|peer, frame| match frame.header.kind {
        Kind::Status => {
            let mut page = page(vec![base(7, EVIL)], false);
            page.version = EVIL.to_owned();
            page.methods = vec![EVIL.to_owned()];
            page.workers[0].method = EVIL.to_owned();
            page.bases[0].method = EVIL.to_owned();
            page.bases[0].names = vec![EVIL.to_owned()];
            peer.reply(&page)
        }
        Kind::Events => peer.reply(&EventsPage {
            base: 7,
            name: EVIL.to_owned(),
            watches: vec![watch(0, None, 0, EVIL)],
            timers: Vec::new(),
            names: vec![NameInfo { id: 0, name: EVIL.to_owned(), count: 0 }],
            signals: Vec::new(),
            next: None,
        }),
        Kind::Follow => {
            peer.reply(&Done {});
            let mut trace = trace();
            trace.name = EVIL.to_owned();
            trace.entries.iter_mut().for_each(|e| e.label = EVIL.to_owned());
            peer.notice(&trace);
            Next::Close
        }
        Kind::ListHolds => {
            let hold = crate::fds::held(EVIL, EVIL);
            peer.reply(&Holds { holds: vec![hold], more: false })
        }
        _ => peer.refuse(Code::BadRequest, EVIL),
    });
    let commands: [&[&str]; 6] =
        [&["status"], &["bases"], &["events"], &["events", "--follow"], &["fd", "ls"], &["trigger", "x"]];
    for command in commands {
        for json in [false, true] {
            let mut args = command.to_vec();
            if json && command[0] != "trigger" {
                args.push("--json");
            }
            let (_, out, err) = run(&fake.path, &args);
            let text = out + &err;
            assert!(text.contains("31m"), "{args:?}: {text}");
            let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!text.contains(steers), "{args:?}: {text:?}");
        }
    }
}

#[test]
fn colour_is_only_where_it_is_wanted() {
    let fake = two_bases();
    assert!(!shown(&fake.path, &["status"]).contains('\x1b'), "a pipe is no terminal");
    let coloured = shown(&fake.path, &["status", "--color", "always"]);
    assert!(coloured.contains("\x1b[1mevd 0.1.0\x1b[0m"), "{coloured}");
    assert!(
        coloured.contains("\x1b[31m2       0     4244  epoll   1         stuck    3.2s\x1b[0m"),
        "{coloured}"
    );
    assert_eq!(shown(&fake.path, &["status", "--color", "never"]), shown(&fake.path, &["status"]));
}
