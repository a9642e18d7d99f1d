//! FreeBSD: what it alone has, or has in its own way. Type-checked where this project is developed, not run there.

use super::{bsd, socket};
use crate::sys::Peer;
use std::io;
use std::os::fd::BorrowedFd;

/// FreeBSD 13 and later. Source: poll(2).
pub(super) const POLLRDHUP: libc::c_short = libc::POLLRDHUP;
/// Unknown: /dev/fd shows more than 0 to 2 only where fdescfs is mounted.
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
    unsafe { libc::__error() }
}

/// Source: unix(4), LOCAL_PEERCRED.
pub(super) fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let cred = credentials(fd)?;
    // SAFETY: the kernel has filled the whole structure; both fields of the union may be read as numbers.
    let pid = unsafe { cred.cr_pid__c_anonymous_union.cr_pid };
    Ok(Peer { pid, uid: cred.cr_uid, gid: cred.cr_groups[0] })
}

/// At most 16. Source: unix(4), LOCAL_PEERCRED.
pub(super) fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let cred = credentials(fd)?;
    let n = usize::try_from(cred.cr_ngroups).unwrap_or(0).min(cred.cr_groups.len());
    Ok(cred.cr_groups[..n].to_vec())
}

fn credentials(fd: BorrowedFd<'_>) -> io::Result<libc::xucred> {
    // SAFETY: all zeroes is a valid xucred.
    let mut cred = [unsafe { std::mem::zeroed::<libc::xucred>() }];
    // SAFETY: an xucred is numbers, and an unused pointer.
    unsafe { socket::option(fd, libc::SOL_LOCAL, libc::LOCAL_PEERCRED, &mut cred) }?;
    Ok(cred[0])
}

/// Has the kernel wipe a page in children; tells whether it does (FreeBSD 12).
///
/// # Safety
/// `at` is the start of a mapping of `size` bytes that is private, anonymous, and nobody else's.
///
/// Source: minherit(2).
pub(super) unsafe fn wipe_in_children(at: *mut libc::c_void, size: usize) -> bool {
    // SAFETY: as the caller promises.
    unsafe { libc::minherit(at, size, libc::INHERIT_ZERO) == 0 }
}

/// None: they begin at 65, and evd's masks of signals have 64 bits.
pub(super) fn real_time_signals() -> Option<(i32, i32)> {
    None
}

/// Whether a signal with this `si_code` was sent by a process: `SI_USER`, `SI_QUEUE`, `SI_LWP`. Source: siginfo(3), <sys/signal.h>.
pub(super) fn sent_by_process(code: i32) -> bool {
    matches!(code, 0x10001 | 0x10002 | 0x10007)
}
