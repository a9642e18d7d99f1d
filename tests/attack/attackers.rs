//! The attackers, and what each must be told at least once while it attacks.
//!
//! Each runs in a process of its own under a user of its own, round after round, until its process ends, in the midst of whatever it does. In a round something may
//! go wrong for it, as evd refuses and disconnects it where it can: then it begins anew. What must not be, it says.

use crate::process::{hear, say};
use crate::{files, greedy, processes, readers, streams};
use evd_proto::reply::Refused;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Attack {
    pub name: &'static str,
    round: fn(&Path, u64),
    /// Words of refusals that it must get.
    pub told: &'static [&'static str],
}

const fn attack(name: &'static str, round: fn(&Path, u64), told: &'static [&'static str]) -> Attack {
    Attack { name, round, told }
}

pub const ALL: &[Attack] = &[
    attack("half frames", streams::half_frames, &[]),
    attack("slow hellos", streams::slow_hellos, &[]),
    attack("length bombs", streams::length_bombs, &["malformed", "65536", "16368"]),
    attack("garbage", streams::garbage, &["unknown kind"]),
    attack("lies about fds", streams::lies_about_fds, &["fds, but"]),
    attack("bad names", streams::bad_names, &["A-Z"]),
    attack("hostile kinds", files::hostile_kinds, &["signalfd", "always ready", "--allow-nested"]),
    attack("hang-ups", files::hang_ups, &[]),
    attack("its own connection", files::own_connection, &[]),
    attack("one file, many numbers", files::many_numbers, &[]),
    attack("edges", files::edges, &[]),
    attack("lingering closes", files::lingering_closes, &[]),
    attack("sockets in sockets", files::sockets_in_sockets, &[]),
    attack("connections", greedy::connections, &["connections of at most"]),
    attack("watches", greedy::watches, &["watches"]),
    attack("timers", greedy::timers, &["timers"]),
    attack("names", greedy::names, &["names"]),
    attack("holds", greedy::holds, &["holds", "hold-bytes"]),
    attack("copies", greedy::copies, &["copies"]),
    attack("tables", greedy::tables, &["table-bytes"]),
    attack("unread answers", readers::unread_answers, &[]),
    attack("unread pages", readers::unread_pages, &["read"]),
    attack("follow storms", readers::follow_storm, &[]),
    attack("trigger storms", readers::trigger_storm, &[]),
    attack("copies of what is held", readers::takers, &["on their way"]),
    attack("curiosity", readers::curious, &[]),
    attack("signals", processes::signals, &["signal"]),
    attack("connect and leave", processes::churn, &[]),
    attack("killed", processes::killed, &[]),
    attack("forks that keep sockets", processes::forks, &[]),
];

static ROUNDS: AtomicU64 = AtomicU64::new(0);
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Remembers what evd said.
pub fn told(refused: &Refused) {
    told_text(&refused.text);
}

pub fn told_text(text: &str) {
    let mut all = TOLD.lock().unwrap();
    // Numbers make many of one.
    let line = text.replace('\n', " ");
    if all.len() < 100 {
        all.insert(line);
    }
}

/// What must not be.
pub fn fault(text: impl std::fmt::Display) {
    TOLD.lock().unwrap().insert(format!("FAULT: {text}"));
}

/// A role: attacks until told to stop, and says then what it did and what it was told.
pub fn attacker(socket: &Path, args: &[&str]) {
    let attack = ALL.iter().find(|a| a.name == args[0]).unwrap();
    std::thread::spawn(|| {
        hear();
        let told: Vec<String> = TOLD.lock().unwrap().iter().cloned().collect();
        say(format_args!("{} {}", ROUNDS.load(Ordering::Relaxed), told.join(" | ")));
        std::process::exit(0);
    });
    // Disconnected again: nobody wants to read it, but who looks for a mistake in an attacker.
    let shows = std::env::var_os("EVD_ATTACK_SHOWS").is_some();
    std::panic::set_hook(Box::new(move |why| {
        if shows {
            eprintln!("{}: {why}", attack.name);
        }
    }));
    let mut began = false;
    for n in 0.. {
        let whole = catch_unwind(AssertUnwindSafe(|| (attack.round)(socket, n))).is_ok();
        ROUNDS.fetch_add(u64::from(whole), Ordering::Relaxed);
        if whole && !began {
            began = true;
            say("began");
        }
    }
}

/// A role: takes the time of a processor, and talks to nobody.
pub fn spinner(_: &Path, _: &[&str]) {
    std::thread::spawn(|| {
        hear();
        say("0 ");
        std::process::exit(0);
    });
    say("began");
    loop {
        std::hint::spin_loop();
    }
}
