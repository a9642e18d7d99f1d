//! Models of other systems' kernels: what `evd::backend` asks of them, done over Linux's own calls on real files.
//!
//! Each is written from the manual pages that it names, for what the backend uses, and is no kinder than they are: where systems differ it does what is hardest
//! for the backend, and what no backend may count on it answers with a panic. So the logic of those backends runs here in the same cases as
//! the methods of this system. What a model can't show is a kernel that does not do what its manual says.

pub mod devpoll;
pub mod evport;
pub mod kqueue;
pub mod wepoll;

pub use devpoll::Devpoll;
pub use evport::Port;
pub use kqueue::Kqueue;
pub use wepoll::Afd;

use evd::backend::devpoll::Devpoll as DevpollMethod;
use evd::backend::evport::Evport;
use evd::backend::kqueue::Kqueue as KqueueMethod;
use evd::backend::wepoll::Wepoll;
use evd::backend::{Backend, Epoll};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// What is not in the table of methods here: other systems' methods over models of their kernels, and a variant.
pub const NAMES: [&str; 5] =
    ["epoll with timerfd", "kqueue (model)", "evport (model)", "devpoll (model)", "wepoll (model)"];

/// One of [`NAMES`].
pub fn open(name: &str) -> Option<Box<dyn Backend + Send>> {
    Some(match name {
        "epoll with timerfd" => Box::new(Epoll::with_timerfd().unwrap()),
        "kqueue (model)" => Box::new(KqueueMethod::on(Kqueue::new())),
        "evport (model)" => Box::new(Evport::on(Port::new())),
        "wepoll (model)" => Box::new(Wepoll::on(Afd::new())),
        "devpoll (model)" => Box::new(DevpollMethod::on(Devpoll::new())),
        _ => return None,
    })
}

/// `errno` of a failed call.
pub fn check(ret: libc::c_int) -> Result<libc::c_int, i32> {
    if ret < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(ret) }
}

/// An epoll, which the models are made of.
#[derive(Debug)]
pub struct Set(pub OwnedFd);

impl Set {
    pub fn new() -> Set {
        // SAFETY: epoll_create1 takes a number.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).unwrap();
        // SAFETY: the kernel has just made it; nobody else owns it.
        Set(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// epoll_ctl(2).
    pub fn control(&self, op: libc::c_int, number: RawFd, events: libc::c_int) -> Result<(), i32> {
        let mut event = libc::epoll_event { events: events as u32, u64: number as u64 };
        // SAFETY: `event` is a live epoll_event.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, number, &mut event) }).map(drop)
    }

    /// The numbers that have an event now.
    pub fn ready(&self) -> Vec<RawFd> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 4096];
        // SAFETY: `events` has room for as many.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 4096, 0) };
        events[..n.max(0) as usize].iter().map(|e| e.u64 as RawFd).collect()
    }

    pub fn nest(&self, inner: &Set) {
        self.control(libc::EPOLL_CTL_ADD, inner.0.as_raw_fd(), libc::EPOLLIN).unwrap();
    }
}

/// What poll(2) says of one number, for reading, writing and a half-close.
pub fn look(number: RawFd) -> libc::c_short {
    look_for(number, libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP)
}

/// What poll(2) says of one number.
pub fn look_for(number: RawFd, events: libc::c_short) -> libc::c_short {
    let mut fd = libc::pollfd { fd: number, events, revents: 0 };
    // SAFETY: one live pollfd.
    unsafe { libc::poll(&mut fd, 1, 0) };
    fd.revents
}

/// Sleeps until `fd` is readable, the deadline (`None` = for ever) or a signal.
pub fn sleep_on(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> Result<usize, i32> {
    let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
    let left = left.map(|t: Duration| libc::timespec {
        tv_sec: t.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: t.subsec_nanos() as libc::c_long,
    });
    let at = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let (fds, len) = (fds.as_mut_ptr(), fds.len() as libc::nfds_t);
    // SAFETY: `fds` is live and writable, `at` null or a live timespec, and a null mask is allowed.
    check(unsafe { libc::ppoll(fds, len, at, std::ptr::null()) }).map(|n| n as usize)
}

/// An errno as an error.
pub fn fault(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// What tells one open file from another that has come to its number; `None` if it is not open.
pub fn identity(number: RawFd) -> Option<Identity> {
    // SAFETY: all zeroes is a valid stat.
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `st` is room for one.
    check(unsafe { libc::fstat(number, &mut st) }).ok()?;
    Some((st.st_dev, st.st_ino, st.st_mode & libc::S_IFMT))
}

/// Device, inode and type of a file.
pub type Identity = (libc::dev_t, libc::ino_t, libc::mode_t);
