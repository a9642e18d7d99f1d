//! The floor of `busy`: a process with an epoll of its own that sends back what comes.
//!
//! For each message it does `epoll_wait`, `read` and `write`.

use super::calls;
use crate::parts::{Control, Outcome, now};
use std::os::fd::AsRawFd;

/// Gets the socket. In each round: how long each message took from the time that is written in it.
pub fn echo(mut control: Control) -> Outcome {
    let fds = control.take(1)?;
    let socket = fds[0].as_raw_fd();
    let mut epoll = calls::Epoll::new(32)?;
    epoll.control(libc::EPOLL_CTL_ADD, socket, 0, 0)?;
    control.say(&[])?;
    control.serve(|_, count| {
        let mut took = Vec::with_capacity(count);
        let mut sent = [0; 8];
        while took.len() < count {
            for _ in epoll.wait()? {
                let at = now();
                calls::read(socket, &mut sent)?;
                calls::write(socket, &sent)?;
                took.push(at - u64::from_ne_bytes(sent));
            }
        }
        Ok(took)
    })
}
