//! Handles that evd pulls out of its client's process: no message carries them.
//!
//! - Whose process it is, the pipe has told, and not the client. It is opened when the pipe is accepted and stays so, so its number is nobody else's; that it was the client's then too is
//!   known by the pipe, which is still connected: with a process its end of the pipe is closed.
//! - Only a process of the same user: SYSTEM's may connect, and is not looked into.
//! - A number that means the caller itself in every process (-1, -2) would be evd's own process or thread. Nothing that no table has is asked for.
//! - What is pulled may not be what the client meant, if it has closed that meanwhile. So nothing is waited for before it is known what it is, and what a wait takes is never waited for:
//!   it would be gone for the client.
//!
//! Source: Microsoft, DuplicateHandle; "Wait Functions".

use super::bridge;
use super::handle::{code, cvt_bool};
use super::wait_handle::{WaitEffect, WaitHandle, rights_to_wait, wait_effect};
use super::{AsRawFd, BorrowedFd, RawFd};
use crate::sys::NotPulled;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use windows_sys::Win32::Foundation::{
    DUPLICATE_SAME_ACCESS, DuplicateHandle, ERROR_ACCESS_DENIED, ERROR_INVALID_HANDLE, ERROR_NOT_CONNECTED,
    ERROR_NOT_SUPPORTED, HANDLE,
};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// Whether there is anything to be pulled.
pub const PULLS_HANDLES: bool = true;

/// A handle out of another process, which may be waited for.
pub type PulledHandle = WaitHandle<OwnedHandle>;

/// Duplicates handle `number` of the process at the other end of `connection`, if that is the same user's and a wait takes nothing of it.
///
/// # Errors
/// With the system's code: `ERROR_INVALID_HANDLE`, it is not open there; `ERROR_NOT_SUPPORTED`, it can't be waited for from here; `ERROR_ACCESS_DENIED`, the process may not be opened, or
/// the handle not be waited for; `ERROR_PIPE_NOT_CONNECTED`, the client is gone; `ERROR_NOT_CONNECTED`, there is no pipe.
pub fn pull_handle(connection: BorrowedFd<'_>, number: u32) -> Result<PulledHandle, NotPulled> {
    let because =
        |code, why: &str| NotPulled { code: code as i32, text: format!("handle {number:#x}: {why}") };
    let failed = |what: &'static str| move |e: io::Error| because(code(&e), &format!("{what}: {e}"));
    let Some(bridge) = bridge::of(connection.as_raw_fd()) else {
        return Err(because(ERROR_NOT_CONNECTED, "only what comes through evd's pipe has a process"));
    };
    if number == 0 || number % 4 != 0 || RawFd::try_from(number).is_err() {
        let text = "a handle's number is a multiple of 4, and none that stands for its process or thread";
        return Err(because(ERROR_INVALID_HANDLE, text));
    }
    if !bridge.peer.is_own_users() {
        let text = "handles are taken out of processes of evd's own user only";
        return Err(because(ERROR_ACCESS_DENIED, text));
    }
    let from = bridge.source().map_err(failed("the client's process can't be opened"))?;
    // The rights that the client has, as which are needed depends on what it is.
    let whole = duplicate(from.as_raw_handle(), number as usize as HANDLE, None)
        .map_err(failed("it is not open in the client's process"))?;
    let raw = WaitHandle(&whole).as_raw_fd();
    match wait_effect(raw).map_err(failed("what it is can't be told"))? {
        Some(WaitEffect::None) => {}
        Some(WaitEffect::Takes) => {
            let text = "a wait takes its signal, so it is watched by its own process: only processes, threads, jobs and manual-reset events are watched by evd";
            return Err(because(ERROR_NOT_SUPPORTED, text));
        }
        None => {
            let text = "neither a process, a thread, a job nor a manual-reset event";
            return Err(because(ERROR_NOT_SUPPORTED, text));
        }
    }
    let rights = rights_to_wait(raw).map_err(failed("what it is can't be told"))?;
    // SAFETY: it takes nothing; it is a number that means this process, and needs no closing.
    let me = unsafe { GetCurrentProcess() };
    let own = duplicate(me, whole.as_raw_handle(), Some(rights));
    own.map(WaitHandle).map_err(failed("it may not be waited for"))
}

/// A duplicate of `handle` of process `from`, for this process; `None`: with the same rights.
fn duplicate(from: HANDLE, handle: HANDLE, rights: Option<u32>) -> io::Result<OwnedHandle> {
    let mut own = std::ptr::null_mut();
    let (access, options) = rights.map_or((0, DUPLICATE_SAME_ACCESS), |rights| (rights, 0));
    // SAFETY: it takes nothing; it is a number that means this process, and needs no closing.
    let me = unsafe { GetCurrentProcess() };
    // SAFETY: an open process, and room for a handle; a number that is not open there is an error.
    cvt_bool(unsafe { DuplicateHandle(from, handle, me, &mut own, access, 0, options) })?;
    // SAFETY: it was just made; nobody else owns it.
    Ok(unsafe { OwnedHandle::from_raw_handle(own) })
}

#[cfg(test)]
mod tests {
    use super::super::AsFd;
    use super::super::handle::Event;
    use super::super::socket::tests::{connected, end_of};
    use super::super::wait_handle::is_signalled;
    use super::*;
    use windows_sys::Win32::Foundation::ERROR_PIPE_NOT_CONNECTED;

    #[test]
    fn handles_come_out_of_the_process_at_the_other_end_while_it_is_there() {
        let event = Event::new(true).unwrap();
        let number = event.raw() as u32;
        let (client, evd) = connected();
        let pulled = pull_handle(evd.as_fd(), number).unwrap();
        assert_ne!(pulled.as_raw_fd() as u32, number);
        assert!(!is_signalled(pulled.as_raw_fd()).unwrap());
        event.set();
        assert!(is_signalled(pulled.as_raw_fd()).unwrap());
        assert_eq!(wait_effect(pulled.as_raw_fd()).unwrap(), Some(WaitEffect::None), "it may be asked");
        // Whose process it was can't be known any more if nothing was taken before.
        let (gone, other) = connected();
        drop((client, gone));
        end_of(&other);
        assert_eq!(pull_handle(other.as_fd(), number).unwrap_err().code, ERROR_PIPE_NOT_CONNECTED as i32);
        let (plain, _far) = super::super::socketpair().unwrap();
        assert_eq!(pull_handle(plain.as_fd(), number).unwrap_err().code, ERROR_NOT_CONNECTED as i32);
    }

    #[test]
    fn only_the_right_to_wait_is_taken_along() {
        let (_client, evd) = connected();
        let event = Event::new(true).unwrap();
        let pulled = pull_handle(evd.as_fd(), event.raw() as u32).unwrap();
        // SAFETY: an open handle.
        let set = unsafe { windows_sys::Win32::System::Threading::SetEvent(pulled.0.as_raw_handle()) };
        assert_eq!(set, 0, "it could be set");
        assert_eq!(code(&io::Error::last_os_error()), ERROR_ACCESS_DENIED);
    }
}
