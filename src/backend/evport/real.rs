//! The system's event ports. Type-checked where this project is developed, and not run there: so this file is as thin as it can be.

use super::evport::{Calls, Evport};
use super::{Backend, cvt, timespec};
use evd_proto::sys::close_on_exec;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    // SAFETY: takes nothing.
    let fd = cvt(unsafe { libc::port_create() })?;
    // SAFETY: the kernel has just made `fd`; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    close_on_exec(fd.as_fd())?;
    Ok(Box::new(Evport::on(Kernel { fd, events: Vec::new() })))
}

/// An event port of the kernel.
struct Kernel {
    fd: OwnedFd,
    events: Vec<libc::port_event>,
}

// SAFETY: what keeps it from being Send by itself are the events' user data, pointers that are never set and never followed.
unsafe impl Send for Kernel {}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `EBADFD` is what a port says of a number that is not open.
fn plain(e: io::Error) -> io::Error {
    if e.raw_os_error() == Some(libc::EBADFD) { io::Error::from_raw_os_error(libc::EBADF) } else { e }
}

impl Calls for Kernel {
    fn associate(&mut self, fd: RawFd, events: libc::c_short) -> io::Result<()> {
        let (port, user) = (self.fd.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: takes numbers, and a pointer that is only handed back; null is fine.
        let done = cvt(unsafe {
            libc::port_associate(port, libc::PORT_SOURCE_FD, fd as libc::uintptr_t, events.into(), user)
        });
        done.map(drop).map_err(plain)
    }

    fn dissociate(&mut self, fd: RawFd) -> io::Result<()> {
        let port = self.fd.as_raw_fd();
        // SAFETY: takes numbers.
        let done = cvt(unsafe { libc::port_dissociate(port, libc::PORT_SOURCE_FD, fd as libc::uintptr_t) });
        done.map(drop).map_err(plain)
    }

    fn take(&mut self, into: &mut Vec<RawFd>, room: usize, timeout: Option<Duration>) -> io::Result<()> {
        // SAFETY: all zeroes is a valid port_event: numbers and a null pointer.
        let empty: libc::port_event = unsafe { std::mem::zeroed() };
        self.events.resize(room, empty);
        let mut spec = timeout.map(timespec);
        let at = spec.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
        let mut n = 1;
        let (port, events) = (self.fd.as_raw_fd(), self.events.as_mut_ptr());
        // SAFETY: `events` has room for `room` entries, `n` is writable, `at` null or a live timespec.
        let got = cvt(unsafe { libc::port_getn(port, events, room as libc::c_uint, &mut n, at) });
        match got {
            Ok(_) => {}
            // The time is over; some may have come all the same.
            Err(e) if e.raw_os_error() == Some(libc::ETIME) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted && n > 0 => {}
            Err(e) => return Err(e),
        }
        // A call that has failed may have left the number that was asked for.
        let filled = self.events[..(n as usize).min(room)]
            .iter()
            .filter(|e| libc::c_int::from(e.portev_source) == libc::PORT_SOURCE_FD);
        into.extend(filled.map(|e| e.portev_object as RawFd));
        self.events.clear();
        Ok(())
    }
}
