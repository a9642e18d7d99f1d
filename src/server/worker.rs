//! A worker: one thread, and the sessions of one user.
//!
//! Most workers wait in a base of their own, in which the bases of their sessions are nested by their pollable fds. A base that can't be nested that way (poll,
//! select) gets a worker to itself, which waits in that base. All else is the same code.
//!
//! Mail is looked at before each turn of a session, so that what was promised to somebody (a follower) holds for whatever happens later.

use super::deadlines::{Deadlines, Due};
use super::log::{info_of, warn_of};
use super::mail::{Handle, Mail};
use super::registry::{Follower, Listed, Shared};
use super::tickets::Tickets;
use crate::backend::{Entry, Interest, Mode};
use crate::base::{Activation, Base, BaseError};
use crate::session::{Ending, Greeting, Guest, Opening, Session, Tools, Wish};
use evd_proto::What;
use evd_proto::name::printable;
use evd_proto::reply::Code;
use evd_proto::request::Role;
use evd_proto::sys::AsFd;
use evd_proto::sys::{self, Peer};
use rustc_hash::FxHashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a connection may stay without a `Hello`, in nanoseconds.
const HELLO_WITHIN: u64 = 10_000_000_000;
const READ: Interest = Interest { what: What::READ, mode: Mode::Level };

/// One worker, on its own thread.
pub(super) struct Worker {
    pub shared: Arc<Shared>,
    pub me: Arc<Handle>,
    /// What it waits in; `None`: in the base of its only session.
    base: Option<Base>,
    tools: Tools,
    seats: Vec<Option<Seat>>,
    free: Vec<usize>,
    /// Where the session or greeting of an id sits.
    pub places: FxHashMap<u64, usize>,
    pub deadlines: Deadlines,
    pub tickets: Tickets,
    acts: Vec<Activation>,
    wishes: Vec<Wish>,
    mail: Vec<Mail>,
    /// Whose wishes are being granted, and what ended it meanwhile: what it asked for before counts, so it stays until all are.
    granting: Option<(u64, Option<Ending>)>,
    stopping: bool,
    /// It is its user's turn, see `turns`.
    has_turn: bool,
}

/// Where a connection or a session sits.
pub(super) struct Seat {
    id: u64,
    pub occupant: Occupant,
    /// What stands in the deadlines for it.
    deadline: Option<(u64, Due)>,
    pub followers: Vec<Follower>,
}

/// Who sits there.
pub(super) enum Occupant {
    Greeting(Box<Greeting>),
    Session(Box<Session>),
    /// It is just being turned.
    Away,
}

