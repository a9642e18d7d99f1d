//! Holds: fds that evd keeps by name, beyond their owner's life.
//!
//! With an event base these are methods of [`EventBase`](crate::EventBase), see [`EventBase::hold`](crate::EventBase::hold). [`take_or`] needs none: it makes a server's listener outlive the server with one line.

use crate::Error;
use crate::events::{self, after};
use crate::line::{Incoming, Introduction, Line, Reply};
use crate::link::PATIENCE;
use crate::state::State;
use evd_proto::channel::Scratch;
use evd_proto::frame::Body;
use evd_proto::name;
use evd_proto::reply::{Code, HoldInfo, Refused};
use evd_proto::request::{
    Attach, Drop, Hold, HoldAll, HoldOne, ListHolds, Role, Take, TakeAll, Taken, TakenAll,
};
use evd_proto::sys::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// How often it is asked for a held fd that evd can't send just then, and the pause that becomes longer each time.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes of the entries of one frame with many fds.
const ROOM: usize = 15_000;

/// A held fd that was taken.
#[derive(Debug)]
pub struct Held {
    /// The fd.
    pub fd: OwnedFd,
    /// What was given with it.
    pub attachment: Vec<u8>,
    /// How long evd would have held it still; `None`: for ever.
    pub ttl: Option<Duration>,
}

impl Held {
    /// How often a held name was triggered, or a held timer was due, since this was asked last; with that it is not readable any more.
    ///
    /// # Errors
    /// `Os` with `InvalidInput`: it is neither an eventfd nor a timerfd; nothing was read of it. `Unsupported` elsewhere than on Linux.
    ///
    /// Source: eventfd(2), timerfd_create(2).
    pub fn take_count(&self) -> Result<u64, Error> {
        Ok(sys::take_count(self.fd.as_fd())?)
    }
}

/// What is to be held, see [`EventBase::hold_all`](crate::EventBase::hold_all).
#[derive(Clone, Copy, Debug)]
pub struct ToHold<'a> {
    /// Its name.
    pub name: &'a str,
    /// The fd: evd gets a copy.
    pub fd: BorrowedFd<'a>,
    /// Bytes that are given back with it.
    pub attachment: &'a [u8],
    /// When evd lets it go; `None`: never; zero: at once.
    pub ttl: Option<Duration>,
}

/// Whoever has a line to evd and can wait for an answer.
pub(crate) trait HoldTarget {
    fn request(&mut self, send: impl Fn(&mut Line) -> Result<Option<u64>, Error>) -> Result<Reply, Error>;
    /// Sends what has no answer, at once.
    fn tell<B: Body>(&mut self, body: &B) -> Result<(), Error>;
    /// Says what has arrived; again in the next session, if this one ends before evd can have heard it.
    fn taken(&mut self, numbers: Vec<u64>) -> Result<(), Error>;
    /// The longest attachment that evd takes, in bytes, and how many fds in a frame.
    fn limits(&mut self) -> (usize, usize);

    fn hold(
        &mut self,
        key: &str,
        fd: BorrowedFd<'_>,
        attachment: &[u8],
        ttl: Option<Duration>,
        replace: bool,
    ) -> Result<(), Error> {
        self.check(key, attachment)?;
        let mut attachment = attachment.to_vec();
        for piece in Attach::ahead(&mut attachment) {
            self.tell(&piece)?;
        }
        let body = Hold { name: key.to_owned(), attachment, ttl: nanos(ttl), replace };
        let number = fd.as_raw_fd();
        self.request(|line| Ok(line.send_with_fds(&body, &[number])?)).map(drop)
    }

