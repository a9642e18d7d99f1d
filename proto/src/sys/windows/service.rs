//! Windows' service manager, for an evd that is started by it.
//!
//! It starts the program, which says at once what it is; then it calls back, in a thread of its own, and tells the service to stop by a call in a third one. That is passed on as the
//! signal TERM, as is the system's shutdown, so that a service ends as a console program does. It may be stopped only once it runs, which it does when its work says so: who
//! depends on it is not started before, and one that can't begin is never said to have run.
//!
//! Source: Microsoft, StartServiceCtrlDispatcherW, RegisterServiceCtrlHandlerExW, SetServiceStatus, "Service State Transitions".

use super::pipe::wide;
use super::signals;
use std::ffi::c_void;
use std::io;
use std::sync::{Mutex, PoisonError};
use windows_sys::Win32::Foundation::{
    ERROR_CALL_NOT_IMPLEMENTED, ERROR_FAILED_SERVICE_CONTROLLER_CONNECT, ERROR_SERVICE_SPECIFIC_ERROR,
    NO_ERROR,
};
use windows_sys::Win32::System::Services::{
    RegisterServiceCtrlHandlerExW, SERVICE_ACCEPT_SHUTDOWN, SERVICE_ACCEPT_STOP, SERVICE_CONTROL_INTERROGATE,
    SERVICE_CONTROL_SHUTDOWN, SERVICE_CONTROL_STOP, SERVICE_RUNNING, SERVICE_START_PENDING, SERVICE_STATUS,
    SERVICE_STATUS_HANDLE, SERVICE_STOP_PENDING, SERVICE_STOPPED, SERVICE_TABLE_ENTRYW,
    SERVICE_WIN32_OWN_PROCESS, SetServiceStatus, StartServiceCtrlDispatcherW,
};

/// How long the manager waits for the beginning and for the end, in milliseconds. There is no second checkpoint: one that is stuck is to be seen.
const WITHIN: u32 = 10_000;

/// What the service does, until the manager calls for it.
static WORK: Mutex<Option<Box<dyn FnOnce() -> u8 + Send>>> = Mutex::new(None);
/// Where its state is told, and which was told last.
static STATUS: Mutex<Status> = Mutex::new(Status { to: 0, state: 0 });
/// Its exit status.
static ENDED: Mutex<u8> = Mutex::new(0);

#[derive(Clone, Copy)]
struct Status {
    /// 0: this is no service.
    to: usize,
    state: u32,
}

/// Tells the service manager that the service runs, if this program is one that was just started.
pub fn service_runs() {
    let mut status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    if status.state == SERVICE_START_PENDING {
        status.tell(SERVICE_RUNNING, 0);
    }
}

/// Runs `work` as the service that the service manager has started this program as; returns `work`'s exit status when it has ended. The signal TERM tells it to end,
/// and [`service_runs`] that it has begun.
///
/// # Errors
/// `NotConnected`: it was not the service manager who started this program.
pub fn run_service(work: impl FnOnce() -> u8 + Send + 'static) -> io::Result<u8> {
    *WORK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(work));
    // In a process of its own the name is not looked at.
    let mut name = wide("evd");
    let table = [
        SERVICE_TABLE_ENTRYW { lpServiceName: name.as_mut_ptr(), lpServiceProc: Some(service_main) },
        SERVICE_TABLE_ENTRYW { lpServiceName: std::ptr::null_mut(), lpServiceProc: None },
    ];
    // SAFETY: a table that ends with an empty entry; it and the name live until the call returns, which is when the service has ended.
    if unsafe { StartServiceCtrlDispatcherW(table.as_ptr()) } == 0 {
        let e = io::Error::last_os_error();
        let not_started = e.raw_os_error() == Some(ERROR_FAILED_SERVICE_CONTROLLER_CONNECT as i32);
        let text = "--service is for Windows' service manager, which did not start this evd (sc create evd binPath= \"...\\evd.exe --service\")";
        return Err(if not_started { io::Error::new(io::ErrorKind::NotConnected, text) } else { e });
    }
    Ok(*ENDED.lock().unwrap_or_else(PoisonError::into_inner))
}

unsafe extern "system" fn service_main(_count: u32, _arguments: *mut *mut u16) {
    let name = wide("evd");
    // SAFETY: a name that ends with a zero, a function of this program, and nothing to be given to it.
    let status = unsafe { RegisterServiceCtrlHandlerExW(name.as_ptr(), Some(control), std::ptr::null()) };
    STATUS.lock().unwrap_or_else(PoisonError::into_inner).to = status as usize;
    let work = WORK.lock().unwrap_or_else(PoisonError::into_inner).take();
    tell(SERVICE_START_PENDING, 0);
    let code = work.map_or(0, |work| {
        // A panic must not cross into the caller, which is not Rust.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101)
    });
    *ENDED.lock().unwrap_or_else(PoisonError::into_inner) = code;
    tell(SERVICE_STOPPED, code);
}

unsafe extern "system" fn control(code: u32, _kind: u32, _data: *mut c_void, _context: *mut c_void) -> u32 {
    match code {
        SERVICE_CONTROL_STOP | SERVICE_CONTROL_SHUTDOWN => {
            tell(SERVICE_STOP_PENDING, 0);
            signals::end();
            NO_ERROR
        }
        SERVICE_CONTROL_INTERROGATE => NO_ERROR,
        _ => ERROR_CALL_NOT_IMPLEMENTED,
    }
}

/// Tells the manager the service's state.
fn tell(state: u32, code: u8) {
    STATUS.lock().unwrap_or_else(PoisonError::into_inner).tell(state, code);
}

impl Status {
    fn tell(&mut self, state: u32, code: u8) {
        self.state = state;
        let is_running = state == SERVICE_RUNNING;
        let is_pending = matches!(state, SERVICE_START_PENDING | SERVICE_STOP_PENDING);
        let status = SERVICE_STATUS {
            dwServiceType: SERVICE_WIN32_OWN_PROCESS,
            dwCurrentState: state,
            dwControlsAccepted: if is_running { SERVICE_ACCEPT_STOP | SERVICE_ACCEPT_SHUTDOWN } else { 0 },
            dwWin32ExitCode: if code == 0 { NO_ERROR } else { ERROR_SERVICE_SPECIFIC_ERROR },
            dwServiceSpecificExitCode: code.into(),
            dwCheckPoint: is_pending.into(),
            dwWaitHint: if is_pending { WITHIN } else { 0 },
        };
        // SAFETY: a live status; a handle that is none is an error, and then nobody listens.
        unsafe { SetServiceStatus(self.to as SERVICE_STATUS_HANDLE, &status) };
    }
}
