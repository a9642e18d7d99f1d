//! Handles that can be waited for, beside sockets: processes, threads, events, semaphores, waitable timers and jobs.
//!
//! A handle and a socket have their numbers from one table, so a number tells which it is, and [`WaitHandle`] goes wherever a socket does. Calls of Winsock refuse it with `WSAENOTSOCK`.
//!
//! Source: Microsoft, "Wait Functions", NtQueryObject, NtQueryEvent.

use super::RawFd;
use super::fd::handle;
use crate::sys::FileKind;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, AsRawSocket, AsSocket, BorrowedSocket, RawSocket};
use windows_sys::Wdk::Foundation::{NtQueryObject, ObjectTypeInformation};
use windows_sys::Win32::Foundation::{
    HANDLE, NTSTATUS, RtlNtStatusToDosError, UNICODE_STRING, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::SYNCHRONIZE;
use windows_sys::Win32::System::Threading::WaitForSingleObject;

/// The right to ask an event what it is. Source: Microsoft, "Synchronization Object Security and Access Rights".
const EVENT_QUERY_STATE: u32 = 1;

/// A handle as the source of an event: READ when it is signalled. `H` owns or borrows the handle: an `OwnedHandle`, a `std::process::Child`, an `Rc` of one.
///
/// A report is one wait that was satisfied, so it does what a wait does:
///
/// | handle | signalled | a report |
/// |---|---|---|
/// | process, thread, job | when it has ended, or its time was over | changes nothing: it is reported with every wait |
/// | manual-reset event | until it is reset | changes nothing |
/// | auto-reset event | when it is set | resets it |
/// | semaphore | while its count is not 0 | takes one from its count |
/// | waitable timer | when it is due | resets it, unless it is a manual-reset one |
///
/// What was taken and not reported yet is kept while the event is deleted, and reported when it is added again; with the event itself it is gone. WRITE and CLOSED are never reported, and
/// there is no edge. Mutexes are refused, as they would belong to the thread that waits; files, pipes and consoles are refused too. So are numbers that stand for the caller itself, as
/// `GetCurrentProcess` gives: duplicate it.
///
/// A base watches a duplicate of its own: a handle that is closed before its event is deleted is still reported. Of those that a report changes nothing of, evd has a duplicate while they are
/// parked there, which it takes itself out of this process; the others stay in this process, as a wait of evd's would take what is this program's, and lose it if either ended just then.
#[derive(Clone, Debug)]
pub struct WaitHandle<H>(pub H);

impl<H: AsHandle> AsSocket for WaitHandle<H> {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        // SAFETY: not INVALID_SOCKET, see `number`; what `H` lends it keeps open for as long as it is borrowed. It is no socket, which every call of Winsock finds out.
        unsafe { BorrowedSocket::borrow_raw(number(&self.0)) }
    }
}

impl<H: AsHandle> AsRawSocket for WaitHandle<H> {
    fn as_raw_socket(&self) -> RawSocket {
        number(&self.0)
    }
}

/// 0, which is never open, for a number that is no entry of the table.
fn number(handle: &impl AsHandle) -> RawSocket {
    i32::try_from(handle.as_handle().as_raw_handle() as isize).map_or(0, |n| n.max(0)) as RawSocket
}

/// What a wait does to a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEffect {
    /// Nothing: it stays signalled.
    None,
    /// It takes the signal, or one of them; also said where it can't be known.
    Takes,
}

/// What a wait for this handle does to it. `None`: it can't be waited for, or only by a thread that then owns it.
///
/// # Errors
/// `ERROR_INVALID_HANDLE`: it is not open.
pub fn wait_effect(number: RawFd) -> io::Result<Option<WaitEffect>> {
    look(number).map(|kind| kind.map(|(_, effect)| effect))
}

/// What it is, as it is shown, and what a wait does to it.
pub(super) fn look(number: RawFd) -> io::Result<Option<(FileKind, WaitEffect)>> {
    Ok(match type_name(number)?.as_str() {
        "Process" => Some((FileKind::PidFd, WaitEffect::None)),
        "Thread" | "Job" => Some((FileKind::Other, WaitEffect::None)),
        "Event" if is_manual_reset(number) => Some((FileKind::Other, WaitEffect::None)),
        "Event" | "Semaphore" | "Timer" => Some((FileKind::SignalFd, WaitEffect::Takes)),
        _ => None,
    })
}

/// The rights that a duplicate needs, to be waited for and to tell what a wait does to it.
///
/// # Errors
/// As [`wait_effect`].
pub(super) fn rights_to_wait(number: RawFd) -> io::Result<u32> {
    Ok(if type_name(number)? == "Event" { SYNCHRONIZE | EVENT_QUERY_STATE } else { SYNCHRONIZE })
}

/// Waits for no time; tells whether it is signalled, and takes what a wait takes.
///
/// # Errors
/// It is not open, or may not be waited for.
pub fn is_signalled(number: RawFd) -> io::Result<bool> {
    // SAFETY: a number that is not open is an error.
    match unsafe { WaitForSingleObject(handle(number) as HANDLE, 0) } {
        WAIT_OBJECT_0 => Ok(true),
        WAIT_TIMEOUT => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

fn type_name(number: RawFd) -> io::Result<String> {
    // A header with the name behind it; names are short. Of words, so that it is aligned.
    let mut room = [0u64; 128];
    let (at, bytes) = (room.as_mut_ptr(), size_of_val(&room) as u32);
    let raw = handle(number) as HANDLE;
    // SAFETY: `at` is `bytes` writable bytes; a number that is not open is an error.
    let status = unsafe { NtQueryObject(raw, ObjectTypeInformation, at.cast(), bytes, std::ptr::null_mut()) };
    if status < 0 {
        // SAFETY: it takes a number.
        let code = unsafe { RtlNtStatusToDosError(status) };
        return Err(io::Error::from_raw_os_error(code as i32));
    }
    // SAFETY: the call has filled in a structure that begins with a UNICODE_STRING, for which `room` is aligned and large enough.
    let UNICODE_STRING { Length, Buffer, .. } = unsafe { at.cast::<UNICODE_STRING>().read() };
    if Buffer.is_null() {
        return Ok(String::new());
    }
    // SAFETY: `Buffer` points to `Length` bytes within `room`, which lives and is not written to meanwhile.
    let name = unsafe { std::slice::from_raw_parts(Buffer, usize::from(Length) / 2) };
    Ok(String::from_utf16_lossy(name))
}

/// `EVENT_BASIC_INFORMATION`. Source: Microsoft, winternl.h; Wine, include/winternl.h.
#[repr(C)]
#[derive(Default)]
struct EventInformation {
    /// 0 is a notification event, which is reset by hand.
    kind: i32,
    state: i32,
}

#[link(name = "ntdll")]
unsafe extern "system" {
    fn NtQueryEvent(
        event: HANDLE,
        class: i32,
        into: *mut EventInformation,
        bytes: u32,
        len: *mut u32,
    ) -> NTSTATUS;
}

/// Whether an event stays set until it is reset; false if the handle has no right to know.
fn is_manual_reset(number: RawFd) -> bool {
    let mut info = EventInformation::default();
    let bytes = size_of::<EventInformation>() as u32;
    // SAFETY: `info` is `bytes` writable bytes; a handle of another kind is an error.
    let status = unsafe { NtQueryEvent(handle(number) as HANDLE, 0, &mut info, bytes, std::ptr::null_mut()) };
    status >= 0 && info.kind == 0
}
