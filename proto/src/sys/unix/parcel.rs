//! Fds in flight as a store: what is sent over a socketpair that nobody reads stays open for as long as the receiving end does, whoever dies.
//!
//! Reading it back must not take it out, or a reader that dies half way would lose all. So it is looked through with `MSG_PEEK` and `SO_PEEK_OFF`, which gives
//! copies: for a socket of our own that is what is wanted (for a client's it never is). The latter is in `keep`: only Linux has it.

use super::socket::{Received, receive, set_option};
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

/// Shows the next message without taking it: its bytes, as far as they fit `buf`, and copies of its fds.
///
/// # Errors
/// `WouldBlock`: there are no more, and the sending end is still open. As recvmsg(2).
pub fn peek_next(fd: BorrowedFd<'_>, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
    receive(fd, buf, fds, libc::MSG_PEEK, &mut None)
}

#[cfg(test)]
mod tests {
    use super::super::{peek_from_start, reserve_fd, send, socketpair};
    use super::*;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn what_is_in_flight_can_be_looked_through_twice_and_after_its_sender_is_gone() {
        let _no_copies = super::super::fork::FORKS.read();
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
