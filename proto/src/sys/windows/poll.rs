//! `WSAPoll` over borrowed sockets: one look at many, without registering anything.
//!
//! - An entry that is no socket is `POLLNVAL`; if there is nothing else the call fails with `WSAENOTSOCK`, which is told as found here.
//! - No entries at all are `WSAEINVAL`, so then it only sleeps.
//! - An entry that is a handle is looked at here, unless that would take its signal: then it is never ready.
//! - Windows before 10 version 2004 does not tell of a connect that failed.
//!
//! Source: Microsoft, WSAPoll.

use super::fd::handle;
use super::wait_handle::{WaitEffect, is_signalled, wait_effect};
use super::{RawFd, cvt, is_open};
use crate::sys::What;
use std::io;
use std::time::Duration;
use windows_sys::Win32::Networking::WinSock::{
    INVALID_SOCKET, POLLERR, POLLHUP, POLLNVAL, POLLRDNORM, POLLWRNORM, WSAENOTSOCK, WSAPOLLFD, WSAPoll,
};

/// One entry of a [`poll`].
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct PollFd(WSAPOLLFD);

impl PollFd {
    /// Asks for the READ and WRITE bits of `what` on `fd`; CLOSED is told anyway. A negative `fd` is passed over.
    pub fn new(fd: RawFd, what: What) -> PollFd {
        let mut events = 0;
        if what.contains(What::READ) {
            events |= POLLRDNORM;
        }
        if what.contains(What::WRITE) {
            events |= POLLWRNORM;
        }
        PollFd(WSAPOLLFD { fd: handle(fd), events, revents: 0 })
    }

    /// The number that it asks of; negative if it is passed over.
    pub fn number(&self) -> RawFd {
        RawFd::try_from(self.0.fd).unwrap_or(-1)
    }

    /// What the last [`poll`] found: ERR and NVAL count as READ and WRITE, and HUP, which is the peer's close here, as READ and CLOSED, also if nobody asked for it.
    pub fn ready(&self) -> What {
        let mut what = self.strictly_ready();
        if self.0.revents & POLLHUP != 0 {
            what |= What::READ;
        }
        if self.0.revents & POLLNVAL != 0 {
            what |= What::READ | What::WRITE;
        }
        what
    }

    /// As [`PollFd::ready`], but HUP and NVAL alone are nothing to read and no room to write.
    pub fn strictly_ready(&self) -> What {
        let r = self.0.revents;
        let mut what = What::empty();
        if r & POLLERR != 0 {
            what |= What::READ | What::WRITE;
        }
        what.set(What::CLOSED, r & POLLHUP != 0);
        if r & POLLRDNORM != 0 {
            what |= What::READ;
        }
        if r & POLLWRNORM != 0 {
            what |= What::WRITE;
        }
        what
    }

    /// Whether the number is not an open socket.
    pub fn is_invalid(&self) -> bool {
        self.0.revents & POLLNVAL != 0
    }
}

impl std::fmt::Debug for PollFd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let WSAPOLLFD { fd, events, revents } = self.0;
        f.debug_struct("PollFd").field("fd", &fd).field("events", &events).field("revents", &revents).finish()
    }
}

/// Whether [`poll`] tells that a peer has closed its half.
pub const POLL_SEES_CLOSED: bool = true;

impl PollFd {
    /// What is no socket is not open, or a handle.
    fn look_at_handle(&mut self) {
        let number = self.number();
        self.0.revents = match wait_effect(number) {
            Ok(Some(WaitEffect::None)) if self.0.events & POLLRDNORM == 0 => 0,
            Ok(Some(WaitEffect::None)) if is_signalled(number).unwrap_or(false) => POLLRDNORM,
            Ok(Some(_)) => 0,
            _ => POLLNVAL,
        };
    }
}

/// Looks at all of `fds`; blocks for at most `timeout` (`None` = for ever), rounded up to milliseconds; beyond 24 days it comes back early, and at once if one is a handle. Returns how many are
/// ready.
///
/// # Errors
/// `WSAENOBUFS`.
pub fn poll(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<usize> {
    let ms = timeout.map_or(-1, |t| t.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32);
    if fds.iter().all(|f| f.0.fd == INVALID_SOCKET) {
        fds.iter_mut().for_each(|f| f.0.revents = 0);
        std::thread::sleep(timeout.unwrap_or(Duration::MAX));
        return Ok(0);
    }
    // SAFETY: a `PollFd` is a transparent WSAPOLLFD, and the slice is as many live, writable ones.
    let found = cvt(unsafe { WSAPoll(fds.as_mut_ptr().cast(), fds.len() as u32, ms) });
    // Those that are passed over may be called invalid.
    fds.iter_mut().filter(|f| f.0.fd == INVALID_SOCKET).for_each(|f| f.0.revents = 0);
    let none_is_a_socket = found.as_ref().is_err_and(|e| e.raw_os_error() == Some(WSAENOTSOCK));
    for one in fds.iter_mut().filter(|f| f.0.fd != INVALID_SOCKET) {
        if one.is_invalid() || (none_is_a_socket && !is_open(one.number())) {
            one.look_at_handle();
        }
    }
    match found {
        Err(e) if e.raw_os_error() != Some(WSAENOTSOCK) => Err(e),
        Ok(0) => Ok(0),
        _ => Ok(fds.iter().filter(|f| f.0.revents != 0).count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::AsRawFd;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn a_peer_that_has_closed_its_half_is_no_room_to_write() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let look = |near: &TcpStream| {
            let mut one = [PollFd::new(near.as_raw_fd(), What::READ)];
            poll(&mut one, Some(Duration::from_secs(60))).unwrap();
            (one[0].ready(), one[0].strictly_ready())
        };
        far.shutdown(Shutdown::Write).unwrap();
        let (ready, strictly) = look(&near);
        assert_eq!(ready, What::READ | What::CLOSED);
        assert!(strictly.contains(What::CLOSED) && !strictly.contains(What::WRITE));
        near.write_all(b"x").unwrap();
        drop(far);
        while !look(&near).0.contains(What::WRITE) {
            std::thread::yield_now();
        }
        assert_eq!(look(&near).0, What::IO, "a reset, as it has not read everything");
    }
}
