//! Named pipes: making an end and opening one. What is made of them is in `bridge` and `listener`.

use super::handle::{code, cvt_bool};
use super::identity::OwnerOnly;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use windows_sys::Win32::Foundation::{
    ERROR_PIPE_BUSY, ERROR_SEM_TIMEOUT, GENERIC_READ, GENERIC_WRITE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING, PIPE_ACCESS_DUPLEX,
    SECURITY_IDENTIFICATION, SECURITY_SQOS_PRESENT,
};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, GetNamedPipeClientProcessId, GetNamedPipeServerProcessId, PIPE_READMODE_BYTE,
    PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_BYTE, PIPE_UNLIMITED_INSTANCES, PIPE_WAIT, WaitNamedPipeW,
};

/// What every name begins with.
pub(super) const PREFIX: &str = r"\\.\pipe\";
/// What the system may keep of what was written and not read, in bytes, each way.
const BUFFER: u32 = 64 * 1024;
/// How long somebody waits for an end that is free, in milliseconds. There are several, and the next ones are made at once.
const FREE_WITHIN: u32 = 50;
const TRIES: usize = 20;

/// `text` as calls take it.
pub(super) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// A pipe's name as calls take it.
///
/// # Errors
/// `InvalidInput`: it is not one of this machine.
fn name(path: &Path) -> io::Result<Vec<u16>> {
    let given = path.as_os_str();
    let units: Vec<u16> = given.encode_wide().collect();
    let rest = given.to_str().and_then(|p| p.strip_prefix(PREFIX));
    // The whole name has at most 256.
    if units.len() > 256 || units.contains(&0) || rest.is_none_or(|r| r.is_empty() || r.contains('\\')) {
        let text = format!(
            r"on Windows evd is at a named pipe: {PREFIX}NAME, at most 256 characters and no further backslash, not {}",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(units.into_iter().chain([0]).collect())
}

fn own(raw: std::os::windows::io::RawHandle) -> io::Result<OwnedHandle> {
    if raw == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: callers pass what a call has just returned; nobody else owns it.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// Whether somebody serves this name.
pub(super) fn is_served(path: &Path) -> io::Result<bool> {
    let name = name(path)?;
    // SAFETY: a string that ends with a zero.
    match cvt_bool(unsafe { WaitNamedPipeW(name.as_ptr(), 1) }) {
        Ok(()) => Ok(true),
        Err(e) => Ok(matches!(code(&e), ERROR_SEM_TIMEOUT | ERROR_PIPE_BUSY)),
    }
}

/// Makes one end to be connected to, for this user and SYSTEM, on this machine only. `first`: there must be none yet.
///
/// # Errors
/// `PermissionDenied`: there is one already. `InvalidInput`: the name.
///
/// Source: CreateNamedPipeW. Wine does not know FILE_FLAG_FIRST_PIPE_INSTANCE, and lets others in than the access list says.
pub(super) fn create(path: &Path, access: &OwnerOnly, first: bool) -> io::Result<OwnedHandle> {
    let name = name(path)?;
    let first = if first { FILE_FLAG_FIRST_PIPE_INSTANCE } else { 0 };
    let attributes = access.attributes();
    // SAFETY: a string that ends with a zero, and attributes whose descriptor lives as long as `access`.
    own(unsafe {
        CreateNamedPipeW(
            name.as_ptr(),
            PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | first,
            PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
            PIPE_UNLIMITED_INSTANCES,
            BUFFER,
            BUFFER,
            0,
            &attributes,
        )
    })
}

/// Connects to a pipe. Whoever serves it learns who we are, and can't act as us.
///
/// # Errors
/// `NotFound`: nobody serves it. `WouldBlock`: all its ends are taken. `PermissionDenied`. `InvalidInput`: the name.
pub(super) fn open(path: &Path) -> io::Result<OwnedHandle> {
    let name = name(path)?;
    let flags = FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION;
    for _ in 0..TRIES {
        let (rights, none) = (GENERIC_READ | GENERIC_WRITE, std::ptr::null_mut());
        // SAFETY: a string that ends with a zero; no attributes and no template, for which null is allowed.
        match own(unsafe {
            CreateFileW(name.as_ptr(), rights, 0, std::ptr::null(), OPEN_EXISTING, flags, none)
        }) {
            Err(e) if code(&e) == ERROR_PIPE_BUSY => {
                // SAFETY: a string that ends with a zero. Whether one is free now is seen by the next try.
                unsafe { WaitNamedPipeW(name.as_ptr(), FREE_WITHIN) };
            }
            other => return other,
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "all ends of evd's pipe are taken; try again"))
}

/// The process that connected to this end.
pub(super) fn client_of(pipe: &OwnedHandle) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: an open pipe, and room for a number.
    cvt_bool(unsafe { GetNamedPipeClientProcessId(pipe.as_raw_handle(), &mut pid) })?;
    Ok(pid)
}

/// The process that made the end that this one is connected to.
pub(super) fn server_of(pipe: &OwnedHandle) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: an open pipe, and room for a number.
    cvt_bool(unsafe { GetNamedPipeServerProcessId(pipe.as_raw_handle(), &mut pid) })?;
    Ok(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pipe_of_this_machine_is_refused() {
        for bad in [r"\\.\pipe\", "/run/evd/socket", r"\\server\pipe\evd", r"\\.\pipe\a\b", ""] {
            let e = name(Path::new(bad)).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{bad}");
            assert!(e.to_string().contains(r"\\.\pipe\NAME"), "{e}");
        }
        assert!(name(Path::new(&format!("{PREFIX}{}", "x".repeat(248)))).is_err());
        assert!(name(Path::new(r"\\.\pipe\evd-somebody")).is_ok());
    }
}
