//! What the parked watches are: read from the kernel's own list of an epoll when somebody asks, so that arming looks nothing up.

use crate::base::Base;
use evd_proto::sys::AsFd;
use evd_proto::sys::{self, FileKind};
use std::sync::OnceLock;

/// One entry of an epoll.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KernelEntry {
    pub token: u64,
    /// What its file is, if its file system tells.
    pub kind: Option<FileKind>,
    pub ino: u64,
}

/// The entries of `base`'s epoll; none where the kernel has no such list.
///
/// Source: proc(5), `/proc/pid/fdinfo`.
pub(super) fn entries(base: &mut Base) -> Vec<KernelEntry> {
    let Ok(fd) = base.pollable() else { return Vec::new() };
    let text = sys::kernel_entries(fd).unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// How many entries `base`'s epoll has; `None` where the kernel has no such list.
pub(super) fn count(base: &mut Base) -> Option<u64> {
    let fd = base.pollable().ok()?;
    let text = sys::kernel_entries(fd)?;
    Some(text.lines().filter(|line| line.starts_with("tfd:")).count() as u64)
}

/// Reads `tfd: 10 events: 40000001 data: 1 pos:0 ino:61 sdev:8`; numbers but `tfd` are hexadecimal.
fn parse(line: &str) -> Option<KernelEntry> {
    let field = |name: &str| {
        let rest = &line[line.find(name)? + name.len()..];
        u64::from_str_radix(rest.split_whitespace().next()?, 16).ok()
    };
    line.starts_with("tfd:").then_some(())?;
    let sdev = field("sdev:");
    let (sockets, pipes) = devices();
    let kind = match sdev {
        Some(_) if sdev == *sockets => Some(FileKind::Socket),
        Some(_) if sdev == *pipes => Some(FileKind::Pipe),
        _ => None,
    };
    Some(KernelEntry { token: field("data:")?, kind, ino: field(" ino:").unwrap_or(0) })
}

/// The devices of sockets and pipes, as fdinfo writes them.
fn devices() -> &'static (Option<u64>, Option<u64>) {
    static DEVICES: OnceLock<(Option<u64>, Option<u64>)> = OnceLock::new();
    // stat's number packs major and minor otherwise than the kernel's own, which fdinfo prints.
    let major = |dev: u64| dev >> 8 & 0xfff | dev >> 32 & 0xffff_f000;
    let minor = |dev: u64| dev & 0xff | dev >> 12 & 0xffff_ff00;
    let kernel = |dev: u64| major(dev) << 20 | minor(dev);
    DEVICES.get_or_init(|| {
        let socket = sys::socketpair().ok().and_then(|(a, _)| sys::identify(a.as_fd()).ok());
        let pipe = sys::pipe().ok().and_then(|(r, _)| sys::identify(r.as_fd()).ok());
        (socket.map(|f| kernel(f.dev)), pipe.map(|f| kernel(f.dev)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_fdinfo_are_read() {
        let line = "tfd:        5 events: 4000001d data: 7000000002a  pos:0 ino:3a8b sdev:7fffffff";
        let want = KernelEntry { token: 0x700_0000_002a, kind: None, ino: 0x3a8b };
        assert_eq!(parse(line), Some(want));
        assert_eq!(parse("pos:\t0"), None);
        assert_eq!(parse("tfd: 5 events: 1"), None);
        let socket = devices().0.unwrap();
        let line = format!("tfd: 5 events: 19 data: 1 pos:0 ino:1 sdev:{socket:x}");
        assert_eq!(parse(&line).unwrap().kind, Some(FileKind::Socket));
    }
}
