//! The floor of `sparse`: a relay that waits for an fd and sends a byte to the process that wants to know.
//!
//! For each event the relay does `epoll_wait` and `send`, the receiver `recv` and the `read` of what was written. The relay's epoll is edge-triggered, so
//! that nothing has to be armed again.

use super::calls;
use crate::parts::{Control, Outcome, now};
use std::os::fd::AsRawFd;

/// Gets the fd to wait for and the socket to the receiver.
pub fn relay(mut control: Control) -> Outcome {
    let fds = control.take(2)?;
    let (watched, socket) = (fds[0].as_raw_fd(), fds[1].as_raw_fd());
    let mut epoll = calls::Epoll::new(32)?;
    epoll.control(libc::EPOLL_CTL_ADD, watched, 0, libc::EPOLLET)?;
    control.say(&[])?;
    loop {
        let count = epoll.wait()?.count();
        if count > 0 && calls::send(socket, b"!").is_err() {
            return Ok(());
        }
    }
}

/// Gets the fd and the socket to the relay. In each round: how long each event took from the time that is written in it.
pub fn receiver(mut control: Control) -> Outcome {
    let fds = control.take(2)?;
    let (fd, socket) = (fds[0].as_raw_fd(), fds[1].as_raw_fd());
    control.say(&[])?;
    control.serve(|_, count| {
        let mut took = Vec::with_capacity(count);
        let (mut byte, mut sent) = ([0], [0; 8]);
        while took.len() < count {
            calls::recv(socket, &mut byte)?;
            let at = now();
            calls::read(fd, &mut sent)?;
            took.push(at - u64::from_ne_bytes(sent));
        }
        Ok(took)
    })
}
