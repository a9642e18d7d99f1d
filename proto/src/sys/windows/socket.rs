//! The way to evd: a named pipe, behind a socket that can be waited for (see `bridge`). What is no such socket is a plain one, and carries bytes only.

use super::fd::handle;
use super::identity::Process;
use super::{AsRawFd, BorrowedFd, OwnedFd, RawFd, bridge, cvt, pipe};
use crate::sys::MAX_FDS;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use windows_sys::Win32::Networking::WinSock;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: i32,
    /// The last part of the user's SID, or 0 for SYSTEM.
    pub uid: u32,
    /// The same.
    pub gid: u32,
}

/// What one [`recv`] brought.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes read; 0 is the end.
    pub len: usize,
    /// Some of the sockets that came could not be opened here; the others are owned by the caller.
    pub fds_lost: bool,
}

/// Connects to the pipe `path`, and makes sure that whoever serves it is the same user, or SYSTEM.
///
/// # Errors
/// `NotFound`: nobody serves it. `WouldBlock`: all its ends are taken, try later. `PermissionDenied`: it is another user's. `InvalidInput`: it is not the name of a pipe.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let pipe = pipe::open(path)?;
    let server = Process::open(pipe::server_of(&pipe)?)?;
    if let Err(why) = &server.uid {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why.clone()));
    }
    bridge::build(pipe, server)
}

/// Two connected plain sockets, non-blocking, which no child inherits.
///
/// # Errors
/// `WSAEMFILE`, `WSAENOBUFS`.
pub fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = loopback_pair()?;
    let (a, b) = (OwnedFd::from(a), OwnedFd::from(b));
    bridge::are_plain([a.as_raw_fd(), b.as_raw_fd()]);
    Ok((a, b))
}

/// Two connected sockets of this process, non-blocking. Somebody else who connects in between is turned away.
pub(super) fn loopback_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let ours = near.local_addr()?;
    let far = loop {
        let (far, from) = listener.accept()?;
        if from == ours {
            break far;
        }
    };
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    Ok((near, far))
}

/// Sends `bytes`, with `fds` attached to them, in one call; returns how much was taken. With fds it is all or nothing.
///
/// # Errors
/// `WouldBlock`: the peer does not read. `BrokenPipe`, `ConnectionReset`: the peer is gone. `WSAENOTSOCK`: one of `fds` is not open. `InvalidInput`: one is no socket, or they are more than 253.
/// `Unsupported`: they can't be attached to what is sent on a plain socket.
pub fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    if fds.len() > MAX_FDS {
        let text = format!("{} sockets at once, at most {MAX_FDS} can be passed", fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    match bridge::of(to.as_raw_fd()) {
        Some(bridge) => bridge.send(to.as_raw_fd(), bytes, fds),
        None if fds.is_empty() => send_plain(to, bytes),
        None => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "on Windows sockets are passed through evd's pipe only",
        )),
    }
}

/// Receives into `buf` without blocking, and appends the sockets that came to `fds`.
///
/// # Errors
/// `WouldBlock`: nothing is there. `InvalidData`: the peer does not speak the protocol. `ConnectionReset`.
pub fn recv(from: BorrowedFd<'_>, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
    match bridge::of(from.as_raw_fd()) {
        Some(bridge) => bridge.recv(from.as_raw_fd(), buf, fds),
        None => recv_plain(from, buf).map(|len| Received { len, fds_lost: false }),
    }
}

pub(super) fn send_plain(to: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    // SAFETY: `bytes` is at least `len` readable bytes.
    cvt(unsafe { WinSock::send(handle(to.as_raw_fd()), bytes.as_ptr(), len, 0) }).map(|n| n as usize)
}

pub(super) fn recv_plain(from: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let len = i32::try_from(buf.len()).unwrap_or(i32::MAX);
    // SAFETY: `buf` is at least `len` writable bytes.
    cvt(unsafe { WinSock::recv(handle(from.as_raw_fd()), buf.as_mut_ptr(), len, 0) }).map(|n| n as usize)
}

/// Who connected the pipe behind `fd`.
///
/// # Errors
/// `PermissionDenied`: somebody who may not be here, and why. `NotConnected`: there is no pipe behind it.
///
/// Source: GetNamedPipeClientProcessId, and the user of that process's token.
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let bridge = bridge::of(fd.as_raw_fd()).ok_or(io::ErrorKind::NotConnected)?;
    match &bridge.peer.uid {
        Ok(uid) => Ok(Peer { pid: bridge.peer.pid as i32, uid: *uid, gid: *uid }),
        Err(why) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why.clone())),
    }
}

/// Not needed on Windows: no child inherits the pipe, so its end is its process's.
pub fn peer_process(_fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    None
}

