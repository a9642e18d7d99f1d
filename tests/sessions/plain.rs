//! What evd must do, in the plainest way: what each client must be told, what is held, and what each user is charged.
//!
//! What a client is told while it does not read is told when it reads again. Then two things are left open: a report that was out of date before the client could read it
//! may come or not, and several of one id may come as one.

use crate::ops::{Ask, CLIENTS, Hello, How, IDS, NAMES, Op, WIRES};
use crate::real::Told;
use evd_proto::What;
use evd_proto::notice::TraceSource;
use evd_proto::reply::{AccountInfo, Code, Resource};
use std::collections::BTreeMap;

/// Far enough.
pub const NEVER: u64 = u64::MAX / 2;
/// Few of everything; and no threads, as these are not driven by hand.
pub const LIMITS: [(Resource, u64); 5] = [
    (Resource::Connections, 3),
    (Resource::Names, 3),
    (Resource::Holds, 2),
    (Resource::HoldBytes, 60),
    (Resource::Threads, 0),
];
/// A client that does not read is told about so many bytes at most before it reads again: beyond it evd reads no more of its requests.
const MOST_UNREAD: usize = 12_000;

/// An answer, as far as it can be told beforehand.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Welcome(u64),
    Done,
    Refused(Code),
    Triggered {
        reached: u32,
        queued: u32,
    },
    Took {
        copy: bool,
        bytes: u8,
    },
    Holds(Vec<(String, u8)>),
    /// Base, parked watches, timers, names of each; held fds and names of the asker.
    Status {
        bases: Vec<(u64, u32, u32, u32)>,
        holds: u32,
        names: u32,
    },
}

/// At least and at most so often.
#[derive(Clone, Copy, Debug, Default)]
struct Range(u32, u32);

#[derive(Debug, Default)]
struct Expected {
    answers: Vec<(u64, Answer)>,
    watches: BTreeMap<(u32, u32), Range>,
    timers: BTreeMap<u32, Range>,
    names: BTreeMap<u32, Range>,
    attend: Vec<bool>,
    trace: Vec<(u64, u8, u32, u32)>,
    is_over: bool,
    bytes: usize,
}

#[derive(Clone, Copy, Default)]
struct Watch {
    seq: u32,
    armed: bool,
    edge: bool,
    kept: bool,
    /// Its file is closed, and evd has none of it.
    lost: bool,
}

struct Client {
    uid: u32,
    inspects: bool,
    base: u64,
    role: Option<Hello>,
    serial: u64,
    stalled: bool,
    watches: [Watch; WIRES],
    timers: [bool; IDS as usize],
    names: BTreeMap<u8, u8>,
    /// What it is charged for names: it keeps what it once had.
    names_charged: u64,
    follows: Vec<Option<u64>>,
    attended: bool,
    taken: u64,
    expected: Expected,
}

struct Held {
    number: u64,
    bytes: u8,
    /// The base that is taking it.
    taking: Option<u64>,
}

pub type Check = Result<(), String>;

#[derive(Default)]
pub struct Model {
    clients: [Option<Client>; CLIENTS],
    readable: [bool; WIRES],
    holds: BTreeMap<(u32, u8), Held>,
    last_hold: u64,
    last_base: u64,
    /// Was refused, and gets more only below the low mark.
    wary: BTreeMap<(u32, u8), bool>,
    /// A base that ended in this operation: what its followers were told of that is open.
    dashed: Option<u64>,
}

impl Client {
    fn is_client(&self) -> bool {
        self.role == Some(Hello::Client)
    }

    fn may_see(&self, uid: u32) -> bool {
        self.inspects || self.uid == uid
    }

    fn answer(&mut self, answer: Answer) {
        self.expected.bytes += match &answer {
            Answer::Done => 16,
            Answer::Status { .. } => 3000,
            _ => 250,
        };
        self.expected.answers.push((self.serial, answer));
    }

    fn is_over(&self) -> bool {
        self.expected.is_over
    }

    fn end(&mut self, serial: u64, code: Code) {
        self.expected.answers.push((serial, Answer::Refused(code)));
        self.expected.is_over = true;
    }
}

