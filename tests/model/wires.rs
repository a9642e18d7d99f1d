//! The kernel's side: sockets and pipes, what they are like, and what a method says of that.

use crate::ops::PORTS;
use evd_proto::What;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex};

const WIRES: usize = 4;
/// What a pipe holds.
const PIPE: usize = 65536;
const MOST_BYTES: u32 = 20;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Socket,
    ReadEnd,
    WriteEnd,
}

/// The wire of a port, and what the port is of it.
pub fn wire(port: u8) -> (usize, Kind) {
    [(0, Kind::Socket), (1, Kind::Socket), (0, Kind::Socket), (2, Kind::ReadEnd), (3, Kind::WriteEnd)]
        [port as usize]
}

/// One file, as the process has it: what its peer did, and what is in it.
#[derive(Clone, Copy, Default)]
pub struct Wire {
    pub unread: u32,
    pub full: bool,
    pub half_closed: bool,
    pub closed: bool,
    /// It was closed with something unread: that is an error here.
    pub reset: bool,
}

impl Wire {
    pub fn ready(&self, kind: Kind, method: &str) -> What {
        let Wire { unread, full, half_closed, closed, .. } = *self;
        let mut what = What::empty();
        match kind {
            Kind::Socket => {
                what.set(What::READ, unread > 0 || half_closed || closed);
                what.set(What::WRITE, !full);
                what.set(What::CLOSED, (half_closed || closed) && method != "select");
            }
            Kind::ReadEnd => what.set(What::READ, unread > 0 || closed),
            // An error is both.
            Kind::WriteEnd => {
                what.set(What::READ, closed);
                what.set(What::WRITE, !full || closed);
            }
        }
        what
    }

    /// Whether a hang-up or an error is there that no interest masks.
    pub fn is_hung_up(&self) -> bool {
        self.closed
    }

    pub fn may_write(&self, kind: Kind, n: u32) -> bool {
        kind != Kind::WriteEnd && !self.closed && !self.half_closed && self.unread + n <= MOST_BYTES
    }

    pub fn may_fill(&self, kind: Kind) -> bool {
        kind != Kind::ReadEnd && !self.closed && !self.full
    }
}

enum Far {
    Socket(UnixStream),
    Pipe(File),
}

/// The files themselves. They are used by one sequence after the other.
pub struct Fds {
    near: Vec<File>,
    far: Vec<Option<Far>>,
    pub wires: [Wire; WIRES],
    pub signal: Signal,
    scratch: Vec<u8>,
}

/// A signal that no other test uses meanwhile: they are all of one process.
pub struct Signal(pub i32);

/// The signals that are taken.
static TAKEN: Mutex<Vec<i32>> = Mutex::new(Vec::new());
static GIVEN_BACK: Condvar = Condvar::new();

impl Signal {
    fn take() -> Signal {
        let mut taken = TAKEN.lock().unwrap();
        loop {
            if let Some(signo) = (libc::SIGRTMIN()..=libc::SIGRTMAX()).find(|s| !taken.contains(s)) {
                taken.push(signo);
                // When nobody asks for it, it does nothing.
                // SAFETY: SIG_IGN runs no code.
                unsafe { libc::signal(signo, libc::SIG_IGN) };
                return Signal(signo);
            }
            taken = GIVEN_BACK.wait(taken).unwrap();
        }
    }

