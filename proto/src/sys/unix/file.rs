//! What an fd refers to, limits on fds, and numbers that are reserved for life.

use super::{Generation, PollFd, cvt, fresh, generation, poll, system};
use crate::sys::{FileId, FileKind, What};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// Asks the kernel what `fd` is: one `fstat`, for pipes also `F_GETFL`, for nameless files also one `readlink`.
///
/// # Errors
/// `EBADF` if `fd` is not open.
///
/// Only Linux tells nameless files apart; elsewhere they are pipes or sockets, or [`FileKind::Other`].
///
/// Source: fstat(2), proc(5) on `/proc/self/fd`.
pub fn identify(fd: BorrowedFd<'_>) -> io::Result<FileId> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `st` is room for one `stat`, which the kernel fills when it returns 0; kept by this function.
    cvt(unsafe { libc::fstat(fd.as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: fstat succeeded, so all of `st` is initialised.
    let st = unsafe { st.assume_init() };
    let mut access = 0;
    let kind = kind_of(st.st_mode, fd);
    if kind == FileKind::Pipe {
        // SAFETY: F_GETFL takes no pointer; a closed fd gives EBADF.
        let flags = cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
        access = (flags & libc::O_ACCMODE) as u8;
    }
    // The widths of these fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    let (dev, ino) = (st.st_dev as u64, st.st_ino as u64);
    Ok(FileId { kind, dev, ino, access })
}

/// What an fd is, as far as that is known without asking its file system, which may take its time or never answer: see [`look`](super::look).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The kind.
    pub kind: FileKind,
    /// Inode number.
    pub ino: u64,
    /// Major and minor number, if it is a device. `None`: they are not known here.
    pub device: Option<(u32, u32)>,
}

/// The kind: what the mode tells; for nameless files also one `readlink`.
pub(super) fn kind_of(mode: libc::mode_t, fd: BorrowedFd<'_>) -> FileKind {
    match mode & libc::S_IFMT {
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFIFO => FileKind::Pipe,
        libc::S_IFCHR => FileKind::Char,
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK | libc::S_IFLNK => FileKind::Regular,
        _ => nameless_kind(fd),
    }
}

fn nameless_kind(fd: BorrowedFd<'_>) -> FileKind {
    let Ok(link) = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) else {
        return FileKind::Other;
    };
    let link = link.to_string_lossy();
    let name =
        link.strip_prefix("anon_inode:").unwrap_or(&link).trim_start_matches('[').trim_end_matches(']');
    match name {
        "eventfd" => FileKind::EventFd,
        "timerfd" => FileKind::TimerFd,
        "pidfd" => FileKind::PidFd,
        "inotify" => FileKind::Inotify,
        "signalfd" => FileKind::SignalFd,
        "io_uring" => FileKind::IoUring,
        _ if name.starts_with("eventpoll") => FileKind::Epoll,
        _ if name.starts_with("pidfd") || name.starts_with("pid:") => FileKind::PidFd,
        _ => FileKind::Other,
    }
}

/// A new number for the same open file, closed on exec.
///
/// # Errors
/// `EMFILE`, `EBADF`.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// The number of an fd that somebody else keeps open.
///
/// A table of watches holds numbers, not borrows: the owner of each watch promises that its fd stays open until the watch is gone (the client's events
/// own their source and are deleted before it is closed). If that promise is broken, system calls see another file or fail with `EBADF`; memory
/// is never at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdNumber(pub RawFd);

impl AsFd for FdNumber {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: -1 is never stored; that the number stays open is what the owner of the watch has promised, see the type.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// Whether `number` is an open file.
///
/// Source: fcntl(2).
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer; a number that is not open gives EBADF.
    cvt(unsafe { libc::fcntl(number, libc::F_GETFD) }).is_ok()
}

/// Marks `fd` as closed on exec.
///
/// # Errors
/// `EBADF`.
///
/// Source: fcntl(2).
pub fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_SETFD takes a number.
    cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Makes the open file of `fd` non-blocking, for everybody who shares it.
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes a number.
    cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Keeps one fd number in reserve, so that there is one when the limit is reached.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn reserve_fd() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

/// Whether there is a [`replace`].
pub const CAN_REPLACE: bool = true;

/// Makes the number of `old` mean the file of `new`, closed on exec. Whoever knows the number has the new file from then on.
///
/// # Errors
/// `EBUSY` in a race with an open of the same number.
///
/// Source: dup3(2).
pub fn replace(old: &OwnedFd, new: BorrowedFd<'_>) -> io::Result<()> {
    fresh::duplicate_onto(new.as_raw_fd(), old.as_raw_fd())
}

/// A pipe: its reading and its writing end, blocking, closed on exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
///
/// Source: pipe2(2).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    fresh::pipe()
}

