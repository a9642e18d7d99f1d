//! Files without a name, in memory, which a service manager keeps for the next evd.

use super::keep;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// A file without a name. It lives as long as somebody has it open.
#[derive(Debug)]
pub struct MemFile(File);

impl MemFile {
    /// An empty one, closed on exec; `name` is only to be seen by people.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`; [`io::ErrorKind::Unsupported`] elsewhere than on Linux.
    ///
    /// Source: memfd_create(2).
    pub fn new(name: &CStr) -> io::Result<MemFile> {
        keep::memfd(name).map(MemFile)
    }

    /// One that somebody has passed.
    ///
    /// # Errors
    /// None; on Windows there are none.
    pub fn adopt(fd: OwnedFd) -> io::Result<MemFile> {
        Ok(MemFile(File::from(fd)))
    }

    /// Reads from `at` on; returns how much there was.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buf, at)
    }

    /// Writes all of `bytes` from `at` on.
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    /// Cuts it, or adds zeroes.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

impl From<MemFile> for OwnedFd {
    fn from(file: MemFile) -> OwnedFd {
        file.0.into()
    }
}

impl AsFd for MemFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
