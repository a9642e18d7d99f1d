//! What an open file is, as far as a process can tell.

use serde::{Deserialize, Serialize};

/// What kind of open file an fd refers to. Part of the wire (`proto/SPEC.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// A socket of any family.
    Socket,
    /// One end of a pipe, or a FIFO.
    Pipe,
    /// A terminal or another character device.
    Char,
    /// A regular file, a memfd, a directory, a block device: always ready, no method can wait for it.
    Regular,
    /// An eventfd.
    EventFd,
    /// A timerfd.
    TimerFd,
    /// A pidfd, or the handle of a process on Windows: READ when the process has ended.
    PidFd,
    /// An inotify instance.
    Inotify,
    /// An epoll instance.
    Epoll,
    /// A signalfd: it reports the signals of whoever polls it, so it can't be watched by another process. On Windows a handle whose signal a wait takes.
    SignalFd,
    /// An io_uring instance: the kernel refuses to pass it.
    IoUring,
    /// Anything else without a name in the file system. On Windows a thread, a job, a manual-reset event.
    Other,
}

impl FileKind {
    /// What it is called where it is a handle of Windows.
    pub fn handle_name(self) -> Option<&'static str> {
        match self {
            _ if !super::PULLS_HANDLES => None,
            FileKind::PidFd => Some("process"),
            FileKind::SignalFd | FileKind::Other => Some("handle"),
            _ => None,
        }
    }
}

/// The identity of an open file, as far as a process can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// What it is.
    pub kind: FileKind,
    /// Device number of the inode.
    pub dev: u64,
    /// Inode number: unique for a socket, shared by both ends of a pipe, the same for all eventfds.
    pub ino: u64,
    /// 0 read only, 1 write only, 2 both; only asked for pipes, whose ends it tells apart.
    pub access: u8,
}

impl FileId {
    /// Whether two numbers with equal identities have the same readiness: then they may share one watch. False for the kinds that share an inode.
    pub fn is_one_file(&self) -> bool {
        matches!(self.kind, FileKind::Socket | FileKind::Pipe)
    }

    /// Whether no message carries it, and evd pulls it out of the process that has it: what is no socket on Windows.
    pub fn is_pulled(&self) -> bool {
        super::PULLS_HANDLES && self.kind != FileKind::Socket
    }
}

/// Why a handle could not be pulled out of a client's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPulled {
    /// The system's error number.
    pub code: i32,
    /// What was wrong, and what would be right.
    pub text: String,
}

/// Whether the kind can only be "always ready" (see `evd`'s limits): nothing waits for it.
pub fn is_always_ready(kind: FileKind) -> bool {
    kind == FileKind::Regular
}
