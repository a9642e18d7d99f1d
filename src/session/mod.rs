//! One client of evd: its requests in, its activations out, and what they may cost.
//!
//! A session owns its [`Base`], and its own socket is a watch of that base. So whoever waits, waits for one thing: a worker that serves many sessions
//! has the pollable fd of each base in its own base, and a worker of one session waits in that session's base itself. The order of calls is [`Session::wait`],
//! [`Session::handle`], what the server does about the [`Wish`]es, [`Session::deliver`].
//!
//! Nothing here knows of other sessions. What needs more than this client and its base (names, holds, status) leaves as a [`Wish`], in the order of the
//! requests, and the server answers it through [`Session::reply`].
#![forbid(unsafe_code)]

mod allowed;
pub mod books;
mod deliver;
mod ending;
mod files;
mod gifts;
mod greeting;
mod identify;
mod pages;
mod refusal;
mod requests;
mod show;
mod subscriptions;
mod timers;
mod watches;

pub use ending::Ending;
pub use files::Shares;
pub use gifts::Gift;
pub use greeting::{Caller, Greeting, Guest, Opening};
pub use refusal::Refusal;

use crate::backend::{Entry, Interest, Mode};
use crate::base::{Activation, Base};
use evd_proto::What;
use evd_proto::channel::{Channel, Fill, Scratch};
use evd_proto::frame::Body;
use evd_proto::notice::{Closing, TraceEntry};
use evd_proto::reply::{Attached, Code, Limits, Refused, Resource};
use evd_proto::request::{Attach, Role, Selector};
use evd_proto::sys::{self, FdNumber, Peer, Slot};
use evd_proto::sys::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::io;
use std::time::Duration;

/// The token of the session's own socket: ids of watches are below the limit in `Welcome`, so none has it.
const SOCKET: u64 = u32::MAX as u64;
/// That of the client's process.
const PROCESS: u64 = SOCKET - 1;
/// Replies that wait for a client that does not read; beyond it no request is read.
const MAX_REPLIES: usize = 16 * 1024;
/// How long a client may leave its answers unread, in nanoseconds.
const SLOW: u64 = 5_000_000_000;
/// Of a process that has ended at most so many receives are taken in: somebody else may write on and on.
const LAST_RECEIVES: usize = 256;
/// Requests are read at most so often in one turn, so that one busy client does not keep its worker's others waiting.
const MAX_RECEIVES: usize = 16;

/// What a worker lends to each of its sessions in turn.
pub struct Tools {
    /// Where bytes are received.
    pub scratch: Scratch,
    /// The fd number that watches are armed through.
    pub slot: Slot,
}

impl Tools {
    /// Makes them: one for each thread.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new() -> io::Result<Tools> {
        Ok(Tools { scratch: Scratch::new(), slot: Slot::new()? })
    }
}

/// A request that needs more than this client and its base. Each names the serial to answer, if there is an answer.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are those of the request of the same name")]
pub enum Wish {
    /// [`Session::subscribe`], and the table of names must have it too.
    Subscribe { serial: u64, id: u32, name: String },
    /// [`Session::unsubscribe`], and the table of names must forget it too.
    Unsubscribe { id: u32 },
    /// Activate a name.
    Trigger { serial: u64, name: String },
    /// Keep fds, all or none.
    Hold { serial: u64, gifts: Vec<Gift>, replace: bool },
    /// Give a held fd.
    Take { serial: u64, name: String, keep: bool },
    /// Give what is held under names that begin so.
    TakeAll { serial: u64, prefix: String },
    /// Fds that were given have arrived.
    Taken { holds: Vec<u64> },
    /// List what is held.
    ListHolds { serial: u64, after: String },
    /// Let a held fd go.
    DropHold { serial: u64, name: String },
    /// Answer when all before it is done.
    Sync { serial: u64 },
    /// A page of the status.
    Status { serial: u64, after: u64 },
    /// A page of a base's events.
    Events { serial: u64, base: Selector, from: (u8, u32) },
    /// Follow a base, or all.
    Follow { serial: u64, base: Option<Selector> },
}

impl Wish {
    /// The name of one thing that it is about, which must be one.
    fn name(&self) -> Option<&str> {
        match self {
            Wish::Trigger { name, .. }
            | Wish::Take { name, .. }
            | Wish::DropHold { name, .. }
            | Wish::Events { base: Selector::Name(name), .. }
            | Wish::Follow { base: Some(Selector::Name(name)), .. } => Some(name),
            _ => None,
        }
    }
}

