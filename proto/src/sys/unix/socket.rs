//! Unix stream sockets, and fds passed over them.
//!
//! Rules of SCM_RIGHTS that this file keeps: always `sendmsg`/`recvmsg` (a plain `read` drops fds silently), always closed on exec, room for 253
//! fds, all of what came is owned before anything is looked at, never MSG_PEEK.

use super::file::own;
use super::{FileLock, close_on_exec, cvt, cvt_size, fresh, keep, set_nonblocking, system};
use crate::sys::MAX_FDS;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Who is at the other end, as of its `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in our pid namespace; 0 if it is not in it.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// What one [`recv`] brought.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes read; 0 is the end.
    pub len: usize,
    /// The kernel could not hand over all fds that came (`MSG_CTRUNC`); those that it could are owned by the caller.
    pub fds_lost: bool,
}

fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut addr: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // One byte stays for the terminating zero.
    if bytes.is_empty() || bytes.len() >= addr.sun_path.len() || bytes.contains(&0) {
        let most = addr.sun_path.len() - 1;
        let text = format!(
            "a socket path must have 1 to {most} bytes and no zero byte, this one has {}",
            bytes.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    for (to, from) in addr.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((addr, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// Connects to `path` without blocking.
///
/// # Errors
/// `NotFound` and `ConnectionRefused`: nobody listens. `WouldBlock`: the backlog is full, try later. `PermissionDenied`. `InvalidInput`: the path is
/// too long.
///
/// Source: unix(7), connect(2).
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let (addr, len) = address(path)?;
    let fd = fresh::stream_socket()?;
    // SAFETY: `addr` is a valid sockaddr_un of `len` bytes for the call.
    cvt(unsafe { libc::connect(fd.as_raw_fd(), (&raw const addr).cast(), len) })?;
    Ok(fd)
}

/// Two connected sockets, non-blocking, closed on exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    fresh::stream_pair()
}

/// Sends `bytes`, with `fds` attached to them, in one call. Never raises SIGPIPE.
///
/// Returns how much was taken. With fds and at most 16 KiB it is all or nothing.
///
/// # Errors
/// `WouldBlock`: the peer does not read. `ETOOMANYREFS`: too many fds of this uid are in flight. `EBADF`: one of `fds` is not open. `BrokenPipe`,
/// `ConnectionReset`: the peer is gone. `InvalidInput`: an fd that can't be passed, or more than 253 of them.
///
/// Source: sendmsg(2), unix(7).
pub fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    if fds.len() > MAX_FDS {
        // As the kernel would; but there is no room to ask it.
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut room = ControlRoom::new();
    // SAFETY: all zeroes is a valid msghdr.
    let mut msg: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    if !fds.is_empty() {
        let data = size_of_val(fds) as libc::c_uint;
        msg.msg_control = room.0.as_mut_ptr().cast();
        // SAFETY: only arithmetic.
        msg.msg_controllen = unsafe { libc::CMSG_SPACE(data) } as _;
        // SAFETY: msg_control points to `room`, which is aligned and larger than msg_controllen (at most 253 fds).
        let first = unsafe { libc::CMSG_FIRSTHDR(&msg) };
        // SAFETY: as msg_controllen has room for a header, `first` is not null and points into `room`.
        let cmsg = unsafe { &mut *first };
        cmsg.cmsg_level = libc::SOL_SOCKET;
        cmsg.cmsg_type = libc::SCM_RIGHTS;
        // SAFETY: only arithmetic.
        cmsg.cmsg_len = unsafe { libc::CMSG_LEN(data) } as _;
        // SAFETY: `cmsg` lies in `room`, so its data part does.
        let at = unsafe { libc::CMSG_DATA(cmsg) };
        // SAFETY: the data part has room for all of `fds`, which can't overlap with our own array.
        unsafe { std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), at, data as usize) };
    }
    loop {
        // SAFETY: `msg` points to `iov`, `bytes` and `room`, which all live for the call; sendmsg only reads them.
        match cvt_size(unsafe {
            libc::sendmsg(to.as_raw_fd(), &msg, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => return other,
        }
    }
}

/// Room for the control message of a full set of fds (and one of credentials), aligned as a cmsghdr must be.
struct ControlRoom([u64; 160]);

impl ControlRoom {
    fn new() -> ControlRoom {
        ControlRoom([0; 160])
    }
}

/// Receives into `buf` without blocking, and appends the fds that came to `fds`.
///
/// The fds belong to the message that holds the **last byte** received: the kernel ends a read after such a message and never before it.
///
/// # Errors
/// `WouldBlock`: nothing is there. `ConnectionReset`: the peer closed with something of ours unread; what it sent before may still be read first.
///
/// Source: recvmsg(2), unix(7).
pub fn recv(from: BorrowedFd<'_>, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
    receive(from, buf, fds, 0, &mut None)
}

/// As [`recv`], with more flags for the kernel; the sender's credentials go to `sender`, if the socket asks for them.
pub(super) fn receive(
    from: BorrowedFd<'_>,
    buf: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    flags: libc::c_int,
    sender: &mut Option<Peer>,
) -> io::Result<Received> {
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut room = MaybeUninit::<ControlRoom>::uninit();
    // SAFETY: all zeroes is a valid msghdr.
    let mut msg: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = room.as_mut_ptr().cast();
    msg.msg_controllen = size_of::<ControlRoom>() as _;
    let len = loop {
        // SAFETY: `msg` points to `iov`, `buf` and `room`, writable for the call.
        match cvt_size(unsafe {
            libc::recvmsg(from.as_raw_fd(), &mut msg, system::RECV_CLOEXEC | libc::MSG_DONTWAIT | flags)
        }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => break other?,
        }
    };
    // SAFETY: msg_control and msg_controllen describe what the kernel wrote.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(&msg) };
    while !at.is_null() {
        // SAFETY: `at` is not null, so it points to a control message within `room` that the kernel wrote.
        let cmsg = unsafe { &*at };
        if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: only arithmetic.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (cmsg.cmsg_len as usize - head) / size_of::<RawFd>();
            // SAFETY: the data part follows the header in `room`.
            let data = unsafe { libc::CMSG_DATA(at) }.cast::<RawFd>();
            for i in 0..count {
                // SAFETY: `i` is within the `count` numbers that the kernel wrote.
                let number = unsafe { data.add(i) };
                // SAFETY: as above; it may be unaligned.
                let fd = unsafe { number.read_unaligned() };
                let fd = own(fd);
                if system::RECV_CLOEXEC == 0 {
                    close_on_exec(fd.as_fd())?;
                }
                fds.push(fd);
            }
        }
        // SAFETY: `at` points to a control message that the kernel wrote.
        if let Some(peer) = unsafe { keep::sender(at) } {
            *sender = Some(peer);
        }
        // SAFETY: walks within what the kernel wrote, null at its end.
        at = unsafe { libc::CMSG_NXTHDR(&msg, at) };
    }
    Ok(Received { len, fds_lost: msg.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Who connected `fd`. The process is 0 where the kernel does not tell it.
///
/// # Errors
/// `ENOTSOCK`, `ENOTCONN`.
///
/// Source: SO_PEERCRED in unix(7) and getsockopt(2) of OpenBSD, LOCAL_PEERCRED and LOCAL_PEEREID in unix(4), getpeerucred(3C).
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    system::peer(fd)
}

/// What becomes readable when the process that connected `fd` has ended, also if a child of it still has the socket. `None`: it is gone already, or the
/// kernel can't tell.
///
/// Source: SO_PEERPIDFD, Linux 6.5. On Linux only.
pub fn peer_process(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    system::peer_process(fd)
}

/// How much of what was sent on `fd` its peer has not read, in bytes of the kernel's memory. 0: it has read all, or the kernel can't tell.
///
/// # Errors
/// `ENOTTY`, `EINVAL`: not such a socket.
///
/// Source: unix(7), SIOCOUTQ. On Linux only: elsewhere what is sent is the reader's at once.
pub fn unread_by_peer(fd: BorrowedFd<'_>) -> io::Result<usize> {
    system::unread_by_peer(fd)
}

/// The supplementary groups of who connected `fd`: at most 16 on FreeBSD and macOS, only the effective one on NetBSD and OpenBSD.
///
/// # Errors
/// `ENOTSOCK`, or `ERANGE` if there are more than 65,536.
///
/// Source: as [`peer`]; SO_PEERGROUPS of Linux 4.13.
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    system::peer_groups(fd)
}

/// Reads a socket option into `into`; returns how many elements were written.
///
/// # Safety
/// Every bit pattern is a valid `T`.
pub(super) unsafe fn option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    into: &mut [T],
) -> io::Result<usize> {
    let mut len = size_of_val(into) as libc::socklen_t;
    let at = into.as_mut_ptr().cast();
    // SAFETY: `at` is `len` writable bytes, and whatever comes is valid, as the caller promises.
    cvt(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, at, &mut len) })?;
    Ok(len as usize / size_of::<T>())
}

/// Sets a socket option that is a number.
pub(super) fn set_option(fd: BorrowedFd<'_>, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is `len` readable bytes for the call.
    cvt(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const value).cast(), len) })
        .map(drop)
}

/// A listening socket. If it was made here, its file and its lock go with it.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    made: Option<Made>,
}

/// What was made for a listener. The file of the lock stays for ever: who removed it could remove one that another process has just opened, and two would have a lock each.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    mode: u32,
    gid: Option<u32>,
    _lock: FileLock,
}

impl Listener {
    /// Takes one waiting connection, non-blocking and closed on exec.
    ///
    /// # Errors
    /// `WouldBlock`: none is waiting. `EMFILE`, `ENFILE`: out of fds, and the connection still waits. `ECONNABORTED`.
    ///
    /// Source: accept4(2), accept(2).
    pub fn accept(&self) -> io::Result<OwnedFd> {
        loop {
            match fresh::accept(self.fd.as_fd()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => return other,
            }
        }
    }

    /// The file of the socket, if it was made here.
    pub fn path(&self) -> Option<&Path> {
        self.made.as_ref().map(|made| made.path.as_path())
    }

    /// If its file was made here and is gone, listens anew at the same place. Who waited to be accepted at the old one is not. Whether it was so.
    ///
    /// # Errors
    /// As [`listen`]; it is then as it was.
    pub fn restore(&mut self) -> io::Result<bool> {
        let Some(made) = &self.made else { return Ok(false) };
        match std::fs::symlink_metadata(&made.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            _ => return Ok(false),
        }
        self.fd = bind(&made.path, made.mode, made.gid)?;
        Ok(true)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // The lock is still held here, so the file is ours and not a successor's.
            let _ = std::fs::remove_file(&made.path);
        }
    }
}

/// Listens at `path` with the given mode and group. A socket file that nobody serves any more is replaced; `path.lock` is locked for as long as the
/// listener lives, so that two can't serve one path.
///
/// The socket gets its mode before it listens: there is no moment in which others could connect too early.
///
/// # Errors
/// `AddrInUse`: somebody serves this path. `InvalidInput`: the path is too long. `NotFound`: its directory does not exist. `PermissionDenied`.
/// `AlreadyExists`: there is something at the path that is not a socket.
pub fn listen(path: &Path, mode: u32, gid: Option<u32>) -> io::Result<Listener> {
    // Before anything is made.
    address(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let lock = FileLock::take(Path::new(&beside))?;
    let Some(lock) = lock else {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process holds its lock"));
    };
    match std::fs::symlink_metadata(path) {
        Ok(meta) => {
            use std::os::unix::fs::FileTypeExt;
            if !meta.file_type().is_socket() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file at this path that is not a socket",
                ));
            }
            // A server of another kind knows nothing of our lock.
            match connect(path) {
                Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens at it")),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens at it"));
                }
                // Nobody serves it any more.
                Err(_) => std::fs::remove_file(path)?,
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let fd = bind(path, mode, gid)?;
    Ok(Listener { fd, made: Some(Made { path: path.to_owned(), mode, gid, _lock: lock }) })
}

/// Listens at a path where nothing is.
fn bind(path: &Path, mode: u32, gid: Option<u32>) -> io::Result<OwnedFd> {
    let (addr, len) = address(path)?;
    let fd = fresh::stream_socket()?;
    // SAFETY: `addr` is a valid sockaddr_un of `len` bytes for the call.
    cvt(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) })?;
    // Until it listens, whoever connects is refused.
    let listening = super::restrict_file_mode(path, mode, gid).and_then(|()| {
        // SAFETY: listen takes two numbers.
        cvt(unsafe { libc::listen(fd.as_raw_fd(), 4096) })
    });
    if let Err(e) = listening {
        let _ = std::fs::remove_file(path);
        return Err(e);
    }
    Ok(fd)
}

/// Takes over a listening socket that a service manager has passed as number `fd`; made non-blocking and closed on exec.
///
/// # Errors
/// `EBADF`, or `InvalidInput` if it is not a listening Unix stream socket.
///
/// Source: sd_listen_fds(3).
pub fn adopt_listener(fd: RawFd) -> io::Result<Listener> {
    // SAFETY: F_SETFD takes a number; a closed fd gives EBADF, so that what is owned below is open.
    cvt(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    let fd = own(fd);
    if !is_listening_unix(fd.as_fd()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening Unix stream socket"));
    }
    // The socket is ours alone: the service manager only keeps it.
    set_nonblocking(fd.as_fd())?;
    Ok(Listener { fd, made: None })
}

/// Whether `fd` is a listening Unix stream socket.
pub fn is_listening_unix(fd: BorrowedFd<'_>) -> bool {
    let ask = |name| {
        let mut value = [0 as libc::c_int];
        // SAFETY: a number.
        unsafe { option(fd, libc::SOL_SOCKET, name, &mut value) }.map(|_| value[0]).unwrap_or(-1)
    };
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut addr: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut len = size_of_val(&addr) as libc::socklen_t;
    // SAFETY: `addr` is `len` writable bytes; a longer address is cut.
    let named = cvt(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut addr).cast(), &mut len) });
    // Some systems say nothing but 0 and 1, others the option's own bit.
    named.is_ok()
        && addr.sun_family == libc::AF_UNIX as libc::sa_family_t
        && ask(libc::SO_TYPE) == libc::SOCK_STREAM
        && ask(libc::SO_ACCEPTCONN) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fds_travel_with_the_bytes_they_were_sent_with() {
        let _no_copies = super::super::fork::FORKS.read();
        let (a, b) = socketpair().unwrap();
        let (r, w) = socketpair().unwrap();
        assert_eq!(send(a.as_fd(), b"plain", &[]).unwrap(), 5);
        assert_eq!(send(a.as_fd(), b"with", &[r.as_raw_fd(), w.as_raw_fd()]).unwrap(), 4);
        assert_eq!(send(a.as_fd(), b"later", &[]).unwrap(), 5);
        let (mut buf, mut fds) = ([0; 64], Vec::new());
        let got = recv(b.as_fd(), &mut buf, &mut fds).unwrap();
        assert_eq!((&buf[..got.len], fds.len(), got.fds_lost), (&b"plainwith"[..], 2, false));
        fds.clear();
        let got = recv(b.as_fd(), &mut buf, &mut fds).unwrap();
        assert_eq!((&buf[..got.len], fds.len()), (&b"later"[..], 0));
        drop(a);
        assert_eq!(recv(b.as_fd(), &mut buf, &mut fds).unwrap().len, 0);
    }

    #[test]
    fn a_full_set_of_fds_fits() {
        let _no_copies = super::super::fork::FORKS.read();
        let (a, b) = socketpair().unwrap();
        let null = super::super::reserve_fd().unwrap();
        let fds = vec![null.as_raw_fd(); MAX_FDS];
        send(a.as_fd(), b"x", &fds).unwrap();
        let (mut buf, mut got) = ([0; 8], Vec::new());
        assert!(!recv(b.as_fd(), &mut buf, &mut got).unwrap().fds_lost);
        assert_eq!(got.len(), MAX_FDS);
    }

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_and_a_plain_file_are_not() {
        let _no_copies = super::super::fork::FORKS.read();
        let dir = std::env::temp_dir().join(format!("evd-listen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = listen(&path, 0o600, None).unwrap();
        assert_eq!(listen(&path, 0o600, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        connect(&path).unwrap();
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "x").unwrap();
        assert_eq!(listen(&path, 0o600, None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        let long = dir.join("x".repeat(120));
        assert_eq!(listen(&long, 0o600, None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
