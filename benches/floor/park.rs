//! The floor of `park`: one process sends fds in batches, another puts each into its epoll through one number and closes it.
//!
//! For each batch of 253 fds the parker does one `sendmsg`; the keeper does one `recvmsg`, for each fd `dup3` to the number, `epoll_ctl` and `close`, and one
//! `dup3` that gives the number back. At the end there is one `send` and one `recv`, which tell the parker. No id comes with an fd: there is no frame.

use super::calls::{self, Epoll};
use crate::parts::{Control, Outcome, now};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The number that fds are armed through, as evd's.
pub struct Slot {
    placeholder: File,
    slot: File,
}

impl Slot {
    pub fn new() -> std::io::Result<Slot> {
        let placeholder = File::open("/dev/null")?;
        Ok(Slot { slot: placeholder.try_clone()?, placeholder })
    }

    /// Puts the fds of one message into `epoll`, one-shot, with the tokens given, and closes them.
    pub fn arm(
        &self,
        epoll: &Epoll,
        op: libc::c_int,
        fds: &mut Vec<RawFd>,
        tokens: impl Iterator<Item = u64>,
    ) -> std::io::Result<()> {
        let slot = self.slot.as_raw_fd();
        for (fd, token) in fds.drain(..).zip(tokens) {
            calls::dup3(fd, slot)?;
            epoll.control(op, slot, token, libc::EPOLLONESHOT)?;
            calls::close(fd);
        }
        calls::dup3(self.placeholder.as_raw_fd(), slot)
    }
}

/// Gets the socket to the parker, and how many fds will come in each round; answers when the last one is armed.
pub fn keeper(mut control: Control) -> Outcome {
    let socket = control.take(1)?.remove(0);
    let count = control.hear_one()? as usize;
    let (slot, epoll) = (Slot::new()?, Epoll::new(32)?);
    control.say(&[])?;
    let (mut armed, mut bytes, mut fds) = (0, [0; 4096], Vec::new());
    while calls::recv_fds(socket.as_raw_fd(), &mut bytes, &mut fds)? > 0 {
        armed += fds.len();
        slot.arm(&epoll, libc::EPOLL_CTL_ADD, &mut fds, 0..)?;
        if armed == count {
            armed = 0;
            calls::send(socket.as_raw_fd(), b"!")?;
        }
    }
    Ok(())
}

/// Gets the socket to the keeper. In each round: new fds, and how long it took until all were armed.
pub fn parker(mut control: Control) -> Outcome {
    let socket = control.take(1)?.remove(0);
    control.say(&[])?;
    control.serve(|control, count| {
        let fds = control.take(count)?;
        let numbers: Vec<RawFd> = fds.iter().map(OwnedFd::as_raw_fd).collect();
        control.say(&[])?;
        control.hear()?;
        let start = now();
        for batch in numbers.chunks(calls::MAX_FDS) {
            calls::send_fds(socket.as_raw_fd(), b"f", batch)?;
        }
        calls::recv(socket.as_raw_fd(), &mut [0])?;
        Ok(vec![now() - start])
    })
}
