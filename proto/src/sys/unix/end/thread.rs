//! Closing files without waiting for them: by a thread that ends.

use crate::sys::unix::cvt_size;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc::channel;

/// Closes `fds`, and everything that is in flight to them, without waiting for connections that linger (SO_LINGER), as a plain close does for as long as whoever set it
/// wanted. The last to have them is then a thread with a table of its own, and the kernel lets nothing linger that an ending task closes.
///
/// Other files that have it as their last may still take their time: what is closed must be a socket, or only in flight. Where the system has no such thread or
/// table now, this is a plain close.
///
/// Source: close_range(2), CLOSE_RANGE_UNSHARE; socket(7), SO_LINGER ("when the socket is closed as part of exit(2)"); Linux, inet_release in net/ipv4/af_inet.c.
pub fn close_in_passing(fds: Vec<OwnedFd>) {
    let mut numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    let (says, has_them) = channel();
    let (stay, may_end) = channel::<()>();
    let run = move || {
        let _ = says.send(keep_only(&numbers));
        // Until nobody else has them.
        let _ = may_end.recv();
    };
    let thread = std::thread::Builder::new().name("evd-close".to_owned()).stack_size(64 << 10).spawn(run);
    // Without an answer there is no thread, or it has no table of its own: then these here are the last.
    let _ = thread.map(|_| has_them.recv());
    drop(fds);
    drop(stay);
}

/// From now on this thread has a table of its own, in which there are only these.
fn keep_only(sorted: &[RawFd]) -> io::Result<()> {
    let above = sorted.last().map_or(0, |last| last + 1);
    // The rest is closed one by one only once others can't see it.
    close(above, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE)?;
    let mut next = 0;
    for number in sorted {
        if *number > next {
            close(next, number - 1, 0)?;
        }
        next = number + 1;
    }
    Ok(())
}

fn close(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: takes numbers. With CLOSE_RANGE_UNSHARE, and after it, it is this thread's own table whose numbers go, and nothing on this thread owns one.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    cvt_size(ret as libc::ssize_t).map(drop)
}
