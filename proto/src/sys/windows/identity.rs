//! Who a process belongs to. On Windows that is a SID of any length; what the rest of evd calls a uid is made of it here.
//!
//! evd serves one user on Windows: the one that it runs as. So a uid has to tell three apart: this user is the last part of its SID (its RID, 1001 for `S-1-5-21-..-1001`), SYSTEM
//! is to Windows what root is elsewhere and is 0, and anybody else has none and is refused. RIDs of several domains may be the same, so SIDs are compared and never uids.

use super::handle::{code, cvt_bool};
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::sync::OnceLock;
use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, HANDLE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{
    GetTokenInformation, PSECURITY_DESCRIPTOR, SECURITY_ATTRIBUTES, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenProcess, OpenProcessToken, PROCESS_DUP_HANDLE, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_SYNCHRONIZE,
};
use windows_sys::Win32::System::WindowsProgramming::GetUserNameW;

/// SYSTEM's SID.
const SYSTEM: &str = "S-1-5-18";

/// A process at the other end of a pipe. While this lives nobody else gets its number.
#[derive(Debug)]
pub(super) struct Process {
    pub pid: u32,
    /// Whose it is; `Err`: nobody's who may be here, and why.
    pub uid: Result<u32, String>,
    _open: Option<OwnedHandle>,
}

impl Process {
    /// Looks who process `pid` is.
    ///
    /// # Errors
    /// `ConnectionAborted`: it has ended.
    pub fn open(pid: u32) -> io::Result<Process> {
        let rights = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
        // SAFETY: takes numbers.
        let raw = unsafe { OpenProcess(rights, 0, pid) };
        if raw.is_null() {
            let e = io::Error::last_os_error();
            if code(&e) == ERROR_INVALID_PARAMETER {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the process has ended"));
            }
            return Ok(Process {
                pid,
                uid: Err(format!("process {pid} can't be looked at: {e}")),
                _open: None,
            });
        }
        // SAFETY: a new handle that nobody else owns.
        let open = unsafe { OwnedHandle::from_raw_handle(raw) };
        let uid = match (sid_of(open.as_raw_handle()), own_sid()) {
            (Err(e), _) | (_, Err(e)) => Err(format!("whose process {pid} is can't be told: {e}")),
            (Ok(sid), _) if sid == SYSTEM => Ok(0),
            (Ok(sid), Ok(own)) if sid == own => Ok(uid_of(&own)),
            (Ok(sid), Ok(own)) => Err(format!(
                "process {pid} belongs to {sid}; on Windows an evd serves only the user that it runs as, which is {own}"
            )),
        };
        Ok(Process { pid, uid, _open: Some(open) })
    }

    /// Whether it is a process of this one's user.
    pub fn is_own_users(&self) -> bool {
        self.uid == Ok(effective_ids().0)
    }

    /// Opens it to take handles out of it. It is the same process, as the number is not given anew while this lives.
    ///
    /// # Errors
    /// `PermissionDenied`: it may not be opened.
    pub fn open_to_take(&self) -> io::Result<OwnedHandle> {
        // SAFETY: takes numbers.
        let raw = unsafe { OpenProcess(PROCESS_DUP_HANDLE, 0, self.pid) };
        if raw.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new handle that nobody else owns.
        Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
    }
}

/// The user and group of this process: the last part of its user's SID, or 0 for SYSTEM.
pub fn effective_ids() -> (u32, u32) {
    let uid = own_sid().map_or(u32::MAX, |sid| uid_of(&sid));
    (uid, uid)
}

fn uid_of(sid: &str) -> u32 {
    match sid {
        SYSTEM => 0,
        sid => sid.rsplit('-').next().and_then(|rid| rid.parse().ok()).unwrap_or(u32::MAX),
    }
}

/// The SID of this process's user, as text.
fn own_sid() -> io::Result<String> {
    static OWN: OnceLock<String> = OnceLock::new();
    if let Some(sid) = OWN.get() {
        return Ok(sid.clone());
    }
    // SAFETY: takes nothing; what it returns need not be closed.
    let sid = sid_of(unsafe { GetCurrentProcess() })?;
    Ok(OWN.get_or_init(|| sid).clone())
}

