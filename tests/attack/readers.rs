//! Those who ask and do not read, who make others read, and who want to know what is none of theirs.

use crate::attackers::{fault, told};
use crate::files::{fired, hold};
use crate::parts::pair;
use crate::wire::{Raw, hello};
use evd_proto::frame::Kind;
use evd_proto::reply::{Done, Refused, StatusPage};
use evd_proto::request::{
    Events, Follow, Hello, Hold, ListHolds, Role, Selector, Status, Subscribe, Sync, Take, Trigger,
};
use evd_proto::sys;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

fn control(socket: &Path) -> Raw {
    let mut c = Raw::connect(socket);
    c.greet(&Hello { role: Role::Control, ..hello("ctl", "") });
    c
}

/// Asks until evd takes no more, and never reads.
pub fn unread_answers(socket: &Path, _: u64) {
    let mut all: Vec<Raw> = (0..10).map(|_| Raw::hello(socket, "asks", "")).collect();
    for c in &mut all {
        let mut unsent = 0;
        while unsent < 3 {
            c.serial += 1;
            let serial = c.serial;
            let (socket, _, out) = c.channel.split();
            if out.len() < 60_000 {
                out.push(serial, &Sync {}).unwrap();
            } else if !out.flush(socket).unwrap() {
                unsent += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Many long answers to short questions.
pub fn unread_pages(socket: &Path, _: u64) {
    let _bases: Vec<Raw> = (0..50).map(|_| Raw::hello(socket, &"n".repeat(64), "")).collect();
    let mut c = control(socket);
    for i in 0..1000 {
        match i % 3 {
            0 => c.send_unread(&Status { after: 0 }),
            1 => c.send_unread(&ListHolds { after: String::new() }),
            _ => c.send_unread(&Events { base: Selector::Name("n".repeat(64)), from: (0, 0) }),
        };
    }
    for _ in 0..1000 {
        let got = c.next();
        if got.kind == Kind::Refused {
            told(&got.read::<Refused>());
        }
    }
}

/// Some follow a base that is as busy as can be, and do not read.
pub fn follow_storm(socket: &Path, _: u64) {
    let mut busy = Raw::hello(socket, "busy", "");
    let mut followers: Vec<Raw> = (0..20).map(|_| control(socket)).collect();
    for c in &mut followers {
        for base in [Some(Selector::Id(busy.base())), None] {
            c.ask::<_, Done>(&Follow { base });
        }
    }
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    for seq in 1..300 {
        busy.arm(&[(0, seq, evd_proto::What::READ)], &[near.as_raw_fd()]);
        fired(&mut busy, 1);
    }
}

/// Subscribers that never read, and triggers without end.
pub fn trigger_storm(socket: &Path, _: u64) {
    let mut all: Vec<Raw> = (0..50).map(|_| Raw::hello(socket, "storm", "")).collect();
    for c in &mut all {
        c.ask::<_, Done>(&Subscribe { id: 0, name: "storm".into() });
    }
    let mut c = control(socket);
    for _ in 0..150 {
        c.send_unread(&Trigger { name: "storm".into() });
        // The honest ones' name is another one in this user's table.
        c.send_unread(&Trigger { name: "honest".into() });
    }
    let serial = c.send(&Sync {});
    while c.next().serial != serial {}
}

/// Asks for copies of a held fd and lets them lie in its socket.
pub fn takers(socket: &Path, _: u64) {
    let (near, _far) = pair();
    let mut all: Vec<Raw> = (0..50).map(|_| Raw::hello(socket, "taker", "")).collect();
    let serial = hold(&mut all[0], "h", 0, near.as_raw_fd());
    all[0].answer(serial).read::<Done>();
    for c in &mut all {
        for _ in 0..20 {
            c.send(&Take { name: "h".into(), keep: true });
        }
    }
    for _ in 0..20 {
        let got = all[0].next();
        if got.kind == Kind::Refused {
            told(&got.read::<Refused>());
        }
    }
}

/// Nothing of other users is to be seen, heard, woken or taken, not even that it is there.
pub fn curious(socket: &Path, _: u64) {
    let own = sys::effective_ids().0;
    let mut c = control(socket);
    let page: StatusPage = c.ask(&Status { after: 0 });
    if page.bases.iter().any(|b| b.uid != own) || page.accounts.iter().any(|a| a.uid != own) {
        fault(format_args!("it sees {page:?}"));
    }
    for base in [Selector::Name("honest".into()), Selector::Name("trigger".into())]
        .into_iter()
        .chain((1..100).map(Selector::Id))
    {
        let follow = c.send(&Follow { base: Some(base.clone()) });
        let events = c.send(&Events { base: base.clone(), from: (0, 0) });
        for serial in [follow, events] {
            if c.answer(serial).kind != Kind::Refused {
                fault(format_args!("it is told of {base:?}"));
            }
        }
    }
    let trigger = c.send(&Trigger { name: "honest".into() });
    if c.answer(trigger).kind != Kind::Refused {
        fault("it triggers another user's event");
    }
    let mut client = Raw::hello(socket, "honest", "");
    let (near, _far) = pair();
    let serial = client.send_fds(
        &Hold { name: "curious".into(), attachment: vec![], ttl: crate::files::HELD_NS, replace: true },
        &[near.as_raw_fd()],
    );
    client.answer(serial).read::<Done>();
    for name in ["h", "lingers", "cycle-1", "itself"] {
        let take = client.send(&Take { name: name.into(), keep: true });
        if client.answer(take).kind != Kind::Refused {
            fault(format_args!("it takes what another user holds as {name}"));
        }
    }
}
