//! OpenBSD: what it alone has, or has in its own way. Type-checked where this project is developed, not run there.

use super::{bsd, socket};
use crate::sys::Peer;
use std::io;
use std::os::fd::BorrowedFd;

/// There is none.
pub(super) const POLLRDHUP: libc::c_short = 0;
/// Unknown: /dev/fd shows names that are not open.
pub(super) const FD_DIRECTORY: &str = "";
/// For recvmsg(2): what is passed is closed on exec from the start.
pub(super) const RECV_CLOEXEC: libc::c_int = libc::MSG_CMSG_CLOEXEC;

pub(super) use bsd::{
    is_privileged, lock, no_new_privileges, peer_process, thread_id, unlock, unread_by_peer,
};

/// Where the files of what runs are.
pub(super) const RUN_DIRECTORY: &str = "/var/run";

/// Where the calling thread's errno is.
pub(super) fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing; the address is valid in every thread.
    unsafe { libc::__errno() }
}

/// Source: getsockopt(2), SO_PEERCRED.
pub(super) fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut cred = [libc::sockpeercred { uid: u32::MAX, gid: u32::MAX, pid: 0 }];
    // SAFETY: a sockpeercred is numbers.
    unsafe { socket::option(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut cred) }?;
    Ok(Peer { pid: cred[0].pid, uid: cred[0].uid, gid: cred[0].gid })
}

/// Only the effective one: the kernel does not tell the others.
pub(super) fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    Ok(vec![peer(fd)?.gid])
}

/// Has the kernel wipe a page in children; tells whether it does (OpenBSD 5.6).
///
/// # Safety
/// `at` is the start of a mapping of `size` bytes that is private, anonymous, and nobody else's.
///
/// Source: minherit(2).
pub(super) unsafe fn wipe_in_children(at: *mut libc::c_void, size: usize) -> bool {
    // SAFETY: as the caller promises.
    unsafe { libc::minherit(at, size, libc::MAP_INHERIT_ZERO) == 0 }
}

/// There are none.
pub(super) fn real_time_signals() -> Option<(i32, i32)> {
    None
}

/// Whether a signal with this `si_code` was sent by a process. Source: sigaction(2).
pub(super) fn sent_by_process(code: i32) -> bool {
    code <= 0
}