    /// Holds many, in as few frames as they fit.
    fn hold_all(&mut self, all: &[ToHold<'_>], replace: bool) -> Result<(), Error> {
        // Before anything is held: then nothing has changed.
        all.iter().try_for_each(|one| self.check(one.name, one.attachment))?;
        let most = self.limits().1.max(1);
        let (mut holds, mut fds, mut bytes) = (Vec::new(), Vec::<RawFd>::new(), 0);
        for one in all {
            let ToHold { name, fd, attachment, ttl } = *one;
            if attachment.len() > Attach::INLINE {
                self.hold(name, fd, attachment, ttl, replace)?;
                continue;
            }
            let size = 24 + name.len() + attachment.len();
            if fds.len() == most || bytes + size > ROOM {
                self.hold_batch(std::mem::take(&mut holds), &std::mem::take(&mut fds), replace)?;
                bytes = 0;
            }
            bytes += size;
            fds.push(fd.as_raw_fd());
            holds.push(HoldOne { name: name.to_owned(), attachment: attachment.to_vec(), ttl: nanos(ttl) });
        }
        if holds.is_empty() { Ok(()) } else { self.hold_batch(holds, &fds, replace) }
    }

    fn hold_batch(&mut self, holds: Vec<HoldOne>, fds: &[RawFd], replace: bool) -> Result<(), Error> {
        let body = HoldAll { holds, replace };
        self.request(|line| Ok(line.send_with_fds(&body, fds)?)).map(drop)
    }

    /// What evd would say; but far beyond the limit it would not even be asked.
    fn check(&mut self, key: &str, attachment: &[u8]) -> Result<(), Error> {
        name::check(key).map_err(|e| Error::BadName(e.to_string()))?;
        let limit = self.limits().0;
        if attachment.len() <= limit {
            return Ok(());
        }
        let text = format!("an attachment of {} bytes, at most {limit} are kept", attachment.len());
        let (limit, value) = (limit as u64, attachment.len() as u64);
        Err(Refused { code: Code::Limit, limit, value, text, ids: Vec::new() }.into())
    }

    fn ask_for_fds<B: Body>(&mut self, body: &B) -> Result<Reply, Error> {
        let mut tries = 0;
        loop {
            match self.request(|line| line.post(body).map(Some)) {
                // One answer with fds at a time is on its way to us; by now we have read it, and what came behind it.
                Err(Error::Refused(r)) if r.code == Code::Busy && r.limit == 1 && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE * tries.saturating_sub(1));
                }
                other => return other,
            }
        }
    }

    fn take(&mut self, key: &str, keep: bool) -> Result<Held, Error> {
        name::check(key).map_err(|e| Error::BadName(e.to_string()))?;
        let body = Take { name: key.to_owned(), keep };
        match self.ask_for_fds(&body)? {
            Reply::Took(took, fd) => {
                if took.hold != 0 {
                    // Only now evd lets its own go.
                    self.taken(vec![took.hold])?;
                }
                Ok(Held { fd, attachment: took.attachment, ttl: left(took.ttl) })
            }
            _ => Err(Error::Lost),
        }
    }

    /// Takes as many as come at once; and whether there are more.
    fn take_batch(&mut self, prefix: &str) -> Result<(Vec<(String, Held)>, bool), Error> {
        let body = TakeAll { prefix: prefix.to_owned() };
        match self.ask_for_fds(&body)? {
            Reply::TookAll(took, fds) => {
                self.taken(took.holds.iter().map(|h| h.hold).collect())?;
                let more = took.more && !fds.is_empty();
                let all = took.holds.into_iter().zip(fds);
                let held = |attachment, fd, ttl| Held { fd, attachment, ttl: left(ttl) };
                Ok((all.map(|(one, fd)| (one.name, held(one.attachment, fd, one.ttl))).collect(), more))
            }
            _ => Err(Error::Lost),
        }
    }

    fn list(&mut self) -> Result<Vec<HoldInfo>, Error> {
        let mut all: Vec<HoldInfo> = Vec::new();
        loop {
            let after = all.last().map(|h| h.name.clone()).unwrap_or_default();
            match self.request(|line| line.post(&ListHolds { after: after.clone() }).map(Some))? {
                Reply::Holds(page) => {
                    let more = page.more && !page.holds.is_empty();
                    all.extend(page.holds);
                    if !more {
                        return Ok(all);
                    }
                }
                _ => return Err(Error::Lost),
            }
        }
    }

    fn drop_held(&mut self, key: &str) -> Result<(), Error> {
        name::check(key).map_err(|e| Error::BadName(e.to_string()))?;
        let body = Drop { name: key.to_owned() };
        self.request(|line| line.post(&body).map(Some)).map(drop)
    }
}

impl HoldTarget for State {
    fn limits(&mut self) -> (usize, usize) {
        let limits = self.link.up().map(|up| up.welcome.limits);
        limits.map_or((usize::MAX, 1), |l| (l.attachment as usize, l.fds_per_frame as usize))
    }

    fn request(&mut self, send: impl Fn(&mut Line) -> Result<Option<u64>, Error>) -> Result<Reply, Error> {
        let taken = self.link.taken.len();
        let reply = self.ask(send)?;
        // evd does one thing after the other: what was said before this was heard.
        self.link.taken.drain(..taken.min(self.link.taken.len()));
        Ok(reply)
    }

    fn tell<B: Body>(&mut self, body: &B) -> Result<(), Error> {
        match self.link.up() {
            Some(up) => up.line.post(body)?,
            None => return Err(Error::Lost),
        };
        self.flush_link();
        Ok(())
    }

    fn taken(&mut self, numbers: Vec<u64>) -> Result<(), Error> {
        self.link.taken.extend(&numbers);
        // At once, also inside a callback: until then others find it busy. If evd is lost just now, it is told when it is back.
        match self.tell(&TakenAll { holds: numbers }) {
            Err(Error::Lost) => Ok(()),
            other => other,
        }
    }
}

fn nanos(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |t| events::nanos(t).max(1))
}

fn left(ttl: u64) -> Option<Duration> {
    (ttl != 0).then(|| Duration::from_nanos(ttl))
}

