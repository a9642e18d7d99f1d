//! What keeping fds beyond a process's end needs of the system: looking at fds in flight without taking them, files without a name, who sent a datagram, and
//! children that end with their parent.

use crate::sys::Peer;
use crate::sys::unix::file::own;
use crate::sys::unix::{cvt, socket};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

/// Whether fds in flight can be looked at, and a process be told from others by what it sends: without that nobody can keep fds for the next evd.
pub const KEEPS_FDS: bool = true;

/// The next [`peek_next`](super::peek_next) shows the first message.
///
/// # Errors
/// `ENOTSOCK`, `EOPNOTSUPP`.
///
/// Source: socket(7), SO_PEEK_OFF. On Linux only.
pub fn peek_from_start(fd: BorrowedFd<'_>) -> io::Result<()> {
    socket::set_option(fd, libc::SO_PEEK_OFF, 0)
}

/// A file without a name, in memory, closed on exec. It lives as long as somebody has it open.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
///
/// Source: memfd_create(2). On Linux only.
pub(in crate::sys::unix) fn memfd(name: &std::ffi::CStr) -> io::Result<File> {
    // SAFETY: `name` is a terminated string for the call; the result is a new fd.
    let fd = cvt(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    Ok(File::from(own(fd)))
}

/// Has what comes on a socket say who sent it. Source: unix(7), SO_PASSCRED.
pub(super) fn ask_for_senders(fd: BorrowedFd<'_>) -> io::Result<()> {
    socket::set_option(fd, libc::SO_PASSCRED, 1)
}

/// Who sent it, if this control message says that.
///
/// # Safety
/// `at` points to a control message that the kernel wrote.
///
/// Source: unix(7), SCM_CREDENTIALS.
pub(super) unsafe fn sender(at: *const libc::cmsghdr) -> Option<Peer> {
    // SAFETY: as the caller promises.
    let cmsg = unsafe { &*at };
    if cmsg.cmsg_level != libc::SOL_SOCKET || cmsg.cmsg_type != libc::SCM_CREDENTIALS {
        return None;
    }
    // SAFETY: the data part follows the header.
    let data = unsafe { libc::CMSG_DATA(at) }.cast::<libc::ucred>();
    // SAFETY: the kernel wrote a whole ucred there; it may be unaligned.
    let cred = unsafe { data.read_unaligned() };
    Some(Peer { pid: cred.pid, uid: cred.uid, gid: cred.gid })
}

/// This process gets SIGTERM when the thread that made it ends. Source: prctl(2), PR_SET_PDEATHSIG.
pub(super) fn end_with_parent() -> io::Result<()> {
    // SAFETY: prctl takes numbers here.
    cvt(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) }).map(drop)
}

/// Whether this process has one thread only. Source: proc_pid_task(5).
pub(super) fn has_one_thread() -> io::Result<bool> {
    Ok(std::fs::read_dir("/proc/self/task")?.count() == 1)
}
