//! The link to evd over time: connecting, up, lost, connecting again.
//!
//! Losing evd costs no event: what is in the socket is read to its end first, then every parked watch goes into the local backend. While evd is away
//! the link is tried again with growing, jittered pauses, from inside the loop and never blocking it.

use crate::Error;
use crate::events::{after, nanos};
use crate::line::{Ended, Incoming, Introduction, Line, Reply};
use crate::state::{Bits, Place, Sender, State};
use evd::backend::{Entry, Interest, Mode};
use evd_proto::What;
use evd_proto::channel::Scratch;
use evd_proto::notice::Active;
use evd_proto::reply::{Code, Welcome};
use evd_proto::request::{DaemonSignal, Subscribe, TakenAll, Unsubscribe};
use evd_proto::sys::{self, AsFd};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// The token of the link's socket in the local base.
pub(crate) const LINK_TOKEN: u64 = 1 << 62;
/// How long evd may take to answer before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
const SHORTEST_PAUSE: u64 = 10_000_000;
const LONGEST_PAUSE: u64 = 2_000_000_000;
/// A link that stood so long starts with the shortest pause again.
const STABLE: u64 = 5_000_000_000;

/// Whether the base's quiet watches are at evd.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// The base runs in-process, by choice or because evd was not there when it was made.
    Local,
    /// evd waits for what is quiet.
    Up {
        /// The base's id at evd, as `evctl` shows it.
        base: u64,
    },
    /// evd went away, or is stuck: everything runs in-process until it is back.
    Away {
        /// For people: what happened.
        why: String,
    },
}

pub(crate) enum Phase {
    Off,
    /// Not before this time.
    Pause(u64),
    /// Hello is sent; given up at this time.
    Greeting(Line, u64),
    Up(Box<Up>),
}

