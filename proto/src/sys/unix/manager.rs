//! What a service manager has passed to this process, and wants of it; and that there is none of Windows' kind.

use super::RawFd;
use std::io;
use std::time::Duration;

/// The fds that were passed, with their names. The environment says so no longer then.
///
/// # Errors
/// What the environment says is not true.
///
/// Source: sd_listen_fds(3).
pub fn passed_fds() -> io::Result<Vec<(RawFd, String)>> {
    Ok(sd_notify::listen_fds_with_names()?.collect())
}

/// How often the service manager wants to hear of this process at least; `None`: never.
///
/// Source: sd_watchdog_enabled(3).
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// On Windows tells the service manager that the service runs.
pub fn service_runs() {}

/// On Windows runs `work` as a service.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
pub fn run_service(_work: impl FnOnce() -> u8 + Send + 'static) -> io::Result<u8> {
    let text = "--service is for Windows' service manager; elsewhere evd needs nothing to be a service";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}