impl Model {
    /// What an operation is to lead to. `None`: it makes no sense now, and is to be passed over. Some of a client that does not read need that it reads before.
    pub fn prepare(&self, op: &Op) -> Option<Option<usize>> {
        let there = |c: u8| self.clients[c as usize].as_ref().filter(|c| !c.is_over());
        match op {
            Op::Ask(c, asks) | Op::Dash(c, asks) => {
                let client = there(*c)?;
                let bytes: usize = asks
                    .iter()
                    .map(|a| if let Ask::Flood(n) = a { usize::from(*n) * 16 } else { 1000 })
                    .sum();
                let takes = asks.iter().any(|a| matches!(a, Ask::Take(..)));
                let full = client.expected.bytes + bytes > MOST_UNREAD;
                Some((client.stalled && (takes || full)).then_some(*c as usize))
            }
            Op::Stall(c) | Op::Read(c) | Op::Leave(c) => there(*c).map(|_| None),
            Op::Reopen(w) => {
                // While evd has a copy for one client, the others' watches of that file last until it lets it go: at one time or another.
                let armed = || {
                    self.live()
                        .map(|(_, c)| c.watches[*w as usize])
                        .filter(|watch| watch.armed && !watch.lost)
                };
                (armed().all(|w| w.kept) || !armed().any(|w| w.kept)).then_some(None)
            }
            Op::Connect(..) | Op::Write(_) | Op::Drain(_) => Some(None),
        }
    }

    pub fn bases(&self) -> [u64; CLIENTS] {
        std::array::from_fn(|c| {
            self.clients[c].as_ref().filter(|c| c.is_client() && !c.is_over()).map_or(0, |c| c.base)
        })
    }

    pub fn is_there(&self, client: usize) -> bool {
        self.clients[client].is_some()
    }

    pub fn is_stalled(&self, client: usize) -> bool {
        self.clients[client].as_ref().is_some_and(|c| c.stalled)
    }

    /// Names of what is held for a user.
    pub fn held(&self) -> Vec<(u32, u8)> {
        self.holds.keys().copied().collect()
    }

    pub fn op(&mut self, op: &Op, connected: bool) -> Check {
        self.dashed = None;
        match op {
            Op::Connect(c, uid, inspects, _) => return self.connect(*c as usize, *uid, *inspects, connected),
            Op::Ask(c, asks) => asks.iter().for_each(|a| self.ask(*c as usize, *a)),
            Op::Dash(c, asks) => {
                self.dashed = self.clients[*c as usize].as_ref().map(|c| c.base);
                asks.iter().for_each(|a| self.ask(*c as usize, *a));
                self.leave(*c as usize);
            }
            Op::Stall(c) => self.at(*c).stalled = true,
            Op::Read(c) => self.at(*c).stalled = false,
            Op::Leave(c) => self.leave(*c as usize),
            Op::Write(w) => {
                self.readable[*w as usize] = true;
                self.changed(*w as usize);
            }
            Op::Drain(w) => self.readable[*w as usize] = false,
            Op::Reopen(w) => self.reopen(*w as usize),
        }
        self.tell_attended();
        Ok(())
    }

    fn at(&mut self, c: u8) -> &mut Client {
        self.clients[c as usize].as_mut().unwrap()
    }

    /// Charges as the books do it; `used` is what the user has.
    fn charge(&mut self, uid: u32, what: Resource, used: u64, more: u64) -> bool {
        let limit = LIMITS.iter().find(|(r, _)| *r == what).unwrap().1;
        let has_low_mark = matches!(what, Resource::Connections | Resource::Names);
        let wary = self.wary.entry((uid, what as u8)).or_default();
        let mark = if *wary { limit - (limit / 10).max(1) } else { limit };
        let fits = used + more <= mark;
        *wary = !fits && has_low_mark;
        fits
    }

    fn connections(&self, uid: u32) -> u64 {
        self.live().filter(|(_, c)| c.uid == uid).count() as u64
    }

    fn live(&self) -> impl Iterator<Item = (usize, &Client)> {
        let all = self.clients.iter().enumerate();
        all.filter_map(|(n, c)| c.as_ref().map(|c| (n, c))).filter(|(_, c)| !c.is_over())
    }

