//! The system's /dev/poll. Type-checked where this project is developed, and not run there: so this file is as thin as it can be.
//!
//! libc has none of its definitions. Source: poll(7D), <sys/devpoll.h> of illumos; the same numbers are in nginx for Solaris.

use super::Backend;
use super::cvt;
use super::devpoll::{Calls, Devpoll, PollEntry};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

const DP_POLL: libc::c_int = 0xD0 << 8 | 1;

/// `struct dvpoll`. The last field is illumos' own, for a call that is not used here, and Solaris does not read it.
#[repr(C)]
struct Dvpoll {
    dp_fds: *mut libc::pollfd,
    dp_nfds: libc::nfds_t,
    dp_timeout: libc::c_int,
    dp_setp: *mut libc::sigset_t,
}

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    let set = File::options().read(true).write(true).open("/dev/poll")?;
    Ok(Box::new(Devpoll::on(Kernel { set, fds: Vec::new() })))
}

/// A set of the kernel's; std opens it closed on exec.
struct Kernel {
    set: File,
    fds: Vec<libc::pollfd>,
}

impl Calls for Kernel {
    fn write(&mut self, changes: &[PollEntry]) -> io::Result<()> {
        let kernels = |c: &PollEntry| libc::pollfd { fd: c.number, events: c.events, revents: 0 };
        self.fds.clear();
        self.fds.extend(changes.iter().map(kernels));
        let (at, len) = (self.fds.as_ptr().cast::<u8>(), size_of_val(self.fds.as_slice()));
        // SAFETY: the entries are `len` live bytes without padding.
        let bytes = unsafe { std::slice::from_raw_parts(at, len) };
        // A write that is interrupted has done nothing, one that succeeds everything.
        self.set.write_all(bytes)
    }

    fn poll(&mut self, into: &mut Vec<PollEntry>, room: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.fds.resize(room, libc::pollfd { fd: -1, events: 0, revents: 0 });
        let ms = timeout
            .map_or(-1, |t| t.as_nanos().div_ceil(1_000_000).min(libc::c_int::MAX as u128) as libc::c_int);
        let mut ask = Dvpoll {
            dp_fds: self.fds.as_mut_ptr(),
            dp_nfds: room as libc::nfds_t,
            dp_timeout: ms,
            dp_setp: std::ptr::null_mut(),
        };
        // SAFETY: `ask` is live, and `dp_fds` has room for `dp_nfds` entries.
        let n = cvt(unsafe { libc::ioctl(self.set.as_raw_fd(), DP_POLL, &raw mut ask) })?;
        let filled = self.fds[..n as usize].iter();
        into.extend(filled.map(|f| PollEntry { number: f.fd, events: f.revents }));
        Ok(())
    }
}
