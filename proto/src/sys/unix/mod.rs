//! The Unix systems. Everything takes borrowed fds and returns owned ones.
//!
//! What each system has in its own way is one file under `system`; a system without one is not supported. `counted`, `end`, `fresh`, `harden`, `keep`, `look`, `memory`, `poll`,
//! `timer` and `wake` have two ways each.

mod accounts;
mod bound;
#[cfg(any(target_os = "freebsd", target_os = "netbsd", target_os = "openbsd", target_vendor = "apple"))]
#[path = "system/bsd.rs"]
mod bsd;
mod clock;
#[cfg_attr(target_os = "linux", path = "counted/eventfd.rs")]
#[cfg_attr(not(target_os = "linux"), path = "counted/none.rs")]
mod counted;
#[cfg_attr(target_os = "linux", path = "end/thread.rs")]
#[cfg_attr(not(target_os = "linux"), path = "end/plain.rs")]
mod end;
mod file;
mod fork;
#[cfg_attr(target_vendor = "apple", path = "fresh/after.rs")]
#[cfg_attr(not(target_vendor = "apple"), path = "fresh/at_once.rs")]
mod fresh;
#[cfg(feature = "harden")]
#[cfg_attr(
    all(
        target_os = "linux",
        target_endian = "little",
        any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
    ),
    path = "harden/seccomp.rs"
)]
#[cfg_attr(
    not(all(
        target_os = "linux",
        target_endian = "little",
        any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
    )),
    path = "harden/none.rs"
)]
mod harden;
#[cfg_attr(target_os = "linux", path = "keep/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "keep/none.rs")]
mod keep;
#[cfg_attr(target_os = "linux", path = "look/statx.rs")]
#[cfg_attr(not(target_os = "linux"), path = "look/fstat.rs")]
mod look;
#[cfg(feature = "harden")]
mod manager;
mod memfile;
#[cfg_attr(all(target_os = "linux", target_env = "gnu"), path = "memory/gnu.rs")]
#[cfg_attr(not(all(target_os = "linux", target_env = "gnu")), path = "memory/none.rs")]
mod memory;
mod notify;
mod parcel;
mod poll;
mod process;
mod signals;
mod socket;
mod spawn;
#[cfg_attr(target_os = "linux", path = "system/linux.rs")]
#[cfg_attr(target_os = "freebsd", path = "system/freebsd.rs")]
#[cfg_attr(target_os = "netbsd", path = "system/netbsd.rs")]
#[cfg_attr(target_os = "openbsd", path = "system/openbsd.rs")]
#[cfg_attr(target_vendor = "apple", path = "system/apple.rs")]
#[cfg_attr(any(target_os = "illumos", target_os = "solaris"), path = "system/solaris.rs")]
mod system;
#[cfg_attr(target_os = "linux", path = "timer/timerfd.rs")]
#[cfg_attr(not(target_os = "linux"), path = "timer/none.rs")]
mod timer;
#[cfg_attr(target_os = "linux", path = "wake/eventfd.rs")]
#[cfg_attr(not(target_os = "linux"), path = "wake/pipe.rs")]
mod wake;

pub use accounts::{group_id, overflow_uid, user_id};
pub use bound::{bound_path, is_listened_at};
pub use clock::{LocalTime, local_time, monotonic_ns, sleep_ns};
pub use counted::{count_up, counter, counting_timer, look_at_count, take_count};
pub use end::close_in_passing;
pub use file::{
    CAN_REPLACE, FdNumber, FileLock, Look, Slot, close_on_exec, duplicate, identify, is_open, is_passed,
    is_shortage, kernel_entries, make_directory, most_epoll_entries, most_open_files, open_files, pipe,
    raise_open_files, replace, reserve_fd, restrict_file_mode, shortage, stderr_takes, stdout_number,
};
pub use fork::{Generation, generation};
#[cfg(feature = "harden")]
pub use harden::deny_calls;
pub use keep::{KEEPS_FDS, peek_from_start};
pub use look::look;
#[cfg(feature = "harden")]
pub use manager::{passed_fds, run_service, watchdog_interval};
pub use memfile::MemFile;
pub use memory::{return_memory, share_memory};
pub use notify::{Notification, NotifyReceiver, adopt_fd, notify};
pub use parcel::{enlarge_send_buffer, peek_next};
pub use poll::{POLL_SEES_CLOSED, PollFd, poll};
pub use process::{
    ProcessState, check_exec, current_tid, effective_ids, exec_with_fds, is_privileged, no_new_privileges,
    process_state, resident_bytes, send_signal, thread_name,
};
pub use signals::{
    CHILD_SIGNAL, KILL_SIGNAL, RELOAD_SIGNAL, STOP_SIGNALS, SignalSet, Signals, daemon_scope_allowed,
    ignore_signals, is_signal, signal_name, signal_number,
};
pub use socket::{
    Listener, Peer, Received, adopt_listener, connect, is_listening_unix, listen, peer, peer_groups,
    peer_process, recv, send, socketpair, unread_by_peer,
};
pub use spawn::{Exit, Running, spawn_with_fds};
pub use timer::{TimerClock, TimerFd};
pub use wake::Wake;

// What a file is named by and owned through: on Windows these are sockets.
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use std::io;
use std::path::PathBuf;

/// errno of a send whose fds would be too many in flight for this user (about RLIMIT_NOFILE). Source: unix(7), ETOOMANYREFS.
pub const TOO_MANY_IN_FLIGHT: i32 = libc::ETOOMANYREFS;
/// How people start a daemon that is a service.
pub const HOW_TO_START: &str = "systemctl start evd";
/// What lets a user in who is not.
pub const HOW_TO_LET_IN: &str = "evd's --allow-uid or --allow-gid would let it";
/// errno of a number that is not an open file. Source: errno(3), EBADF.
pub const BAD_FD: i32 = libc::EBADF;

use file::set_nonblocking;

/// Where evd is by itself: `evd/socket` in the user's runtime directory, if there is one, else in `/run` (`/var/run` on other systems than Linux).
pub fn default_socket(runtime_directory: Option<PathBuf>) -> PathBuf {
    runtime_directory.unwrap_or_else(|| PathBuf::from(system::RUN_DIRECTORY)).join("evd/socket")
}

/// Turns the return value of a system call into a `Result`: a negative one reads `errno`.
///
/// # Errors
/// The call's `errno`.
pub(crate) fn cvt(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// As [`cvt`], for calls that return a size.
pub(crate) fn cvt_size(ret: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}