    /// With the last of a user what is written of him goes.
    fn forget(&mut self, uid: u32) {
        if self.connections(uid) == 0 && !self.holds.keys().any(|(u, _)| *u == uid) {
            self.wary.retain(|(u, _), _| *u != uid);
        }
    }

    fn connect(&mut self, c: usize, uid: u32, inspects: bool, connected: bool) -> Check {
        self.leave(c);
        self.clients[c] = None;
        self.tell_attended();
        let used = self.connections(uid);
        let fits = self.charge(uid, Resource::Connections, used, 1);
        self.forget(uid);
        if fits != connected {
            return Err(format!("a connection of user {uid}, who has {used}: {connected}"));
        }
        if fits {
            self.last_base += 1;
            self.clients[c] = Some(Client {
                uid,
                inspects,
                base: self.last_base,
                role: None,
                serial: 0,
                stalled: false,
                watches: Default::default(),
                timers: Default::default(),
                names: BTreeMap::new(),
                names_charged: 0,
                follows: Vec::new(),
                attended: false,
                taken: 0,
                expected: Expected::default(),
            });
        }
        Ok(())
    }

    fn leave(&mut self, c: usize) {
        let Some(client) = &mut self.clients[c] else { return };
        let (uid, base) = (client.uid, client.base);
        client.expected.is_over = true;
        for held in self.holds.values_mut().filter(|h| h.taking == Some(base)) {
            held.taking = None;
        }
        self.forget(uid);
    }

    /// Who left by himself is told nothing more.
    pub fn gone(&mut self, c: usize) {
        self.clients[c] = None;
    }

    /// Everybody whose base somebody follows, or no longer follows, is told.
    fn tell_attended(&mut self) {
        let follows: Vec<(u32, bool, Vec<Option<u64>>)> =
            self.live().map(|(_, c)| (c.uid, c.inspects, c.follows.clone())).collect();
        for client in self.clients.iter_mut().flatten().filter(|c| c.is_client() && !c.expected.is_over) {
            let is = follows.iter().any(|(uid, inspects, follows)| {
                follows.iter().any(|f| f.map_or(*inspects || *uid == client.uid, |f| f == client.base))
            });
            if is != client.attended {
                client.attended = is;
                client.expected.attend.push(is);
                client.expected.bytes += 20;
            }
        }
    }

    /// Something happened in a base.
    fn trace(&mut self, base: u64, uid: u32, source: TraceSource, id: u32, count: u32) {
        for client in self.clients.iter_mut().flatten().filter(|c| !c.expected.is_over) {
            let sees = client.may_see(uid);
            if client.follows.iter().any(|f| f.map_or(sees, |f| f == base)) {
                client.expected.trace.push((base, source as u8, id, count));
                client.expected.bytes += 120;
            }
        }
    }

    /// A wire is ready: who waits for it hears of it.
    fn changed(&mut self, wire: usize) {
        (0..CLIENTS).for_each(|c| self.report(c, wire));
    }

    fn report(&mut self, c: usize, wire: usize) {
        let Some(client) = &mut self.clients[c] else { return };
        let watch = &mut client.watches[wire];
        if !watch.armed || watch.lost || client.expected.is_over {
            return;
        }
        if !watch.edge {
            (watch.armed, watch.kept) = (false, false);
        }
        let range = client.expected.watches.entry((wire as u32, watch.seq)).or_default();
        *range = Range(1, range.1 + 1);
        client.expected.bytes += 40;
        let (base, uid) = (client.base, client.uid);
        self.trace(base, uid, TraceSource::Parked, wire as u32, 1);
    }

    fn reopen(&mut self, wire: usize) {
        self.readable[wire] = false;
        for c in 0..CLIENTS {
            let Some(client) = &mut self.clients[c] else { continue };
            if client.watches[wire].kept {
                // Its copy sees the hang-up.
                self.report(c, wire);
            } else if client.watches[wire].armed {
                client.watches[wire].lost = true;
            }
        }
    }

