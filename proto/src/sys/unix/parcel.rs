//! Fds in flight as a store: what is sent over a socketpair that nobody reads stays open for as long as the receiving end does, whoever dies.
//!
//! Reading it back must not take it out, or a reader that dies half way would lose all. So it is looked through with `MSG_PEEK` and `SO_PEEK_OFF`, which gives
//! copies: for a socket of our own that is what is wanted (for a client's it never is).

use super::cvt;
use super::file::own;
use super::socket::{Received, receive, set_option};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Lets a socket have as many bytes on their way as the system allows, at most `bytes`.
///
/// # Errors
/// `ENOTSOCK`.
///
/// Source: socket(7), SO_SNDBUF.
pub fn enlarge_send_buffer(fd: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    set_option(fd, libc::SO_SNDBUF, bytes)
}

/// The next [`peek_next`] shows the first message.
///
/// # Errors
/// `ENOTSOCK`, `EOPNOTSUPP`.
///
/// Source: socket(7), SO_PEEK_OFF.
pub fn peek_from_start(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::SO_PEEK_OFF, 0)
}

/// Shows the next message without taking it: its bytes, as far as they fit `buf`, and copies of its fds.
///
/// # Errors
/// `WouldBlock`: there are no more, and the sending end is still open. As recvmsg(2).
pub fn peek_next(fd: BorrowedFd<'_>, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
    receive(fd, buf, fds, libc::MSG_PEEK, &mut None)
}

/// A file without a name, in memory, closed on exec. It lives as long as somebody has it open.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
///
/// Source: memfd_create(2).
pub fn memfd(name: &std::ffi::CStr) -> io::Result<File> {
    // SAFETY: `name` is a terminated string for the call; the result is a new fd.
    let fd = cvt(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    Ok(File::from(own(fd)))
}

#[cfg(test)]
mod tests {
    use super::super::{reserve_fd, send, socketpair};
    use super::*;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn what_is_in_flight_can_be_looked_through_twice_and_after_its_sender_is_gone() {
        let (tx, rx) = socketpair().unwrap();
        enlarge_send_buffer(tx.as_fd(), 1 << 22).unwrap();
        let null = reserve_fd().unwrap();
        for n in 1..4u8 {
            send(tx.as_fd(), &[n; 8], &vec![null.as_raw_fd(); usize::from(n)]).unwrap();
        }
        drop(tx);
        for _ in 0..2 {
            peek_from_start(rx.as_fd()).unwrap();
            for n in 1..4u8 {
                let (mut buf, mut fds) = ([0; 8], Vec::new());
                let got = peek_next(rx.as_fd(), &mut buf, &mut fds).unwrap();
                assert_eq!((got.len, buf, fds.len(), got.fds_lost), (8, [n; 8], usize::from(n), false));
            }
            assert_eq!(peek_next(rx.as_fd(), &mut [0; 8], &mut Vec::new()).unwrap().len, 0);
        }
    }
}
