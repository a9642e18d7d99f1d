//! Sockets for another process: described by `WSADuplicateSocketW` for that process and nobody else, and made a socket again there.
//!
//! With the description the receiving process has a handle already, which only `WSASocketW` gives an owner: if the description is lost on the way (its sender is killed just then),
//! that handle is open until the receiving process ends.
//!
//! Source: Microsoft, WSADuplicateSocketW, WSASocketW.

use super::fd::handle;
use super::{OwnedFd, RawFd, cvt};
use std::io;
use std::mem::MaybeUninit;
use std::os::windows::io::{FromRawSocket, RawSocket};
use windows_sys::Win32::Networking::WinSock::{
    FROM_PROTOCOL_INFO, INVALID_SOCKET, WSA_FLAG_NO_HANDLE_INHERIT, WSA_FLAG_OVERLAPPED, WSADuplicateSocketW,
    WSAPROTOCOL_INFOW, WSASocketW,
};

/// The bytes of a description: the same for programs of 32 and 64 bits.
pub(super) const LEN: usize = size_of::<WSAPROTOCOL_INFOW>();
const _: () = assert!(LEN == 628);

/// Whether it can be passed.
///
/// # Errors
/// `InvalidInput`: it is another handle. `WSAENOTSOCK`: it is not open.
pub(super) fn check(number: RawFd) -> io::Result<()> {
    super::file::socket_type(number).map(drop).map_err(|e| match super::wait_effect(number) {
        Ok(_) => {
            let text =
                format!("handle {number:#x} is no socket: on Windows only sockets are passed and held");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        }
        Err(_) => e,
    })
}

/// Appends the description of a socket for process `pid`.
///
/// # Errors
/// `WSAENOTSOCK`: it is not an open socket. `WSAEACCES`: the process may not be opened.
pub(super) fn describe(socket: RawFd, pid: u32, to: &mut Vec<u8>) -> io::Result<()> {
    let mut info = MaybeUninit::<WSAPROTOCOL_INFOW>::zeroed();
    // SAFETY: `info` is room for one description; a number that is no socket is an error.
    cvt(unsafe { WSADuplicateSocketW(handle(socket), pid, info.as_mut_ptr()) })?;
    // SAFETY: it was zeroed and then written, and has no padding: all its bytes are initialised.
    to.extend_from_slice(unsafe { std::slice::from_raw_parts(info.as_ptr().cast::<u8>(), LEN) });
    Ok(())
}

/// The socket that was described, which no child inherits. Each description is good for one.
///
/// # Errors
/// `WSAEINVAL`, `WSAENOTSOCK`: it is not the description of a socket for this process. `WSAEMFILE`.
pub(super) fn adopt(description: &[u8; LEN]) -> io::Result<OwnedFd> {
    // SAFETY: a description is numbers only, so any bytes are one; they may be unaligned.
    let info = unsafe { description.as_ptr().cast::<WSAPROTOCOL_INFOW>().read_unaligned() };
    let any = FROM_PROTOCOL_INFO;
    let flags = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;
    // SAFETY: a live description; what it says the system checks.
    let raw = unsafe { WSASocketW(any, any, any, &info, 0, flags) };
    if raw == INVALID_SOCKET {
        return Err(io::Error::last_os_error());
    }
    // Wine believes what the description says. Nothing is owned, and so closed, that is no socket.
    super::file::socket_type(RawFd::try_from(raw).unwrap_or(-1))?;
    // SAFETY: a socket that the call has just given us.
    Ok(unsafe { OwnedFd::from_raw_socket(raw as RawSocket) })
}