    fn ask(&mut self, c: usize, ask: Ask) {
        let Some(client) = &mut self.clients[c] else { return };
        if client.expected.is_over {
            return;
        }
        client.serial += 1;
        let serial = client.serial;
        if let Ask::Flood(n) = ask {
            client.serial += u64::from(n) - 1;
        }
        let Some(role) = client.role else { return self.hello(c, serial, ask) };
        let for_client = matches!(
            ask,
            Ask::Arm(..)
                | Ask::Disarm(_)
                | Ask::Gone(_)
                | Ask::Served(_)
                | Ask::Timer(..)
                | Ask::Cancel(_)
                | Ask::Subscribe(..)
                | Ask::Unsubscribe(_)
        );
        let for_control = matches!(ask, Ask::Follow(_) | Ask::Status);
        if (for_client && role == Hello::Control) || (for_control && role == Hello::Client) {
            return client.answer(Answer::Refused(Code::NotAllowed));
        }
        let (uid, base) = (client.uid, client.base);
        match ask {
            Ask::Hello(_) | Ask::Garbage => {
                client.end(0, Code::Protocol);
                self.leave(c);
            }
            Ask::Arm(wire, how) => self.arm(c, wire as usize, how),
            Ask::Disarm(wire) | Ask::Gone(wire) => {
                let watch = &mut client.watches[wire as usize];
                (watch.armed, watch.kept) = (false, false);
                stale(&mut client.expected, u32::from(wire));
            }
            Ask::Served(wire) if client.attended => {
                self.trace(base, uid, TraceSource::Local, u32::from(wire), 3);
            }
            Ask::Served(_) => {}
            Ask::Timer(id, now) => {
                let pending = client.expected.timers.entry(u32::from(id)).or_default();
                pending.0 = 0;
                client.timers[id as usize] = !now;
                if now {
                    *pending = Range(1, pending.1 + 1);
                    client.expected.bytes += 40;
                    self.trace(base, uid, TraceSource::Timer, u32::from(id), 1);
                }
            }
            Ask::Cancel(id) => {
                client.expected.timers.entry(u32::from(id)).or_default().0 = 0;
                client.timers[id as usize] = false;
            }
            Ask::Subscribe(id, name) => self.subscribe(c, id, name),
            Ask::Unsubscribe(id) => {
                client.names.remove(&id);
                client.expected.names.entry(u32::from(id)).or_default().0 = 0;
            }
            Ask::Trigger(name) => self.trigger(c, name),
            Ask::Put(name, replace, bytes, over) => self.put(c, name, replace, bytes, over),
            Ask::Take(name, keep) => {
                let answer = match self.holds.get_mut(&(uid, name)) {
                    None => Answer::Refused(missing(name)),
                    Some(held) if !keep && held.taking.is_some() => Answer::Refused(Code::Busy),
                    Some(held) if keep => Answer::Took { copy: true, bytes: held.bytes },
                    Some(held) => {
                        held.taking = Some(base);
                        client.taken = held.number;
                        Answer::Took { copy: false, bytes: held.bytes }
                    }
                };
                client.answer(answer);
            }
            Ask::Taken => {
                let taken = client.taken;
                self.holds.retain(|(of, _), h| *of != uid || h.number != taken || h.taking != Some(base));
            }
            Ask::Drop(name) => {
                let answer = match self.holds.remove(&(uid, name)) {
                    Some(_) => Answer::Done,
                    None => Answer::Refused(missing(name)),
                };
                client.answer(answer);
            }
            Ask::List => {
                let of = self.holds.iter().filter(|((of, _), _)| *of == uid);
                let all = of.map(|((_, name), h)| (NAMES[*name as usize].to_owned(), h.bytes));
                client.answer(Answer::Holds(all.collect()));
            }
            Ask::Follow(of) => self.follow(c, of),
            Ask::Status => self.status(c),
            Ask::Sync => client.answer(Answer::Done),
            Ask::Flood(_) => {
                for serial in serial..=client.serial {
                    client.expected.answers.push((serial, Answer::Done));
                    client.expected.bytes += 16;
                }
            }
        }
    }

