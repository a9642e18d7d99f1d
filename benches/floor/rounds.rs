//! The floors of `rounds`.
//!
//! **Busy**: one process with an epoll of its own: for each 1,000 events one `epoll_wait`, and one `read` each.
//!
//! **Parked**: a keeper waits for 1,000 fds that are armed one-shot, and a client reads them and has them armed again. The keeper does `epoll_wait` and one `send` with the
//! ids of all that are ready; the client one `recv`, one `read` for each, and for each batch of 253 one `sendmsg` with fds and ids; the keeper for each batch
//! `epoll_wait`, `recvmsg` and one `dup3`, and for each fd `dup3`, `epoll_ctl`, `close`. One `send` and one `recv` at the end tell that all are armed. So the floor
//! does not look twice whether an fd is ready, nor does the client wait for anything but the keeper.

use super::calls::{self, Epoll};
use super::park::Slot;
use crate::parts::{Control, Outcome, now};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The keeper's token for its socket.
const SOCKET: u64 = u64::MAX;

/// Gets fds. In each round: how long it took until all were read.
pub fn local(mut control: Control) -> Outcome {
    let count = control.hear_one()? as usize;
    let fds = control.take(count)?;
    let mut epoll = Epoll::new(4096)?;
    for fd in &fds {
        epoll.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), fd.as_raw_fd() as u64, 0)?;
    }
    control.say(&[])?;
    control.serve(|control, count| {
        control.hear()?;
        let start = now();
        let mut left = count;
        while left > 0 {
            for fd in epoll.wait()? {
                calls::read(fd as RawFd, &mut [0; 8])?;
                left -= 1;
            }
        }
        Ok(vec![now() - start])
    })
}

/// Gets the socket to the client, and how many fds there are.
pub fn keeper(mut control: Control) -> Outcome {
    let socket = control.take(1)?.remove(0);
    let count = control.hear_one()? as usize;
    let (slot, mut epoll) = (Slot::new()?, Epoll::new(4096)?);
    epoll.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), SOCKET, 0)?;
    control.say(&[])?;
    let (mut known, mut armed) = (0, 0);
    let (mut bytes, mut ids, mut fds) = ([0; 4096], Vec::new(), Vec::new());
    loop {
        let mut readable = false;
        ids.clear();
        for token in epoll.wait()? {
            match token {
                SOCKET => readable = true,
                id => ids.extend_from_slice(&(id as u32).to_ne_bytes()),
            }
        }
        if !ids.is_empty() {
            calls::send(socket.as_raw_fd(), &ids)?;
        }
        if readable {
            let got = calls::recv_fds(socket.as_raw_fd(), &mut bytes, &mut fds)?;
            if got == 0 {
                return Ok(());
            }
            let came = fds.len();
            let op = if known < count { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
            slot.arm(&epoll, op, &mut fds, numbers(&bytes[..got]).map(u64::from))?;
            known += if known < count { came } else { 0 };
            armed += came;
            if armed == count {
                armed = 0;
                calls::send(socket.as_raw_fd(), b"!")?;
            }
        }
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b))
}

/// Has the fds of these ids armed, and waits until they are.
fn arm(socket: &OwnedFd, fds: &[OwnedFd], ids: &[u8]) -> std::io::Result<()> {
    for ids in ids.chunks(4 * calls::MAX_FDS) {
        let batch: Vec<RawFd> = numbers(ids).map(|id| fds[id as usize].as_raw_fd()).collect();
        calls::send_fds(socket.as_raw_fd(), ids, &batch)?;
    }
    Ok(())
}

/// Gets the socket to the keeper and the fds. In each round: when all were read and armed again.
pub fn client(mut control: Control) -> Outcome {
    let socket = control.take(1)?.remove(0);
    let count = control.hear_one()? as usize;
    let fds = control.take(count)?;
    let all: Vec<u8> = (0..count as u32).flat_map(u32::to_ne_bytes).collect();
    arm(&socket, &fds, &all)?;
    calls::recv(socket.as_raw_fd(), &mut [0])?;
    control.say(&[])?;
    let mut bytes = vec![0; 65_536];
    control.serve(|_, count| {
        let mut left = count;
        while left > 0 {
            let got = calls::recv(socket.as_raw_fd(), &mut bytes)?;
            for id in numbers(&bytes[..got]) {
                calls::read(fds[id as usize].as_raw_fd(), &mut [0; 8])?;
                left -= 1;
            }
            arm(&socket, &fds, &bytes[..got])?;
        }
        calls::recv(socket.as_raw_fd(), &mut [0])?;
        Ok(vec![now()])
    })
}
