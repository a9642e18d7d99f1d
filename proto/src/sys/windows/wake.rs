//! A wake-up from another thread: a datagram socket that is connected to itself.

use super::{AsFd, BorrowedFd};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

/// A socket that becomes readable when somebody calls [`Wake::notify`]. Many notifications before a [`Wake::drain`] are one.
///
/// It hears only itself, and a datagram that has no room any more finds it readable.
#[derive(Debug)]
pub struct Wake(UdpSocket);

impl Wake {
    /// A new one, non-blocking, which no child inherits.
    ///
    /// # Errors
    /// `WSAEMFILE`, `WSAENOBUFS`.
    pub fn new() -> io::Result<Wake> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        socket.set_nonblocking(true)?;
        Ok(Wake(socket))
    }

    /// Makes it readable.
    pub fn notify(&self) {
        let _ = self.0.send(&[1]);
    }

    /// Makes it unreadable; tells whether it had been notified.
    pub fn drain(&self) -> bool {
        let mut any = false;
        while self.0.recv(&mut [0; 8]).is_ok() {
            any = true;
        }
        any
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
