//! What a sequence consists of, and how one is made up.

use crate::random::Random;
use crate::system::{PORTS, Signal};
use evd_client::LoopFlags;
use evd_proto::What;
use evd_proto::sys::CAN_REPLACE;

/// Events of a sequence.
pub const EVENTS: u8 = 6;
/// The event that ends a loop which nothing else would end.
pub const GUARD: u8 = EVENTS;
/// In the place of a port: a signal to this process.
pub const SIGNAL: u8 = PORTS;

pub const MS: u64 = 1_000_000;
const DAY: u64 = 86_400_000;

/// How the base is made, and how it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub priorities: u8,
    /// `Builder::max_dispatch`: callbacks, milliseconds, from this priority on.
    pub most_calls: Option<u64>,
    pub most_time: Option<u64>,
    pub limited_from: usize,
    /// A timeout that is declared as a common one, in milliseconds.
    pub common: Option<u64>,
    /// Whether there are signals.
    pub signals: bool,
    /// Whether watchers look at each wait. Without them a loop never waits, and nothing is edge-triggered.
    pub watched: bool,
    /// Remote: not before every wait is it made sure that evd has said all it knows.
    pub lazy: bool,
}

/// One thing to do. Events and ports are numbers; times are milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Makes an event: on a port, or a timer. It replaces the one with its number. When it fires it does what stands in `script`.
    New {
        event: u8,
        port: Option<u8>,
        what: u8,
        priority: Option<u8>,
        script: [Option<Act>; 2],
    },
    Do(Act),
    Loop(u32),
}

/// What can be done outside of a loop, and in a callback.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Add(u8, Option<u64>),
    Del(u8),
    RemoveTimer(u8),
    Activate(u8, u8),
    /// With SIGNAL, and so many calls.
    ActivateTimes(u8, u32),
    SetPriority(u8, u8),
    Free(u8),
    /// Until its finalizer has run it is neither freed nor replaced.
    Finalize(u8),
    ActiveByFd(u8, u8),
    ActiveBySignal,
    /// The signal comes so often.
    Raise(u32),
    /// The other end of a port writes so many bytes.
    Write(u8, u32),
    /// So many bytes are read from a port.
    Read(u8, u32),
    /// A port is written to until there is no more room.
    Fill(u8),
    /// The other end of a port reads all that was written to it.
    Drain(u8),
    HalfClose(u8),
    Close(u8),
    /// All events of the port's file are deleted, the file is closed, and another one opened with the same number. Where that can't be, the events are freed.
    Reopen(u8),
    Advance(u64),
    UpdateTime,
    Break,
    Exit(Option<u64>),
    Continue,
}

use Act::*;

/// A whole sequence.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub setup: Setup,
    pub ops: Vec<Op>,
}

impl Sequence {
    /// The sequence of a seed.
    pub fn random(seed: u64) -> Sequence {
        let mut make = Maker { random: Random(seed), ports: Vec::new(), setup: setup(&mut Random(!seed)) };
        // Few ports, so that events meet on them.
        let ports = make.random.of(&[1, 1, 2, 2, 3]);
        make.ports = (0..ports).map(|_| make.random.below(u64::from(PORTS)) as u8).collect();
        let mut ops = Vec::new();
        let events = 1 + make.random.below(u64::from(EVENTS)) as u8;
        for event in 0..events {
            ops.push(make.event(event));
            if !make.random.one_in(4) {
                let timeout = make.timeout();
                ops.push(Op::Do(Add(event, timeout)));
            }
        }
        for _ in 0..6 + make.random.below(20) {
            ops.push(make.op(events));
        }
        ops.push(Op::Loop(3));
        Sequence { setup: make.setup, ops }
    }
}

impl Sequence {
    /// The same with level-triggered events only.
    pub fn without_edges(&self) -> Sequence {
        let mut other = self.clone();
        for op in &mut other.ops {
            if let Op::New { what, .. } = op {
                *what &= !What::ET.bits();
            }
        }
        other
    }
}

fn setup(random: &mut Random) -> Setup {
    let limited = random.one_in(4);
    Setup {
        priorities: random.of(&[1, 1, 2, 3]),
        most_calls: (limited && !random.one_in(4)).then(|| 1 + random.below(3)),
        most_time: (limited && random.one_in(2)).then(|| random.of(&[0, 1, 10])),
        limited_from: random.below(2) as usize,
        common: random.one_in(3).then_some(50),
        signals: random.one_in(3) && Signal::CAN_BE_RAISED,
        watched: random.one_in(2),
        lazy: random.one_in(2),
    }
}

struct Maker {
    random: Random,
    ports: Vec<u8>,
    setup: Setup,
}

impl Maker {
    fn op(&mut self, events: u8) -> Op {
        match self.random.below(12) {
            0 => {
                let event = self.random.below(u64::from(events)) as u8;
                self.event(event)
            }
            1..=4 => Op::Loop(self.flags()),
            _ => Op::Do(self.act(events, None)),
        }
    }

