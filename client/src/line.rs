//! One connection to evd: requests out, replies and notices in. It knows nothing of events.

use crate::Error;
use evd_proto::channel::{Channel, Fill, Scratch};
use evd_proto::frame::{Body, FrameError, Kind};
use evd_proto::notice::{Active, Attend, Closing};
use evd_proto::reply::{Attached, Done, Holds, Refused, Took, TookAll, Triggered, Welcome};
use evd_proto::request::{Hello, Role, Sync};
use evd_proto::sys::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd, PollFd, RawFd};
use evd_proto::{OLDEST_VERSION, PROTOCOL_VERSION, What};
use std::io;
use std::path::Path;
use std::time::Duration;

/// What evd said.
#[derive(Debug)]
pub(crate) enum Incoming {
    Welcome(Welcome),
    Active(Active),
    Attend(bool),
    Closing(String),
    Reply(u64, Reply),
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Done,
    Refused(Refused),
    Triggered(Triggered),
    Took(Took, OwnedFd),
    TookAll(TookAll, Vec<OwnedFd>),
    Holds(Holds),
}

/// The longest attachment that is taken, in bytes.
const LONGEST: usize = 1 << 20;

/// Puts what came ahead before the rest.
fn attach(ahead: &mut (u64, Vec<u8>), serial: u64, rest: &mut Vec<u8>) {
    let (of, mut bytes) = std::mem::take(ahead);
    if of == serial {
        bytes.append(rest);
        *rest = bytes;
    }
}

/// Whether there is more to be received.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    No,
    Unlikely,
    Likely,
}

/// Why a line ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// evd closed it, or died.
    Closed,
    /// evd sent something that is not the protocol.
    Protocol(FrameError),
    /// Fds were lost on the way: we are at our limit of open files.
    FdsLost,
    Os(io::Error),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Closed => f.write_str("evd closed the connection"),
            Ended::Protocol(e) => write!(f, "evd broke the protocol: {e}"),
            Ended::FdsLost => f.write_str(
                "this process has no fd left for what evd sent (RLIMIT_NOFILE, or the system's limit)",
            ),
            Ended::Os(e) => write!(f, "the connection to evd failed: {e}"),
        }
    }
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Error {
        match ended {
            Ended::FdsLost => Error::Os(io::Error::other(ended.to_string())),
            _ => Error::Lost,
        }
    }
}

/// Who we say we are.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    pub role: Role,
    pub name: String,
    pub method: String,
    pub avoid: Vec<String>,
    pub require: u32,
}

/// A connection, greeted or not.
#[derive(Debug)]
pub(crate) struct Line {
    channel: Channel,
    serial: u64,
    /// When Hello was sent, to compare the clocks.
    hello_at: u64,
    /// Something waits to be sent.
    pub unsent: bool,
    /// What the attachment of the next answer with this serial begins with.
    attached: (u64, Vec<u8>),
}

impl Line {
    /// Connects, without waiting, and says Hello.
    ///
    /// # Errors
    /// `NotRunning`, or `Os`.
    pub fn open(path: &Path, who: &Introduction) -> Result<Line, Error> {
        let socket = sys::connect(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock => {
                Error::NotRunning { path: path.to_owned(), cause: e }
            }
            _ => Error::Os(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        })?;
        let mut line = Line {
            channel: Channel::new(socket),
            serial: 0,
            hello_at: sys::monotonic_ns(),
            unsent: false,
            attached: (0, Vec::new()),
        };
        line.post(&Hello {
            versions: (OLDEST_VERSION, PROTOCOL_VERSION),
            features: evd_proto::FEATURES,
            role: who.role,
            name: who.name.clone(),
            method: who.method.clone(),
            avoid: who.avoid.clone(),
            require: who.require,
        })?;
        match line.channel.flush() {
            // It has said why and left already: that is still to be read.
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            other => drop(other?),
        }
        Ok(line)
    }

    /// How far evd's clock is ahead of ours: 0 but for another time namespace.
    pub fn clock_offset(&self, welcome: &Welcome) -> i64 {
        let now = sys::monotonic_ns();
        if (self.hello_at..=now).contains(&welcome.now) { 0 } else { welcome.now.wrapping_sub(now) as i64 }
    }

    /// Puts a request into the output; returns its serial.
    ///
    /// # Errors
    /// If it is too long for a frame.
    pub fn post<B: Body>(&mut self, body: &B) -> Result<u64, Error> {
        self.serial += 1;
        let too_long = |e: FrameError| Error::Os(io::Error::new(io::ErrorKind::InvalidInput, e));
        self.channel.output.push(self.serial, body).map_err(too_long)?;
        self.unsent = true;
        Ok(self.serial)
    }

    /// Sends a request with fds. `None`: evd does not take it now, and nothing was sent.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL` for a fd that can't be passed; others mean that the line is dead.
    pub fn send_with_fds<B: Body>(&mut self, body: &B, fds: &[RawFd]) -> io::Result<Option<u64>> {
        let serial = self.serial + 1;
        let (socket, _, output) = self.channel.split();
        let sent = output.send_with_fds(socket, serial, body, fds)?;
        self.unsent = !self.channel.output.is_empty();
        if sent {
            self.serial = serial;
        }
        Ok(sent.then_some(serial))
    }

