//! What the sequences run on, on Windows: connections of TCP. They deliver soon and not at once, so each step waits until it can be seen.

#[allow(dead_code)]
#[path = "../conformance/windows.rs"]
mod os;

pub use os::sees_a_close_behind_data;

use crate::wires::Kind;
use evd_proto::What;
use evd_proto::sys::{AsRawFd, PollFd, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// Sockets that can be watched: two. Another number of one is left out, as Wine does not tell everything of two in one poll.
pub const PORTS: u8 = 2;
pub const METHODS: [&str; 2] = ["wepoll", "win32"];

/// What is watched.
pub type Near = TcpStream;

/// Its other end.
pub struct Far {
    stream: TcpStream,
    /// What `Near` was filled with.
    bytes: usize,
}

/// Where an evd is to be that nobody else has.
pub fn place() -> PathBuf {
    PathBuf::from(format!(r"\\.\pipe\evd-model-{}", std::process::id()))
}

/// No test sends itself a signal here.
pub struct Signal(pub i32);

impl Signal {
    pub const CAN_BE_RAISED: bool = false;

    pub fn take() -> Signal {
        Signal(15)
    }

    pub fn raise(&self, _times: u32) {
        unreachable!("there are no signals in the sequences");
    }
}

pub fn open(kind: Kind) -> (Near, Far) {
    assert!(kind == Kind::Socket, "there are no pipes among the ports");
    let (near, stream) = os::connection();
    near.set_nonblocking(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    (near, Far { stream, bytes: 0 })
}

/// Returns when so many bytes can be read.
pub fn arrived(near: &Near, bytes: u32) {
    let mut room = vec![0; bytes as usize];
    while near.peek(&mut room).unwrap() < room.len() {
        std::thread::yield_now();
    }
}

/// Puts duplicates of `near` in the place of `ports`, which are closed before, so that their numbers may come again.
pub fn replace(all: &mut Vec<Near>, ports: &[usize], near: &Near) {
    let mut others: Vec<Option<Near>> = all.drain(..).map(Some).collect();
    ports.iter().for_each(|port| others[*port] = None);
    all.extend(others.into_iter().map(|other| other.unwrap_or_else(|| near.try_clone().unwrap())));
}

fn wait_for_room(near: &Near, patience: Duration) -> bool {
    let mut look = [PollFd::new(near.as_raw_fd(), What::WRITE)];
    poll(&mut look, Some(patience)).unwrap();
    look[0].strictly_ready().contains(What::WRITE)
}

impl Far {
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Has `near` write until there is no more room, and none comes by what is on its way.
    pub fn fill(&mut self, mut near: &Near, scratch: &[u8]) {
        loop {
            match near.write(scratch) {
                Ok(n) => self.bytes += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // What was taken by the other side may be acknowledged that much later.
                    if !wait_for_room(near, os::LOOK) {
                        break;
                    }
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Reads all that `near` was filled with.
    pub fn drain(&mut self, near: &Near, scratch: &mut [u8]) {
        while self.bytes > 0 {
            match self.stream.read(scratch) {
                Ok(n) => self.bytes -= n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
        assert!(wait_for_room(near, Duration::from_secs(60)));
    }

    pub fn half_close(&self) -> bool {
        self.stream.shutdown(Shutdown::Write).unwrap();
        true
    }
}
