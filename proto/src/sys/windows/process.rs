//! This process and others.

use super::signals;
use std::io;

/// A process since its fork: on Windows there is no fork, and all are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(());

/// The generation of the calling process.
#[inline]
pub fn generation() -> Generation {
    Generation(())
}

/// What can be known of a thread by somebody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Waiting for something.
    Waiting,
    /// Running.
    Busy,
    /// Stopped by a debugger.
    Stopped,
    /// Ended.
    Gone,
    /// Can't be known from here: always, on Windows.
    Unknown,
}

/// Always [`ProcessState::Unknown`].
pub fn process_state(_pid: i32, _tid: i32) -> ProcessState {
    ProcessState::Unknown
}

/// Not known on Windows.
pub fn thread_name(_pid: i32, _tid: i32) -> Option<String> {
    None
}

/// The thread id of the caller.
pub fn current_tid() -> i32 {
    // SAFETY: takes nothing, can't fail.
    unsafe { windows_sys::Win32::System::Threading::GetCurrentThreadId() as i32 }
}

/// Whether this process runs with more rights than who started it: Windows has no programs that do so by themselves.
pub fn is_privileged() -> bool {
    false
}

/// Sends `signo` to `pid`, which is this process: others have their consoles.
///
/// # Errors
/// `Unsupported`: another process. `InvalidInput`: nothing here has asked for this signal, or it is none.
pub fn send_signal(pid: i32, signo: i32) -> io::Result<()> {
    if u32::try_from(pid) != Ok(std::process::id()) {
        let text = "on Windows a signal can only be sent to the own process";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    if signals::deliver(signo) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("nothing waits for signal {signo}")))
}
