//! Floor 2: the kernel's ways to wait for many files, one file a method.
//!
//! A [`Backend`] turns interests in fds into reports and knows nothing else: no timers, no callbacks, no events that share an fd. `base` is its only
//! caller. Which methods this build has is the table [`methods`], in the order of preference; adding one is one file and one line here.
//!
//! One rule: this file is the only one that asks for which system it is built. The logic of a method whose kernel is elsewhere is built everywhere, and tested over a model. See `README.md` for what each method can do.

#[cfg_attr(target_os = "linux", path = "alarm/timerfd.rs")]
#[cfg_attr(any(target_os = "illumos", target_os = "solaris", windows), path = "alarm/thread.rs")]
#[cfg_attr(
    any(target_os = "freebsd", target_os = "netbsd", target_os = "openbsd", target_vendor = "apple"),
    path = "alarm/kqueue.rs"
)]
mod alarm;
#[cfg(target_os = "linux")]
mod changelist;
#[cfg(unix)]
#[doc(hidden)]
pub mod devpoll;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(unix)]
#[doc(hidden)]
pub mod evport;
#[cfg(windows)]
mod handles;
#[cfg(unix)]
#[doc(hidden)]
pub mod kqueue;
#[cfg(unix)]
mod poll;
#[cfg(unix)]
mod select;
mod table;
#[doc(hidden)]
pub mod wepoll;
#[cfg(windows)]
mod win32;

// The kernels' own sides of the methods whose logic is built elsewhere too.
#[cfg(any(target_os = "illumos", target_os = "solaris"))]
#[path = "devpoll/real.rs"]
mod devpoll_real;
#[cfg(any(target_os = "illumos", target_os = "solaris"))]
#[path = "evport/real.rs"]
mod evport_real;
#[cfg(any(
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_vendor = "apple",
    all(target_os = "linux", feature = "libkqueue")
))]
#[path = "kqueue/real.rs"]
mod kqueue_real;
#[cfg(any(target_os = "freebsd", target_os = "netbsd", target_os = "openbsd", target_vendor = "apple"))]
use libc as os;
#[cfg(all(target_os = "linux", feature = "libkqueue"))]
#[path = "kqueue/libkqueue.rs"]
mod os;
#[cfg(windows)]
#[path = "wepoll/real.rs"]
mod wepoll_real;
// Where a timer is a thread; on Linux for its test.
#[cfg(all(test, target_os = "linux"))]
#[path = "alarm/thread.rs"]
mod alarm_thread;

pub(crate) use alarm::Alarm;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub use epoll::Epoll;
#[cfg(unix)]
pub use poll::Poll;
#[cfg(unix)]
pub use select::Select;

use evd_proto::What;
use evd_proto::sys::{BorrowedFd, RawFd};
use std::io;
use std::time::Duration;

bitflags::bitflags! {
    /// What a method can do, in the values of libevent's `EV_FEATURE_*`.
    ///
    /// Source: libevent, event2/event.h, `enum event_method_feature`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Features: u32 {
        /// Edge-triggered watches ([`Mode::Edge`]).
        const ET = 1;
        /// A wait costs by what is ready, not by what is watched.
        const O1 = 2;
        /// Any fd can be watched, regular files too (which are always ready).
        const FDS = 4;
        /// [`What::CLOSED`]: a close or half-close of the peer is seen without reading.
        const EARLY_CLOSE = 8;
    }
}

/// When a watch reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With every wait for as long as the fd is ready.
    Level,
    /// Once each time the fd becomes ready. Only with [`Features::ET`].
    Edge,
    /// Once, and then not again before the next [`Backend::watch`] of this fd. Both directions end with the one report.
    OneShot,
}

/// What a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Of READ, WRITE and CLOSED; other bits are ignored. CLOSED is accepted and never reported where [`Features::EARLY_CLOSE`] is missing.
    pub what: What,
    /// When to report.
    pub mode: Mode,
}

/// Whether this backend has watched the fd before: a hint that saves a system call when it is right and costs one when it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Not watched yet.
    New,
    /// Watched already, or its one-shot has reported.
    Known,
}

/// A watch whose fd is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The token that its last [`Backend::watch`] gave.
    pub token: u64,
    /// What is ready, as libevent maps it. May hold bits that were not asked for: hang-ups and errors can't be masked and count as READ and WRITE.
    pub ready: What,
}

