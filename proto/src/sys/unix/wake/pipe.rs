//! A wake-up from another thread, or from a signal handler: a pipe, where there is no eventfd.

use crate::sys::unix::{fresh, set_nonblocking, system};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// An fd that becomes readable when somebody calls [`Wake::notify`]. Many notifications before a [`Wake::drain`] are one.
///
/// Source: pipe(2).
#[derive(Debug)]
pub struct Wake {
    read: OwnedFd,
    write: OwnedFd,
}

impl Wake {
    /// A new one, non-blocking and closed on exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Wake> {
        let (read, write) = fresh::pipe()?;
        set_nonblocking(read.as_fd())?;
        set_nonblocking(write.as_fd())?;
        Ok(Wake { read, write })
    }

    /// Makes it readable. Async-signal-safe; leaves `errno` as it was.
    pub fn notify(&self) {
        let at = system::errno_location();
        // SAFETY: errno's address is valid in the calling thread; a handler must leave errno as it found it.
        let saved = unsafe { *at };
        let byte = 1u8;
        // SAFETY: one readable byte; write is async-signal-safe. EAGAIN means that the pipe is full, so readable.
        unsafe { libc::write(self.write.as_raw_fd(), (&raw const byte).cast(), 1) };
        // SAFETY: as above.
        unsafe { *at = saved };
    }

    /// Makes it unreadable; tells whether it had been notified.
    pub fn drain(&self) -> bool {
        let (mut bytes, mut any) = ([0u8; 512], false);
        loop {
            let (at, len) = (bytes.as_mut_ptr().cast(), bytes.len());
            // SAFETY: `bytes` is as many writable bytes.
            let n = unsafe { libc::read(self.read.as_raw_fd(), at, len) };
            any |= n > 0;
            if n < len as libc::ssize_t {
                return any;
            }
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}