    fn hello(&mut self, c: usize, serial: u64, ask: Ask) {
        let client = self.clients[c].as_mut().unwrap();
        match ask {
            Ask::Hello(role @ (Hello::Client | Hello::Control)) => {
                client.role = Some(role);
                let base = if role == Hello::Client { client.base } else { 0 };
                return client.answer(Answer::Welcome(base));
            }
            Ask::Hello(Hello::BadVersion) => client.end(serial, Code::Version),
            Ask::Hello(Hello::BadName) => client.end(serial, Code::BadName),
            Ask::Garbage => client.end(0, Code::Protocol),
            _ => client.end(serial, Code::Protocol),
        }
        self.leave(c);
    }

    fn arm(&mut self, c: usize, wire: usize, how: How) {
        let client = self.clients[c].as_mut().unwrap();
        stale(&mut client.expected, wire as u32);
        let watch = &mut client.watches[wire];
        *watch = Watch {
            seq: watch.seq + 1,
            armed: true,
            edge: how == How::Edge,
            kept: how == How::Keep,
            lost: false,
        };
        if self.readable[wire] {
            self.report(c, wire);
        }
    }

    fn subscribe(&mut self, c: usize, id: u8, name: u8) {
        let client = self.clients[c].as_ref().unwrap();
        let (uid, used) = (client.uid, client.names.len() as u64);
        let answer = if name == 2 {
            Answer::Refused(Code::BadName)
        } else if client.names.contains_key(&id) {
            Answer::Refused(Code::BadRequest)
        } else {
            let more = (used + 1).saturating_sub(client.names_charged);
            let all = self.live().filter(|(_, c)| c.uid == uid).map(|(_, c)| c.names_charged).sum();
            if more > 0 && !self.charge(uid, Resource::Names, all, more) {
                Answer::Refused(Code::Limit)
            } else {
                let client = self.clients[c].as_mut().unwrap();
                client.names_charged += more;
                client.names.insert(id, name);
                Answer::Done
            }
        };
        self.clients[c].as_mut().unwrap().answer(answer);
    }

    fn trigger(&mut self, c: usize, name: u8) {
        let uid = self.clients[c].as_ref().unwrap().uid;
        let (mut reached, mut queued) = (0, 0);
        for n in 0..CLIENTS {
            let Some(client) = &mut self.clients[n] else { continue };
            if client.uid != uid || client.expected.is_over {
                continue;
            }
            let (base, stalled) = (client.base, client.stalled);
            let ids: Vec<u8> = client.names.iter().filter(|(_, n)| **n == name).map(|(id, _)| *id).collect();
            for id in ids {
                let client = self.clients[n].as_mut().unwrap();
                let range = client.expected.names.entry(u32::from(id)).or_default();
                *range = Range(range.0 + 1, range.1 + 1);
                client.expected.bytes += 40;
                // Where it is of one that does not read, is its kernel's matter.
                *(if stalled { &mut queued } else { &mut reached }) += 1;
                self.trace(base, uid, TraceSource::Name, u32::from(id), 1);
            }
        }
        let answer = match (reached, queued) {
            (0, 0) => Answer::Refused(missing(name)),
            _ => Answer::Triggered { reached, queued },
        };
        self.clients[c].as_mut().unwrap().answer(answer);
    }

    fn put(&mut self, c: usize, name: u8, replace: bool, bytes: u8, over: bool) {
        let uid = self.clients[c].as_ref().unwrap().uid;
        let answer = if name == 2 {
            Answer::Refused(Code::BadName)
        } else {
            self.last_hold += 1;
            let (count, sum) = self.held_by(uid);
            let exists = self.holds.contains_key(&(uid, name));
            if exists && !replace {
                Answer::Refused(Code::Exists)
            } else if !exists && !self.charge_hold(uid, count, sum, u64::from(bytes)) {
                Answer::Refused(Code::Limit)
            } else {
                let held = Held { number: self.last_hold, bytes, taking: None };
                self.holds.insert((uid, name), held);
                if over {
                    self.holds.remove(&(uid, name));
                }
                Answer::Done
            }
        };
        self.clients[c].as_mut().unwrap().answer(answer);
    }