/// Who looks at bases.
#[derive(Clone, Copy, Debug)]
pub struct Viewer {
    /// His user.
    pub uid: u32,
    /// Whether he sees those of all users.
    pub all: bool,
}

impl Viewer {
    /// Whether he may see what belongs to `uid`.
    pub fn may_see(&self, uid: u32) -> bool {
        self.all || self.uid == uid
    }
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Who {
    /// The base's id.
    pub id: u64,
    /// Its process and user.
    pub peer: Peer,
    /// Whether it may look at the bases of all users, and not only at those of its own.
    pub inspects: bool,
    /// What it calls itself.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// When it connected, in `CLOCK_MONOTONIC` nanoseconds.
    pub since: u64,
}

/// One client.
pub struct Session {
    who: Who,
    channel: Channel,
    state: State,
    acts: Vec<Activation>,
    batch: evd_proto::notice::Active,
    /// What the socket is watched for now.
    socket_interest: What,
    /// Since when the socket is full, in nanoseconds; 0: it is not.
    unread: u64,
    /// Readable when the client's process has ended.
    process: Option<OwnedFd>,
    /// Bytes of answers that were queued since nothing waited. Activations are bits, and can wait as long as they like.
    owed: usize,
    /// Since when more than [`MAX_REPLIES`] of them wait, in nanoseconds; 0: less.
    full_since: u64,
    /// Since when the client has taken nothing of what waits, in nanoseconds; 0: nothing waits.
    stalled: u64,
    /// The client has closed its socket, or hears nothing any more.
    is_deaf: bool,
    /// An fd was sent, and may not have been read.
    fd_sent: bool,
    trace_lost: u32,
    /// What waits for the client to read it.
    output: books::Charge,
    /// The last to go: with it the user may be gone from the books.
    connection: books::Charge,
}

/// All of a session but its socket, so that frames can be borrowed from the one while they change the other.
struct State {
    base: Base,
    /// The session's own socket, which is open for as long as this is here.
    connection: FdNumber,
    role: Role,
    limits: Limits,
    last_serial: u64,
    watches: watches::Watches,
    timers: timers::Timers,
    names: subscriptions::Names,
    signals: subscriptions::DaemonSignals,
    meter: show::Meter,
    /// What happened in this turn, while somebody follows.
    trace: Option<Vec<TraceEntry>>,
    takes: bool,
    attaching: gifts::Attaching,
}

impl Session {
    /// Answers the `Hello` with `Welcome`, reads what came with it, and starts watching the socket in `base`.
    ///
    /// Wishes of the requests that came with the `Hello` are appended to `wishes`. [`Session::deliver`] comes next.
    ///
    /// # Errors
    /// The session can't stand; its socket is closed.
    pub fn open(
        opening: Opening,
        base: Base,
        id: u64,
        limits: Limits,
        tools: &mut Tools,
        wishes: &mut Vec<Wish>,
    ) -> Result<Session, Ending> {
        let Opening { hello, serial, version, channel, early, caller } = opening;
        let features = hello.features;
        let Caller { peer, inspects, nests, since, process, connection } = caller;
        let account = connection.account();
        let who = Who { id, peer, inspects, name: hello.name, role: hello.role, since };
        let state = State {
            connection: FdNumber(channel.as_fd().as_raw_fd()),
            watches: watches::Watches::new(&base, limits.watches, nests, account),
            timers: timers::Timers::new(account),
            names: subscriptions::Names::new(account),
            signals: subscriptions::DaemonSignals::default(),
            meter: show::Meter::default(),
            role: hello.role,
            trace: None,
            takes: false,
            attaching: gifts::Attaching::new(account),
            last_serial: serial,
            base,
            limits,
        };
        let mut session = Session {
            who,
            channel,
            state,
            acts: Vec::new(),
            batch: Default::default(),
            socket_interest: What::empty(),
            unread: 0,
            process,
            owed: 0,
            full_since: 0,
            stalled: 0,
            is_deaf: false,
            fd_sent: false,
            trace_lost: 0,
            output: account.charge_anyway(Resource::Output, 0),
            connection,
        };
        session.welcome(serial, version, features)?;
        session.watch_socket(What::READ)?;
        if let Some(process) = &session.process {
            // Where it can't be watched (select has no room), the socket's end says the same, a little less well.
            let once = Interest { what: What::READ, mode: Mode::OneShot };
            let _ = session.state.base.watch(process.as_fd(), PROCESS, once, Entry::New);
        }
        for frame in early {
            let out = &mut session.channel.output;
            if let Err(e) = session.state.request::<Vec<u8>>(frame, out, &mut tools.slot, wishes) {
                return Err(session.refuse_stream(Ending::Protocol(e)));
            }
        }
        Ok(session)
    }