/// Why an fd can't be watched. The watch is then as it was before, or not there if the kernel had dropped it.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchError {
    /// The method can't wait for this kind of file because it is always ready (regular files, directories, `/dev/null`; `EPERM`).
    AlwaysReady,
    /// The number is not an open file (`EBADF`).
    BadFd,
    /// An epoll in itself, or epolls nested too deeply (`ELOOP`, `EINVAL`).
    Loop,
    /// This method can't do what was asked; the text says what.
    Unsupported(&'static str),
    /// The user has too many watches (`ENOSPC`; `/proc/sys/fs/epoll/max_user_watches`).
    Full,
    /// Anything else that the kernel said (kqueue: a device that it can't watch, `EINVAL`).
    Os(io::Error),
}

impl std::fmt::Display for WatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WatchError::AlwaysReady => {
                f.write_str("this kind of file is always ready and can't be waited for")
            }
            WatchError::BadFd => f.write_str("not an open file"),
            WatchError::Loop => {
                f.write_str("an epoll can't wait for itself, nor for epolls nested too deeply")
            }
            WatchError::Unsupported(what) => f.write_str(what),
            WatchError::Full => f.write_str(
                "too many watches of this user (the limit is in /proc/sys/fs/epoll/max_user_watches)",
            ),
            WatchError::Os(e) => write!(f, "the kernel refused the watch: {e}"),
        }
    }
}

impl std::error::Error for WatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WatchError::Os(e) => Some(e),
            _ => None,
        }
    }
}

/// One instance of a method.
///
/// The caller unwatches an fd before closing it. Where it does not, nobody's memory or files are at risk, but what is reported for that number is up
/// to the kernel: epoll, kqueue and evport forget the watch with the file, poll and devpoll report it as ready, select drops it.
///
/// Tokens are the caller's; `u64::MAX` is the backends' own.
pub trait Backend {
    /// libevent's name of the method.
    fn method(&self) -> &'static str;

    /// What the method can do.
    fn features(&self) -> Features;

    /// Replaces the whole interest of `fd`'s watch, which is not empty. Takes effect with the next wait.
    ///
    /// # Errors
    /// See [`WatchError`].
    fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
        entry: Entry,
    ) -> Result<(), WatchError>;

    /// Ends the watch of `fd`; one that is not watched is not an error.
    fn unwatch(&mut self, fd: BorrowedFd<'_>);

    /// As [`Backend::unwatch`] for an fd that stays open: the kernel may be told with the next wait, or, if the watch is a one-shot that has reported (`spent`)
    /// and so says nothing any more, not at all. An fd that is watched again soon costs less then. Before the fd is closed: [`Backend::forget`].
    fn rest(&mut self, fd: BorrowedFd<'_>, spent: bool) {
        let _ = spent;
        self.unwatch(fd);
    }

    /// Ends what [`Backend::rest`] left in the kernel for an fd that is not watched and is about to be closed: a dup of it would keep that alive.
    fn forget(&mut self, fd: BorrowedFd<'_>) {
        let _ = fd;
    }

    /// Keeps a level watch from reporting again and again what can't be masked. It may report once more; a watch that can still report what
    /// `interest` wants does. Until `unmute`, `watch` or `unwatch`.
    fn mute(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest);

    /// Gives a watch its whole interest back, after `mute` or after its one-shot has reported. By number, as nobody who could lend the fd is at hand;
    /// does nothing if what was watched under it is gone.
    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest);

    /// Waits for at most `timeout` (`None` = for ever; rounded up to what the kernel can do, never early) and appends what is ready. A signal that
    /// interrupts is no report and no error.
    ///
    /// # Errors
    /// `ENOMEM`, and for `poll` `EINVAL` with more watches than the limit on open files.
    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()>;

    /// Tells the kernel of all changes now; a wait does so by itself. For whoever waits for the pollable fd instead.
    fn apply(&mut self) {}

    /// How many entries the kernel has made for it so far; 0 for a method that leaves nothing in the kernel. An entry may be gone since.
    fn added(&self) -> u64 {
        0
    }

    /// An fd that is readable when a wait would report something: at once for epoll and kqueue, after [`Backend::make_pollable`] for others. Whoever sleeps on it calls
    /// [`Backend::apply`] before.
    fn pollable(&self) -> Option<BorrowedFd<'_>>;

    /// From now on there is a [`Backend::pollable`], at the price of one more system call for each change of a watch where the method itself has none.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`, `ENOSPC`.
    fn make_pollable(&mut self) -> io::Result<()>;
}

/// A method that this build has.
#[derive(Debug)]
pub struct Method {
    /// libevent's name.
    pub name: &'static str,
    /// What it can do.
    pub features: Features,
    /// The environment variable that disables it by being there.
    pub env: &'static str,
    pub(crate) open: Open,
    /// The same with a list of changes, where that makes a difference.
    pub(crate) with_changelist: Option<Open>,
}

