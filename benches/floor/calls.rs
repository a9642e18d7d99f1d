//! The system calls of the floors, as thin as they get.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

fn check(n: libc::c_int) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

fn check_size(n: isize) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// An epoll, and room for what it reports.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new(room: usize) -> io::Result<Epoll> {
        // SAFETY: takes a number.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })? as RawFd;
        // SAFETY: the kernel has just made `fd`; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; room] })
    }

    /// `EPOLL_CTL_ADD` or `EPOLL_CTL_MOD` with EPOLLIN and `flags`.
    pub fn control(&self, op: libc::c_int, fd: RawFd, token: u64, flags: libc::c_int) -> io::Result<()> {
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | flags) as u32, u64: token };
        // SAFETY: `event` is live for the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd, &mut event) }).map(drop)
    }

    /// Waits for ever; the tokens of what is ready.
    pub fn wait(&mut self) -> io::Result<impl Iterator<Item = u64>> {
        let (events, room) = (self.events.as_mut_ptr(), self.events.len() as libc::c_int);
        let n = loop {
            // SAFETY: `events` has room for `room` entries.
            match check(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, room, -1) }) {
                // A tracer was attached.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        Ok(self.events[..n].iter().map(|e| e.u64))
    }
}

/// pipe2(2): the end to read and the end to write.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    // SAFETY: `pair` has room for two numbers.
    check(unsafe { libc::pipe2(pair.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the kernel has just made it; nobody else owns it.
    let reader = unsafe { OwnedFd::from_raw_fd(pair[0]) };
    // SAFETY: as above.
    let writer = unsafe { OwnedFd::from_raw_fd(pair[1]) };
    Ok((reader, writer))
}

/// read(2), as many bytes as there are, at most `into`.
pub fn read(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `into` is writable for its length.
    check_size(unsafe { libc::read(fd, into.as_mut_ptr().cast(), into.len()) })
}

/// write(2).
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: `bytes` is readable for its length.
    check_size(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

/// send(2).
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: `bytes` is readable for its length.
    check_size(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) })
}

/// recv(2); 0 is the end.
pub fn recv(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `into` is writable for its length.
    check_size(unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), 0) })
}

/// One look with poll(2); `fds` is kept by the caller.
pub fn poll(fds: &mut [libc::pollfd]) -> io::Result<usize> {
    // SAFETY: `fds` is live for its length.
    check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) })
}
