//! The kernel's side: sockets and pipes, what they are like, and what a method says of that.

use crate::system::{self, Far, Near, PORTS, Signal};
use evd_proto::What;
use evd_proto::sys::{AsRawFd, RawFd};
use std::io::Read;

pub const WIRES: usize = 4;
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
    /// The peer had not read everything when it closed.
    pub reset: bool,
}

impl Wire {
    pub fn ready(&self, kind: Kind, method: &str) -> What {
        let Wire { unread, full, half_closed, closed, reset } = *self;
        let mut what = What::empty();
        match kind {
            Kind::Socket => {
                what.set(What::READ, unread > 0 || half_closed || closed);
                what.set(What::WRITE, !full);
                let seen = unread == 0 || reset || system::sees_a_close_behind_data();
                let told = seen && !matches!(method, "select" | "win32");
                what.set(What::CLOSED, (half_closed || closed) && told);
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

    pub fn close(&mut self) {
        (self.closed, self.reset, self.full) = (true, self.full, false);
    }

    pub fn may_write(&self, kind: Kind, n: u32) -> bool {
        kind != Kind::WriteEnd && !self.closed && !self.half_closed && self.unread + n <= MOST_BYTES
    }

    pub fn may_fill(&self, kind: Kind) -> bool {
        kind != Kind::ReadEnd && !self.closed && !self.full
    }
}

/// The files themselves. They are used by one sequence after the other.
pub struct Fds {
    near: Vec<Near>,
    far: Vec<Option<Far>>,
    pub wires: [Wire; WIRES],
    pub signal: Signal,
    scratch: Vec<u8>,
}

/// Ports whose files are all files.
fn ports() -> impl Iterator<Item = u8> {
    (0..PORTS).filter(|port| *port != 2)
}

impl Fds {
    pub fn new() -> Fds {
        let (mut near, far): (Vec<Near>, Vec<_>) = ports().map(|port| system::open(wire(port).1)).unzip();
        if PORTS > 2 {
            let twin = near[0].try_clone().unwrap();
            near.insert(2, twin);
        }
        Fds {
            near,
            far: far.into_iter().map(Some).collect(),
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
        for port in ports() {
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
        self.far[at].as_mut().unwrap().write(&self.scratch[..n as usize]);
        self.wires[at].unread += n;
        system::arrived(&self.near[port as usize], self.wires[at].unread);
        self.stay_full(port);
    }

    /// What the other end sends acknowledges what it has got, which may make room.
    fn stay_full(&mut self, port: u8) {
        let (at, _) = wire(port);
        if let (true, Some(far)) = (self.wires[at].full, &mut self.far[at]) {
            far.fill(&self.near[port as usize], &self.scratch);
        }
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
        self.far[at].as_mut().unwrap().fill(&self.near[port as usize], &self.scratch);
        self.wires[at].full = true;
    }

    pub fn drain(&mut self, port: u8) {
        let (at, _) = wire(port);
        if !self.wires[at].full {
            return;
        }
        self.far[at].as_mut().unwrap().drain(&self.near[port as usize], &mut self.scratch);
        self.wires[at].full = false;
    }

    pub fn half_close(&mut self, port: u8) {
        let (at, _) = wire(port);
        if self.far[at].as_ref().is_some_and(Far::half_close) {
            self.wires[at].half_closed = true;
            self.stay_full(port);
        }
    }

    pub fn close(&mut self, port: u8) {
        let (at, _) = wire(port);
        self.far[at] = None;
        self.wires[at].close();
    }

    /// Another file; under the same number, where that can be.
    pub fn reopen(&mut self, port: u8) {
        let (at, kind) = wire(port);
        let (near, far) = system::open(kind);
        let ports: Vec<usize> = (0..PORTS).filter(|p| wire(*p).0 == at).map(usize::from).collect();
        system::replace(&mut self.near, &ports, &near);
        self.far[at] = Some(far);
        self.wires[at] = Wire::default();
    }
}
