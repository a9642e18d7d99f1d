//! A connection that has not said `Hello` yet: it has no base, no name and no rights, and its worker gives it little time.

use super::Ending;
use super::books::{Account, Charge};
use crate::base::Config;
use evd_proto::channel::{Channel, Fill, Frame, Scratch};
use evd_proto::frame::{FrameError, Header, Kind};
use evd_proto::reply::{Code, Refused};
use evd_proto::request::Hello;
use evd_proto::sys::Peer;
use evd_proto::sys::{AsFd, BorrowedFd, OwnedFd};
use evd_proto::{OLDEST_VERSION, PROTOCOL_VERSION, name};

/// A connection as the acceptor hands it on.
#[derive(Debug)]
pub struct Guest {
    /// Non-blocking.
    pub socket: OwnedFd,
    /// Whose it is.
    pub caller: Caller,
}

/// Who connected, and what was found out about him before he said anything.
#[derive(Debug)]
pub struct Caller {
    /// His process and user.
    pub peer: Peer,
    /// Whether he may look at the bases of all users.
    pub inspects: bool,
    /// Whether he may pass epolls, which hide what is in them.
    pub nests: bool,
    /// When, in `CLOCK_MONOTONIC` nanoseconds.
    pub since: u64,
    /// Readable when his process has ended, where the kernel tells.
    pub process: Option<OwnedFd>,
    /// What his user was charged for it.
    pub connection: Charge,
}

/// A connection whose `Hello` is awaited.
pub struct Greeting {
    channel: Channel,
    caller: Caller,
    heard: Option<Heard>,
}

/// A sound `Hello`, with its serial, and the requests that came behind it.
struct Heard {
    hello: Hello,
    serial: u64,
    early: Vec<Request<Vec<u8>>>,
}

/// A frame whose body is its own.
#[derive(Debug)]
pub struct Request<B> {
    /// Its header.
    pub header: Header,
    /// Its body's bytes.
    pub body: B,
    /// Its fds.
    pub fds: Vec<OwnedFd>,
}

impl<B: AsRef<[u8]>> Request<B> {
    /// Reads the body.
    ///
    /// # Errors
    /// As [`evd_proto::frame::body`].
    pub fn read<T: evd_proto::frame::Body>(&self) -> Result<T, FrameError> {
        evd_proto::frame::body(self.header.kind, self.body.as_ref())
    }
}

impl<'a> From<Frame<'a>> for Request<&'a [u8]> {
    fn from(f: Frame<'a>) -> Self {
        Request { header: f.header, body: f.body, fds: f.fds }
    }
}

/// A sound `Hello`, and what came with it.
pub struct Opening {
    pub(super) hello: Hello,
    pub(super) serial: u64,
    pub(super) version: u16,
    pub(super) channel: Channel,
    /// Requests that were sent without waiting for the `Welcome`.
    pub(super) early: Vec<Request<Vec<u8>>>,
    pub(super) caller: Caller,
}

impl Greeting {
    /// Takes over a connection.
    pub fn new(guest: Guest) -> Greeting {
        let Guest { socket, caller } = guest;
        Greeting { channel: Channel::new(socket), caller, heard: None }
    }

    /// Who connected.
    pub fn peer(&self) -> Peer {
        self.caller.peer
    }