    fn charge_hold(&mut self, uid: u32, count: u64, sum: u64, bytes: u64) -> bool {
        self.charge(uid, Resource::Holds, count, 1) && self.charge(uid, Resource::HoldBytes, sum, bytes)
    }

    fn held_by(&self, uid: u32) -> (u64, u64) {
        let all = self.holds.iter().filter(|((of, _), _)| *of == uid);
        all.fold((0, 0), |(n, bytes), (_, h)| (n + 1, bytes + u64::from(h.bytes)))
    }

    fn follow(&mut self, c: usize, of: Option<u8>) {
        let bases = self.bases();
        let other = of.and_then(|of| self.clients[of as usize].as_ref()).map(|o| o.uid);
        let client = self.clients[c].as_mut().unwrap();
        let base = of.map(|of| bases[of as usize]);
        if base.is_some_and(|base| base == 0 || !other.is_some_and(|uid| client.may_see(uid))) {
            return client.answer(Answer::Refused(Code::Unknown));
        }
        if !client.follows.contains(&base) {
            client.follows.push(base);
        }
        client.answer(Answer::Done);
    }

    fn status(&mut self, c: usize) {
        let me = self.clients[c].as_ref().unwrap();
        let mut bases: Vec<_> = self
            .live()
            .filter(|(_, c)| c.is_client() && me.may_see(c.uid))
            .map(|(_, c)| {
                let parked = c.watches.iter().filter(|w| w.armed).count() as u32;
                let timers = c.timers.iter().filter(|set| **set).count() as u32;
                (c.base, parked, timers, c.names.len() as u32)
            })
            .collect();
        bases.sort_unstable();
        let mut names: Vec<_> = self
            .live()
            .filter(|(_, c)| me.may_see(c.uid))
            .flat_map(|(_, c)| c.names.values().map(|n| (c.uid, *n)))
            .collect();
        names.sort_unstable();
        names.dedup();
        let holds = self.holds.keys().filter(|(of, _)| me.may_see(*of)).count() as u32;
        let names = names.len() as u32;
        self.clients[c].as_mut().unwrap().answer(Answer::Status { bases, holds, names });
    }

    /// Compares what a client was told with what it must be.
    /// Whether evd has ended its connection.
    pub fn is_over(&self, c: usize) -> bool {
        self.clients[c].as_ref().is_some_and(Client::is_over)
    }

    pub fn compare(&mut self, c: usize, mut told: Told) -> Check {
        let dashed = self.dashed;
        let Some(client) = &mut self.clients[c] else { return Ok(()) };
        let mut expected = std::mem::take(&mut client.expected);
        client.expected.is_over = expected.is_over;
        let wrong = |what: &str, expected: &dyn std::fmt::Debug, told: &dyn std::fmt::Debug| {
            Err(format!("{what} of client {c}: {expected:?} expected, and {told:?} came"))
        };
        // Answers have serials, and need not come in their order: what evd refuses at once overtakes what the server does. The last words have none.
        told.answers.sort_by_key(|(serial, _)| serial.wrapping_sub(1));
        if expected.answers.len() != told.answers.len()
            || !expected.answers.iter().zip(&told.answers).all(|(a, b)| a.0 == b.0 && is_alike(&a.1, &b.1))
        {
            return wrong("the answers", &expected.answers, &told.answers);
        }
        if let (Some(_), [.., true, false]) = (dashed, &told.attend[..]) {
            // Who left had followed it for a moment.
            told.attend.truncate(told.attend.len() - 2);
        }
        if expected.attend != told.attend {
            return wrong("what is followed", &expected.attend, &told.attend);
        }
        let open = |t: &(u64, u8, u32, u32)| Some(t.0) != dashed;
        expected.trace.retain(open);
        told.trace.retain(open);
        expected.trace.sort_unstable();
        told.trace.sort_unstable();
        if expected.trace != told.trace {
            return wrong("what it follows", &expected.trace, &told.trace);
        }
        if expected.is_over != told.is_over {
            return wrong("the end", &expected.is_over, &told.is_over);
        }
        let mut watches: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for watch in &told.active.watches {
            // A hang-up is both.
            if !watch.ready.contains(What::READ) || watch.ready.contains(What::TIMEOUT) {
                return wrong("what a watch is ready for", &What::READ, watch);
            }
            *watches.entry((watch.id, watch.seq)).or_default() += 1;
        }
        let mut timers: BTreeMap<u32, u32> = BTreeMap::new();
        for timer in &told.active.timers {
            if timer.deadline != 1 {
                return wrong("a timer", &1, timer);
            }
            *timers.entry(timer.id).or_default() += 1;
        }
        let mut names: BTreeMap<u32, u32> = BTreeMap::new();
        for name in &told.active.names {
            *names.entry(name.id).or_default() += name.count;
        }
        if expected.is_over {
            // What was under way to who was refused may not come.
            return Ok(());
        }
        if !fits(&expected.watches, &watches) {
            return wrong("watches", &expected.watches, &watches);
        }
        if !fits(&expected.timers, &timers) {
            return wrong("timers", &expected.timers, &timers);
        }
        if !fits(&expected.names, &names) {
            return wrong("names", &expected.names, &names);
        }
        Ok(())
    }

