//! The system's kqueue. Type-checked where this project is developed, and not run there: so this file is as thin as it can be.
//!
//! The structure and the call differ between systems in the widths of their fields, and FreeBSD's has more of them; their names are the same everywhere.

use super::kqueue::{Calls, Filter, Flags, Kevent, Kqueue};
use super::os;
use super::{Backend, cvt, timespec};
use evd_proto::sys::close_on_exec;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    Ok(Box::new(Kqueue::on(Kernel::new()?)))
}

/// A kqueue of the kernel.
pub(super) struct Kernel {
    fd: OwnedFd,
    changes: Vec<os::kevent>,
    events: Vec<os::kevent>,
}

// SAFETY: what keeps it from being Send by itself are the kevents' user data, pointers that are never set and never followed.
unsafe impl Send for Kernel {}

impl Kernel {
    /// A new one, closed on exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(super) fn new() -> io::Result<Kernel> {
        // SAFETY: takes nothing.
        let fd = cvt(unsafe { os::kqueue() })?;
        // SAFETY: the kernel has just made `fd`; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // A child of a fork does not have it, so nothing can be executed in between.
        close_on_exec(fd.as_fd())?;
        Ok(Kernel { fd, changes: Vec::new(), events: Vec::new() })
    }
}

/// The call itself.
///
/// # Errors
/// As of [`Calls::kevent`].
///
/// Source: kevent(2).
pub(super) fn call(
    fd: BorrowedFd<'_>,
    changes: &[os::kevent],
    events: &mut [os::kevent],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let spec = timeout.map(timespec);
    let at = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let (told, room) = (changes.len() as _, events.len() as _);
    let (number, changes, events) = (fd.as_raw_fd(), changes.as_ptr(), events.as_mut_ptr());
    // SAFETY: both arrays are live for the call and as long as is said, the second one is writable; `at` is null or a live timespec.
    cvt(unsafe { os::kevent(number, changes, told, events, room, at) }).map(|n| n as usize)
}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Calls for Kernel {
    fn kevent(
        &mut self,
        changes: &[Kevent],
        events: &mut Vec<Kevent>,
        room: usize,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut told = std::mem::take(&mut self.changes);
        told.clear();
        told.extend(changes.iter().map(kernels));
        self.events.resize(room, empty());
        let came = call(self.fd.as_fd(), &told, &mut self.events, timeout);
        self.changes = told;
        events.extend(self.events[..came?].iter().filter_map(ours));
        Ok(())
    }
}

/// One with nothing in it.
pub(super) fn empty() -> os::kevent {
    // SAFETY: all zeroes is a valid kevent: numbers and a null pointer.
    unsafe { std::mem::zeroed() }
}

fn kernels(change: &Kevent) -> os::kevent {
    let mut to = empty();
    to.ident = change.ident as _;
    to.filter = match change.filter {
        Filter::Read => os::EVFILT_READ,
        Filter::Write => os::EVFILT_WRITE,
    };
    let all = [
        (Flags::ADD, os::EV_ADD),
        (Flags::DELETE, os::EV_DELETE),
        (Flags::ENABLE, os::EV_ENABLE),
        (Flags::DISABLE, os::EV_DISABLE),
        (Flags::CLEAR, os::EV_CLEAR),
        (Flags::DISPATCH, os::EV_DISPATCH),
    ];
    for (ours, theirs) in all {
        if change.flags.contains(ours) {
            to.flags |= theirs;
        }
    }
    to
}

/// `None` for a filter that nobody has asked for.
fn ours(event: &os::kevent) -> Option<Kevent> {
    let filter = match event.filter {
        os::EVFILT_READ => Filter::Read,
        os::EVFILT_WRITE => Filter::Write,
        _ => return None,
    };
    let mut flags = Flags::empty();
    flags.set(Flags::EOF, event.flags & os::EV_EOF != 0);
    flags.set(Flags::ERROR, event.flags & os::EV_ERROR != 0);
    #[allow(clippy::unnecessary_cast, reason = "its width differs between systems")]
    let data = event.data as i64;
    Some(Kevent { ident: event.ident as RawFd, filter, flags, data })
}