    /// Sends what waits. `true`: all of it.
    ///
    /// # Errors
    /// The line is dead; what evd sent before may still be read.
    pub fn flush(&mut self) -> io::Result<bool> {
        let all = self.channel.flush()?;
        self.unsent = !all;
        Ok(all)
    }

    /// Reads what is there. What comes just then, or stands behind fds, is for the next time: the line's watch is level-triggered.
    ///
    /// # Errors
    /// How the line ended; what came before is in `into`.
    pub fn receive(&mut self, scratch: &mut Scratch, into: &mut Vec<Incoming>) -> Result<(), Ended> {
        while self.receive_once(scratch, into)? == More::Likely {}
        Ok(())
    }

    /// Reads to the end: all that evd has sent before it went, or until it has nothing more to say for now.
    ///
    /// # Errors
    /// As [`Line::receive`].
    pub fn drain(&mut self, scratch: &mut Scratch, into: &mut Vec<Incoming>) -> Result<(), Ended> {
        while self.receive_once(scratch, into)? != More::No {}
        Ok(())
    }

    fn receive_once(&mut self, scratch: &mut Scratch, into: &mut Vec<Incoming>) -> Result<More, Ended> {
        let (socket, input, _) = self.channel.split();
        let (fill, mut frames) = match input.receive(socket, scratch) {
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(Ended::Closed),
            Err(e) => return Err(Ended::Os(e)),
        };
        // Then a frame that lacks some is not evd's fault.
        let broken = |e| if fill == Fill::FdsLost { Ended::FdsLost } else { Ended::Protocol(e) };
        while let Some(mut frame) = frames.next().map_err(broken)? {
            let serial = frame.header.serial;
            let incoming = match frame.header.kind {
                Kind::Welcome => frame.read().map(Incoming::Welcome),
                Kind::Active => frame.read().map(Incoming::Active),
                Kind::Attend => frame.read().map(|a: Attend| Incoming::Attend(a.on)),
                Kind::Closing => frame.read().map(|c: Closing| Incoming::Closing(c.reason)),
                Kind::Done => frame.read().map(|_: Done| Incoming::Reply(serial, Reply::Done)),
                Kind::Refused => frame.read().map(|r| Incoming::Reply(serial, Reply::Refused(r))),
                Kind::Triggered => frame.read().map(|r| Incoming::Reply(serial, Reply::Triggered(r))),
                Kind::Holds => frame.read().map(|r| Incoming::Reply(serial, Reply::Holds(r))),
                Kind::Took => match (frame.fds.pop(), frame.read::<Took>()) {
                    (Some(fd), Ok(mut took)) => {
                        attach(&mut self.attached, serial, &mut took.attachment);
                        Ok(Incoming::Reply(serial, Reply::Took(took, fd)))
                    }
                    (None, Ok(_)) => Err(FrameError::FdsOfBody { kind: Kind::Took, takes: 1, came: 0 }),
                    (_, Err(e)) => Err(e),
                },
                Kind::TookAll => match frame.read::<TookAll>() {
                    Ok(mut took) if took.holds.len() == frame.fds.len() => {
                        if let Some(first) = took.holds.first_mut() {
                            attach(&mut self.attached, serial, &mut first.attachment);
                        }
                        Ok(Incoming::Reply(serial, Reply::TookAll(took, frame.fds)))
                    }
                    Ok(took) => {
                        let (kind, takes, came) = (Kind::TookAll, took.holds.len(), frame.fds.len());
                        Err(FrameError::FdsOfBody { kind, takes, came })
                    }
                    Err(e) => Err(e),
                },
                Kind::Attached => {
                    let Attached { mut bytes } = frame.read().map_err(Ended::Protocol)?;
                    if self.attached.0 != serial {
                        self.attached = (serial, Vec::new());
                    }
                    // evd keeps no longer ones, so it gives none.
                    if self.attached.1.len() + bytes.len() > LONGEST {
                        return Err(Ended::Protocol(FrameError::TooLong {
                            len: bytes.len(),
                            limit: LONGEST,
                        }));
                    }
                    self.attached.1.append(&mut bytes);
                    continue;
                }
                other => Err(FrameError::OutOfPlace(other)),
            };
            into.push(incoming.map_err(Ended::Protocol)?);
        }
        match fill {
            Fill::Data if frames.is_full() => Ok(More::Likely),
            Fill::Data => Ok(More::Unlikely),
            Fill::Empty => Ok(More::No),
            Fill::End => Err(Ended::Closed),
            Fill::FdsLost => Err(Ended::FdsLost),
        }
    }

    /// Waits until evd says something, or takes what waits to be sent.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn wait(&mut self, deadline: u64) -> Result<(), Error> {
        let now = sys::monotonic_ns();
        if now >= deadline {
            return Err(Error::TimedOut);
        }
        let mut what = What::READ;
        if self.unsent {
            what |= What::WRITE;
        }
        let mut one = [PollFd::new(self.channel.as_fd().as_raw_fd(), what)];
        sys::poll(&mut one, Some(Duration::from_nanos(deadline - now)))?;
        if self.unsent && one[0].ready().contains(What::WRITE) {
            // A dead line is noticed by the read that follows.
            let _ = self.flush();
        }
        Ok(())
    }

    /// Asks for an answer without waiting for it.
    ///
    /// # Errors
    /// None in practice: the body is empty.
    pub fn post_sync(&mut self) -> Result<u64, Error> {
        self.post(&Sync {})
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
