//! What the sequences run on, on Unix: Unix sockets and pipes.

use crate::wires::Kind;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex};

/// fds that can be watched: two sockets, another number of the first, the reading end of a pipe, the writing end of another.
pub const PORTS: u8 = 5;
pub const METHODS: [&str; 3] = ["epoll", "poll", "select"];

/// What is watched.
pub type Near = File;

/// Its other end.
pub enum Far {
    Socket(UnixStream),
    Pipe(File),
}

/// Where an evd is to be that nobody else has.
pub fn place() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("evd-model-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir.join("socket")
}

/// A signal that no other test uses meanwhile: they are all of one process.
pub struct Signal(pub i32);

/// Those that nothing else here is told by, and every Unix has. Who raises one has it delivered before it goes on, so none is lost beside another.
const SIGNALS: [i32; 8] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGURG,
    libc::SIGIO,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGALRM,
];
/// The signals that are taken.
static TAKEN: Mutex<Vec<i32>> = Mutex::new(Vec::new());
static GIVEN_BACK: Condvar = Condvar::new();

impl Signal {
    pub const CAN_BE_RAISED: bool = true;

    pub fn take() -> Signal {
        let mut taken = TAKEN.lock().unwrap();
        loop {
            if let Some(signo) = SIGNALS.into_iter().find(|s| !taken.contains(s)) {
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

pub fn open(kind: Kind) -> (Near, Far) {
    let (near, far): (OwnedFd, Far) = match kind {
        Kind::Socket => {
            let (near, far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            (near.into(), Far::Socket(far))
        }
        Kind::ReadEnd => {
            let (near, far) = evd_proto::sys::pipe().unwrap();
            (near, Far::Pipe(far.into()))
        }
        Kind::WriteEnd => {
            let (far, near) = evd_proto::sys::pipe().unwrap();
            (near, Far::Pipe(far.into()))
        }
    };
    (near.into(), far)
}

/// Whether a close is told while there is something unread before it.
pub fn sees_a_close_behind_data() -> bool {
    true
}

/// Returns when so many bytes can be read: at once, as they are there when they are written.
pub fn arrived(_near: &Near, _bytes: u32) {}

/// Puts other files of `near` under the numbers of `ports`.
pub fn replace(all: &mut [Near], ports: &[usize], near: &Near) {
    for &port in ports {
        let old = &all[port];
        // SAFETY: dup2 takes numbers; `old` stays open under its own.
        let done = unsafe { libc::dup2(near.as_raw_fd(), old.as_raw_fd()) };
        assert_eq!(done, old.as_raw_fd());
        evd_proto::sys::close_on_exec(old.as_fd()).unwrap();
    }
}

impl Far {
    pub fn write(&mut self, bytes: &[u8]) {
        match self {
            Far::Socket(far) => far.write_all(bytes).unwrap(),
            Far::Pipe(far) => far.write_all(bytes).unwrap(),
        }
    }

    /// Has `near` write until there is no more room, out of `scratch`, which is as much as a pipe holds.
    pub fn fill(&mut self, mut near: &Near, scratch: &[u8]) {
        loop {
            match near.write(scratch) {
                Ok(_) if matches!(self, Far::Pipe(_)) => break,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Reads all that `near` was filled with.
    pub fn drain(&mut self, _near: &Near, scratch: &mut [u8]) {
        match self {
            Far::Socket(far) => while far.read(scratch).is_ok_and(|n| n > 0) {},
            Far::Pipe(far) => far.read_exact(scratch).unwrap(),
        }
    }

    /// `false`: a pipe has no halves.
    pub fn half_close(&self) -> bool {
        let Far::Socket(far) = self else { return false };
        far.shutdown(Shutdown::Write).unwrap();
        true
    }
}