    /// Compares what users are charged with what they have.
    pub fn audit(&self, accounts: &[AccountInfo]) -> Check {
        for account in accounts {
            let uid = account.uid;
            let clients = || self.live().map(|(_, c)| c).filter(move |c| c.uid == uid);
            let used = |what: Resource| account.uses.iter().find(|u| u.what == what).map_or(0, |u| u.used);
            let (holds, bytes) = self.held_by(uid);
            let exact = [
                (Resource::Connections, self.connections(uid)),
                (Resource::Names, clients().map(|c| c.names_charged).sum()),
                (Resource::Holds, holds),
                (Resource::HoldBytes, bytes),
                (Resource::Requests, 0),
                (Resource::Threads, 0),
            ];
            for (what, n) in exact {
                if used(what) != n {
                    return Err(format!("user {uid} is charged {} {what}, and has {n}", used(what)));
                }
            }
            let armed = |kept: bool| {
                clients().flat_map(|c| c.watches).filter(|w| w.armed && (w.kept || !kept)).count()
            };
            let set = clients().flat_map(|c| c.timers).filter(|set| *set).count();
            for (what, n) in
                [(Resource::Watches, armed(false)), (Resource::Copies, armed(true)), (Resource::Timers, set)]
            {
                if used(what) < n as u64 {
                    return Err(format!("user {uid} is charged {} {what}, and has {n}", used(what)));
                }
            }
            if used(Resource::Output) != 0 && !clients().any(|c| c.stalled) {
                return Err(format!(
                    "all was read, and user {uid} is charged {} bytes",
                    used(Resource::Output)
                ));
            }
        }
        let known = |uid: u32| accounts.iter().any(|a| a.uid == uid);
        match self.live().find(|(_, c)| !known(c.uid)) {
            Some((_, c)) => Err(format!("user {} has no account", c.uid)),
            None => Ok(()),
        }
    }
}

/// What was due of a watch is out of date.
fn stale(expected: &mut Expected, wire: u32) {
    for ((id, _), range) in &mut expected.watches {
        if *id == wire {
            range.0 = 0;
        }
    }
}

fn fits<K: Ord>(expected: &BTreeMap<K, Range>, told: &BTreeMap<K, u32>) -> bool {
    let within = |(k, n): (&K, &u32)| expected.get(k).is_some_and(|r| (r.0..=r.1).contains(n));
    told.iter().all(within) && expected.iter().all(|(k, r)| r.0 == 0 || told.contains_key(k))
}

/// Of who does not read, evd may think that he has it.
fn is_alike(expected: &Answer, told: &Answer) -> bool {
    match (expected, told) {
        (Answer::Triggered { reached, queued }, Answer::Triggered { reached: r, queued: q }) => {
            reached + queued == r + q && r >= reached
        }
        _ => expected == told,
    }
}

/// What is told of a name that nothing has: 2 can't be one.
fn missing(name: u8) -> Code {
    if name == 2 { Code::BadName } else { Code::Unknown }
}
