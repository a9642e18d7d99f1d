//! What Windows has nothing for. Each says so: nothing here is done in silence by not doing it.
//!
//! - Fds beyond evd's own end (a service manager's store, `--keeper`): holds are in memory only.
//! - Signals of evd's own that it passes on (daemon scope): there are none.
//! - A filter of system calls, and privileges that could be given up.
//! - Users and groups by number: an evd serves the user that it runs as.

use super::{BorrowedFd, OwnedFd, RawFd, Received};
use std::convert::Infallible;
use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn lacking<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

const NO_STORE: &str = "Windows can't keep sockets beyond a process's end; Linux can";

/// Whether sockets can be kept for the next evd: on Windows not.
pub const KEEPS_FDS: bool = false;

/// A file in memory without a name: there is none on Windows.
#[derive(Debug)]
pub struct MemFile(Infallible);

impl MemFile {
    /// # Errors
    /// `Unsupported`, always.
    pub fn new(_name: &CStr) -> io::Result<MemFile> {
        lacking(NO_STORE)
    }

    /// # Errors
    /// `Unsupported`, always.
    pub fn adopt(_fd: OwnedFd) -> io::Result<MemFile> {
        lacking(NO_STORE)
    }

    /// # Errors
    /// There is none to be read.
    pub fn read_at(&self, _buf: &mut [u8], _at: u64) -> io::Result<usize> {
        match self.0 {}
    }

    /// # Errors
    /// There is none to be written to.
    pub fn write_all_at(&self, _bytes: &[u8], _at: u64) -> io::Result<()> {
        match self.0 {}
    }

    /// # Errors
    /// There is none to be cut.
    pub fn set_len(&self, _len: u64) -> io::Result<()> {
        match self.0 {}
    }
}

impl From<MemFile> for OwnedFd {
    fn from(file: MemFile) -> OwnedFd {
        match file.0 {}
    }
}

impl super::AsFd for MemFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

impl Read for MemFile {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Seek for MemFile {
    fn seek(&mut self, _to: SeekFrom) -> io::Result<u64> {
        match self.0 {}
    }
}

/// # Errors
/// `Unsupported`, always.
pub fn enlarge_send_buffer(_fd: BorrowedFd<'_>, _bytes: i32) -> io::Result<()> {
    lacking(NO_STORE)
}

/// # Errors
/// `Unsupported`, always.
pub fn peek_next(_fd: BorrowedFd<'_>, _buf: &mut [u8], _fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
    lacking(NO_STORE)
}

/// # Errors
/// `Unsupported`, always.
pub fn peek_from_start(_fd: BorrowedFd<'_>) -> io::Result<()> {
    lacking(NO_STORE)
}

/// # Errors
/// `Unsupported`, always.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    lacking("anonymous pipes are no sockets on Windows, and can't be waited for")
}

/// # Errors
/// `Unsupported`, always.
pub fn notify(_to: &OsStr, _text: &str, _fds: &[RawFd], _patience: Duration) -> io::Result<()> {
    lacking("there is no NOTIFY_SOCKET on Windows")
}

/// # Errors
/// `Unsupported`, always.
pub fn adopt_fd(_fd: RawFd) -> io::Result<OwnedFd> {
    lacking("nobody passes sockets by number on Windows")
}

/// # Errors
/// `Unsupported`, always.
pub fn adopt_listener(_fd: RawFd) -> io::Result<super::Listener> {
    lacking("nobody passes a listening pipe on Windows")
}

/// What a service manager has passed: nothing, on Windows.
///
/// # Errors
/// None.
pub fn passed_fds() -> io::Result<Vec<(RawFd, String)>> {
    Ok(Vec::new())
}

/// How often a service manager wants to hear of this process: never, on Windows.
pub fn watchdog_interval() -> Option<Duration> {
    None
}

/// What somebody told the service manager.
#[derive(Debug)]
pub struct Notification {
    /// Assignments, one a line.
    pub text: String,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
    /// Who said it.
    pub sender: Option<super::Peer>,
}

/// The service manager's end: there is none on Windows.
#[derive(Debug)]
pub struct NotifyReceiver(Infallible);

impl NotifyReceiver {
    /// # Errors
    /// `Unsupported`, always.
    pub fn bind(_path: &Path) -> io::Result<NotifyReceiver> {
        lacking(NO_STORE)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self.0 {}
    }

    /// # Errors
    /// None: there is none.
    pub fn restore(&mut self) -> io::Result<bool> {
        match self.0 {}
    }

    /// # Errors
    /// There is none to be read.
    pub fn next(&self) -> io::Result<Option<Notification>> {
        match self.0 {}
    }
}

