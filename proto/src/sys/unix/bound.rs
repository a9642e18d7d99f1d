//! Where listening sockets are bound, whatever has become of their files.

use super::cvt;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whether somebody listens on a Unix stream socket that was bound at `path`, as it was written there; also if its file is gone, so that nobody can connect. `false` where that
/// can't be known: in another network namespace, elsewhere than on Linux.
///
/// Source: proc_net(5), `/proc/net/unix`.
pub fn is_listened_at(path: &Path) -> bool {
    std::fs::read("/proc/net/unix").is_ok_and(|table| lists(&table, path.as_os_str().as_bytes()))
}

/// A line is `Num: RefCount Protocol Flags Type St Inode Path`, all but the inode in hexadecimal.
fn lists(table: &[u8], path: &[u8]) -> bool {
    // SO_ACCEPTCON of include/linux/net.h, and SOCK_STREAM.
    let listens = |fields: &[&[u8]]| fields.len() == 8 && fields[3] == b"00010000" && fields[4] == b"0001";
    table.split(|b| *b == b'\n').any(|line| {
        // Before the inode, numbers are filled up with spaces; in the path each is one of its own.
        let Some(head) = line.strip_suffix(path).and_then(|head| head.strip_suffix(b" ")) else {
            return false;
        };
        let mut fields: Vec<&[u8]> = head.split(|b| *b == b' ').filter(|f| !f.is_empty()).collect();
        fields.push(path);
        listens(&fields)
    })
}

/// The path that a Unix socket was bound at, if it was.
///
/// Source: getsockname(2), unix(7).
pub fn bound_path(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut addr: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut len = size_of_val(&addr) as libc::socklen_t;
    // SAFETY: `addr` is `len` writable bytes; a longer address is cut.
    cvt(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut addr).cast(), &mut len) }).ok()?;
    let room =
        (len as usize).saturating_sub(offset_of!(libc::sockaddr_un, sun_path)).min(addr.sun_path.len());
    let path = addr.sun_path[..room].iter().take_while(|c| **c != 0);
    // A character is signed here and unsigned there.
    let bytes: Vec<u8> = path.flat_map(|c| c.to_ne_bytes()).collect();
    // An abstract name begins with a zero.
    (!bytes.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_listens_at_just_this_path_is_meant() {
        let _no_copies = super::super::fork::FORKS.read();
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  5531 /run/a b\n\
            0000000000000000: 00000002 00000000 00010000 0005 01 15532 /run/seqpacket\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 15533 /run/accepted\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 15534\n";
        assert!(lists(table, b"/run/a b"));
        for other in [&b"b"[..], b"/run/a", b"run/a b", b"/run/seqpacket", b"/run/accepted", b"", b"15534"] {
            assert!(!lists(table, other), "{}", String::from_utf8_lossy(other));
        }
    }
}
