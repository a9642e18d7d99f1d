//! What evctl prints of what others chose: names, labels, texts.

use super::script::Script;
use evd::evctl::probe::printed as print;
use evd_proto::What;
use evd_proto::frame::{Body, HEADER, Kind, encode};
use evd_proto::name::printable;
use evd_proto::notice::{Trace, TraceEntry, TraceSource};
use evd_proto::reply::*;
use evd_proto::sys::FileKind;

/// Nothing that is printed can steer a terminal, or make a line look like two.
pub fn printed(data: &[u8]) {
    let mut script = Script(data);
    let json = script.below(2) == 1;
    let sockets = if script.below(2) == 0 { String::new() } else { format!("Num\n{}", script.text(255)) };
    let (kind, lines, body) = match script.below(8) {
        0 => {
            let kinds = [Kind::StatusPage, Kind::EventsPage, Kind::Holds, Kind::Trace, Kind::Refused];
            (kinds[script.below(5)], None, script.0.to_vec())
        }
        1 | 2 => made(&status(&mut script), None),
        3 => {
            let page = events(&mut script);
            let lines = 1 + page.watches.len() + page.timers.len() + page.names.len() + page.signals.len();
            made(&page, Some(lines))
        }
        4 => {
            let holds = holds(&mut script);
            let lines = 1 + holds.holds.len();
            made(&holds, Some(lines))
        }
        5 | 6 => {
            let trace = trace(&mut script);
            let lines = trace.entries.len() + usize::from(trace.lost > 0);
            made(&trace, Some(lines))
        }
        _ => {
            let codes = [Code::Unknown, Code::Limit, Code::System, Code::Version, Code::NotWatchable];
            let code = codes[script.below(5)];
            let (limit, value, text) = (script.number(), script.number(), script.text(300));
            made(&Refused { code, limit, value, text, ids: Vec::new() }, Some(1))
        }
    };
    let Ok(out) = print(kind, &body, json, &sockets) else { return };
    let text = String::from_utf8(out).expect("text");
    assert!(text.ends_with('\n') || text.is_empty());
    for line in text.lines() {
        assert_eq!(line, printable(line), "it can steer a terminal");
    }
    if let (Some(lines), true) = (lines, !json || matches!(kind, Kind::Trace | Kind::Refused)) {
        assert_eq!(text.lines().count(), lines, "{text}");
    }
}

fn made<B: Body>(body: &B, lines: Option<usize>) -> (Kind, Option<usize>, Vec<u8>) {
    let mut frame = Vec::new();
    encode(&mut frame, 1, 0, body).expect("it is short");
    (B::KIND, lines, frame.split_off(HEADER))
}

fn few<T>(script: &mut Script<'_>, mut one: impl FnMut(&mut Script<'_>) -> T) -> Vec<T> {
    (0..script.below(4)).map(|_| one(script)).collect()
}

fn text(script: &mut Script<'_>) -> String {
    match script.below(4) {
        0 => "\x1b[2J\u{202e}\u{9b}a\nb\r\u{2028}c".chars().skip(script.below(12)).take(3).collect(),
        _ => script.text(40),
    }
}

fn kind(script: &mut Script<'_>) -> FileKind {
    [FileKind::Socket, FileKind::Pipe, FileKind::EventFd, FileKind::Other][script.below(4)]
}

fn status(script: &mut Script<'_>) -> StatusPage {
    StatusPage {
        version: text(script),
        protocol: script.number() as u16,
        pid: script.number() as i32,
        uid: script.number() as u32,
        uptime: script.number(),
        methods: few(script, text),
        workers: few(script, |script| WorkerInfo {
            id: script.number() as u32,
            uid: script.number() as u32,
            tid: script.number() as i32,
            method: text(script),
            sessions: script.number() as u32,
            busy: script.number(),
        }),
        accounts: few(script, |script| AccountInfo {
            uid: script.number() as u32,
            uses: few(script, |script| Use {
                what: Resource::ALL[script.below(Resource::ALL.len())],
                used: script.number(),
                limit: script.number(),
                refused: script.number(),
            }),
        }),
        bases: few(script, |script| BaseInfo {
            id: script.number(),
            name: text(script),
            pid: script.number() as i32,
            uid: script.number() as u32,
            worker: script.number() as u32,
            age: script.number(),
            method: text(script),
            features: script.number() as u32,
            parked: script.number() as u32,
            local: script.number() as u32,
            timers: script.number() as u32,
            signals: script.number(),
            daemon_signals: script.number(),
            names: few(script, text),
            activations: script.number(),
            per_second: script.number() as u32,
            wakeups: script.number(),
            callbacks: script.number(),
            unread: script.number(),
        }),
        holds: script.number() as u32,
        mortal: text(script),
        names: script.number() as u32,
        more: false,
    }
}

fn events(script: &mut Script<'_>) -> EventsPage {
    EventsPage {
        base: script.number(),
        name: text(script),
        watches: few(script, |script| WatchInfo {
            id: script.number() as u32,
            place: [Place::Parked, Place::Local, Place::Between][script.below(3)],
            interest: What::from_bits_retain(script.byte()),
            kind: (script.below(3) > 0).then(|| kind(script)),
            ino: script.number(),
            label: text(script),
            count: script.number(),
            last: script.number(),
        }),
        timers: few(script, |script| TimerInfo { id: script.number() as u32, left: script.number() }),
        names: few(script, |script| NameInfo {
            id: script.number() as u32,
            name: text(script),
            count: script.number(),
        }),
        signals: few(script, |script| SignalInfo { signo: script.number() as i32, count: script.number() }),
        next: None,
    }
}

fn holds(script: &mut Script<'_>) -> Holds {
    let holds = few(script, |script| HoldInfo {
        name: text(script),
        kind: kind(script),
        ino: script.number(),
        ready: What::from_bits_retain(script.byte()),
        count: script.number(),
        attachment: script.number() as u32,
        age: script.number(),
        left: script.number(),
        pid: script.number() as i32,
        giver: text(script),
    });
    Holds { holds, more: false }
}

fn trace(script: &mut Script<'_>) -> Trace {
    use TraceSource::*;
    Trace {
        base: script.number(),
        name: text(script),
        at: script.number(),
        entries: few(script, |script| TraceEntry {
            source: [Parked, Local, Timer, Name, Signal][script.below(5)],
            id: script.number() as u32,
            ready: What::from_bits_retain(script.byte()),
            count: script.number() as u32,
            label: text(script),
        }),
        lost: script.number() as u32,
    }
}