    /// Reads what is there. `true`: the `Hello` has come and is sound, and [`Greeting::open`] is next.
    ///
    /// # Errors
    /// The connection is to be dropped. If what it said was wrong, it was told what would be right.
    pub fn turn(&mut self, scratch: &mut Scratch) -> Result<bool, Ending> {
        let (socket, input, _) = self.channel.split();
        let (fill, mut frames) = input.receive(socket, scratch)?;
        let mut all = Vec::new();
        let broken = loop {
            match frames.next() {
                Ok(None) => break None,
                Ok(Some(f)) => all.push(Request { header: f.header, body: f.body.to_vec(), fds: f.fds }),
                Err(e) => break Some(e),
            }
        };
        drop(frames);
        match (broken, fill) {
            (_, Fill::FdsLost) => return Err(self.tell(0, Code::FdsLost, (0, 0), Ending::FdsLost)),
            (Some(e), _) => return Err(self.tell(0, Code::Protocol, (0, 0), Ending::Protocol(e))),
            (None, Fill::End) => return Err(Ending::Closed),
            (None, Fill::Data | Fill::Empty) => {}
        }
        if all.is_empty() {
            return Ok(false);
        }
        let first = all.remove(0);
        let serial = first.header.serial;
        let hello = match first.read::<Hello>() {
            Ok(hello) if first.fds.is_empty() && serial > 0 => hello,
            Ok(_) => {
                let (kind, came) = (Kind::Hello, first.fds.len());
                let e = match serial {
                    0 => FrameError::Serial { last: 0, got: 0 },
                    _ => FrameError::FdsOfBody { kind, takes: 0, came },
                };
                return Err(self.tell(serial, Code::Protocol, (0, 0), Ending::Protocol(e)));
            }
            Err(FrameError::OutOfPlace(kind)) => {
                let e = FrameError::NotHello(kind);
                return Err(self.tell(serial, Code::Protocol, (0, 0), Ending::Protocol(e)));
            }
            Err(e) => return Err(self.tell(serial, Code::Protocol, (0, 0), Ending::Protocol(e))),
        };
        let (oldest, newest) = hello.versions;
        if newest.min(PROTOCOL_VERSION) < oldest.max(OLDEST_VERSION) {
            let text = format!(
                "this evd speaks the protocol versions {OLDEST_VERSION} to {PROTOCOL_VERSION}, the client {oldest} to {newest}"
            );
            let range = (u64::from(OLDEST_VERSION), u64::from(PROTOCOL_VERSION));
            return Err(self.tell(serial, Code::Version, range, Ending::Refused(text)));
        }
        if let Err(e) = name::check(&hello.name) {
            return Err(self.tell(serial, Code::BadName, (0, 0), Ending::Refused(e.to_string())));
        }
        self.heard = Some(Heard { hello, serial, early: all });
        Ok(true)
    }

    /// What was heard; `None` before [`Greeting::turn`] said so.
    pub fn open(self) -> Option<Opening> {
        let Greeting { channel, caller, heard } = self;
        let Heard { hello, serial, early } = heard?;
        let version = hello.versions.1.min(PROTOCOL_VERSION);
        Some(Opening { hello, serial, version, channel, early, caller })
    }

    /// Refuses the connection: it ends. It is told once, without waiting.
    pub fn refuse(mut self, code: Code, text: &str) {
        send(&mut self.channel, 0, code, (0, 0), text);
    }

    fn tell(&mut self, serial: u64, code: Code, values: (u64, u64), why: Ending) -> Ending {
        send(&mut self.channel, serial, code, values, &why.to_string());
        why
    }
}

impl AsFd for Greeting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Opening {
    /// What the client's base must be.
    pub fn config(&self) -> Config {
        let hello = &self.hello;
        let mut config = Config::default();
        // The control role has no base of its own, only a socket to be waited for.
        if hello.role == evd_proto::request::Role::Client {
            config.method = Some(hello.method.clone()).filter(|m| !m.is_empty());
            config.avoid = hello.avoid.clone();
            config.require = crate::backend::Features::from_bits_retain(hello.require);
        }
        config
    }

    /// What the client calls itself.
    pub fn name(&self) -> &str {
        &self.hello.name
    }

    /// Who connected.
    pub fn peer(&self) -> Peer {
        self.caller.peer
    }

    /// Whose account it is charged to.
    pub fn account(&self) -> &std::sync::Arc<Account> {
        self.caller.connection.account()
    }

    /// Refuses the session: the connection ends. It is told once, without waiting.
    pub fn refuse(mut self, code: Code, (limit, value): (u64, u64), text: &str) {
        send(&mut self.channel, self.serial, code, (limit, value), text);
    }
}

fn send(channel: &mut Channel, serial: u64, code: Code, (limit, value): (u64, u64), text: &str) {
    let refused = Refused { code, limit, value, text: text.to_owned(), ids: Vec::new() };
    // The connection ends after this, whether the peer hears it or not.
    let _ = channel.output.push(serial, &refused);
    let _ = channel.flush();
}
