//! The system calls that the cases need and std lacks.

use evd_proto::sys;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn check(ret: libc::c_int) -> libc::c_int {
    assert!(ret >= 0, "{}", io::Error::last_os_error());
    ret
}

/// An end of a pipe.
pub type End = File;
/// An end of a connection.
pub type Stream = UnixStream;
/// Two signals that end nothing here.
pub const SIGNALS: [i32; 2] = [libc::SIGUSR1, libc::SIGUSR2];
/// One that nobody raises by chance.
pub const RARE_SIGNAL: i32 = libc::SIGWINCH;

/// Whether what stands in for a pipe is a connection.
pub const PIPES_ARE_SOCKETS: bool = false;

/// How long a look lasts that finds all that was written before it.
pub const LOOK: Duration = Duration::ZERO;

/// Both ends of a connection.
pub fn connection() -> (Stream, Stream) {
    UnixStream::pair().unwrap()
}

/// A file that is always ready.
pub fn always_ready() -> Option<File> {
    Some(File::open(std::env::current_exe().unwrap()).unwrap())
}

/// Whether the kernel tells of a peer's close while there is something unread before it.
pub fn sees_a_close_behind_data() -> bool {
    true
}

/// Lends what `number` refers to, for as long as the caller keeps it open.
pub fn lend(number: i32) -> BorrowedFd<'static> {
    not_open(number)
}

/// The reading and the writing end of a pipe.
pub fn pipe() -> (File, File) {
    let (r, w) = sys::pipe().unwrap();
    (r.into(), w.into())
}

/// A dup of `fd` with a number of at least `least`.
pub fn dup_above(fd: BorrowedFd<'_>, least: i32) -> OwnedFd {
    // SAFETY: F_DUPFD_CLOEXEC takes a number.
    let number = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) });
    // SAFETY: the kernel has just made it; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Closes what `number` refers to and makes it refer to `fd`'s file, in one step.
pub fn replace(number: &OwnedFd, fd: BorrowedFd<'_>) {
    sys::replace(number, fd).unwrap();
}

/// Closes `old`; what is returned is `fd`'s file, under the same number.
pub fn exchange(old: OwnedFd, fd: BorrowedFd<'_>) -> OwnedFd {
    replace(&old, fd);
    old
}

/// A number that is not open.
pub fn bad_fd() -> BorrowedFd<'static> {
    not_open(900_000_000)
}

/// A number that is not open, chosen by the caller.
pub fn not_open(number: i32) -> BorrowedFd<'static> {
    // SAFETY: not -1; what a call says to a number that is not open is what is tested.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Sends `signo` to the calling thread; it was handled when this returns.
pub fn raise(signo: i32) {
    // SAFETY: raise takes a number.
    assert_eq!(unsafe { libc::raise(signo) }, 0);
}

/// A TCP socket that is not connected yet.
pub fn tcp_socket() -> OwnedFd {
    // SAFETY: socket takes three numbers.
    let number = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) });
    // SAFETY: the kernel has just made it; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    sys::close_on_exec(fd.as_fd()).unwrap();
    fd
}

/// Connects `fd` to a port of this machine.
pub fn connect(fd: BorrowedFd<'_>, port: u16) {
    // SAFETY: all zeroes is a valid sockaddr_in; some systems have its length in it, and don't look at it.
    let mut addr: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    addr.sin_family = libc::AF_INET as libc::sa_family_t;
    addr.sin_port = port.to_be();
    addr.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    let len = size_of_val(&addr) as libc::socklen_t;
    // SAFETY: `addr` is a live sockaddr_in of `len` bytes.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const addr).cast(), len) });
}

/// Names a thread for signals.
pub struct Thread(libc::pthread_t);

/// The calling thread.
pub fn this_thread() -> Thread {
    // SAFETY: it takes nothing and can't fail.
    Thread(unsafe { libc::pthread_self() })
}

impl Thread {
    /// Sends `signo` to the thread, which must not have ended.
    pub fn signal(&self, signo: i32) {
        // SAFETY: the caller keeps the thread alive.
        assert_eq!(unsafe { libc::pthread_kill(self.0, signo) }, 0);
    }
}

/// This process and its user.
pub fn ids() -> (i32, u32) {
    // SAFETY: it takes nothing.
    (std::process::id() as i32, unsafe { libc::getuid() })
}
