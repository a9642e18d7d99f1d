//! The system calls of the floors, as thin as they get.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The fds of one message, as evd sends them.
pub const MAX_FDS: usize = 253;

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

/// dup3(2), closed on exec.
pub fn dup3(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: takes three numbers.
    check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
}

/// close(2) of a number that came with a message and is nobody's.
pub fn close(fd: RawFd) {
    // SAFETY: the floors keep these numbers as plain numbers, and close each once.
    unsafe { libc::close(fd) };
}

/// One look with poll(2); `fds` is kept by the caller.
pub fn poll(fds: &mut [libc::pollfd]) -> io::Result<usize> {
    // SAFETY: `fds` is live for its length.
    check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) })
}

/// waitpid(2), until a child that was sent SIGSTOP has stopped.
pub fn wait_until_stopped(pid: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` is live for the call. A child that has ended instead is an error here, and nobody waits for it again.
    let waited = unsafe { libc::waitpid(pid, &mut status, libc::WUNTRACED) };
    check(waited)?;
    if libc::WIFSTOPPED(status) {
        Ok(())
    } else {
        Err(io::Error::other("a process ended instead of stopping"))
    }
}

/// Room for the control message of a full set of fds.
type Room = [u64; 160];

/// sendmsg(2) with fds.
pub fn send_fds(socket: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut room: Room = [0; 160];
    // SAFETY: all zeroes is a valid msghdr.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    let data = size_of_val(fds) as libc::c_uint;
    (msg.msg_iov, msg.msg_iovlen) = (&mut iov, 1);
    msg.msg_control = room.as_mut_ptr().cast();
    // SAFETY: only arithmetic.
    msg.msg_controllen = unsafe { libc::CMSG_SPACE(data) } as _;
    // SAFETY: msg_control points to `room`, which has room for at most MAX_FDS fds.
    let first = unsafe { libc::CMSG_FIRSTHDR(&msg) };
    // SAFETY: there is room for a header, so it is not null and points into `room`.
    let cmsg = unsafe { &mut *first };
    (cmsg.cmsg_level, cmsg.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    // SAFETY: only arithmetic.
    cmsg.cmsg_len = unsafe { libc::CMSG_LEN(data) } as _;
    // SAFETY: `cmsg` lies in `room`.
    let at = unsafe { libc::CMSG_DATA(cmsg) };
    // SAFETY: the data part has room for all of `fds`.
    unsafe { std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), at, data as usize) };
    // SAFETY: all that `msg` points to lives for the call.
    check_size(unsafe { libc::sendmsg(socket, &msg, libc::MSG_NOSIGNAL) }).map(drop)
}

/// recvmsg(2): bytes to `into`, the numbers of the fds appended to `fds`. Returns how many bytes came.
#[allow(clippy::unnecessary_cast, reason = "some C libraries have a smaller cmsg_len")]
pub fn recv_fds(socket: RawFd, into: &mut [u8], fds: &mut Vec<RawFd>) -> io::Result<usize> {
    let mut iov = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut room: Room = [0; 160];
    // SAFETY: all zeroes is a valid msghdr.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    (msg.msg_iov, msg.msg_iovlen) = (&mut iov, 1);
    (msg.msg_control, msg.msg_controllen) = (room.as_mut_ptr().cast(), size_of::<Room>() as _);
    // SAFETY: all that `msg` points to lives for the call and is writable.
    let n = check_size(unsafe { libc::recvmsg(socket, &mut msg, libc::MSG_CMSG_CLOEXEC) })?;
    // SAFETY: the kernel has filled `msg`.
    let first = unsafe { libc::CMSG_FIRSTHDR(&msg) };
    // SAFETY: null, or a header that the kernel wrote into `room`.
    if let Some(cmsg) = unsafe { first.as_ref() } {
        // SAFETY: only arithmetic.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let count = (cmsg.cmsg_len as usize - head) / size_of::<RawFd>();
        // SAFETY: the data part follows the header.
        let data = unsafe { libc::CMSG_DATA(first) }.cast::<RawFd>();
        for i in 0..count {
            // SAFETY: within what the kernel wrote.
            let number = unsafe { data.add(i) };
            // SAFETY: as above.
            fds.push(unsafe { number.read_unaligned() });
        }
    }
    Ok(n)
}