/// One fd number reserved for life.
///
/// epoll keys an entry by (open file, number) and does not pin the file: an entry made through this number can be changed later through this
/// number, whatever it held in between, and nothing of the file stays open here. One thread uses a slot; the slot may serve many epolls.
#[derive(Debug)]
pub struct Slot {
    number: OwnedFd,
    placeholder: OwnedFd,
    lent: bool,
}

impl Slot {
    /// Reserves a number.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new() -> io::Result<Slot> {
        let placeholder = reserve_fd()?;
        Ok(Slot { number: placeholder.try_clone()?, placeholder, lent: false })
    }

    /// Puts `fd`'s open file at the reserved number until the next `place` or `clear`.
    ///
    /// # Errors
    /// `EBADF`, or `EINTR` from the close that this implies.
    ///
    /// Source: dup3(2).
    pub fn place(&mut self, fd: BorrowedFd<'_>) -> io::Result<BorrowedFd<'_>> {
        self.put(fd.as_raw_fd())?;
        self.lent = true;
        Ok(self.number.as_fd())
    }

    /// Gives the number back to its placeholder, which closes what was placed. Costs nothing if nothing is.
    pub fn clear(&mut self) {
        if self.lent && self.put(self.placeholder.as_raw_fd()).is_ok() {
            self.lent = false;
        }
    }

    fn put(&self, fd: RawFd) -> io::Result<()> {
        loop {
            match fresh::duplicate_onto(fd, self.number.as_raw_fd()) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => continue,
                other => return other,
            }
        }
    }
}

/// Raises the soft limit on open files to the hard one and returns it.
///
/// # Errors
/// `EPERM` where a sandbox forbids it; the limit is then as it was.
///
/// Source: getrlimit(2).
pub fn raise_open_files() -> io::Result<u64> {
    let old = open_file_limit()?;
    // macOS has no hard limit and takes no more than OPEN_MAX, which is this, for it.
    for most in [old.rlim_max, old.rlim_max.min(10_240)] {
        if most <= old.rlim_cur {
            break;
        }
        let new = libc::rlimit { rlim_cur: most, ..old };
        // SAFETY: `new` is a live rlimit for the call.
        match cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &new) }) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => continue,
            other => return other.map(|_| count(most)),
        }
    }
    Ok(count(old.rlim_cur))
}

/// A limit's type differs between systems.
#[allow(clippy::unnecessary_cast)]
fn count(limit: libc::rlim_t) -> u64 {
    limit as u64
}

fn open_file_limit() -> io::Result<libc::rlimit> {
    let mut lim = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `lim` is a live, writable rlimit for the call.
    cvt(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut lim) })?;
    Ok(lim)
}

/// The soft limit on open files: every number of an open file is below it. As the kernel gives the lowest number that is free, a new number also tells how
/// many are open at least.
pub fn most_open_files() -> RawFd {
    open_file_limit().map_or(1024, |l| RawFd::try_from(l.rlim_cur).unwrap_or(RawFd::MAX))
}

/// How many entries all epolls of one user may have together, if the system has such a limit.
///
/// Source: epoll(7), `/proc/sys/fs/epoll/max_user_watches`.
pub fn most_epoll_entries() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/epoll/max_user_watches").ok()?.trim().parse().ok()
}

/// The soft limit on open files, and how many are open now (0 where it can't be known).
pub fn open_files() -> (u64, usize) {
    let limit = open_file_limit().map_or(1024, |l| count(l.rlim_cur));
    // The directory itself is open while it is read.
    let open = std::fs::read_dir(system::FD_DIRECTORY).map(|d| d.count().saturating_sub(1)).unwrap_or(0);
    (limit, open)
}

