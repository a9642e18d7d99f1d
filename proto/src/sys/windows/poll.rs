//! `WSAPoll` over borrowed sockets: one look at many, without registering anything.
//!
//! - An entry that is no socket is `POLLNVAL`; if there is nothing else the call fails with `WSAENOTSOCK`, which is told as found here.
//! - No entries at all are `WSAEINVAL`, so then it only sleeps.
//! - Windows before 10 version 2004 does not tell of a connect that failed.
//!
//! Source: Microsoft, WSAPoll.

use super::fd::handle;
use super::{RawFd, cvt};
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

/// Looks at all of `fds`; blocks for at most `timeout` (`None` = for ever), rounded up to milliseconds; beyond 24 days it comes back early. Returns how many are
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
    use std::io::{ErrorKind, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn a_peer_that_has_closed_its_half_is_no_room_to_write() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let look = |what, ms| {
            let mut one = [PollFd::new(near.as_raw_fd(), what)];
            poll(&mut one, Some(Duration::from_millis(ms))).unwrap();
            one[0].ready()
        };
        // Until what is on its way has made no more room for a while.
        while look(What::WRITE, 1000).contains(What::WRITE) {
            match (&near).write(&[0; 65536]) {
                Err(e) if e.kind() != ErrorKind::WouldBlock => panic!("{e}"),
                _ => {}
            }
        }
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(look(What::READ, 60_000), What::READ | What::CLOSED);
        assert_eq!(look(What::IO, 60_000), What::READ | What::CLOSED);
        drop(far);
        assert_eq!(look(What::IO, 60_000), What::IO, "a reset, as it has not read everything");
    }
}
