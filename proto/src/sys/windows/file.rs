//! What a number refers to.

use super::fd::handle;
use super::{AsRawFd, BorrowedFd, OwnedFd, RawFd, cvt, wait_handle};
use crate::sys::{FileId, FileKind};
use std::io;
use std::time::Duration;
use windows_sys::Win32::Foundation::{
    ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY, ERROR_TOO_MANY_OPEN_FILES,
};
use windows_sys::Win32::Networking::WinSock::{SO_TYPE, SOL_SOCKET, WSAEMFILE, WSAENOBUFS, getsockopt};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};

/// Asks what `fd` is. Each socket is its own file: Windows does not tell which numbers are duplicates of each other.
///
/// # Errors
/// `WSAENOTSOCK` if `fd` is neither an open socket nor a handle that can be waited for.
pub fn identify(fd: BorrowedFd<'_>) -> io::Result<FileId> {
    let number = fd.as_raw_fd();
    let kind = match socket_type(number) {
        Ok(_) => FileKind::Socket,
        Err(e) => wait_handle::look(number).ok().flatten().ok_or(e)?.0,
    };
    Ok(FileId { kind, dev: 0, ino: number as u64, access: 0 })
}

pub(super) fn socket_type(number: RawFd) -> io::Result<i32> {
    let (mut kind, mut len) = (0i32, size_of::<i32>() as i32);
    let at = (&raw mut kind).cast();
    // SAFETY: `at` is `len` writable bytes; a number that is no socket gives WSAENOTSOCK.
    cvt(unsafe { getsockopt(handle(number), SOL_SOCKET, SO_TYPE, at, &mut len) })?;
    Ok(kind)
}

/// Whether `number` is an open socket.
///
/// Source: getsockopt of Winsock, SO_TYPE.
pub fn is_open(number: RawFd) -> bool {
    socket_type(number).is_ok()
}

/// Another number for the same socket, which no child inherits.
///
/// # Errors
/// `WSAEMFILE`, `WSAENOTSOCK`.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// Not on Windows.
///
/// # Errors
/// `Unsupported`, always.
pub fn counter() -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, NOTHING_COUNTS))
}

/// As [`counter`].
///
/// # Errors
/// `Unsupported`, always.
pub fn counting_timer(_first: Duration, _every: Option<Duration>) -> io::Result<OwnedFd> {
    counter()
}

/// As [`counter`].
///
/// # Errors
/// `Unsupported`, always.
pub fn take_count(_fd: BorrowedFd<'_>) -> io::Result<u64> {
    Err(io::Error::new(io::ErrorKind::Unsupported, NOTHING_COUNTS))
}

pub(super) const NOTHING_COUNTS: &str = "Windows has no sockets that count by themselves; Linux has";

/// What a socket is, as far as that is known without asking anybody who may not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The kind.
    pub kind: FileKind,
    /// Its number here.
    pub ino: u64,
    /// Sockets are no devices.
    pub device: Option<(u32, u32)>,
}

/// Looks what `fd` is.
///
/// # Errors
/// `WSAENOTSOCK`.
pub fn look(fd: BorrowedFd<'_>) -> io::Result<Look> {
    identify(fd).map(|id| Look { kind: id.kind, ino: id.ino, device: None })
}

/// Keeps a socket in reserve, so that there is one when there are no more.
///
/// # Errors
/// `WSAEMFILE`, `WSAENOBUFS`.
pub fn reserve_fd() -> io::Result<OwnedFd> {
    Ok(std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?.into())
}

/// Whether there is a [`replace`].
pub const CAN_REPLACE: bool = false;

/// Not on Windows, where a number can't be made to mean another file.
///
/// # Errors
/// `Unsupported`, always.
pub fn replace(_old: &OwnedFd, _new: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "Windows can't replace the socket behind a number"))
}

/// A process may have so many handles, and their numbers go up in steps of four.
const MOST_HANDLES: u64 = 1 << 24;

/// How many handles a process may have; there is no limit to be raised.
///
/// # Errors
/// None.
///
/// Source: Microsoft, "Kernel objects": 2^24 a process.
pub fn raise_open_files() -> io::Result<u64> {
    Ok(MOST_HANDLES)
}

/// Every number of a socket is below it.
pub fn most_open_files() -> RawFd {
    (4 * MOST_HANDLES) as RawFd
}

/// How many handles this process may have, and how many it has.
///
/// Source: GetProcessHandleCount.
pub fn open_files() -> (u64, usize) {
    let mut count = 0;
    // SAFETY: takes nothing; what it returns need not be closed.
    let me = unsafe { GetCurrentProcess() };
    // SAFETY: `count` is a live, writable number.
    unsafe { GetProcessHandleCount(me, &mut count) };
    (MOST_HANDLES, count as usize)
}

/// Whether this is what a system says that is out of sockets, handles or memory: it may be better another time.
///
/// Source: Windows Sockets Error Codes, System Error Codes.
pub fn is_shortage(e: &io::Error) -> bool {
    const CODES: [i32; 6] = [
        WSAEMFILE,
        WSAENOBUFS,
        ERROR_TOO_MANY_OPEN_FILES as i32,
        ERROR_NOT_ENOUGH_MEMORY as i32,
        ERROR_OUTOFMEMORY as i32,
        ERROR_NO_SYSTEM_RESOURCES as i32,
    ];
    e.raw_os_error().is_some_and(|code| CODES.contains(&code))
}

/// The error of who is out of sockets.
pub fn shortage() -> io::Error {
    io::Error::from_raw_os_error(WSAEMFILE)
}

/// Whether `number` was passed on to this program.
///
/// # Errors
/// `Unsupported`, always: on Windows no program gets sockets by number.
pub fn is_passed(_number: RawFd) -> io::Result<bool> {
    let text = "on Windows no program gets sockets by number: hold them in the program that has them";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}
