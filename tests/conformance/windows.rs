//! The system calls that the cases need and std lacks, on Windows: connections of TCP stand in for pipes and for Unix sockets.

use evd_proto::sys::{self, AsRawFd, BorrowedFd, OwnedFd};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::windows::io::{BorrowedHandle, FromRawSocket};
use std::time::Duration;
use windows_sys::Win32::Networking::WinSock;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};

/// An end of a pipe.
pub type End = TcpStream;
/// An end of a connection.
pub type Stream = TcpStream;
/// Two signals: INT and BREAK.
pub const SIGNALS: [i32; 2] = [2, 21];
/// One that nobody raises by chance: TERM.
pub const RARE_SIGNAL: i32 = 15;

/// Whether what stands in for a pipe is a connection.
pub const PIPES_ARE_SOCKETS: bool = true;

/// How long a look lasts that finds all that was written before it: TCP delivers soon, not at once.
pub const LOOK: Duration = Duration::from_millis(200);

/// Both ends of a connection.
pub fn connection() -> (Stream, Stream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    for end in [&one, &other] {
        end.set_nodelay(true).unwrap();
    }
    (one, other)
}

/// The reading and the writing end of what stands in for a pipe.
pub fn pipe() -> (End, End) {
    connection()
}

/// No socket is always ready, and other files can't be watched.
pub fn always_ready() -> Option<End> {
    None
}

/// Whether the kernel tells of a peer's close while there is something unread before it: Wine does not, as it asks Linux by a read that leaves the data there.
pub fn sees_a_close_behind_data() -> bool {
    !is_wine()
}

/// Whether this is not Windows but Wine.
pub fn is_wine() -> bool {
    // SAFETY: a constant name.
    let ntdll = unsafe { GetModuleHandleA(c"ntdll.dll".as_ptr().cast()) };
    // SAFETY: a module that every process has, and a constant name.
    unsafe { GetProcAddress(ntdll, c"wine_get_version".as_ptr().cast()) }.is_some()
}

/// The number that stands for the calling process in every process.
pub fn this_process() -> BorrowedHandle<'static> {
    // SAFETY: it is always there, and needs no closing.
    unsafe { BorrowedHandle::borrow_raw(-1isize as _) }
}

/// Lends what `number` refers to, for as long as the caller keeps it open.
pub fn lend(number: i32) -> BorrowedFd<'static> {
    // SAFETY: not -1; the caller keeps it open, or wants to know what a call says to a number that is not.
    unsafe { BorrowedFd::borrow_raw(number as _) }
}

/// A number that is not open.
pub fn bad_fd() -> BorrowedFd<'static> {
    not_open(900_000_000)
}

/// A number that is not open, chosen by the caller.
pub fn not_open(number: i32) -> BorrowedFd<'static> {
    lend(number)
}

/// A duplicate of `fd` with a number of at least `least`.
pub fn dup_above(fd: BorrowedFd<'_>, least: i32) -> OwnedFd {
    let mut low = Vec::new();
    loop {
        let one = sys::duplicate(fd).unwrap();
        if one.as_raw_fd() >= least {
            return one;
        }
        low.push(one);
    }
}

/// Closes `old`; what is returned is `fd`'s socket, often under the same number.
pub fn exchange(old: OwnedFd, fd: BorrowedFd<'_>) -> OwnedFd {
    drop(old);
    sys::duplicate(fd).unwrap()
}

/// Has `signo` come to this process, as if its console had sent it.
pub fn raise(signo: i32) {
    sys::send_signal(std::process::id() as i32, signo).unwrap();
}

/// A TCP socket that is not connected yet.
pub fn tcp_socket() -> OwnedFd {
    // SAFETY: it takes three numbers.
    let socket = unsafe { WinSock::socket(WinSock::AF_INET.into(), WinSock::SOCK_STREAM, 0) };
    assert_ne!(socket, WinSock::INVALID_SOCKET, "{}", io::Error::last_os_error());
    // SAFETY: it was just made; nobody else owns it.
    unsafe { OwnedFd::from_raw_socket(socket as _) }
}

/// Connects `fd` to a port of this machine.
pub fn connect(fd: BorrowedFd<'_>, port: u16) {
    let mut addr =
        WinSock::SOCKADDR_IN { sin_family: WinSock::AF_INET, sin_port: port.to_be(), ..Default::default() };
    addr.sin_addr.S_un.S_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    let len = size_of_val(&addr) as i32;
    // SAFETY: `addr` is a live SOCKADDR_IN of `len` bytes.
    let failed = unsafe { WinSock::connect(fd.as_raw_fd() as usize, (&raw const addr).cast(), len) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
}
