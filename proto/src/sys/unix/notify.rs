//! Both ends of a service manager's notification socket: datagrams of text, with fds.
//!
//! Source: sd_notify(3), sd_pid_notify_with_fds(3).

use super::file::own;
use super::socket::receive;
use super::{Peer, PollFd, cvt, keep, monotonic_ns, poll, send};
use crate::sys::What;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest notification that is read.
const LONGEST: usize = 4096;

/// The telling end: one socket for all that is told, so that also who is short of fds can say that it lives.
#[derive(Debug)]
pub struct Notifier {
    to: OsString,
    socket: UnixDatagram,
}

impl Notifier {
    /// For the service manager at `to`: the value of `NOTIFY_SOCKET`, where a leading `@` means an abstract name. It need not be there yet.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new(to: &OsStr) -> io::Result<Notifier> {
        Ok(Notifier { to: to.to_owned(), socket: UnixDatagram::unbound()? })
    }

    /// Tells the service manager something, and gives it `fds`. Waits at most `patience` for room in its queue. Any thread may do so.
    ///
    /// # Errors
    /// Nobody is there, or `TimedOut`: the service manager does not read. As [`send`] otherwise.
    ///
    /// Source: sd_notify(3).
    pub fn tell(&self, text: &str, fds: &[RawFd], patience: Duration) -> io::Result<()> {
        let until = monotonic_ns().saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
        let mut is_new = false;
        loop {
            match send(self.socket.as_fd(), text.as_bytes(), fds) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let left = until.saturating_sub(monotonic_ns());
                    if left == 0 {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    let mut one = [PollFd::new(self.socket.as_raw_fd(), What::WRITE)];
                    poll(&mut one, Some(Duration::from_nanos(left)))?;
                }
                // Nothing was told yet, or whoever heard it is gone, and another may be in its place.
                Err(e) if !is_new => {
                    self.connect()
                        .map_err(|why| if e.kind() == io::ErrorKind::NotConnected { why } else { e })?;
                    is_new = true;
                }
                other => return other.map(drop),
            }
        }
    }

    fn connect(&self) -> io::Result<()> {
        match self.to.as_bytes().strip_prefix(b"@") {
            #[cfg(target_os = "linux")]
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                self.socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
            }
            _ => self.socket.connect(&self.to),
        }
    }
}

/// Takes over an fd that was inherited as number `fd`; closed on exec from now on. Each number may be taken over once.
///
/// # Errors
/// `EBADF`.
///
/// Source: sd_listen_fds(3).
pub fn adopt_fd(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes a number; a closed fd gives EBADF, so that what is owned below is open.
    cvt(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(own(fd))
}

/// What somebody told the service manager.
#[derive(Debug)]
pub struct Notification {
    /// Assignments, one a line.
    pub text: String,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
    /// Who said it, as the kernel knows it.
    pub sender: Option<Peer>,
}

/// The service manager's end. Its file goes with it.
#[derive(Debug)]
pub struct NotifyReceiver {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifyReceiver {
    /// Binds a socket at `path`, which only this user can write to. A file that is there is replaced: the caller has a lock on the place.
    ///
    /// # Errors
    /// As bind(2). [`io::ErrorKind::Unsupported`] where it can't be known who sends: elsewhere than on Linux.
    pub fn bind(path: &Path) -> io::Result<NotifyReceiver> {
        let _ = std::fs::remove_file(path);
        Ok(NotifyReceiver { socket: receiving_at(path)?, path: path.to_owned() })
    }

    /// If its file is gone, makes another socket at the same place; what was not read of the old one is lost. Whether it was so.
    ///
    /// # Errors
    /// As [`NotifyReceiver::bind`]; it is then as it was.
    pub fn restore(&mut self) -> io::Result<bool> {
        match self.path.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            _ => return Ok(false),
        }
        self.socket = receiving_at(&self.path)?;
        Ok(true)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next notification; `None`: there is none now.
    ///
    /// # Errors
    /// As recvmsg(2).
    pub fn next(&self) -> io::Result<Option<Notification>> {
        let (mut buf, mut fds, mut sender) = ([0; LONGEST], Vec::new(), None);
        match receive(self.socket.as_fd(), &mut buf, &mut fds, 0, &mut sender) {
            Ok(got) => {
                let text = String::from_utf8_lossy(&buf[..got.len]).into_owned();
                Ok(Some(Notification { text, fds, sender }))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn receiving_at(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::bind(path)?;
    let ready = super::restrict_file_mode(path, 0o600, None);
    if let Err(e) = ready.and_then(|()| keep::ask_for_senders(socket.as_fd())) {
        let _ = std::fs::remove_file(path);
        return Err(e);
    }
    Ok(socket)
}

impl AsFd for NotifyReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifyReceiver {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_comes_with_its_fds_and_its_sender() {
        let _no_copies = super::super::fork::FORKS.read();
        let path = std::env::temp_dir().join(format!("evd-notify-{}", std::process::id()));
        let receiver = NotifyReceiver::bind(&path).unwrap();
        assert!(receiver.next().unwrap().is_none());
        let null = super::super::reserve_fd().unwrap();
        let notifier = Notifier::new(path.as_os_str()).unwrap();
        notifier.tell("FDSTORE=1\nFDNAME=a", &[null.as_raw_fd()], Duration::ZERO).unwrap();
        let got = receiver.next().unwrap().unwrap();
        assert_eq!((got.text.as_str(), got.fds.len()), ("FDSTORE=1\nFDNAME=a", 1));
        assert_eq!(got.sender.unwrap().pid, std::process::id() as i32);
        drop(receiver);
        assert!(!path.exists());
        assert!(notifier.tell("READY=1", &[], Duration::ZERO).is_err());
        let next = NotifyReceiver::bind(&path).unwrap();
        notifier.tell("READY=1", &[], Duration::ZERO).unwrap();
        assert_eq!(next.next().unwrap().unwrap().text, "READY=1", "another one is in its place");
    }
}
