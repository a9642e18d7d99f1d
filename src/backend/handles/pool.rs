//! Waits of the system's thread pool, each for one handle: what the pool finds goes into a list, and a socket becomes readable.
//!
//! The pool has a thread for each 63 handles before Windows 8, and since then wait completion packets of the kernel, which cost no thread.
//!
//! Source: Microsoft, RegisterWaitForSingleObject, UnregisterWaitEx; ntdll of Windows 8, TpSetWait.

use super::WatchError;
use evd_proto::sys::{AsRawFd, RawFd, WaitEffect, WaitHandle, Wake, is_signalled, wait_effect};
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use windows_sys::Win32::Foundation::{DuplicateHandle, ERROR_INVALID_HANDLE, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::SYNCHRONIZE;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, INFINITE, RegisterWaitForSingleObject, UnregisterWaitEx, WT_EXECUTEINWAITTHREAD,
    WT_EXECUTEONLYONCE,
};

/// Where the pool tells what it found.
#[derive(Debug)]
pub(super) struct Found {
    list: Mutex<List>,
    /// Readable while there is something in the list.
    pub(super) wake: Wake,
}

#[derive(Debug, Default)]
struct List {
    numbers: Vec<RawFd>,
    /// Whether `wake` is readable, or about to be.
    told: bool,
}

impl Found {
    pub(super) fn new() -> io::Result<Arc<Found>> {
        Ok(Arc::new(Found { list: Mutex::default(), wake: Wake::new()? }))
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, list: &mut List) {
        if !std::mem::replace(&mut list.told, true) {
            self.wake.notify();
        }
    }

    /// Takes the numbers whose waits were satisfied. Some may mean another handle by now: see [`Wait::is_satisfied`].
    pub(super) fn take(&self) -> Vec<RawFd> {
        let mut list = self.lock();
        // Under the lock, so that nothing comes in between.
        if std::mem::take(&mut list.told) {
            self.wake.drain();
        }
        std::mem::take(&mut list.numbers)
    }

    /// Makes the socket readable though the list is empty.
    pub(super) fn show(&self) {
        let mut list = self.lock();
        self.tell(&mut list);
    }
}

/// What the pool's callback is given.
struct Context {
    found: Arc<Found>,
    number: RawFd,
    satisfied: AtomicBool,
}

/// One wait. Dropped, it is over: its callback does not run any more.
pub(super) struct Wait {
    registered: HANDLE,
    /// From a `Box`; the callback has it too until the wait is over.
    context: *mut Context,
}

// SAFETY: the registration is bound to no thread, and what the context points to is only shared: an atomic, and an `Arc` of what is `Sync`.
unsafe impl Send for Wait {}

impl Wait {
    /// Waits for `handle` once.
    ///
    /// # Errors
    /// Out of memory, or of threads.
    pub(super) fn new(handle: &OwnedHandle, number: RawFd, found: &Arc<Found>) -> io::Result<Wait> {
        let found = Arc::clone(found);
        let context = Box::into_raw(Box::new(Context { found, number, satisfied: AtomicBool::new(false) }));
        let (mut registered, flags) = (std::ptr::null_mut(), WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD);
        let raw = handle.as_raw_handle();
        // SAFETY: `context` lives until `drop`, after which the callback does not run; its owner keeps `handle` open for as long as this, see `Row`.
        let done = unsafe {
            let at = context.cast_const().cast();
            RegisterWaitForSingleObject(&mut registered, raw, Some(satisfied), at, INFINITE, flags)
        };
        if done == 0 {
            let e = io::Error::last_os_error();
            // SAFETY: nothing was registered, so it is ours alone.
            drop(unsafe { Box::from_raw(context) });
            return Err(e);
        }
        Ok(Wait { registered, context })
    }

    /// Whether the handle was signalled, and so what a wait takes of it is taken.
    pub(super) fn is_satisfied(&self) -> bool {
        // SAFETY: it lives until `drop`; the callback only reads it, too.
        unsafe { &*self.context }.satisfied.load(Ordering::Acquire)
    }

    /// Ends it; tells whether the handle was signalled before.
    pub(super) fn end(mut self) -> bool {
        self.unregister();
        self.is_satisfied()
    }

    /// `false`: it can't be ended, and its callback may run at any time.
    fn unregister(&mut self) -> bool {
        if self.registered.is_null() {
            return true;
        }
        // SAFETY: it is registered, and this is the only place that ends it. It returns when its callback does not run and will not; that one waits for nobody who is here.
        if unsafe { UnregisterWaitEx(self.registered, INVALID_HANDLE_VALUE) } == 0 {
            log::warn!("a wait of the thread pool can't be ended: {}", io::Error::last_os_error());
            return false;
        }
        self.registered = std::ptr::null_mut();
        true
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.unregister() {
            // SAFETY: it was a box, and the callback is over.
            drop(unsafe { Box::from_raw(self.context) });
        }
    }
}

/// Runs in a thread of the pool.
unsafe extern "system" fn satisfied(context: *mut core::ffi::c_void, _timed_out: bool) {
    // SAFETY: it is the `Context` of a wait that is not over.
    let context = unsafe { &*context.cast::<Context>() };
    context.satisfied.store(true, Ordering::Release);
    let mut list = context.found.lock();
    list.numbers.push(context.number);
    context.found.tell(&mut list);
}

/// Waits for no time; tells whether it is signalled, and takes what a wait takes.
pub(super) fn look(handle: &OwnedHandle) -> io::Result<bool> {
    is_signalled(WaitHandle(handle).as_raw_fd())
}

/// A handle of our own to what `number` is, to wait for it, and what a wait does to it.
///
/// # Errors
/// `BadFd`; `Unsupported`: it can't be waited for; `Os`: `ERROR_ACCESS_DENIED`, the handle may not be waited for.
pub(super) fn open(number: RawFd) -> Result<(OwnedHandle, WaitEffect), WatchError> {
    let effect = wait_effect(number).map_err(|e| match e.raw_os_error().map(|code| code as u32) {
        Some(ERROR_INVALID_HANDLE) => WatchError::BadFd,
        _ => WatchError::Os(e),
    })?;
    let effect = effect.ok_or(WatchError::Unsupported(
        "neither a socket nor a handle of a process, thread, event, semaphore, waitable timer or job",
    ))?;
    let mut own = std::ptr::null_mut();
    // SAFETY: it takes nothing; it is a number that means this process, and needs no closing.
    let me = unsafe { GetCurrentProcess() };
    // SAFETY: `own` is room for a handle; a number that is not open is an error.
    if unsafe { DuplicateHandle(me, number as usize as HANDLE, me, &mut own, SYNCHRONIZE, 0, 0) } == 0 {
        return Err(WatchError::Os(io::Error::last_os_error()));
    }
    // SAFETY: it was just made; nobody else owns it.
    Ok((unsafe { OwnedHandle::from_raw_handle(own) }, effect))
}