/// The SID of a process's user, as text.
fn sid_of(process: HANDLE) -> io::Result<String> {
    let mut token: HANDLE = std::ptr::null_mut();
    // SAFETY: an open process, and room for one handle.
    cvt_bool(unsafe { OpenProcessToken(process, TOKEN_QUERY, &mut token) })?;
    // SAFETY: a new handle that nobody else owns.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    // A SID has at most 68 bytes, and stands behind the structure that points to it. Words, as it must be aligned.
    let mut room = [0u64; 32];
    let (at, len) = (room.as_mut_ptr(), size_of_val(&room) as u32);
    let mut needed = 0;
    // SAFETY: `at` is `len` writable bytes, aligned for a TOKEN_USER.
    let got = unsafe { GetTokenInformation(token.as_raw_handle(), TokenUser, at.cast(), len, &mut needed) };
    cvt_bool(got)?;
    // SAFETY: the call has written a TOKEN_USER there.
    let user = unsafe { &*at.cast::<TOKEN_USER>() };
    let mut text = std::ptr::null_mut();
    // SAFETY: the SID is in `room`; `text` is room for one pointer.
    cvt_bool(unsafe { ConvertSidToStringSidW(user.User.Sid, &mut text) })?;
    // SAFETY: the call has written a string that ends with a zero.
    let len = unsafe { length(text) };
    // SAFETY: as many readable units.
    let sid = String::from_utf16_lossy(unsafe { std::slice::from_raw_parts(text, len) });
    // SAFETY: what the call has allocated, freed once.
    unsafe { LocalFree(text.cast()) };
    Ok(sid)
}

/// How long a string is that ends with a zero.
///
/// # Safety
/// `at` points to such a string.
unsafe fn length(at: *const u16) -> usize {
    let mut len = 0;
    loop {
        // SAFETY: all units up to the zero lie in the string.
        let next = unsafe { at.add(len) };
        // SAFETY: as above, so it is readable.
        if unsafe { next.read() } == 0 {
            return len;
        }
        len += 1;
    }
}

/// The name of this process's user, for the name of its pipe.
pub(super) fn user_name() -> Option<String> {
    // The longest is 256.
    let mut room = [0u16; 257];
    let mut len = room.len() as u32;
    // SAFETY: `room` is `len` writable units.
    cvt_bool(unsafe { GetUserNameW(room.as_mut_ptr(), &mut len) }).ok()?;
    let name = String::from_utf16_lossy(room.get(..len.checked_sub(1)? as usize)?);
    Some(name).filter(|n| !n.is_empty())
}

/// Who may open a pipe: this process's user, and SYSTEM.
#[derive(Debug)]
pub(super) struct OwnerOnly(PSECURITY_DESCRIPTOR);

// SAFETY: a descriptor is memory that nobody writes to after it was made.
unsafe impl Send for OwnerOnly {}

impl OwnerOnly {
    /// # Errors
    /// The system does not tell who this process's user is.
    pub fn new() -> io::Result<OwnerOnly> {
        // Protected: nothing is inherited. GA: all rights.
        let text = format!("D:P(A;;GA;;;{})(A;;GA;;;SY)", own_sid()?);
        let wide = super::pipe::wide(&text);
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: a string that ends with a zero, and room for one pointer; the size is not asked for.
        cvt_bool(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                wide.as_ptr(),
                SDDL_REVISION_1,
                &mut descriptor,
                std::ptr::null_mut(),
            )
        })?;
        Ok(OwnerOnly(descriptor))
    }

    /// As calls take it; no child inherits what is made with it. Valid for as long as this lives.
    pub fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.0,
            bInheritHandle: 0,
        }
    }
}

impl Drop for OwnerOnly {
    fn drop(&mut self) {
        // SAFETY: what ConvertStringSecurityDescriptorToSecurityDescriptorW has allocated, freed once.
        unsafe { LocalFree(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_its_users_own() {
        let me = Process::open(std::process::id()).unwrap();
        assert!(me.is_own_users());
        let other = Process { pid: me.pid, uid: Ok(effective_ids().0 ^ 1), _open: None };
        assert!(!other.is_own_users());
        assert!(own_sid().unwrap().starts_with("S-1-5-"));
        assert!(user_name().is_some());
        assert_eq!((uid_of("S-1-5-21-1-2-3-1001"), uid_of("S-1-5-18"), uid_of("?")), (1001, 0, u32::MAX));
    }

    #[test]
    fn a_process_that_has_ended_is_no_peer() {
        let mut child = std::process::Command::new("cmd").args(["/c", "exit"]).spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        drop(child);
        let gone = Process::open(pid);
        assert!(gone.is_err() || gone.unwrap().uid.is_ok(), "it is gone, or kept by whoever looks at it");
    }
}