/// How much of what was sent on `fd` has not been taken by the system, in bytes. What it has taken and the peer has not read is not known.
///
/// # Errors
/// None.
pub fn unread_by_peer(fd: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(bridge::of(fd.as_raw_fd()).map_or(0, |bridge| bridge.unread()))
}

/// Closes what may linger in closing. Here nothing does: a connection's end waits in its own thread.
pub fn close_in_passing(fds: Vec<OwnedFd>) {
    drop(fds);
}

/// The groups of who connected `fd`: none that anything here is decided by.
///
/// # Errors
/// None.
pub fn peer_groups(_fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    Ok(Vec::new())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{AsFd, PollFd, listen, poll};
    use super::*;
    use crate::sys::What;
    use std::io::{Read, Write};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    fn name() -> PathBuf {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let n = LAST.fetch_add(1, Ordering::Relaxed);
        PathBuf::from(format!(r"\\.\pipe\evd-unit-{}-{n}", std::process::id()))
    }

    fn ready(fd: BorrowedFd<'_>, what: What, timeout: Duration) -> What {
        let mut one = [PollFd::new(fd.as_raw_fd(), what)];
        poll(&mut one, Some(timeout)).unwrap();
        one[0].ready()
    }

    const SOON: Duration = Duration::from_secs(20);

    pub(in super::super) fn connected() -> (OwnedFd, OwnedFd) {
        let path = name();
        let listener = listen(&path, 0o600, None).unwrap();
        let client = connect(&path).unwrap();
        assert_eq!(ready(listener.as_fd(), What::READ, SOON), What::READ);
        let server = listener.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(ready(listener.as_fd(), What::READ, Duration::ZERO), What::empty());
        (client, server)
    }

    /// Waits for the end of what comes.
    pub(in super::super) fn end_of(from: &OwnedFd) {
        while !receive(from, &mut Vec::new()).is_empty() {}
    }

    fn receive(from: &OwnedFd, fds: &mut Vec<OwnedFd>) -> Vec<u8> {
        let mut buf = [0; 64];
        loop {
            match recv(from.as_fd(), &mut buf, fds) {
                Ok(got) => return buf[..got.len].to_vec(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    assert_ne!(ready(from.as_fd(), What::READ, SOON), What::empty(), "nothing came");
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    #[test]
    fn one_name_has_one_listener_and_ends_with_it() {
        let path = name();
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let first = listen(&path, 0o600, None).unwrap();
        assert_eq!(listen(&path, 0o600, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let others = listen(&path, 0o666, None).unwrap_err();
        assert!(others.to_string().contains("--allow-uid"), "{others}");
        listen(&path, 0o600, None).unwrap();
    }

    #[test]
    fn many_come_at_once_and_all_are_told_who_they_are() {
        let path = name();
        let listener = listen(&path, 0o600, None).unwrap();
        let clients: Vec<OwnedFd> = (0..30).map(|_| connect(&path).unwrap()).collect();
        let mut servers = Vec::new();
        while servers.len() < clients.len() {
            match listener.accept() {
                Ok(one) => servers.push(one),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    assert_eq!(ready(listener.as_fd(), What::READ, SOON), What::READ);
                }
                Err(e) => panic!("{e}"),
            }
        }
        let uid = super::super::effective_ids().0;
        for one in &servers {
            let want = Peer { pid: std::process::id() as i32, uid, gid: uid };
            assert_eq!(peer(one.as_fd()).unwrap(), want);
        }
    }

    #[test]
    fn fds_travel_with_the_bytes_they_were_sent_with() {
        let (a, b) = connected();
        let (mut here, there) = loopback_pair().unwrap();
        assert_eq!(send(a.as_fd(), b"plain", &[]).unwrap(), 5);
        assert_eq!(send(a.as_fd(), b"with", &[there.as_raw_fd()]).unwrap(), 4);
        assert_eq!(send(a.as_fd(), b"later", &[]).unwrap(), 5);
        drop((there, a));
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        while fds.is_empty() {
            bytes.extend(receive(&b, &mut fds));
        }
        assert_eq!((bytes.as_slice(), fds.len()), (&b"plainwith"[..], 1));
        here.write_all(b"hello").unwrap();
        let mut stream = TcpStream::from(fds.remove(0));
        stream.set_nonblocking(false).unwrap();
        let mut got = [0; 5];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello", "the socket is the one that was sent, and its sender has closed it");
        assert_eq!((receive(&b, &mut fds), fds.len()), (b"later".to_vec(), 0));
        // Sent by somebody who is gone by now: it came all the same, and then the end, which stays.
        for _ in 0..3 {
            assert_eq!(receive(&b, &mut fds), b"");
            assert!(ready(b.as_fd(), What::READ, SOON).contains(What::READ));
        }
    }

    #[test]
    fn a_full_set_of_fds_fits_and_what_is_no_socket_is_refused() {
        let (a, b) = connected();
        let (one, _other) = loopback_pair().unwrap();
        send(a.as_fd(), b"x", &vec![one.as_raw_fd(); MAX_FDS]).unwrap();
        let mut fds = Vec::new();
        assert_eq!((receive(&b, &mut fds), fds.len()), (b"x".to_vec(), MAX_FDS));
        let refused = send(a.as_fd(), b"x", &[0x7ff_fff0]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(WinSock::WSAENOTSOCK));
        assert_eq!(send(a.as_fd(), b"x", &[1; MAX_FDS + 1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(a.as_fd(), b"y", &[]).unwrap(), 1);
        assert_eq!(receive(&b, &mut fds), b"y", "nothing of what was refused was sent");
    }

    #[test]
    fn who_does_not_read_makes_it_unwritable_until_he_does_and_nothing_is_lost() {
        let (a, b) = connected();
        for round in 0..3u8 {
            let mut sent = 0;
            let part = vec![round; 50_000];
            let limit = Instant::now() + 3 * SOON;
            loop {
                assert!(Instant::now() < limit, "it stays writable");
                match send(a.as_fd(), &part, &[]) {
                    Ok(n) => sent += n,
                    Err(e) => {
                        assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                        // The other side takes a little ahead, and what filled the pair may be on its way still.
                        let stays = ready(a.as_fd(), What::WRITE, Duration::from_millis(100)).is_empty();
                        if stays && unread_by_peer(a.as_fd()).unwrap() > 0 {
                            break;
                        }
                    }
                }
                assert!(sent < 2_000_000, "it takes everything");
            }
            let (mut came, mut buf) = (0, vec![0; 70_000]);
            while came < sent {
                match recv(b.as_fd(), &mut buf, &mut Vec::new()) {
                    Ok(got) => {
                        assert!(buf[..got.len].iter().all(|x| *x == round));
                        came += got.len;
                    }
                    Err(_) => assert_ne!(ready(b.as_fd(), What::READ, SOON), What::empty()),
                }
            }
            assert_eq!(came, sent);
            assert_eq!(ready(a.as_fd(), What::WRITE, SOON), What::WRITE);
            assert_eq!(unread_by_peer(a.as_fd()).unwrap(), 0);
        }
    }

    #[test]
    fn a_peer_that_goes_is_seen_also_by_who_has_filled_the_pipe() {
        let (a, b) = connected();
        while send(a.as_fd(), &[0; 60_000], &[]).is_ok() {}
        drop(b);
        let mut fds = Vec::new();
        assert_eq!(receive(&a, &mut fds), b"");
        assert_eq!(send(a.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        // And the other way: who leaves with a full pipe is gone, once his last words had their time.
        let (a, b) = connected();
        while send(a.as_fd(), &[0; 60_000], &[]).is_ok() {}
        drop(a);
        while !receive(&b, &mut fds).is_empty() {}
    }

    #[test]
    fn sockets_that_came_and_were_not_read_are_closed_with_the_connection() {
        let (a, b) = connected();
        let (mut here, there) = loopback_pair().unwrap();
        // More than is read ahead: the last of them are in the pipe still.
        while send(a.as_fd(), b"x", &[there.as_raw_fd(); 100]).is_ok() {}
        drop((a, there));
        here.set_nonblocking(false).unwrap();
        drop(b);
        here.set_read_timeout(Some(SOON)).unwrap();
        let end = here.read(&mut [0]);
        assert!(matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
    }

    #[test]
    fn nothing_is_left_of_a_connection_whose_sockets_are_closed() {
        let gone = |was: std::sync::Weak<bridge::Bridge>| {
            let limit = Instant::now() + SOON;
            while was.upgrade().is_some() {
                assert!(Instant::now() < limit, "its thread runs still");
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let behind = |fd: &OwnedFd| std::sync::Arc::downgrade(&bridge::of(fd.as_raw_fd()).unwrap());
        for _ in 0..5 {
            let (a, b) = connected();
            let (of_a, of_b) = (behind(&a), behind(&b));
            send(a.as_fd(), b"never read", &[]).unwrap();
            drop(a);
            gone(of_a);
            assert!(of_b.upgrade().is_some());
            drop(b);
            gone(of_b);
        }
    }

    #[test]
    fn what_is_no_chunk_ends_the_connection() {
        let path = name();
        let listener = listen(&path, 0o600, None).unwrap();
        let mut raw = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        raw.write_all(&[0xff; 64]).unwrap();
        assert_eq!(ready(listener.as_fd(), What::READ, SOON), What::READ);
        let server = listener.accept().unwrap();
        assert!(ready(server.as_fd(), What::READ, SOON).contains(What::READ));
        let e = recv(server.as_fd(), &mut [0; 64], &mut Vec::new()).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        assert!(e.to_string().contains("at most 253"), "{e}");
    }
}