pub(crate) struct Up {
    pub line: Line,
    pub welcome: Welcome,
    pub clock_offset: i64,
    since: u64,
    /// A `Sync` that is not answered yet, and until when it must be.
    pub sync: Option<(u64, u64)>,
    /// What a refusal would mean: the last request for each. What is not refused is not answered.
    pending: HashMap<Pending, u64>,
    /// Whether /proc shows evd's thread to us.
    pub visible: bool,
    pub busy_checks: u32,
    want_write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Pending {
    Name(u32),
    Signal(i32),
}

pub(crate) struct Link {
    pub path: PathBuf,
    pub who: Introduction,
    pub phase: Phase,
    pub state: LinkState,
    pub liveness: u64,
    pub next_check: u64,
    pause: u64,
    /// Numbers of holds that have arrived here, as long as evd may not have heard of it.
    pub taken: Vec<u64>,
    /// The link was lost because there was no fd left for what evd sent.
    no_fds: bool,
    /// Told to the user when no callback is running.
    pub news: Vec<LinkState>,
    scratch: Option<Box<Scratch>>,
}

impl Link {
    pub fn new(path: PathBuf, who: Introduction, liveness: Duration) -> Link {
        Link {
            path,
            who,
            phase: Phase::Off,
            state: LinkState::Local,
            liveness: nanos(liveness),
            next_check: 0,
            pause: SHORTEST_PAUSE,
            taken: Vec::new(),
            no_fds: false,
            news: Vec::new(),
            scratch: None,
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    /// Whether the base is, or wants to be, at evd.
    pub fn is_wanted(&self) -> bool {
        !matches!(self.phase, Phase::Off)
    }

    pub fn up(&mut self) -> Option<&mut Up> {
        match &mut self.phase {
            Phase::Up(up) => Some(up),
            _ => None,
        }
    }

    /// What a request gets that the link was lost under.
    fn lost(&self) -> Error {
        if self.no_fds { Ended::FdsLost.into() } else { Error::Lost }
    }

    /// Told as soon as something is sent.
    pub fn subscribe(&mut self, id: u32, name: &str) {
        let Some(up) = self.up() else { return };
        if let Ok(serial) = up.line.post(&Subscribe { id, name: name.to_owned() }) {
            up.pending.insert(Pending::Name(id), serial);
        }
    }

    pub fn unsubscribe(&mut self, id: u32) {
        if let Some(up) = self.up() {
            let _ = up.line.post(&Unsubscribe { id });
        }
    }

    pub fn want_signal(&mut self, signo: i32, on: bool) {
        let Some(up) = self.up() else { return };
        if let Ok(serial) = up.line.post(&DaemonSignal { signo, on }) {
            up.pending.insert(Pending::Signal(signo), serial);
        }
    }

    /// When the loop must be awake for the link, if `relied_on` says that something waits at evd.
    pub fn deadline(&self, relied_on: bool) -> Option<u64> {
        match &self.phase {
            Phase::Off => None,
            Phase::Pause(until) => Some(*until),
            Phase::Greeting(_, until) => Some(*until),
            Phase::Up(up) => {
                let sync = up.sync.map(|(_, until)| until);
                let check = relied_on.then_some(self.next_check);
                [sync, check].into_iter().flatten().min()
            }
        }
    }

    pub fn say(&mut self, state: LinkState) {
        self.state = state.clone();
        self.news.push(state);
    }

    /// The pause before the next try: longer each time, and not the same for everybody who lost the same evd.
    fn next_pause(&mut self, mut x: u64) -> u64 {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        x |= 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        pause / 2 + x % (pause / 2 + 1)
    }
}

impl State {
    /// Connects now and waits for the Welcome.
    pub fn connect_now(&mut self, patience: Duration) -> Result<(), Error> {
        let mut line = Line::open(&self.link.path, &self.link.who)?;
        let deadline = after(sys::monotonic_ns(), patience);
        let mut incoming = Vec::new();
        let mut scratch = Scratch::new();
        loop {
            let ended = line.receive(&mut scratch, &mut incoming);
            let mut rest = incoming.drain(..);
            match rest.next() {
                Some(Incoming::Welcome(welcome)) => {
                    self.link_up(line, welcome);
                    // What came right behind it.
                    self.take_incoming(rest, &mut Vec::new());
                    return Ok(());
                }
                Some(Incoming::Reply(_, Reply::Refused(r))) => return Err(r.into()),
                _ => {}
            }
            drop(rest);
            ended.map_err(|_| Error::Lost)?;
            line.wait(deadline)?;
        }
    }

    /// Tries again later, from inside the loop.
    pub fn connect_later(&mut self) {
        let now = self.base.look_at_clock();
        // What a test with a clock of its own sees is to be the same each time.
        let own = if self.base.has_set_clock() { 0 } else { u64::from(std::process::id()) << 32 };
        let pause = self.link.next_pause(now ^ own);
        self.link.phase = Phase::Pause(now + pause);
    }

    /// What is due for the link, once a turn.
    pub fn tend_link(&mut self) {
        let now = self.base.now();
        match &mut self.link.phase {
            Phase::Off => {}
            Phase::Pause(until) if *until <= now => match Line::open(&self.link.path, &self.link.who) {
                Ok(line) => {
                    let ok = self.watch_link(&line);
                    let until = after(now, PATIENCE * 5);
                    self.link.phase = Phase::Greeting(line, until);
                    if !ok {
                        self.connect_later();
                    }
                }
                Err(_) => self.connect_later(),
            },
            Phase::Pause(_) => {}
            Phase::Greeting(line, until) => {
                if *until <= now {
                    self.base.unwatch(line.as_fd(), LINK_TOKEN);
                    self.connect_later();
                }
            }
            Phase::Up(up) => {
                if up.sync.is_some_and(|(_, until)| until <= now) {
                    return self.lose("evd does not answer".to_owned());
                }
                if self.relies_on_evd() && self.link.next_check <= now {
                    self.check_alive(now);
                }
            }
        }
    }

    fn watch_link(&mut self, line: &Line) -> bool {
        let interest = Interest { what: What::READ, mode: Mode::Level };
        self.base.watch(line.as_fd(), LINK_TOKEN, interest, Entry::New).is_ok()
    }

    fn link_up(&mut self, line: Line, welcome: Welcome) {
        let now = self.base.refresh_now();
        let clock_offset = line.clock_offset(&welcome);
        let visible = sys::thread_name(welcome.pid, welcome.tid).is_some_and(|n| n.starts_with("evd"));
        if !self.watch_link(&line) {
            return self.connect_later();
        }
        let base = welcome.base;
        self.link.phase = Phase::Up(Box::new(Up {
            line,
            welcome,
            clock_offset,
            since: now,
            sync: None,
            pending: HashMap::new(),
            visible,
            busy_checks: 0,
            want_write: false,
        }));
        self.link.next_check = now.saturating_add(self.link.liveness);
        self.link.say(LinkState::Up { base });
        self.park.start_session();
        let names: Vec<(u32, String)> = self.names.iter().map(|(id, n)| (*id, n.clone())).collect();
        for (id, name) in names {
            self.link.subscribe(id, &name);
        }
        if let (false, Phase::Up(up)) = (self.link.taken.is_empty(), &mut self.link.phase) {
            // The evd before may not have heard that these have arrived.
            let _ = up.line.post(&TakenAll { holds: self.link.taken.clone() });
        }
        for signo in self.daemon_signals.keys().copied().collect::<Vec<_>>() {
            self.link.want_signal(signo, true);
        }
        let mut timed = Vec::new();
        for (id, slot) in self.events.iter_mut() {
            slot.bits.set(Bits::TIMER_DIRTY, slot.timer.is_some());
            if slot.timer.is_some() {
                timed.push(id as u32);
            }
        }
        self.park.dirty_timers = timed;
        for id in self.labels.keys().copied().collect::<Vec<_>>() {
            self.tell_label(id);
        }
        // What evd refused the last time it may take now.
        let local: Vec<u32> =
            self.watches.iter().filter(|(_, w)| w.place == Place::Local).map(|(w, _)| w as u32).collect();
        for w in local {
            self.watch_mut(w).pinned = false;
            self.set_place(w, Place::Local);
        }
        self.flush_link();
    }

    /// evd is gone, stuck or broken: everything goes on here.
    pub fn lose(&mut self, why: String) {
        let mut up = match std::mem::replace(&mut self.link.phase, Phase::Off) {
            Phase::Up(up) => up,
            // It ends before it was there.
            Phase::Greeting(line, _) => {
                self.base.unwatch(line.as_fd(), LINK_TOKEN);
                return self.connect_later();
            }
            other => {
                self.link.phase = other;
                return;
            }
        };
        // What evd had sent is valid: read it to its end first.
        let mut incoming = Vec::new();
        let mut scratch = self.link.scratch.take().unwrap_or_default();
        let _ = up.line.drain(&mut scratch, &mut incoming);
        self.link.scratch = Some(scratch);
        for came in incoming {
            if let Incoming::Active(active) = came {
                self.take_active(&active);
            }
        }
        self.base.unwatch(up.line.as_fd(), LINK_TOKEN);
        if up.since + STABLE <= self.base.now() {
            self.link.pause = SHORTEST_PAUSE;
        }
        drop(up);
        self.connect_later();
        let nowhere = |p| matches!(p, Place::Parked | Place::Out);
        let back: Vec<u32> =
            self.watches.iter().filter(|(_, w)| nowhere(w.place)).map(|(w, _)| w as u32).collect();
        for w in back {
            self.fall_back(w);
        }
        self.park.end_session();
        for (_, slot) in self.events.iter_mut() {
            slot.bits -= Bits::TIMER_DIRTY;
        }
        log::info!("evd is away: {why}");
        self.link.say(LinkState::Away { why });
    }

    /// Sends what waits to be sent; asks to be told when there is room if not all of it went.
    pub fn flush_link(&mut self) {
        let Phase::Up(up) = &mut self.link.phase else { return };
        if !up.line.unsent && !up.want_write {
            return;
        }
        match up.line.flush() {
            Ok(all) => {
                if all == up.want_write {
                    up.want_write = !all;
                    let what = if all { What::READ } else { What::READ | What::WRITE };
                    let interest = Interest { what, mode: Mode::Level };
                    let _ = self.base.watch(up.line.as_fd(), LINK_TOKEN, interest, Entry::Known);
                }
            }
            Err(e) => self.lose(format!("sending to evd failed: {e}")),
        }
    }

    /// Reads what evd has sent. Replies that somebody waits for are returned.
    pub fn read_link(&mut self) -> Vec<(u64, Reply)> {
        let mut replies = Vec::new();
        let mut incoming = Vec::new();
        let mut scratch = self.link.scratch.take().unwrap_or_default();
        let ended = match &mut self.link.phase {
            Phase::Up(up) => up.line.receive(&mut scratch, &mut incoming),
            Phase::Greeting(line, _) => line.receive(&mut scratch, &mut incoming),
            _ => Ok(()),
        };
        self.link.scratch = Some(scratch);
        self.take_incoming(incoming, &mut replies);
        if let Err(ended) = ended {
            match &self.link.phase {
                Phase::Up(_) => {
                    self.link.no_fds = matches!(ended, Ended::FdsLost);
                    self.lose(ended.to_string());
                }
                Phase::Greeting(line, _) => {
                    self.base.unwatch(line.as_fd(), LINK_TOKEN);
                    self.connect_later();
                }
                _ => {}
            }
        }
        replies
    }

    fn take_incoming(
        &mut self,
        incoming: impl IntoIterator<Item = Incoming>,
        replies: &mut Vec<(u64, Reply)>,
    ) {
        for came in incoming {
            match came {
                Incoming::Active(active) => self.take_active(&active),
                Incoming::Attend(on) => self.park.attended = on,
                Incoming::Closing(reason) => {
                    self.lose(format!("evd ended: {}", evd_proto::name::printable(&reason)))
                }
                Incoming::Welcome(welcome) => match std::mem::replace(&mut self.link.phase, Phase::Off) {
                    Phase::Greeting(line, until) => {
                        self.link.phase = Phase::Pause(until);
                        self.base.unwatch(line.as_fd(), LINK_TOKEN);
                        self.link_up(line, welcome);
                    }
                    other => {
                        self.link.phase = other;
                        self.lose("evd broke the protocol: a second Welcome".to_owned());
                    }
                },
                Incoming::Reply(serial, reply) => self.take_reply(serial, reply, replies),
            }
        }
    }

    fn take_reply(&mut self, serial: u64, reply: Reply, replies: &mut Vec<(u64, Reply)>) {
        if let Some(up) = self.link.up() {
            if up.sync.is_some_and(|(s, _)| s == serial) {
                up.sync = None;
                up.busy_checks = 0;
                return;
            }
            let refused = match &reply {
                Reply::Refused(r) => up.pending.iter().find(|(_, s)| **s == serial).map(|(p, _)| (*p, r)),
                _ => None,
            };
            if let Some((pending, r)) = refused {
                up.pending.remove(&pending);
                let what = match pending {
                    Pending::Name(id) => format!("named event {:?}", self.names.get(&id)),
                    Pending::Signal(signo) => format!("signal {}", sys::signal_name(signo)),
                };
                log::warn!("evd refused {what}: {}", evd_proto::name::printable(&r.text));
                return;
            }
        }
        match reply {
            Reply::Refused(r) if !r.ids.is_empty() => {
                log::debug!(
                    "evd refused {} of a batch: {}",
                    r.ids.len(),
                    evd_proto::name::printable(&r.text)
                );
                if matches!(r.code, Code::Limit | Code::OutOfFds) {
                    self.park.pause(self.base.now());
                }
                for (id, seq) in r.ids {
                    // An arm's is never 0.
                    if seq == 0 { self.refused_timer(id) } else { self.refused_arm(id, seq) }
                }
            }
            Reply::Refused(r) if matches!(r.code, Code::Protocol | Code::FdsLost) => {
                log::warn!("evd ends the connection: {}", evd_proto::name::printable(&r.text));
            }
            reply => replies.push((serial, reply)),
        }
    }

    /// Sends a request and waits for its answer. Activations that come meanwhile are kept for the loop.
    pub fn ask(&mut self, send: impl Fn(&mut Line) -> Result<Option<u64>, Error>) -> Result<Reply, Error> {
        let deadline = after(sys::monotonic_ns(), PATIENCE);
        let mut asked = None;
        self.link.no_fds = false;
        loop {
            let Some(up) = self.link.up() else { return Err(self.link.lost()) };
            if asked.is_none() {
                asked = send(&mut up.line)?;
            }
            self.flush_link();
            let found = self.read_link().into_iter().find(|(serial, _)| Some(*serial) == asked);
            if let Some((_, reply)) = found {
                return match reply {
                    Reply::Refused(r) => Err(r.into()),
                    reply => Ok(reply),
                };
            }
            let Some(up) = self.link.up() else { return Err(self.link.lost()) };
            up.line.unsent |= asked.is_none();
            if let Err(e) = up.line.wait(deadline) {
                if matches!(e, Error::TimedOut) {
                    self.lose("evd does not answer".to_owned());
                }
                return Err(Error::Lost);
            }
        }
    }

    /// What evd reported: parked watches are taken back, timers are due by our own clock, the rest becomes active.
    pub fn take_active(&mut self, active: &Active) {
        for report in &active.watches {
            let known = self.watches.get(report.id as usize).is_some_and(|w| w.place == Place::Parked);
            if !known || self.park.seq(report.id) != report.seq {
                continue;
            }
            if self.watch(report.id).is_edge() {
                self.fire(report.id, report.ready);
            } else {
                // The turn looks at it before it runs anything: a stale report never reaches a callback.
                self.set_place(report.id, Place::Out);
            }
        }
        for timer in &active.timers {
            self.timer_reported(timer);
        }
        for name in &active.names {
            if self.names.contains_key(&name.id) {
                self.activate(name.id, What::empty(), name.count);
            }
        }
        for signal in &active.signals {
            if let Some(&first) = self.daemon_signals.get(&signal.signo) {
                let sender = Sender { pid: signal.pid, uid: signal.uid, code: signal.code };
                self.signal_came(first, signal.signo, signal.count, sender);
            }
        }
    }

    /// A signal came: each of its events is called as often, newest first.
    pub fn signal_came(&mut self, first: u32, signo: i32, count: u32, sender: Sender) {
        self.senders.insert(signo, sender);
        self.activate_signal(first, count);
    }

    /// The same without a sender.
    pub fn activate_signal(&mut self, first: u32, count: u32) {
        let ids: Vec<u32> = self.newest_first(first).collect();
        for id in ids {
            self.activate(id, What::SIGNAL, count);
        }
    }
}