    fn flags(&mut self) -> u32 {
        let round = (LoopFlags::ONCE | LoopFlags::NONBLOCK).bits();
        let others = [LoopFlags::ONCE.bits(), LoopFlags::NONBLOCK.bits(), 0, 4, 6, 7, 5];
        match self.random.below(3) {
            0 if self.setup.watched => self.random.of(&others),
            0 if self.random.one_in(4) => LoopFlags::NONBLOCK.bits(),
            _ => round,
        }
    }

    fn event(&mut self, event: u8) -> Op {
        let port = (!self.random.one_in(4)).then(|| self.port());
        let port = if self.setup.signals && self.random.one_in(4) { Some(SIGNAL) } else { port };
        let persist = if self.random.one_in(2) { What::PERSIST } else { What::empty() };
        let what = match port {
            None => persist,
            Some(SIGNAL) => persist | What::SIGNAL,
            Some(port) => {
                let (r, w, c) = (What::READ, What::WRITE, What::CLOSED);
                let io = match port {
                    // What a hang-up says of writing to a reading end, each method says differently.
                    3 => self.random.of(&[r, r, c, r | c]),
                    _ => self.random.of(&[r, r, r, w, c, r | w, r | c, w | c, r | w | c]),
                };
                let edge = self.setup.watched && self.random.one_in(6);
                io | persist | if edge { What::ET } else { What::empty() }
            }
        };
        let priority = self.random.one_in(2).then(|| self.priority());
        let mut script = [None, None];
        for step in &mut script {
            if !self.random.one_in(3) {
                let act = self.act(EVENTS, Some((event, port)));
                *step = Some(match act {
                    // libevent may use an event that is freed behind this.
                    Activate(e, _) | ActivateTimes(e, _) | RemoveTimer(e)
                        if e == event && port == Some(SIGNAL) =>
                    {
                        Raise(1)
                    }
                    ActiveBySignal if port == Some(SIGNAL) => Raise(1),
                    act => act,
                });
            }
        }
        Op::New { event, port, what: what.bits(), priority, script }
    }

    fn priority(&mut self) -> u8 {
        // Now and then one that there is not.
        let extra = u64::from(self.random.one_in(8));
        self.random.below(u64::from(self.setup.priorities) + extra) as u8
    }

    fn port(&mut self) -> u8 {
        let at = self.random.below(self.ports.len() as u64);
        self.ports[at as usize]
    }

    fn timeout(&mut self) -> Option<u64> {
        let all = [0, 0, 1, 10, 10, 50, 50, 50, 100, 100, DAY, 100 * DAY];
        (!self.random.one_in(3)).then(|| self.random.of(&all))
    }

    /// `inside`: in the callback of this event.
    fn act(&mut self, events: u8, inside: Option<(u8, Option<u8>)>) -> Act {
        let mut event = self.random.below(u64::from(events)) as u8;
        let mut port = self.port();
        if let Some((me, mine)) = inside {
            if self.random.one_in(2) {
                event = me;
            }
            if let (Some(mine), true) = (mine.filter(|port| *port != SIGNAL), self.random.one_in(2)) {
                port = mine;
            }
            match self.random.below(12) {
                0 => return Break,
                1 => return Continue,
                2 | 3 => return Read(port, 1 + self.random.below(3) as u32),
                4 => return UpdateTime,
                _ => {}
            }
        }
        // One that is to be finalized can't be freed with its file.
        if CAN_REPLACE && self.random.one_in(30) {
            return Finalize(event);
        }
        if self.setup.signals && self.random.one_in(8) {
            return match self.random.below(8) {
                0 => ActiveBySignal,
                1 => ActivateTimes(event, self.random.below(4) as u32),
                _ => Raise(1 + self.random.below(3) as u32),
            };
        }
        match self.random.below(40) {
            0..=8 => Add(event, self.timeout()),
            9..=11 => Del(event),
            12 => RemoveTimer(event),
            13..=16 => Activate(event, self.random.of(&[0, 1, 1, 2, 3, 4, 0x86])),
            17 => SetPriority(event, self.priority()),
            18 => Free(event),
            19 => ActiveByFd(port, self.random.of(&[1, 2, 4, 6, 0x80])),
            20..=25 => Write(port, 1 + self.random.below(3) as u32),
            26..=28 => Read(port, 1 + self.random.below(4) as u32),
            29 => Fill(port),
            30 => Drain(port),
            31 => HalfClose(port),
            32 => Close(port),
            33 => Reopen(port),
            34..=37 => Advance(self.random.of(&[0, 1, 1, 10, 10, 49, 50, 100, DAY, 300 * DAY])),
            38 => Exit(if self.random.one_in(2) { None } else { Some(self.random.of(&[0, 1, 10, 50])) }),
            _ => Break,
        }
    }
}
