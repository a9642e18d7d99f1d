//! Linux: what it alone has, or has in its own way.

use super::{cvt, file::own, socket};
use crate::sys::Peer;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Source: poll(2).
pub(super) const POLLRDHUP: libc::c_short = libc::POLLRDHUP;
/// All numbers of this process's open files.
pub(super) const FD_DIRECTORY: &str = "/proc/self/fd";
/// For recvmsg(2): what is passed is closed on exec from the start.
pub(super) const RECV_CLOEXEC: libc::c_int = libc::MSG_CMSG_CLOEXEC;

/// Where the files of what runs are.
pub(super) const RUN_DIRECTORY: &str = "/run";

/// Where the calling thread's errno is.
pub(super) fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing; the address is valid in every thread.
    unsafe { libc::__errno_location() }
}

/// Source: unix(7), SO_PEERCRED.
pub(super) fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut cred = [libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX }];
    // SAFETY: a ucred is numbers.
    unsafe { socket::option(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut cred) }?;
    Ok(Peer { pid: cred[0].pid, uid: cred[0].uid, gid: cred[0].gid })
}

/// Source: SO_PEERGROUPS, Linux 4.13.
pub(super) fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        // SAFETY: numbers.
        match unsafe { socket::option(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, &mut groups) } {
            Ok(n) => {
                groups.truncate(n);
                return Ok(groups);
            }
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && groups.len() < 65_536 => {
                groups = vec![0; groups.len() * 32]
            }
            Err(e) => return Err(e),
        }
    }
}

/// Source: SO_PEERPIDFD, Linux 6.5.
pub(super) fn peer_process(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut number = [-1 as RawFd];
    // SAFETY: a number.
    unsafe { socket::option(fd, libc::SOL_SOCKET, libc::SO_PEERPIDFD, &mut number) }.ok()?;
    // It is closed on exec, as all pidfds are.
    (number[0] >= 0).then(|| own(number[0]))
}

/// Source: unix(7), SIOCOUTQ.
pub(super) fn unread_by_peer(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, which `bytes` is.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) })?;
    Ok(bytes.max(0) as usize)
}

/// Has the kernel wipe a page in children; tells whether it does (Linux 4.14).
///
/// # Safety
/// `at` is the start of a mapping of `size` bytes that is private, anonymous, and nobody else's.
///
/// Source: madvise(2).
pub(super) unsafe fn wipe_in_children(at: *mut libc::c_void, size: usize) -> bool {
    // SAFETY: as the caller promises.
    unsafe { libc::madvise(at, size, libc::MADV_WIPEONFORK) == 0 }
}

/// Whether this process runs with more rights than who started it. Source: getauxval(3), AT_SECURE.
pub(super) fn is_privileged() -> bool {
    // SAFETY: getauxval takes a number and returns one.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The first and the last real-time signal.
pub(super) fn real_time_signals() -> Option<(i32, i32)> {
    Some((libc::SIGRTMIN(), libc::SIGRTMAX()))
}

/// Whether a signal with this `si_code` was sent by a process. Source: sigaction(2).
pub(super) fn sent_by_process(code: i32) -> bool {
    code <= 0
}

/// Locks a file for this open of it, without blocking. Source: flock(2).
pub(super) fn lock(file: &File) -> io::Result<()> {
    // SAFETY: flock takes a number and flags; `file` is open for the call.
    cvt(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }).map(drop)
}

/// Ends a lock of [`lock`], for everybody who shares this open of the file. Source: flock(2).
pub(super) fn unlock(file: &File) {
    // SAFETY: flock takes a number and flags; `file` is open for the call.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
}

/// The thread id of the caller. Source: gettid(2).
pub(super) fn thread_id() -> i32 {
    // SAFETY: takes nothing, can't fail.
    unsafe { libc::gettid() }
}

/// Source: prctl(2), PR_SET_NO_NEW_PRIVS.
pub(super) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: takes numbers.
    cvt(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}