/// Whether this is what a system says that is out of fds or memory: it may be better another time.
///
/// Source: errno(3).
pub fn is_shortage(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// The error of who is out of fds.
pub fn shortage() -> io::Error {
    io::Error::from_raw_os_error(libc::EMFILE)
}

/// Whether `number` was passed on to this program, and is open. To be asked before anything else is opened.
///
/// # Errors
/// `ENOMEM`; on Windows always.
pub fn is_passed(number: RawFd) -> io::Result<bool> {
    let mut look = [PollFd::new(number, What::empty())];
    poll(&mut look, Some(Duration::ZERO))?;
    Ok(!look[0].is_invalid())
}

/// Whether standard error takes a line now. A pipe that is ready takes a page.
pub fn stderr_takes() -> bool {
    let mut look = [PollFd::new(io::stderr().as_raw_fd(), What::WRITE)];
    poll(&mut look, Some(Duration::ZERO)).is_ok_and(|n| n > 0)
}

/// Standard output, to be looked at whether its reader has left; -1 where that can't be.
pub fn stdout_number() -> RawFd {
    io::stdout().as_raw_fd()
}

/// What the kernel says of an epoll and its entries; `None` where it has no such list.
///
/// Source: proc(5), `/proc/pid/fdinfo`.
pub fn kernel_entries(fd: BorrowedFd<'_>) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()
}

/// Makes a directory with these permission bits, if it is not there; its parent must be.
///
/// # Errors
/// As mkdir(2).
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Sets a path's permission bits, and its group if one is given.
///
/// # Errors
/// `EPERM`, `ENOENT`.
pub fn restrict_file_mode(path: &Path, mode: u32, gid: Option<u32>) -> io::Result<()> {
    if let Some(gid) = gid {
        std::os::unix::fs::chown(path, None, Some(gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// An exclusive lock on a file, held for as long as this lives; the kernel drops it with the process.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    taken: Generation,
}

impl FileLock {
    /// Takes the lock of `path`, which is made if it is not there. `Ok(None)`: somebody else has it.
    ///
    /// # Errors
    /// What opening the file gave.
    ///
    /// Source: flock(2); fcntl(2) on Solaris.
    pub fn take(path: &Path) -> io::Result<Option<FileLock>> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .read(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        match system::lock(&file) {
            Ok(()) => Ok(Some(FileLock { file, taken: generation() })),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Said, and not left to the close: a child that was forked meanwhile may have the file open for long, and the lock with it. In that child it is the parent's.
        if generation() == self.taken {
            system::unlock(&self.file);
        }
    }
}

/// Wraps a number that was received from the kernel or inherited.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass a number that a system call has just returned, or that was inherited for exactly one owner; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(identify(a.as_fd()).unwrap().kind, FileKind::Socket);
        let (r, w) = pipe().unwrap();
        let (r, w) = (identify(r.as_fd()).unwrap(), identify(w.as_fd()).unwrap());
        assert_eq!((r.kind, r.ino), (FileKind::Pipe, w.ino));
        assert_ne!(r, w, "the ends of a pipe differ by access mode");
        let null = File::open("/dev/null").unwrap();
        assert_eq!(identify(null.as_fd()).unwrap().kind, FileKind::Char);
        let wake = super::super::Wake::new().unwrap();
        assert_eq!(identify(wake.as_fd()).unwrap().kind, FileKind::EventFd);
        for fd in [a.as_fd(), null.as_fd(), wake.as_fd()] {
            let (look, id) = (super::super::look(fd).unwrap(), identify(fd).unwrap());
            assert_eq!((look.kind, look.ino), (id.kind, id.ino));
        }
        let known = super::super::look(null.as_fd()).unwrap().device;
        assert!(known.is_none_or(|device| device == (1, 3)), "{known:?}");
    }

    #[test]
    fn slot_keeps_its_number_and_holds_nothing_after_clear() {
        let mut slot = Slot::new().unwrap();
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let n = slot.place(a.as_fd()).unwrap().as_raw_fd();
        drop(a);
        slot.clear();
        let mut buf = [0; 1];
        assert_eq!(std::io::Read::read(&mut &b, &mut buf).unwrap(), 0, "the peer sees the end");
        assert_eq!(slot.place(b.as_fd()).unwrap().as_raw_fd(), n);
    }

    #[test]
    fn a_lock_ends_with_its_owner_whatever_forked_children_keep_open() {
        let path = std::env::temp_dir().join(format!("evd-lock-{}", std::process::id()));
        let lock = FileLock::take(&path).unwrap().unwrap();
        let lock = forked(lock, true);
        assert!(
            FileLock::take(&path).unwrap().is_none(),
            "a child that lets go of it takes nothing from its parent"
        );
        drop(forked(lock, false));
        assert!(FileLock::take(&path).unwrap().is_some());
        std::fs::remove_file(&path).unwrap();
    }

    /// Forks a child that lets go of the lock or keeps its file open, for two seconds at most.
    fn forked(lock: FileLock, lets_go: bool) -> FileLock {
        let (done, told) = pipe().unwrap();
        let alone = super::super::fork::FORKS.write();
        // SAFETY: the child only calls flock, close, alarm and pause, and ends without running destructors.
        if unsafe { libc::fork() } == 0 {
            if lets_go {
                drop(lock);
            }
            drop((done, told));
            // SAFETY: takes a number.
            unsafe { libc::alarm(2) };
            // SAFETY: takes nothing; the signal of the alarm ends the process.
            unsafe { libc::pause() };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        drop((alone, told));
        assert_eq!(std::io::Read::read(&mut File::from(done), &mut [0]).unwrap(), 0);
        lock
    }
}
