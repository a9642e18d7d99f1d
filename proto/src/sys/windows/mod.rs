//! Windows. What is a file elsewhere is a socket here: nothing else can be waited for together with others.
//!
//! What `Base` and the client's local loop need is here. What talks to evd is refused in [`connect`]: evd itself is not there for Windows yet.

mod clock;
mod fd;
mod file;
mod poll;
mod process;
mod signals;
mod socket;
#[path = "../unix/timer/none.rs"]
mod timer;
mod wait_handle;
mod wake;

pub use clock::{monotonic_ns, sleep_ns};
pub use fd::{AsFd, AsRawFd, BorrowedFd, FdNumber, OwnedFd, RawFd};
pub use file::{
    CAN_REPLACE, counter, counting_timer, duplicate, identify, is_open, raise_open_files, replace, take_count,
};
pub use poll::{POLL_SEES_CLOSED, PollFd, poll};
pub use process::{
    Generation, ProcessState, generation, is_privileged, process_state, send_signal, thread_name,
};
pub use signals::{SignalSet, Signals, daemon_scope_allowed, is_signal, signal_name, signal_number};
pub use socket::{Received, connect, recv, send};
pub use timer::{TimerClock, TimerFd};
pub use wait_handle::{WaitEffect, WaitHandle, wait_effect};
pub use wake::Wake;

use std::io;
use windows_sys::Win32::Networking::WinSock;

/// Not an error that Windows has: its sockets are not sent in flight.
pub const TOO_MANY_IN_FLIGHT: i32 = i32::MIN;
/// Where evd's own files would be; there is no such folder on Windows.
pub const RUN_DIRECTORY: &str = r"\\.\pipe";
/// The code of a number that is not a socket. Source: Windows Sockets Error Codes, WSAENOTSOCK.
pub const BAD_FD: i32 = WinSock::WSAENOTSOCK;

/// Turns the return value of a socket call into a `Result`: `SOCKET_ERROR` reads the thread's last error.
pub(crate) fn cvt(ret: i32) -> io::Result<i32> {
    if ret == WinSock::SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(ret) }
}