    pub fn raise(&self, times: u32) {
        for _ in 0..times {
            // SAFETY: it is ignored, or a base has its handler.
            assert_eq!(unsafe { libc::raise(self.0) }, 0);
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        TAKEN.lock().unwrap().retain(|s| *s != self.0);
        GIVEN_BACK.notify_one();
    }
}

fn open(wire: usize) -> (OwnedFd, Far) {
    match wire {
        0 | 1 => {
            let (near, far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            (near.into(), Far::Socket(far))
        }
        2 => {
            let (near, far) = evd_proto::sys::pipe().unwrap();
            (near, Far::Pipe(far.into()))
        }
        _ => {
            let (far, near) = evd_proto::sys::pipe().unwrap();
            (near, Far::Pipe(far.into()))
        }
    }
}

impl Fds {
    pub fn new() -> Fds {
        let (mut near, mut far): (Vec<OwnedFd>, Vec<_>) = (0..WIRES).map(open).unzip();
        let twin = near[0].try_clone().unwrap();
        near.insert(2, twin);
        Fds {
            near: near.into_iter().map(File::from).collect(),
            far: far.drain(..).map(Some).collect(),
            wires: [Wire::default(); WIRES],
            signal: Signal::take(),
            scratch: vec![0; PIPE],
        }
    }

    pub fn number(&self, port: u8) -> RawFd {
        self.near[port as usize].as_raw_fd()
    }

    /// As new.
    pub fn reset(&mut self) {
        for port in [0, 1, 3, 4] {
            let (at, _) = wire(port);
            if self.wires[at].closed || self.wires[at].half_closed {
                self.reopen(port);
            }
            self.read(port, u32::MAX);
            self.drain(port);
        }
    }

    pub fn write(&mut self, port: u8, n: u32) {
        let (at, kind) = wire(port);
        if !self.wires[at].may_write(kind, n) {
            return;
        }
        let bytes = &self.scratch[..n as usize];
        match &mut self.far[at] {
            Some(Far::Socket(far)) => far.write_all(bytes).unwrap(),
            Some(Far::Pipe(far)) => far.write_all(bytes).unwrap(),
            None => unreachable!(),
        }
        self.wires[at].unread += n;
    }

    /// Returns how many bytes there were.
    pub fn read(&mut self, port: u8, n: u32) -> u32 {
        let (at, _) = wire(port);
        let want = n.min(self.wires[at].unread) as usize;
        if want == 0 {
            return 0;
        }
        let got = (&self.near[port as usize]).read(&mut self.scratch[..want]).unwrap() as u32;
        self.wires[at].unread -= got;
        got
    }

    pub fn fill(&mut self, port: u8) {
        let (at, kind) = wire(port);
        if !self.wires[at].may_fill(kind) {
            return;
        }
        let mut near = &self.near[port as usize];
        loop {
            match near.write(&self.scratch) {
                Ok(_) if kind == Kind::WriteEnd => break,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        self.wires[at].full = true;
    }

    pub fn drain(&mut self, port: u8) {
        let (at, _) = wire(port);
        if !self.wires[at].full {
            return;
        }
        match &mut self.far[at] {
            Some(Far::Socket(far)) => while far.read(&mut self.scratch).is_ok_and(|n| n > 0) {},
            Some(Far::Pipe(far)) => far.read_exact(&mut self.scratch).unwrap(),
            None => unreachable!(),
        }
        self.wires[at].full = false;
    }

    pub fn half_close(&mut self, port: u8) {
        let (at, _) = wire(port);
        if let Some(Far::Socket(far)) = &self.far[at] {
            far.shutdown(Shutdown::Write).unwrap();
            self.wires[at].half_closed = true;
        }
    }

    pub fn close(&mut self, port: u8) {
        let (at, _) = wire(port);
        self.far[at] = None;
        self.wires[at].closed = true;
        self.wires[at].full = false;
    }

    /// Another file under the same number.
    pub fn reopen(&mut self, port: u8) {
        let (at, _) = wire(port);
        let (near, far) = open(at);
        for p in 0..PORTS {
            if wire(p).0 == at {
                replace(&self.near[p as usize], &near);
            }
        }
        self.far[at] = Some(far);
        self.wires[at] = Wire::default();
    }
}

fn replace(old: &File, new: &OwnedFd) {
    // SAFETY: dup2 takes numbers; `old` stays open under its own.
    let done = unsafe { libc::dup2(new.as_raw_fd(), old.as_raw_fd()) };
    assert_eq!(done, old.as_raw_fd());
    evd_proto::sys::close_on_exec(old.as_fd()).unwrap();
}
