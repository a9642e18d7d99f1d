//! Bytes as a script, and fds that tell when they are all closed.

use evd_proto::What;
use evd_proto::sys::{self, PollFd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Reads a script from its start; after its end everything is 0.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    pub fn number(&mut self) -> u64 {
        // Small ones, ones near a power of two, and any.
        match self.byte() {
            n @ 0..=99 => u64::from(n),
            n @ 100..=227 => (1u64 << ((n - 100) / 2)).wrapping_sub(u64::from(n & 1)),
            _ => (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte())),
        }
    }

    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let len = if most > 255 { self.below(256) << 8 | self.below(256) } else { self.below(256) };
        let (bytes, rest) = self.0.split_at(len.min(most).min(self.0.len()));
        self.0 = rest;
        bytes
    }

    pub fn text(&mut self, most: usize) -> String {
        String::from_utf8_lossy(self.bytes(most)).into_owned()
    }

    /// A name that may be one, and is often the same.
    pub fn name(&mut self) -> String {
        match self.byte() {
            n @ 0..=191 => ["a", "b", "web:443", "x"][usize::from(n % 4)].to_owned(),
            _ => self.text(70),
        }
    }
}

/// A pipe's writing end that is sent around. Whether all copies of it are closed is seen at the other end.
pub struct Traced {
    read: OwnedFd,
    write: OwnedFd,
}

impl Traced {
    pub fn new() -> Traced {
        let (read, write) = sys::pipe().expect("a pipe");
        Traced { read, write }
    }

    pub fn number(&self) -> RawFd {
        self.write.as_raw_fd()
    }

    pub fn ino(&self) -> u64 {
        sys::identify(self.write.as_fd()).expect("it is open").ino
    }

    /// Closes its own, which must have been the last.
    pub fn finish(self) {
        drop(self.write);
        let mut look = [PollFd::new(self.read.as_raw_fd(), What::READ)];
        sys::poll(&mut look, Some(Duration::ZERO)).expect("poll");
        assert!(!look[0].ready().is_empty(), "a copy of an fd that was sent is still open");
    }
}
