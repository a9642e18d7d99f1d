//! statx(2), which need not ask the file system.

use crate::sys::unix::{cvt, file, file::Look};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What `fd` is, without waiting for anybody: for fds that come from others.
///
/// # Errors
/// `EBADF` if `fd` is not open.
///
/// Elsewhere than on Linux the file's own system is asked, and devices are not told apart.
///
/// Source: statx(2), AT_STATX_DONT_SYNC.
pub fn look(fd: BorrowedFd<'_>) -> io::Result<Look> {
    let mut st = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let wanted = libc::STATX_TYPE | libc::STATX_INO;
    // SAFETY: the path is an empty C string, and `st` is room for one `statx`, which the kernel fills when it returns 0.
    cvt(unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, wanted, st.as_mut_ptr()) })?;
    // SAFETY: all zeroes is a valid statx, and the kernel wrote the rest.
    let st = unsafe { st.assume_init() };
    let kind = file::kind_of(st.stx_mode.into(), fd);
    Ok(Look { kind, ino: st.stx_ino, device: Some((st.stx_rdev_major, st.stx_rdev_minor)) })
}
