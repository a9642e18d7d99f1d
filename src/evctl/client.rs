//! One connection to evd in the control role: a request goes out, and its reply is waited for.
//!
//! The channel is non-blocking; everything that waits here is a `poll` with a deadline, so an evd that hangs costs `--timeout` and not for ever. What
//! came before the connection ended is read to its end first: a refusal is often the last thing that evd says.

use super::error::Error;
use super::text::{duration, printable};
use evd_proto::channel::{Channel, Fill, Scratch};
use evd_proto::frame::{self, Body, FrameError, Header, Kind};
use evd_proto::notice::Closing;
use evd_proto::path;
use evd_proto::reply::{Attached, Done, Refused, Took, Welcome};
use evd_proto::request::{Attach, Hello, Hold, Role, Take};
use evd_proto::sys::{self, PollFd};
use evd_proto::sys::{AsFd, AsRawFd, OwnedFd, RawFd};
use evd_proto::{OLDEST_VERSION, PROTOCOL_VERSION, What};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait before a full backlog, or a send for which too many fds are in flight, is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Where evd is, and how long it may take to answer.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its socket.
    pub(super) path: PathBuf,
    /// For each answer.
    pub(super) timeout: Duration,
}

/// A frame with its own bytes.
#[derive(Debug)]
struct Incoming {
    header: Header,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Incoming {
    fn read<B: Body>(&self) -> Result<B, Error> {
        frame::body(self.header.kind, &self.body).map_err(garbage)
    }
}

/// A connection that evd has welcomed.
pub(super) struct Client {
    channel: Channel,
    scratch: Scratch,
    target: Target,
    serial: u64,
    inbox: VecDeque<Incoming>,
    /// Notices that came while a reply was waited for.
    notices: VecDeque<Incoming>,
    ended: bool,
    welcome: Option<Welcome>,
    /// What the attachment of the last answer begins with.
    attached: Vec<u8>,
}

impl Client {
    /// Connects and says hello.
    ///
    /// # Errors
    /// `NotRunning`, `NotAllowed`, `TimedOut`, `Refused`.
    pub(super) fn connect(target: &Target) -> Result<Client, Error> {
        let deadline = Instant::now() + target.timeout;
        let socket = loop {
            match sys::connect(&target.path) {
                Ok(socket) => break socket,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(RETRY);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(silent(target)),
                Err(e) => return Err(cannot_reach(&target.path, &e)),
            }
        };
        let mut client = Client {
            channel: Channel::new(socket),
            scratch: Scratch::new(),
            target: target.clone(),
            serial: 0,
            inbox: VecDeque::new(),
            notices: VecDeque::new(),
            ended: false,
            welcome: None,
            attached: Vec::new(),
        };
        client.welcome = Some(client.call(&Hello {
            versions: (OLDEST_VERSION, PROTOCOL_VERSION),
            features: 0,
            role: Role::Control,
            name: "evctl".to_owned(),
            method: String::new(),
            avoid: Vec::new(),
            require: 0,
        })?);
        Ok(client)
    }

