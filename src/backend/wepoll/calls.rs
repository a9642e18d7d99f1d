//! What the wepoll method asks of its kernel: polls of sockets by the driver that all of Windows' sockets belong to.

use evd_proto::sys::{BorrowedFd, RawFd};
use std::io;
use std::time::Duration;

bitflags::bitflags! {
    /// What a poll asks for and tells, in the driver's values.
    ///
    /// Source: ReactOS, drivers/network/afd; Wine, include/wine/afd.h; wepoll, src/afd.h.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Events: u32 {
        /// Data can be read.
        const RECEIVE = 0x001;
        /// Data can be sent, or a connect has succeeded.
        const SEND = 0x004;
        /// The peer has closed its half; there may be something unread before it.
        const DISCONNECT = 0x008;
        /// The connection was reset.
        const ABORT = 0x010;
        /// The socket was closed here.
        const LOCAL_CLOSE = 0x020;
        /// A connection can be accepted.
        const ACCEPT = 0x080;
        /// A connect has failed.
        const CONNECT_FAIL = 0x100;
    }
}

/// The driver, and the queue that its answers come by.
pub trait Calls {
    /// A socket is to be polled that was not before, or may be another one that has come to this number.
    ///
    /// # Errors
    /// `WSAENOTSOCK`: not an open socket.
    fn enter(&mut self, number: RawFd) -> io::Result<()>;

    /// Has one answer queued when the socket has one of `events`, at once if it has one now. It replaces what was asked of this socket before, and an answer to
    /// that which is still queued is dropped.
    ///
    /// # Errors
    /// `WSAENOTSOCK`: not an open socket. `ERROR_NOT_ENOUGH_MEMORY`.
    fn poll(&mut self, number: RawFd, events: Events) -> io::Result<()>;

    /// Takes that back; a queued answer is dropped. Nothing may have been asked.
    fn cancel(&mut self, number: RawFd);

    /// Waits for at most `timeout` (`None` = for ever) for one answer, and appends all that are queued. What an answer says is as old as its being queued.
    ///
    /// # Errors
    /// What the kernel says of a queue that is broken. That the time is over is none.
    fn take(&mut self, into: &mut Vec<(RawFd, Events)>, timeout: Option<Duration>) -> io::Result<()>;

    /// From now on [`Calls::pollable`] is readable while an answer is queued.
    ///
    /// # Errors
    /// Out of sockets, or of threads.
    fn make_pollable(&mut self) -> io::Result<()>;

    /// Returns when [`Calls::pollable`] is as readable as what is queued by now makes it.
    fn settle(&mut self) {}

    /// What is readable while an answer is queued.
    fn pollable(&self) -> Option<BorrowedFd<'_>>;
}