type Open = fn() -> io::Result<Box<dyn Backend + Send>>;

static METHODS: &[Method] = &[
    #[cfg(any(target_os = "illumos", target_os = "solaris"))]
    Method {
        name: "evport",
        features: evport::FEATURES,
        env: "EVENT_NOEVPORT",
        open: evport_real::open,
        with_changelist: None,
    },
    #[cfg(any(target_os = "freebsd", target_os = "netbsd", target_os = "openbsd", target_vendor = "apple"))]
    Method {
        name: "kqueue",
        features: kqueue::FEATURES,
        env: "EVENT_NOKQUEUE",
        open: kqueue_real::open,
        with_changelist: None,
    },
    #[cfg(target_os = "linux")]
    Method {
        name: "epoll",
        features: epoll::FEATURES,
        env: "EVENT_NOEPOLL",
        open: epoll::open,
        with_changelist: Some(changelist::open),
    },
    #[cfg(any(target_os = "illumos", target_os = "solaris"))]
    Method {
        name: "devpoll",
        features: devpoll::FEATURES,
        env: "EVENT_NODEVPOLL",
        open: devpoll_real::open,
        with_changelist: None,
    },
    #[cfg(unix)]
    Method {
        name: "poll",
        features: poll::FEATURES,
        env: "EVENT_NOPOLL",
        open: poll::open,
        with_changelist: None,
    },
    #[cfg(unix)]
    Method {
        name: "select",
        features: select::FEATURES,
        env: "EVENT_NOSELECT",
        open: select::open,
        with_changelist: None,
    },
    #[cfg(windows)]
    Method {
        name: "wepoll",
        features: wepoll::FEATURES,
        env: "EVENT_NOWEPOLL",
        open: wepoll_real::open,
        with_changelist: None,
    },
    #[cfg(windows)]
    Method {
        name: "win32",
        features: win32::FEATURES,
        env: "EVENT_NOWIN32",
        open: win32::open,
        with_changelist: None,
    },
    // Not the system's own, so it is only taken when it is asked for.
    #[cfg(all(target_os = "linux", feature = "libkqueue"))]
    Method {
        name: "kqueue",
        features: kqueue::FEATURES,
        env: "EVENT_NOKQUEUE",
        open: kqueue_real::open,
        with_changelist: None,
    },
];

/// One instance of this system's best method, which is a pollable fd itself: it stands in for those that are none.
fn mirror() -> io::Result<Box<dyn Backend + Send>> {
    (METHODS[0].open)()
}

/// The methods of this build, best first.
pub fn methods() -> &'static [Method] {
    METHODS
}

/// The names of [`methods`] without those that the environment disables: `EVENT_NO<METHOD>` does so by being there, even empty.
///
/// With `ignore_env`, and in a process that runs with more rights than who started it, the environment does not count.
///
/// Source: libevent, `event_get_supported_methods`, `event_is_method_disabled`, `evutil_getenv_`.
pub fn supported(ignore_env: bool) -> Vec<&'static str> {
    METHODS.iter().filter(|m| ignore_env || !is_disabled(m)).map(|m| m.name).collect()
}

/// Whether the environment disables `method` and may.
pub(crate) fn is_disabled(method: &Method) -> bool {
    is_in_environment(method.env)
}

/// Whether a variable is there, even empty, and counts: it does not in a process that runs with more rights than who started it.
///
/// Source: libevent, `evutil_getenv_`.
pub fn is_in_environment(name: &str) -> bool {
    std::env::var_os(name).is_some() && !evd_proto::sys::is_privileged()
}

/// Whether setting an alarm costs so little that it may stand in for the timeouts of waits: not where it is a thread that has to be woken.
pub(crate) const ALARM_IS_CHEAP: bool = !cfg!(any(target_os = "illumos", target_os = "solaris", windows));

/// Numbers from this on can't be watched by select. Source: select(2), `FD_SETSIZE`.
#[cfg(unix)]
const SELECT_LIMIT: Option<RawFd> =
    if cfg!(any(target_vendor = "apple", target_os = "illumos", target_os = "solaris")) {
        Some(libc::FD_SETSIZE as RawFd)
    } else {
        None
    };

/// As `evd_proto::sys` does it: a negative result reads `errno`.
#[cfg(unix)]
fn cvt(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// A timeout as the kernel takes it. Beyond three years it is cut: a time_t may have 32 bits, and some kernels refuse more than this.
#[cfg(unix)]
fn timespec(timeout: Duration) -> libc::timespec {
    let secs = timeout.as_secs().min(100_000_000);
    libc::timespec { tv_sec: secs as libc::time_t, tv_nsec: timeout.subsec_nanos() as libc::c_long }
}
