//! The kqueue of libkqueue(3), which does kevent over Linux's epoll: what `<kqueue/sys/event.h>` declares. Only with the feature `libkqueue`.
//!
//! Source: libkqueue 2.x, include/sys/event.h: FreeBSD's interface before version 12, with macOS' numbers.

#![allow(non_camel_case_types, reason = "the names that <sys/event.h> has")]

use libc::{c_int, c_void, timespec};

/// A change or a report.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct kevent {
    pub(super) ident: usize,
    pub(super) filter: i16,
    pub(super) flags: u16,
    pub(super) fflags: u32,
    pub(super) data: isize,
    pub(super) udata: *mut c_void,
}

pub(super) const EVFILT_READ: i16 = -1;
pub(super) const EVFILT_WRITE: i16 = -2;
pub(super) const EV_ADD: u16 = 0x0001;
pub(super) const EV_DELETE: u16 = 0x0002;
pub(super) const EV_ENABLE: u16 = 0x0004;
pub(super) const EV_DISABLE: u16 = 0x0008;
pub(super) const EV_CLEAR: u16 = 0x0020;
pub(super) const EV_DISPATCH: u16 = 0x0080;
pub(super) const EV_ERROR: u16 = 0x4000;
pub(super) const EV_EOF: u16 = 0x8000;

unsafe extern "C" {
    /// A new kqueue.
    pub(super) fn kqueue() -> c_int;
    /// kevent(2).
    pub(super) fn kevent(
        kq: c_int,
        changes: *const kevent,
        n_changes: c_int,
        events: *mut kevent,
        n_events: c_int,
        timeout: *const timespec,
    ) -> c_int;
}
