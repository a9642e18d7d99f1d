//! Windows. What is a file elsewhere is a socket here: nothing else can be waited for together with others.
//!
//! From the bottom: `fd`, `file`, `clock`, `process`, `poll` and `wake` (what sockets are), `signals` (console events), `handle` (waits and overlapped operations), `identity` (whose a
//! process is), `pipe` (named pipes), `passing` and `chunk` (sockets on their way), `bridge` (a pipe as a socket), `socket` and `listener` (the way to evd), `timer`, `service` (the service manager), and
//! `absent`: what Windows has nothing for.

mod absent;
mod bridge;
mod chunk;
mod clock;
mod fd;
mod file;
mod handle;
mod identity;
mod listener;
mod passing;
mod pipe;
mod poll;
mod process;
mod service;
mod signals;
mod socket;
mod timer;
mod wait_handle;
mod wake;

#[cfg(feature = "harden")]
pub use absent::deny_calls;
pub use absent::{
    Exit, KEEPS_FDS, MemFile, Notification, NotifyReceiver, Running, Slot, adopt_fd, adopt_listener,
    bound_path, check_exec, count_up, default_socket, enlarge_send_buffer, exec_with_fds, group_id,
    ignore_signals, is_listened_at, kernel_entries, look_at_count, make_directory, most_epoll_entries,
    no_new_privileges, notify, overflow_uid, passed_fds, peek_from_start, peek_next, pipe, resident_bytes,
    return_memory, share_memory, spawn_with_fds, stderr_takes, stdout_number, user_id, watchdog_interval,
};
pub use clock::{LocalTime, local_time, monotonic_ns, sleep_ns};
pub use fd::{AsFd, AsRawFd, BorrowedFd, FdNumber, OwnedFd, RawFd};
pub use file::{
    CAN_REPLACE, Look, counter, counting_timer, duplicate, identify, is_open, is_passed, is_shortage, look,
    most_open_files, open_files, raise_open_files, replace, reserve_fd, shortage, take_count,
};
pub use identity::effective_ids;
pub use listener::{Listener, listen};
pub use poll::{POLL_SEES_CLOSED, PollFd, poll};
pub use process::{
    Generation, ProcessState, current_tid, generation, is_privileged, process_state, send_signal, thread_name,
};
pub use service::run_service;
pub use signals::{
    CHILD_SIGNAL, KILL_SIGNAL, RELOAD_SIGNAL, STOP_SIGNALS, SignalSet, Signals, daemon_scope_allowed,
    is_signal, signal_name, signal_number,
};
pub use socket::{
    Peer, Received, close_in_passing, connect, peer, peer_groups, peer_process, recv, send, socketpair,
    unread_by_peer,
};
pub use timer::{TimerClock, TimerFd};
pub use wait_handle::{WaitEffect, WaitHandle, wait_effect};
pub use wake::Wake;

use std::io;
use windows_sys::Win32::Networking::WinSock;

/// Not an error that Windows has: its sockets are not sent in flight.
pub const TOO_MANY_IN_FLIGHT: i32 = i32::MIN;
/// How people start a daemon that is a service.
pub const HOW_TO_START: &str = "evd.exe, or sc start evd";
/// What lets a user in who is not: nothing.
pub const HOW_TO_LET_IN: &str = "on Windows an evd serves only the user that it runs as";
/// The code of a number that is not a socket. Source: Windows Sockets Error Codes, WSAENOTSOCK.
pub const BAD_FD: i32 = WinSock::WSAENOTSOCK;

/// Turns the return value of a socket call into a `Result`: `SOCKET_ERROR` reads the thread's last error.
pub(crate) fn cvt(ret: i32) -> io::Result<i32> {
    if ret == WinSock::SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(ret) }
}
