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

/// The most sockets of one poll.
pub const MOST: usize = 16;

/// The driver, and the queue that its answers come by.
pub trait Calls {
    /// A socket is to be polled that was not before, or may be another one that has come to this number.
    ///
    /// # Errors
    /// `WSAENOTSOCK`: not an open socket.
    fn enter(&mut self, number: RawFd) -> io::Result<()>;

    /// One poll of several sockets, at most [`MOST`]: has one answer queued when one of them has one of its events, at once if it has one now. It replaces what was asked of them before, and
    /// of an answer to that which is still queued their part is dropped.
    ///
    /// # Errors
    /// `WSAENOTSOCK`: one is not an open socket; nothing is asked of any then. `ERROR_NOT_ENOUGH_MEMORY`.
    fn poll(&mut self, sockets: &[(RawFd, Events)]) -> io::Result<()>;

    /// Takes that back for one socket; its part of a queued answer is dropped. The others of its poll are answered soon, without events. Nothing may have been asked.
    fn cancel(&mut self, number: RawFd);

    /// Waits for at most `timeout` (`None` = for ever) for one answer, and appends all that are queued: each socket of their polls once, those that were not ready without
    /// events. They are all asked anew before they are answered again. What an answer says is as old as its being queued.
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
