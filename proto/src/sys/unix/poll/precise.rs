//! ppoll(2), which counts nanoseconds.

use crate::sys::unix::cvt;
use std::io;
use std::time::Duration;

/// Waits for at most `timeout`; tells how many entries are ready. Beyond three years it comes back early, as some systems refuse to count further.
pub(super) fn wait(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let spec = timeout.map(|t| libc::timespec {
        tv_sec: t.as_secs().min(100_000_000) as libc::time_t,
        tv_nsec: t.subsec_nanos() as libc::c_long,
    });
    let at = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let (fds, len) = (fds.as_mut_ptr(), fds.len() as libc::nfds_t);
    // SAFETY: `fds` is `len` live, writable entries; `at` is null or a live timespec; a null mask is allowed.
    cvt(unsafe { libc::ppoll(fds, len, at, std::ptr::null()) }).map(|n| n as usize)
}
