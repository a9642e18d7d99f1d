//! macOS and its relatives: what it alone has, or has in its own way. Type-checked where this project is developed, not run there.

use super::{bsd, socket};
use crate::sys::Peer;
use std::io;
use std::os::fd::BorrowedFd;

/// There is none.
pub(super) const POLLRDHUP: libc::c_short = 0;
/// All numbers of this process's open files.
pub(super) const FD_DIRECTORY: &str = "/dev/fd";
/// There is none: what is passed is marked after it has come, and a program that another thread executes in between has it too.
pub(super) const RECV_CLOEXEC: libc::c_int = 0;

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

/// Source: unix(4), LOCAL_PEERCRED; <sys/un.h>, LOCAL_PEERPID.
pub(super) fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let (cred, mut pid) = (credentials(fd)?, [0 as libc::pid_t]);
    // SAFETY: a number.
    unsafe { socket::option(fd, libc::SOL_LOCAL, libc::LOCAL_PEERPID, &mut pid) }?;
    Ok(Peer { pid: pid[0], uid: cred.cr_uid, gid: cred.cr_groups[0] })
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
    // SAFETY: an xucred is numbers.
    unsafe { socket::option(fd, libc::SOL_LOCAL, libc::LOCAL_PEERCRED, &mut cred) }?;
    Ok(cred[0])
}

/// Not here: minherit(2) can keep a page from children and not wipe it.
///
/// # Safety
/// None is needed.
pub(super) unsafe fn wipe_in_children(_at: *mut libc::c_void, _size: usize) -> bool {
    false
}

/// There are none.
pub(super) fn real_time_signals() -> Option<(i32, i32)> {
    None
}

/// Whether a signal with this `si_code` was sent by a process: `SI_USER`, `SI_QUEUE`. Source: sigaction(2), <sys/signal.h>.
pub(super) fn sent_by_process(code: i32) -> bool {
    matches!(code, 0x10001 | 0x10002)
}