impl Worker {
    /// A worker that waits in `base`.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new(shared: Arc<Shared>, me: Arc<Handle>, base: Base) -> io::Result<Worker> {
        let mut worker = Worker::solo(shared, me)?;
        worker.base = Some(base);
        Ok(worker)
    }

    /// A worker for one session.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn solo(shared: Arc<Shared>, me: Arc<Handle>) -> io::Result<Worker> {
        Ok(Worker {
            shared,
            me,
            base: None,
            tools: Tools::new()?,
            seats: Vec::new(),
            free: Vec::new(),
            places: FxHashMap::default(),
            deadlines: Deadlines::default(),
            tickets: Tickets::default(),
            acts: Vec::new(),
            wishes: Vec::new(),
            mail: Vec::new(),
            granting: None,
            stopping: false,
            has_turn: false,
        })
    }

    /// Serves until there is nobody to serve.
    pub fn run(mut self) {
        while !self.is_done() {
            self.end_turn();
            if let Err(e) = self.step(None) {
                log::error!("worker {} of user {} can't wait and ends: {e}", self.me.id, self.me.uid);
                return;
            }
        }
    }

    /// Waits once, until `at_latest` (`None`: until something is to be done), and does what is to be done then. `false`: nothing was.
    ///
    /// # Errors
    /// The wait failed.
    pub fn step(&mut self, at_latest: Option<u64>) -> io::Result<bool> {
        self.me.busy_since.store(0, Ordering::Relaxed);
        let deadline = [self.deadlines.first(), at_latest].into_iter().flatten().min();
        let Some(base) = &mut self.base else { return Ok(false) };
        let mut acts = std::mem::take(&mut self.acts);
        base.wait_until(deadline, &mut acts)?;
        self.me.busy_since.store(base.now(), Ordering::Relaxed);
        let found = !acts.is_empty();
        for act in acts.drain(..) {
            match act {
                Activation::Mail => self.read_mail(),
                Activation::Ready { token, .. } => {
                    self.read_mail();
                    self.turn(token);
                }
                _ => {}
            }
        }
        self.acts = acts;
        Ok(self.run_deadlines() || found)
    }

    /// Serves one session, and waits in its base.
    pub fn run_solo(mut self, opening: Box<Opening>, base: Base, id: u64) {
        self.places.insert(id, 0);
        self.seats.push(Some(Seat::new(id, Occupant::Away)));
        self.open(0, opening, base);
        while !self.is_done() {
            self.end_turn();
            self.me.busy_since.store(0, Ordering::Relaxed);
            let timeout = self.deadlines.until(sys::monotonic_ns);
            let Some(session) = self.session(id) else {
                // Only the times of held fds are left.
                std::thread::park_timeout(timeout.unwrap_or(Duration::ZERO));
                self.read_mail();
                self.run_deadlines();
                continue;
            };
            let waited = session.wait(timeout);
            self.me.busy_since.store(sys::monotonic_ns(), Ordering::Relaxed);
            self.read_mail();
            match waited {
                Ok(_) => self.handle(id),
                Err(why) => self.end(id, &why),
            }
            self.run_deadlines();
        }
    }

    /// Whether there is nobody to serve; then it is no longer listed.
    pub fn is_done(&self) -> bool {
        self.places.is_empty()
            && (self.stopping || (!self.deadlines.has_holds() && self.shared.retire(&self.me)))
    }

    /// Lets the next user have his turn. A worker that ends does so when its own fds are closed.
    fn end_turn(&mut self) {
        if std::mem::take(&mut self.has_turn) {
            self.shared.holds.turns.over(self.me.uid, Some(self.me.id));
        }
    }

    fn read_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.mail);
        self.me.collect(&mut mail);
        for one in mail.drain(..) {
            match one {
                Mail::Connection(guest) => self.greet(guest),
                Mail::Stop => self.stop(),
                Mail::Holds => self.plan_holds(),
                Mail::Turn => {
                    self.has_turn = true;
                    self.shared.holds.take_turn(self.me.uid);
                    self.plan_holds();
                }
                Mail::Followers => self.refresh_followers(),
                Mail::Trace { to, trace } => self.show_trace(to, &trace),
                other => self.answer(other),
            }
        }
        self.mail = mail;
    }

    /// `true`: something was due.
    fn run_deadlines(&mut self) -> bool {
        if self.deadlines.until(|| 0).is_none() {
            return false;
        }
        let now = sys::monotonic_ns();
        let mut found = false;
        while let Some(due) = self.deadlines.pop(now) {
            found = true;
            match due {
                Due::Session(id) | Due::Hello(id) => {
                    if let Some(seat) = self.seat(id) {
                        seat.deadline = None;
                    }
                    // Also who has not said Hello: it may be evd that is late, on a machine that slept or as a process that was stopped.
                    self.turn(id);
                    if matches!(self.seat(id), Some(Seat { occupant: Occupant::Greeting(_), .. })) {
                        self.refuse_late(id);
                    }
                }
                Due::Ticket(number) => self.ticket_expired(number),
                Due::Holds => {
                    // What goes is closed here, in a worker of its user.
                    self.shared.holds.sweep(self.me.uid, now);
                    self.plan_holds();
                }
            }
        }
        found
    }

    /// Holds have changed, or there may be some of an earlier evd: finds out when something is to be done about them.
    pub fn plan_holds(&mut self) {
        // First: whoever changes the holds after they are looked at here sees it, by their lock.
        self.me.awaits_hold.store(true, Ordering::Relaxed);
        let next = self.shared.holds.next_due(self.me.uid);
        self.me.awaits_hold.store(next.is_some(), Ordering::Relaxed);
        self.deadlines.plan_holds(next);
    }

    /// The seat of an id, if it is here.
    pub fn seat(&mut self, id: u64) -> Option<&mut Seat> {
        let at = *self.places.get(&id)?;
        self.seats[at].as_mut()
    }

    /// The session of an id, if it is here and stands.
    pub fn session(&mut self, id: u64) -> Option<&mut Session> {
        match &mut self.seat(id)?.occupant {
            Occupant::Session(session) => Some(session),
            _ => None,
        }
    }

    fn greet(&mut self, guest: Guest) {
        let id = self.shared.next_id();
        let since = guest.caller.since;
        let greeting = Greeting::new(guest);
        let Some(base) = &mut self.base else { return };
        if let Err(e) = base.watch(greeting.as_fd(), id, READ, Entry::New) {
            warn_of!(self.me.uid, "can't serve a connection of user {}: {e}", self.me.uid);
            self.me.sessions.fetch_sub(1, Ordering::Relaxed);
            return greeting.refuse(Code::System, "evd can't watch this connection");
        }
        let mut seat = Seat::new(id, Occupant::Greeting(Box::new(greeting)));
        let due = (since.saturating_add(HELLO_WITHIN), Due::Hello(id));
        self.deadlines.add(due.0, due.1);
        seat.deadline = Some(due);
        let at = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        });
        self.seats[at] = Some(seat);
        self.places.insert(id, at);
    }

    /// Something came from the connection or the base of `id`.
    fn turn(&mut self, id: u64) {
        let Some(seat) = self.seat(id) else { return };
        if let Occupant::Session(session) = &mut seat.occupant {
            return match session.wait(Some(Duration::ZERO)) {
                Ok(_) => self.handle(id),
                Err(why) => self.end(id, &why),
            };
        }
        let Some(at) = self.places.get(&id).copied() else { return };
        let Some(Seat { occupant: Occupant::Greeting(greeting), .. }) = &mut self.seats[at] else { return };
        match greeting.turn(&mut self.tools.scratch) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(opening) = self.take_greeting(id).and_then(Greeting::open) {
                    self.choose(id, Box::new(opening));
                }
            }
            Err(why) => {
                let Peer { pid, uid, .. } = greeting.peer();
                match why {
                    Ending::Closed => log::debug!("process {pid} of user {uid} left without a word"),
                    why => info_of!(uid, "refused process {pid} of user {uid}: {why}"),
                }
                self.take_greeting(id);
                self.vacate(id);
            }
        }
    }

    /// Takes a greeting from its seat; its connection is no longer waited for here.
    fn take_greeting(&mut self, id: u64) -> Option<Greeting> {
        let at = *self.places.get(&id)?;
        let seat = self.seats[at].as_mut()?;
        if let Some(due) = seat.deadline.take() {
            self.deadlines.remove(due.0, due.1);
            if let Some(base) = &mut self.base {
                // An evd that nobody needs sleeps.
                let _ = base.put_alarm_right(self.deadlines.first());
            }
        }
        match std::mem::replace(&mut seat.occupant, Occupant::Away) {
            Occupant::Greeting(greeting) => {
                if let Some(base) = &mut self.base {
                    base.unwatch(greeting.as_fd(), id);
                }
                Some(*greeting)
            }
            other => {
                seat.occupant = other;
                None
            }
        }
    }

    /// Makes the base that the client asks for, and finds out where it is to be waited for.
    fn choose(&mut self, id: u64, opening: Box<Opening>) {
        let base = match Base::new(&opening.config()).and_then(nested) {
            Ok(base) => base,
            Err(e) => {
                let code = match e {
                    BaseError::Os(_) => Code::OutOfFds,
                    _ => Code::NoMethod,
                };
                info_of!(self.me.uid, "refused {} of user {}: {e}", opening.name(), self.me.uid);
                opening.refuse(code, (0, 0), &e.to_string());
                return self.vacate(id);
            }
        };
        if is_nestable(base.method()) {
            let Some(at) = self.places.get(&id).copied() else { return };
            return self.open(at, opening, base);
        }
        let name = opening.name().to_owned();
        if let Err(e) = self.shared.assign_solo(opening, base, id) {
            warn_of!(self.me.uid, "no worker for {name} of user {}: {e}", self.me.uid);
        }
        self.vacate(id);
    }

    #[allow(clippy::boxed_local, reason = "it comes boxed, and is small on some machines only")]
    fn open(&mut self, at: usize, opening: Box<Opening>, base: Base) {
        let Some(id) = self.seats[at].as_ref().map(|s| s.id) else { return };
        let (name, process) = (printable(opening.name()), opening.peer().pid);
        let mut wishes = std::mem::take(&mut self.wishes);
        let opened = Session::open(*opening, base, id, self.shared.limits, &mut self.tools, &mut wishes)
            .and_then(|session| self.seat_session(at, session));
        match opened {
            Ok(()) => match self.grant_all(id, &mut wishes) {
                None => drop(self.settle(id)),
                Some(why) => self.end(id, &why),
            },
            Err(why) => {
                let uid = self.me.uid;
                info_of!(uid, "refused {name} (process {process}) of user {uid}: {why}");
                wishes.clear();
                self.vacate(id);
            }
        }
        self.wishes = wishes;
    }

    fn seat_session(&mut self, at: usize, mut session: Session) -> Result<(), Ending> {
        let who = session.who().clone();
        if let Some(base) = &mut self.base {
            let entry = base.watch(session.pollable()?, who.id, READ, Entry::New);
            entry.map_err(|e| Ending::Os(io::Error::other(e)))?;
        }
        let name = printable(&who.name);
        log::debug!("base {}: {name} (process {}, user {}) came", who.id, who.peer.pid, who.peer.uid);
        let mut seat = Seat::new(who.id, Occupant::Away);
        if who.role == Role::Client {
            let (method, worker) = (session.method(), Arc::clone(&self.me));
            let features = session.features();
            let (id, uid) = (who.id, who.peer.uid);
            self.shared.came(Listed { who, method, features, worker });
            seat.followers = self.shared.followers(id, uid);
            session.attend(!seat.followers.is_empty());
        }
        seat.occupant = Occupant::Session(Box::new(session));
        self.seats[at] = Some(seat);
        Ok(())
    }

    /// Takes in what a session's wait found, does what it wishes, and sends what it has to say.
    fn handle(&mut self, id: u64) {
        let mut wishes = std::mem::take(&mut self.wishes);
        let Some(at) = self.places.get(&id).copied() else { return };
        let Some(Seat { occupant: Occupant::Session(session), .. }) = &mut self.seats[at] else { return };
        let handled = session.handle(&mut self.tools, &mut wishes);
        // Also if it ends: what it asked for before counts.
        let ended = self.grant_all(id, &mut wishes);
        self.wishes = wishes;
        match handled.err().or(ended) {
            None => drop(self.settle(id)),
            Some(why) => self.end(id, &why),
        }
    }

    /// Grants the wishes of a session. `Some`: its socket is dead, and it is to end now.
    fn grant_all(&mut self, id: u64, wishes: &mut Vec<Wish>) -> Option<Ending> {
        self.granting = Some((id, None));
        wishes.drain(..).for_each(|wish| self.grant(id, wish));
        self.granting.take().and_then(|(_, ended)| ended)
    }

    /// Sends what a session has to say, to its client and to its followers. `true`: nothing is left.
    pub fn settle(&mut self, id: u64) -> bool {
        let nested = self.base.is_some();
        let Some(at) = self.places.get(&id).copied() else { return false };
        let Some(seat) = &mut self.seats[at] else { return false };
        let Occupant::Session(session) = &mut seat.occupant else { return false };
        let trace = session.take_trace();
        let all = match session.deliver() {
            Ok(all) => all,
            Err(e) => {
                match &mut self.granting {
                    Some((whose, ended)) if *whose == id => *ended = Some(e.into()),
                    _ => self.end(id, &e.into()),
                }
                return false;
            }
        };
        if nested {
            let wanted = session.next_deadline().map(|at| (at, Due::Session(id)));
            if wanted != seat.deadline {
                if let Some(old) = std::mem::replace(&mut seat.deadline, wanted) {
                    self.deadlines.remove(old.0, old.1);
                }
                if let Some(new) = wanted {
                    self.deadlines.add(new.0, new.1);
                }
            }
        }
        if let Some(entries) = trace {
            self.tell_followers(id, entries);
        }
        all
    }

    fn refuse_late(&mut self, id: u64) {
        if let Some(greeting) = self.take_greeting(id) {
            let Peer { pid, uid, .. } = greeting.peer();
            info_of!(uid, "process {pid} of user {uid} said no Hello in 10 s");
            greeting.refuse(Code::Protocol, "no Hello came within 10 s");
        }
        self.vacate(id);
    }

    /// Ends a session: its fds are closed here.
    pub fn end(&mut self, id: u64, why: &Ending) {
        let Some(session) = self.session(id) else { return };
        let who = session.who().clone();
        let name = printable(&who.name);
        match why {
            Ending::Closed | Ending::Exited => log::debug!("base {}: {name} left", who.id),
            why => info_of!(who.peer.uid, "base {}: {name} (process {}) ends: {why}", who.id, who.peer.pid),
        }
        let subscriptions = session.unsubscribe_all();
        let has_taken = session.has_taken();
        for (sub, name) in subscriptions {
            self.shared.names.remove(who.peer.uid, &name, id, sub);
        }
        if has_taken {
            self.shared.holds.left_all(who.peer.uid, id);
        }
        self.vacate(id);
        match who.role {
            Role::Client => self.shared.went(id),
            Role::Control => drop(self.shared.unfollow(id)),
        }
    }

    fn vacate(&mut self, id: u64) {
        let Some(at) = self.places.remove(&id) else { return };
        let Some(mut seat) = self.seats[at].take() else { return };
        if let Some(due) = seat.deadline {
            self.deadlines.remove(due.0, due.1);
        }
        if let (Some(base), Occupant::Session(session)) = (&mut self.base, &mut seat.occupant) {
            if let Ok(fd) = session.pollable() {
                base.unwatch(fd, id);
            }
        }
        self.free.push(at);
        drop(seat);
        self.me.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    fn stop(&mut self) {
        self.stopping = true;
        let ids: Vec<u64> = self.places.keys().copied().collect();
        for id in ids {
            if let Some(session) = self.session(id) {
                session.close("evd stops");
            } else if let Some(greeting) = self.take_greeting(id) {
                greeting.refuse(Code::Stopping, "evd stops");
            }
            self.vacate(id);
        }
    }
}

impl Seat {
    fn new(id: u64, occupant: Occupant) -> Seat {
        Seat { id, occupant, deadline: None, followers: Vec::new() }
    }
}

/// Makes the fd that a base is nested by, so that a lack of fds shows before the client is welcomed.
fn nested(mut base: Base) -> Result<Base, BaseError> {
    if is_nestable(base.method()) {
        base.pollable().map_err(BaseError::Os)?;
    }
    Ok(base)
}

/// Whether a base of this method is itself one pollable fd.
pub(super) fn is_nestable(method: &str) -> bool {
    matches!(method, "epoll" | "kqueue" | "evport")
}