impl super::AsFd for NotifyReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With a status.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// A child process that was given sockets: there is none on Windows.
#[derive(Debug)]
pub struct Running(Infallible);

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        match self.0 {}
    }

    /// # Errors
    /// There is none to be asked.
    pub fn ended(&self) -> io::Result<Option<Exit>> {
        match self.0 {}
    }
}

/// # Errors
/// `Unsupported`, always.
pub fn spawn_with_fds(
    _command: &[OsString],
    _variables: &[(&str, OsString)],
    _fds: &[(String, BorrowedFd<'_>)],
) -> io::Result<Running> {
    lacking("on Windows no child gets sockets by number")
}

/// Returns only the error.
pub fn exec_with_fds(_command: &[OsString], _fds: Vec<(String, OwnedFd)>) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, NO_EXEC)
}

const NO_EXEC: &str =
    "on Windows a program can't become another one and keep its sockets; take them in the program itself";

/// Whether `program` could be run with sockets by number: on Windows nothing can.
///
/// # Errors
/// `Unsupported`, always.
pub fn check_exec(_program: &OsStr) -> io::Result<()> {
    lacking(NO_EXEC)
}

/// Nothing is denied here.
///
/// # Errors
/// `Unsupported`, always.
#[cfg(feature = "harden")]
pub fn deny_calls() -> io::Result<usize> {
    lacking("there is no filter of system calls on Windows")
}

/// # Errors
/// `Unsupported`, always.
pub fn no_new_privileges() -> io::Result<()> {
    lacking("Windows knows no such right, and so it can't be given up")
}

/// # Errors
/// `Unsupported`, always.
pub fn count_up(_counter: BorrowedFd<'_>) -> io::Result<()> {
    lacking(super::file::NOTHING_COUNTS)
}

/// Nothing counts by itself: 0.
pub fn look_at_count(_fd: BorrowedFd<'_>) -> u64 {
    0
}

/// Nobody: users have no numbers on Windows.
pub fn user_id(_name: &str) -> Option<u32> {
    None
}

/// Nobody: groups have no numbers on Windows.
pub fn group_id(_name: &str) -> Option<u32> {
    None
}

/// Who is not known is refused before: no number that anybody has.
pub fn overflow_uid() -> u32 {
    u32::MAX
}

/// Which entries the method's own table in the kernel has: there is none that can be read.
pub fn kernel_entries(_fd: BorrowedFd<'_>) -> Option<String> {
    None
}

/// How many entries all tables of one user may have together: there is no such limit.
pub fn most_epoll_entries() -> Option<u64> {
    None
}

/// The resident memory of a process: not asked for.
pub fn resident_bytes(_pid: u32) -> Option<(u64, u64)> {
    None
}

/// Nothing is ignored: none of the signals that Windows has is for clients.
///
/// # Errors
/// None.
pub fn ignore_signals() -> io::Result<()> {
    Ok(())
}

/// A pipe that somebody listens at can't be removed.
pub fn is_listened_at(_path: &Path) -> bool {
    false
}

/// No socket is passed that has a path.
pub fn bound_path(_fd: BorrowedFd<'_>) -> Option<PathBuf> {
    None
}

/// Pipes have no directory.
///
/// # Errors
/// None.
pub fn make_directory(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Whether what is written to standard error is taken at once: it can't be told, so it is written.
pub fn stderr_takes() -> bool {
    true
}

/// Standard output, to be looked at whether its reader has left: on Windows that can't be, and is -1. The next write tells.
pub fn stdout_number() -> RawFd {
    -1
}

/// Has threads share pools of memory: the heap of Windows does so by itself.
pub fn share_memory() {}

/// Gives back memory that was freed: the heap of Windows does so by itself.
pub fn return_memory() {}

/// Where evd is by itself: the pipe of this user. There is no runtime directory on Windows.
pub fn default_socket(_runtime_directory: Option<PathBuf>) -> PathBuf {
    let user = super::identity::user_name();
    PathBuf::from(format!("{}evd-{}", super::pipe::PREFIX, user.as_deref().unwrap_or("user")))
}

/// One number reserved for life: methods on Windows keep what they watch, and need none.
#[derive(Debug)]
pub struct Slot(());

impl Slot {
    /// # Errors
    /// None.
    pub fn new() -> io::Result<Slot> {
        Ok(Slot(()))
    }

    /// # Errors
    /// `Unsupported`, always.
    pub fn place(&mut self, _fd: BorrowedFd<'_>) -> io::Result<BorrowedFd<'_>> {
        lacking("Windows can't put another socket behind a number")
    }

    /// Nothing was placed.
    pub fn clear(&mut self) {}
}