    /// What evd said when it welcomed us.
    pub(super) fn welcome(&self) -> &Welcome {
        self.welcome.as_ref().expect("connect sets it before it gives the client out")
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// As [`Client::exchange`].
    pub(super) fn call<Q: Body, A: Body>(&mut self, request: &Q) -> Result<A, Error> {
        self.exchange(request, &[]).map(|(answer, _)| answer)
    }

    /// Asks with fds, and waits for the answer and its fds.
    ///
    /// # Errors
    /// `Refused`; `NotRunning` if the connection ends; `TimedOut`; `Failed` if what comes makes no sense, or `fds` can't be sent.
    pub(super) fn exchange<Q: Body, A: Body>(
        &mut self,
        request: &Q,
        fds: &[RawFd],
    ) -> Result<(A, Vec<OwnedFd>), Error> {
        let deadline = Instant::now() + self.target.timeout;
        self.attached.clear();
        let serial = self.send(request, fds, deadline)?;
        loop {
            let frame = self.next(Some(deadline))?;
            match frame.header.kind {
                // evd may refuse a connection before it has read anything of it.
                Kind::Refused if matches!(frame.header.serial, 0) || frame.header.serial == serial => {
                    return Err(Error::Refused(frame.read::<Refused>()?));
                }
                _ if frame.header.serial == 0 => self.notices.push_back(frame),
                Kind::Attached if frame.header.serial == serial => {
                    self.attached.append(&mut frame.read::<Attached>()?.bytes);
                }
                _ if frame.header.serial == serial => return Ok((frame.read()?, frame.fds)),
                kind => return Err(garbage(FrameError::OutOfPlace(kind))),
            }
        }
    }

    /// Gives evd an fd to hold. A frame with an fd has no room for a long attachment, so that goes ahead.
    ///
    /// # Errors
    /// As [`Client::exchange`].
    pub(super) fn hold(&mut self, hold: &Hold, fd: RawFd) -> Result<(), Error> {
        let mut hold = hold.clone();
        for piece in Attach::ahead(&mut hold.attachment) {
            self.tell(&piece)?;
        }
        self.exchange(&hold, &[fd]).map(|(Done {}, _)| ())
    }

    /// Takes a held fd.
    ///
    /// # Errors
    /// As [`Client::exchange`].
    pub(super) fn take(&mut self, take: &Take) -> Result<(Took, Vec<OwnedFd>), Error> {
        let (mut took, fds): (Took, _) = self.exchange(take, &[])?;
        took.attachment = [std::mem::take(&mut self.attached), took.attachment].concat();
        Ok((took, fds))
    }

    /// Sends what has no answer, as far as the socket takes it; the next question sends the rest.
    ///
    /// # Errors
    /// As [`Client::exchange`].
    pub(super) fn tell<Q: Body>(&mut self, request: &Q) -> Result<(), Error> {
        let deadline = Instant::now() + self.target.timeout;
        self.send(request, &[], deadline).map(drop)
    }

    /// Waits for the next notice for as long as it takes. Ends with a quiet error if the reader of stdout leaves meanwhile.
    ///
    /// # Errors
    /// `NotRunning` if evd ends, `Failed` if something else than a `N` comes.
    pub(super) fn notice<N: Body>(&mut self) -> Result<N, Error> {
        match self.notices.pop_front() {
            Some(frame) => frame.read(),
            None => self.next(None)?.read(),
        }
    }

    fn send<Q: Body>(&mut self, request: &Q, fds: &[RawFd], deadline: Instant) -> Result<u64, Error> {
        self.serial += 1;
        let (socket, _, output) = self.channel.split();
        if fds.is_empty() {
            output.push(self.serial, request).map_err(too_long)?;
            self.flush()?;
            return Ok(self.serial);
        }
        loop {
            match output.send_with_fds(socket, self.serial, request, fds) {
                Ok(true) => return Ok(self.serial),
                // `poll` would call the socket writable while too many fds of this user are in flight, so this asks again in a while.
                Ok(false) if Instant::now() < deadline => std::thread::sleep(RETRY),
                Ok(false) => return Err(silent(&self.target)),
                Err(e) if is_end(&e) => return Ok(self.serial),
                Err(e) => return Err(Error::Failed(format!("can't send the fd to evd: {e}"))),
            }
        }
    }

    /// Sends what the socket takes. A peer that is gone is not an error here: what it said before is read first.
    fn flush(&mut self) -> Result<(), Error> {
        match self.channel.flush() {
            Ok(_) => Ok(()),
            Err(e) if is_end(&e) => {
                self.channel.output.clear();
                Ok(())
            }
            Err(e) => Err(Error::Failed(format!("can't send to evd: {e}"))),
        }
    }

    /// The next frame. Without a deadline it also looks at stdout.
    fn next(&mut self, deadline: Option<Instant>) -> Result<Incoming, Error> {
        loop {
            // A goodbye stays where it is: whoever asks after it is told the same.
            if let Some(frame) = self.inbox.front().filter(|f| f.header.kind == Kind::Closing) {
                let Closing { reason } = frame.read()?;
                return Err(Error::NotRunning(format!("evd is stopping: {}", printable(&reason))));
            }
            if let Some(frame) = self.inbox.pop_front() {
                return Ok(frame);
            }
            if self.ended {
                let path = shown(&self.target.path);
                return Err(Error::NotRunning(format!("evd at {path} has closed the connection")));
            }
            self.flush()?;
            if self.receive()? {
                continue;
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|l| l.is_zero()) {
                return Err(silent(&self.target));
            }
            let mut wanted = What::READ;
            wanted.set(What::WRITE, !self.channel.output.is_empty());
            // Nothing is asked of stdout: only that its reader has left can come.
            let stdout = if deadline.is_none() { sys::stdout_number() } else { -1 };
            let mut fds =
                [PollFd::new(self.channel.as_fd().as_raw_fd(), wanted), PollFd::new(stdout, What::empty())];
            sys::poll(&mut fds, left).map_err(|e| Error::Failed(format!("can't wait for evd: {e}")))?;
            if !fds[1].ready().is_empty() {
                return Err(Error::Output(io::ErrorKind::BrokenPipe.into()));
            }
        }
    }

    /// Receives once. `false`: nothing is there.
    fn receive(&mut self) -> Result<bool, Error> {
        let (socket, input, _) = self.channel.split();
        let (fill, mut frames) = match input.receive(socket, &mut self.scratch) {
            Ok(got) => got,
            Err(e) if is_end(&e) => {
                self.ended = true;
                return Ok(true);
            }
            Err(e) => return Err(Error::Failed(format!("can't read from evd: {e}"))),
        };
        while let Some(f) = frames.next().map_err(garbage)? {
            self.inbox.push_back(Incoming { header: f.header, body: f.body.to_vec(), fds: f.fds });
        }
        match fill {
            Fill::Data => Ok(true),
            Fill::Empty => Ok(false),
            Fill::End => {
                self.ended = true;
                Ok(true)
            }
            Fill::FdsLost => {
                Err(Error::Failed("fds from evd were lost: the limit on open files is reached".to_owned()))
            }
        }
    }
}

fn is_end(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn garbage(e: FrameError) -> Error {
    Error::Failed(format!("what evd sent can't be read: {}", printable(&e.to_string())))
}

fn too_long(e: FrameError) -> Error {
    Error::Failed(format!("the request can't be sent: {e}"))
}

fn silent(target: &Target) -> Error {
    let waited = duration(target.timeout.as_nanos() as u64);
    Error::TimedOut(format!("evd at {} does not answer (waited {waited})", shown(&target.path)))
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// Says why nobody could be reached at `path`, and what would be right.
fn cannot_reach(socket: &Path, e: &io::Error) -> Error {
    let path = shown(socket);
    let hint = format!("start evd ({}), or name its socket by --socket or EVD_SOCKET", sys::HOW_TO_START);
    match e.kind() {
        io::ErrorKind::NotFound if sys::is_listened_at(socket) => Error::NotRunning(format!(
            "evd runs, but nobody can reach it: its socket {path} is gone; restart it (systemctl restart evd.socket evd)"
        )),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let other = path::looked_at_too(socket).map(|p| format!(", nor at {}", shown(&p)));
            let nor = other.unwrap_or_default();
            Error::NotRunning(format!("evd is not running: there is no socket at {path}{nor}; {hint}"))
        }
        io::ErrorKind::ConnectionRefused => {
            Error::NotRunning(format!("evd is not running: nobody listens at {path}; {hint}"))
        }
        io::ErrorKind::PermissionDenied => {
            Error::NotAllowed(format!("this user may not connect to {path}; {}", sys::HOW_TO_LET_IN))
        }
        _ => Error::Failed(format!("can't connect to {path}: {e}")),
    }
}