/// Takes what evd holds under `name`, or makes it and lets evd hold a copy from then on: with this one line a server's listener outlives the server, however that
/// ends, and with it every client that has connected and was not accepted yet.
///
/// evd goes on holding its copy. Without evd, or if evd refuses, it is just made: then it is as if this function were not there (and the log says why).
/// Who wants it really closed drops the hold: `evctl fd rm NAME`. It needs no event base, and blocks until evd has answered.
///
/// - While something is held under `name`, `make` is not called: another address in the program has no effect until the hold is dropped.
/// - What is held must be what `T` is for: that is not looked at, as nothing tells it of a `T`. A `TcpListener` of a connection that somebody else holds under this name fails with
///   its first `accept`.
/// - A `name` that is none (1 to 64 of `A-Z a-z 0-9 . _ : -`) can't be held: it is made, and a warning is logged.
/// - If evd is frozen or stuck, it is made after 2 s without an answer, and a warning is logged. A held listener is still open then, so binding its address again fails:
///   `AddrInUse`, from `make`.
///
/// # Errors
/// What `make` gave, and nothing else.
///
/// # Examples
/// ```
/// use std::net::TcpListener;
///
/// let listener = evd_client::hold::take_or("web:8080", || TcpListener::bind("127.0.0.1:0"))?;
/// # drop(listener);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn take_or<T, E>(name: &str, make: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    T: AsFd + From<OwnedFd>,
{
    if let Err(e) = name::check(name) {
        log::warn!("it is made, and not held: {e}");
        return make();
    }
    let mut short = match Short::connect() {
        Ok(short) => short,
        Err(e) => {
            let level =
                if matches!(e, Error::NotRunning { .. }) { log::Level::Info } else { log::Level::Warn };
            log::log!(level, "{name} is made, and not held: {e}");
            return make();
        }
    };
    match short.take(name, true) {
        Ok(held) => return Ok(T::from(held.fd)),
        Err(Error::Refused(why)) if why.code == Code::Unknown => {}
        Err(e) => {
            log::warn!("evd does not give {name}; it is made, and not held: {e}");
            return make();
        }
    }
    let made = make()?;
    match short.hold(name, made.as_fd(), b"", None, false) {
        Ok(()) => Ok(made),
        // Somebody was faster: two who serve the same take turns.
        Err(Error::Refused(why)) if why.code == Code::Exists => match short.take(name, true) {
            Ok(held) => Ok(T::from(held.fd)),
            Err(e) => {
                log::warn!("evd does not give {name}: {e}");
                Ok(made)
            }
        },
        Err(e) => {
            log::warn!("evd does not hold {name}: {e}");
            Ok(made)
        }
    }
}

/// A line to evd for a question or two, without a base.
struct Short {
    line: Line,
    scratch: Scratch,
    limits: (usize, usize),
}

impl Short {
    fn connect() -> Result<Short, Error> {
        let who = Introduction {
            role: Role::Control,
            name: crate::builder::program_name(),
            method: String::new(),
            avoid: Vec::new(),
            require: 0,
        };
        let line = Line::open(&evd_proto::path::socket_path(), &who)?;
        let mut short = Short { line, scratch: Scratch::new(), limits: (0, 1) };
        let deadline = after(sys::monotonic_ns(), PATIENCE);
        loop {
            match short.receive()?.into_iter().next() {
                Some(Incoming::Welcome(welcome)) => {
                    let limits = welcome.limits;
                    short.limits = (limits.attachment as usize, limits.fds_per_frame as usize);
                    return Ok(short);
                }
                Some(Incoming::Reply(_, Reply::Refused(why))) => return Err(why.into()),
                Some(_) => return Err(Error::Lost),
                None => short.line.wait(deadline)?,
            }
        }
    }

    fn receive(&mut self) -> Result<Vec<Incoming>, Error> {
        let mut incoming = Vec::new();
        match self.line.receive(&mut self.scratch, &mut incoming) {
            Err(ended) if incoming.is_empty() => Err(ended.into()),
            _ => Ok(incoming),
        }
    }
}

impl HoldTarget for Short {
    fn request(&mut self, send: impl Fn(&mut Line) -> Result<Option<u64>, Error>) -> Result<Reply, Error> {
        let deadline = after(sys::monotonic_ns(), PATIENCE);
        let mut asked = None;
        loop {
            if asked.is_none() {
                asked = send(&mut self.line)?;
            }
            self.line.flush()?;
            for came in self.receive()? {
                match came {
                    Incoming::Reply(serial, Reply::Refused(why)) if Some(serial) == asked => {
                        return Err(why.into());
                    }
                    Incoming::Reply(serial, reply) if Some(serial) == asked => return Ok(reply),
                    Incoming::Closing(_) => return Err(Error::Lost),
                    _ => {}
                }
            }
            self.line.unsent |= asked.is_none();
            self.line.wait(deadline)?;
        }
    }

    fn tell<B: Body>(&mut self, body: &B) -> Result<(), Error> {
        self.line.post(body)?;
        self.line.flush()?;
        Ok(())
    }

    fn taken(&mut self, numbers: Vec<u64>) -> Result<(), Error> {
        numbers.into_iter().try_for_each(|hold| self.tell(&Taken { hold }))
    }

    fn limits(&mut self) -> (usize, usize) {
        self.limits
    }
}
