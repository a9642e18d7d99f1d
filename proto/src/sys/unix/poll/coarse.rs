//! poll(2), which counts milliseconds, where there is no ppoll.

use crate::sys::unix::cvt;
use std::io;
use std::time::Duration;

/// Waits for at most `timeout`, rounded up; tells how many entries are ready. Beyond 24 days it comes back early.
pub(super) fn wait(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let ms =
        timeout.map_or(-1, |t| t.as_nanos().div_ceil(1_000_000).min(libc::c_int::MAX as u128) as libc::c_int);
    // SAFETY: `fds` is as many live, writable entries.
    cvt(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, ms) }).map(|n| n as usize)
}
