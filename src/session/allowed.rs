//! What evd watches for others, and keeps a copy of: kinds of files whose poll and close are known not to wait for anybody.
//!
//! What a file is, is asked without asking its file system, which may be a process that never answers (FUSE): so neither `fstat` nor `epoll_ctl` may come
//! first. Only arms with KEEP are looked at. Without it the client says that the file is a socket or a pipe, and that is believed: a look at each would cost a
//! system call for an fd, and a lie gains nothing. A file that blocks does so in the worker of the liar's own user; and it does so anyway when evd closes
//! it, however it came and whether it was refused or not. What can't be waited for is refused by the kernel.

use super::Refusal;
use evd_proto::sys::BorrowedFd;
use evd_proto::sys::{self, FileKind};

/// Character devices by major number; those with a second number by both. Their drivers are the kernel's own, and poll without waiting.
///
/// Source: Linux, Documentation/admin-guide/devices.txt.
const DEVICES: &[(u32, Option<u32>)] = &[
    (1, None),       // mem: random, urandom and kmsg; null and zero are refused by epoll, as always ready
    (4, None),       // tty, ttyS
    (5, None),       // the process's tty, console, ptmx
    (10, Some(200)), // net/tun
    (13, None),      // input
    (116, None),     // sound
    (136, None),     // pts: 136 to 143
    (137, None),
    (138, None),
    (139, None),
    (140, None),
    (141, None),
    (142, None),
    (143, None),
    (166, None), // ttyACM
    (188, None), // ttyUSB
    (204, None), // serial ports of small systems
];

/// Whether evd may watch `fd` and keep it. `nests`: epolls too, which hide what is in them.
pub(super) fn check(fd: BorrowedFd<'_>, nests: bool) -> Result<(), Refusal> {
    let no = |text: &str| Err(Refusal::not_watchable(libc::EPERM, text));
    let look = match sys::look(fd) {
        Ok(look) => look,
        Err(e) => return Err(Refusal::not_watchable(e.raw_os_error().unwrap_or(0), &e.to_string())),
    };
    match look.kind {
        FileKind::Socket
        | FileKind::Pipe
        | FileKind::EventFd
        | FileKind::TimerFd
        | FileKind::PidFd
        | FileKind::Inotify => Ok(()),
        FileKind::Epoll if nests => Ok(()),
        FileKind::Epoll => no("an epoll of another user may hide files that block; --allow-nested allows it"),
        FileKind::Char => {
            // Where devices can't be told apart the kernel decides.
            let Some((major, minor)) = look.device else { return Ok(()) };
            let known = |(m, n): &(u32, Option<u32>)| *m == major && n.is_none_or(|n| n == minor);
            if DEVICES.iter().any(known) {
                return Ok(());
            }
            no(&format!("the device {major}:{minor} is none of those that evd watches"))
        }
        FileKind::Regular => no(super::watches::ALWAYS_READY),
        FileKind::SignalFd => {
            Err(Refusal::not_watchable(libc::EINVAL, "a signalfd reports the signals of whoever polls it"))
        }
        FileKind::IoUring | FileKind::Other => no("a file of a kind that evd does not watch"),
    }
}
