//! A wake-up from another thread, or from a signal handler: an eventfd.

use crate::sys::unix::{cvt, file::own, system};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// An fd that becomes readable when somebody calls [`Wake::notify`]. Many notifications before a [`Wake::drain`] are one.
///
/// Source: eventfd(2).
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// A new one, non-blocking and closed on exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Wake> {
        // SAFETY: eventfd takes no pointers; a non-negative result is a new fd that nobody else owns.
        let fd = cvt(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(Wake(own(fd)))
    }

    /// Makes it readable. Async-signal-safe; leaves `errno` as it was.
    pub fn notify(&self) {
        let at = system::errno_location();
        // SAFETY: errno's address is valid in the calling thread; a handler must leave errno as it found it.
        let saved = unsafe { *at };
        let one = 1u64;
        // SAFETY: `one` is 8 readable bytes; write is async-signal-safe. EAGAIN means that it is readable already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
        // SAFETY: as above.
        unsafe { *at = saved };
    }

    /// Makes it unreadable; tells whether it had been notified.
    pub fn drain(&self) -> bool {
        let mut count = 0u64;
        // SAFETY: `count` is 8 writable bytes for the call.
        let n = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
        n == 8
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