    fn welcome(&mut self, serial: u64, version: u16, features: u64) -> Result<(), Ending> {
        let base = &self.state.base;
        let welcome = evd_proto::reply::Welcome {
            version,
            features: features & evd_proto::FEATURES,
            base: if self.who.role == Role::Control { 0 } else { self.who.id },
            method: base.method().to_owned(),
            method_features: base.features().bits(),
            pid: std::process::id() as i32,
            tid: sys::current_tid(),
            now: sys::monotonic_ns(),
            limits: self.state.limits,
        };
        self.channel.output.push(serial, &welcome).map_err(Ending::Protocol)
    }

    /// Who is at the other end.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// What it may look at.
    pub fn viewer(&self) -> Viewer {
        Viewer { uid: self.who.peer.uid, all: self.who.inspects }
    }

    /// The account of its user.
    pub fn account(&self) -> &std::sync::Arc<books::Account> {
        self.connection.account()
    }

    /// The base's method.
    pub fn method(&self) -> &'static str {
        self.state.base.method()
    }

    /// The base's features, as libevent's EV_FEATURE bits.
    pub fn features(&self) -> u32 {
        self.state.base.features().bits()
    }

    /// The fd that is readable when [`Session::wait`] has something, timers apart.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn pollable(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.state.base.pollable()
    }

    /// When the session must be turned at the latest, in `CLOCK_MONOTONIC` nanoseconds.
    pub fn next_deadline(&mut self) -> Option<u64> {
        [self.state.base.next_deadline(), self.must_read_by()].into_iter().flatten().min()
    }

    /// When a client that does not read its answers has had its time.
    fn must_read_by(&self) -> Option<u64> {
        (self.full_since > 0).then(|| self.stalled.max(self.full_since).saturating_add(SLOW))
    }

    /// Waits at most `timeout` for something of this session, or until its next timer. `true`: somebody used the waker.
    ///
    /// # Errors
    /// What the base's wait gave; the session must end.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, Ending> {
        let slow = self.must_read_by().map(|at| Duration::from_nanos(at.saturating_sub(sys::monotonic_ns())));
        let base = &mut self.state.base;
        let timeout = [timeout, base.until_next_timer(), slow].into_iter().flatten().min();
        base.wait(timeout, &mut self.acts)?;
        base.expire(&mut self.acts);
        Ok(self.acts.iter().any(|a| matches!(a, Activation::Mail)))
    }

    /// Takes in what [`Session::wait`] found: reports, timers, signals, and the client's requests. Wishes are appended in the order of the requests.
    ///
    /// # Errors
    /// The session ends; if the client did something wrong it has been told.
    pub fn handle(&mut self, tools: &mut Tools, wishes: &mut Vec<Wish>) -> Result<(), Ending> {
        if self.acts.is_empty() {
            return self.check_reader();
        }
        self.state.meter.wakeups += 1;
        let (mut socket_ready, mut has_exited) = (false, false);
        for act in self.acts.drain(..) {
            match act {
                Activation::Ready { token: SOCKET, .. } => socket_ready = true,
                Activation::Ready { token: PROCESS, .. } => has_exited = true,
                Activation::Ready { token, ready } => self.state.reported(token, ready),
                Activation::Timer { token, deadline } => self.state.due(token, deadline),
                Activation::Signal(set) => self.state.signalled(set),
                Activation::Mail => {}
            }
        }
        if has_exited {
            // What it sent before counts.
            for _ in 0..LAST_RECEIVES {
                if self.receive_once(tools, wishes)?.0 != Fill::Data {
                    break;
                }
            }
            return Err(Ending::Exited);
        }
        // It may just have begun to read: whether it did shows when more is sent.
        if !socket_ready {
            return self.check_reader();
        }
        if self.may_ask() { self.receive(tools, wishes) } else { Ok(()) }
    }

    /// Whether the client has had its time to read its answers.
    fn check_reader(&self) -> Result<(), Ending> {
        match self.must_read_by() {
            Some(at) if at <= sys::monotonic_ns() => Err(Ending::Slow),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, tools: &mut Tools, wishes: &mut Vec<Wish>) -> Result<(), Ending> {
        for _ in 0..MAX_RECEIVES {
            match self.receive_once(tools, wishes)? {
                // A message with many fds ends a receive, and more of them are likely behind it. Else the next wait tells.
                (Fill::Data, true) if self.channel.output.len() <= MAX_REPLIES => {}
                _ => break,
            }
        }
        Ok(())
    }

    /// Receives once. With how it ended goes whether many fds came.
    fn receive_once(&mut self, tools: &mut Tools, wishes: &mut Vec<Wish>) -> Result<(Fill, bool), Ending> {
        let (socket, input, out) = self.channel.split();
        let before = out.len();
        let (fill, mut frames) = input.receive(socket, &mut tools.scratch)?;
        let mut batch = false;
        let broken = loop {
            match frames.next() {
                Ok(None) => break None,
                Ok(Some(frame)) => {
                    batch |= frame.fds.len() > 16;
                    if let Err(e) = self.state.frame(frame, out, &mut tools.slot, wishes) {
                        break Some(e);
                    }
                }
                Err(e) => break Some(e),
            }
        };
        drop(frames);
        self.owed += out.len().saturating_sub(before);
        match (fill, broken) {
            // First: a frame that misses its fds is not the client's mistake then.
            (Fill::FdsLost, _) => Err(self.refuse_stream(Ending::FdsLost)),
            (_, Some(e)) => Err(self.refuse_stream(Ending::Protocol(e))),
            (Fill::End, None) => Err(Ending::Closed),
            (Fill::Data | Fill::Empty, None) => Ok((fill, batch)),
        }
    }

    /// Tells the client why the session ends, if its socket still takes it.
    fn refuse_stream(&mut self, why: Ending) -> Ending {
        let code = if matches!(why, Ending::FdsLost) { Code::FdsLost } else { Code::Protocol };
        let refused = Refused { code, limit: 0, value: 0, text: why.to_string(), ids: Vec::new() };
        // It ends anyway: that is what the caller reports.
        let _ = self.channel.output.push(0, &refused);
        let _ = self.channel.flush();
        why
    }

    /// Says goodbye, without waiting: the session is to be dropped.
    pub fn close(&mut self, reason: &str) {
        let _ = self.channel.output.push(0, &Closing { reason: reason.to_owned() });
        let _ = self.channel.flush();
    }

    /// Queues an answer. It leaves with the next [`Session::deliver`].
    pub fn reply<B: Body>(&mut self, serial: u64, body: &B) {
        let before = self.channel.output.len();
        if let Err(e) = self.channel.output.push(serial, body) {
            log::error!("an answer of base {} does not fit: {e}", self.who.id);
            return self.refuse(serial, Code::System, 0, 0, "the answer is too long".to_owned());
        }
        // A notice has no serial.
        if serial != 0 {
            self.owed += self.channel.output.len() - before;
        }
    }

    /// Queues a refusal.
    pub fn refuse(&mut self, serial: u64, code: Code, limit: u64, value: u64, text: String) {
        let before = self.channel.output.len();
        requests::refuse(&mut self.channel.output, serial, code, limit, value, text);
        self.owed += self.channel.output.len() - before;
    }

    /// Queues an answer with fds and sends it at once, behind `ahead`, what goes before its first attachment. `false`: the client does not read, or has not read the
    /// fds before, and it was not sent.
    ///
    /// What is on its way counts against evd's user as a whole: were it not for this, clients that never read could keep all others from taking anything.
    ///
    /// # Errors
    /// An fd can't be passed, or the socket is dead.
    ///
    /// Source: unix(7), ETOOMANYREFS.
    pub fn reply_with_fds<B: Body>(
        &mut self,
        serial: u64,
        ahead: &[u8],
        body: &B,
        fds: &[RawFd],
    ) -> io::Result<bool> {
        let (socket, _, out) = self.channel.split();
        if self.fd_sent && sys::unread_by_peer(socket)? > 0 {
            return Ok(false);
        }
        for piece in ahead.chunks(Attach::PIECE) {
            // A piece fits a frame.
            let _ = out.push(serial, &Attached { bytes: piece.to_vec() });
        }
        let sent = out.send_with_fds(socket, serial, body, fds)?;
        self.fd_sent |= sent;
        Ok(sent)
    }

    fn watch_socket(&mut self, what: What) -> io::Result<()> {
        if what == self.socket_interest {
            return Ok(());
        }
        let entry = if self.socket_interest.is_empty() { Entry::New } else { Entry::Known };
        let interest = Interest { what, mode: Mode::Level };
        self.state.base.watch(self.channel.as_fd(), SOCKET, interest, entry).map_err(watches::as_io)?;
        self.socket_interest = what;
        Ok(())
    }
}
