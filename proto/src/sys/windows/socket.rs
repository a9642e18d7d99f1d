//! The way to evd: there is none on Windows yet. What carries frames works on any connected socket, without sockets attached.

use super::fd::handle;
use super::{AsRawFd, BorrowedFd, OwnedFd, RawFd, cvt};
use std::io;
use std::path::Path;
use windows_sys::Win32::Networking::WinSock;

/// What one [`recv`] brought.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes read; 0 is the end.
    pub len: usize,
    /// Always false here.
    pub fds_lost: bool,
}

/// Nobody can be connected to.
///
/// # Errors
/// `NotFound`, always.
pub fn connect(_path: &Path) -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::NotFound, "evd is not there for Windows yet; use a local base"))
}

/// Sends `bytes` in one call; returns how much was taken.
///
/// # Errors
/// `WouldBlock`: the peer does not read. `BrokenPipe`, `ConnectionReset`: the peer is gone. `Unsupported`: sockets can't be attached.
pub fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    if !fds.is_empty() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "sockets can't be passed on Windows yet"));
    }
    let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    // SAFETY: `bytes` is at least `len` readable bytes.
    cvt(unsafe { WinSock::send(handle(to.as_raw_fd()), bytes.as_ptr(), len, 0) }).map(|n| n as usize)
}

/// Receives into `buf`.
///
/// # Errors
/// `WouldBlock`: nothing is there. `ConnectionReset`.
pub fn recv(from: BorrowedFd<'_>, buf: &mut [u8], _fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
    let len = i32::try_from(buf.len()).unwrap_or(i32::MAX);
    // SAFETY: `buf` is at least `len` writable bytes.
    let len = cvt(unsafe { WinSock::recv(handle(from.as_raw_fd()), buf.as_mut_ptr(), len, 0) })? as usize;
    Ok(Received { len, fds_lost: false })
}
