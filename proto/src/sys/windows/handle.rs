//! Events, waits for several handles, and overlapped operations on pipes.

use std::cell::UnsafeCell;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::sync::Arc;
use std::time::Duration;
use windows_sys::Wdk::Storage::FileSystem::{
    FILE_PIPE_CONNECTED_STATE, FILE_PIPE_LOCAL_INFORMATION, FilePipeLocalInformation, NtQueryInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_IO_INCOMPLETE, ERROR_IO_PENDING, ERROR_PIPE_CONNECTED, HANDLE, WAIT_FAILED, WAIT_OBJECT_0,
    WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, IO_STATUS_BLOCK, OVERLAPPED};
use windows_sys::Win32::System::Pipes::ConnectNamedPipe;
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, SetEvent, WaitForMultipleObjects};
use windows_sys::core::BOOL;

/// Turns the return value of a call that says `FALSE` on failure into a `Result`.
pub(super) fn cvt_bool(ret: BOOL) -> io::Result<()> {
    if ret == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An error's code as the declarations have it.
pub(super) fn code(e: &io::Error) -> u32 {
    e.raw_os_error().unwrap_or(0) as u32
}

/// An event that nobody else knows.
#[derive(Debug)]
pub(super) struct Event(OwnedHandle);

impl Event {
    /// One that is not set. `manual`: it stays set until somebody resets it, else one wait takes it.
    pub fn new(manual: bool) -> io::Result<Event> {
        // SAFETY: no attributes and no name: null is allowed for both.
        let raw = unsafe { CreateEventW(std::ptr::null(), manual.into(), 0, std::ptr::null()) };
        if raw.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new handle that nobody else owns.
        Ok(Event(unsafe { OwnedHandle::from_raw_handle(raw) }))
    }

    pub fn set(&self) {
        // SAFETY: an open event; it can't fail then.
        unsafe { SetEvent(self.raw()) };
    }

    pub fn raw(&self) -> HANDLE {
        self.0.as_raw_handle()
    }
}

/// Waits until one of at most 64 handles is signalled, and says which. `None`: the time is over.
///
/// # Errors
/// One of them is not a handle that can be waited for.
pub(super) fn wait_any(handles: &[HANDLE], timeout: Option<Duration>) -> io::Result<Option<usize>> {
    let ms = timeout.map_or(INFINITE, |t| u32::try_from(t.as_millis()).unwrap_or(INFINITE - 1));
    // SAFETY: the slice is as many readable handles; one that is not open is an error.
    match unsafe { WaitForMultipleObjects(handles.len() as u32, handles.as_ptr(), 0, ms) } {
        WAIT_TIMEOUT => Ok(None),
        WAIT_FAILED => Err(io::Error::last_os_error()),
        n => Ok(Some((n - WAIT_OBJECT_0) as usize)),
    }
}

/// One overlapped operation of a pipe. The system writes to what it owns until it has ended: so it is never given up before.
#[derive(Debug)]
pub(super) struct Operation {
    pipe: Arc<OwnedHandle>,
    event: Event,
    overlapped: Box<UnsafeCell<OVERLAPPED>>,
    buffer: Vec<u8>,
    pending: bool,
}

// SAFETY: the pointers in `overlapped` are its event's handle, which any thread may use, and what the system keeps there for itself.
unsafe impl Send for Operation {}

impl Operation {
    pub fn new(pipe: &Arc<OwnedHandle>) -> io::Result<Operation> {
        let event = Event::new(true)?;
        let overlapped = OVERLAPPED { hEvent: event.raw(), ..OVERLAPPED::default() };
        let overlapped = Box::new(UnsafeCell::new(overlapped));
        Ok(Operation { pipe: Arc::clone(pipe), event, overlapped, buffer: Vec::new(), pending: false })
    }

    /// Set when what was started has ended.
    pub fn event(&self) -> HANDLE {
        self.event.raw()
    }

    /// Whether there is somebody at the other end.
    ///
    /// Source: Microsoft, NtQueryInformationFile, FILE_PIPE_LOCAL_INFORMATION.
    pub fn is_connected(&self) -> bool {
        let (mut info, mut status) = (FILE_PIPE_LOCAL_INFORMATION::default(), IO_STATUS_BLOCK::default());
        let (at, bytes) = ((&raw mut info).cast(), size_of_val(&info) as u32);
        let pipe = self.pipe.as_raw_handle();
        // SAFETY: an open pipe, and live structures, of which the one has `bytes` bytes.
        let got = unsafe { NtQueryInformationFile(pipe, &mut status, at, bytes, FilePipeLocalInformation) };
        got >= 0 && info.NamedPipeState == FILE_PIPE_CONNECTED_STATE
    }

    /// Whether something was started and its end was not taken.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// What was read.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Starts to read at most `most` bytes. `Some`: it has ended at once.
    ///
    /// # Errors
    /// As ReadFile: `BrokenPipe` is the end.
    pub fn read(&mut self, most: usize) -> io::Result<Option<usize>> {
        debug_assert!(!self.pending);
        self.buffer.resize(most, 0);
        let (pipe, at, len) = (self.pipe.as_raw_handle(), self.buffer.as_mut_ptr(), most as u32);
        // SAFETY: the buffer is `len` writable bytes, and it and `overlapped` stay where they are until the operation has ended: nothing touches them while `pending`.
        let done = unsafe { ReadFile(pipe, at, len, std::ptr::null_mut(), self.overlapped.get()) };
        self.started(done)
    }

    /// Starts to write all of `bytes`. `Some`: it has ended at once.
    ///
    /// # Errors
    /// As WriteFile: `BrokenPipe` and `ERROR_NO_DATA` mean that the other end is gone.
    pub fn write(&mut self, bytes: Vec<u8>) -> io::Result<Option<usize>> {
        debug_assert!(!self.pending);
        self.buffer = bytes;
        let (pipe, at, len) = (self.pipe.as_raw_handle(), self.buffer.as_ptr(), self.buffer.len() as u32);
        // SAFETY: as for reading; the bytes are only read.
        let done = unsafe { WriteFile(pipe, at, len, std::ptr::null_mut(), self.overlapped.get()) };
        self.started(done)
    }

    /// Starts to wait for somebody who connects to this end. `Some`: somebody has.
    ///
    /// # Errors
    /// As ConnectNamedPipe: `ERROR_NO_DATA` if somebody came and is gone.
    pub fn connect(&mut self) -> io::Result<Option<usize>> {
        debug_assert!(!self.pending);
        // SAFETY: `overlapped` stays where it is until the operation has ended.
        let done = unsafe { ConnectNamedPipe(self.pipe.as_raw_handle(), self.overlapped.get()) };
        match self.started(done) {
            Err(e) if code(&e) == ERROR_PIPE_CONNECTED => Ok(Some(0)),
            other => other,
        }
    }

    fn started(&mut self, done: BOOL) -> io::Result<Option<usize>> {
        if done == 0 {
            let e = io::Error::last_os_error();
            if code(&e) != ERROR_IO_PENDING {
                return Err(e);
            }
        }
        self.pending = true;
        self.ended(false)
    }

    /// How it ended; `None`: it has not, which can't be if the caller waits.
    ///
    /// # Errors
    /// What the operation gave.
    pub fn ended(&mut self, wait: bool) -> io::Result<Option<usize>> {
        let mut len = 0;
        let (pipe, overlapped) = (self.pipe.as_raw_handle(), self.overlapped.get());
        // SAFETY: the operation was started with this `overlapped`, which is live; `len` is writable.
        let got = cvt_bool(unsafe { GetOverlappedResult(pipe, overlapped, &mut len, wait.into()) });
        match got {
            Err(e) if code(&e) == ERROR_IO_INCOMPLETE => return Ok(None),
            _ => self.pending = false,
        }
        got.map(|()| Some(len as usize))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.pending {
            // SAFETY: an open pipe, and the `overlapped` that the operation was started with. It may just have ended, which is an error that does not matter.
            unsafe { CancelIoEx(self.pipe.as_raw_handle(), self.overlapped.get()) };
            // Only then are the buffer and `overlapped` ours again.
            let _ = self.ended(true);
        }
    }
}
