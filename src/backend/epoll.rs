//! epoll(7): the method of choice on Linux.
//!
//! Kernel facts and defects:
//! - An entry is keyed by (open file, number) and does not keep the file open. When the last fd of the file is closed the entry is gone, without a word.
//!   A dup of a watched fd keeps it alive: it then reports under a number that may mean another file by now. Nothing is kept for a watch here.
//!   What is watched no more but stays open is only noted (`rest`): watched again, one `MOD` does what `DEL` and `ADD` did, and if the number means another
//!   file by then the kernel says so (`ENOENT`), as it knows an entry by its file.
//! - `EPOLL_CTL_MOD` looks at the file again, so an edge or one-shot watch that is ready reports (again) after it.
//! - HUP and ERR are reported whatever the interest is, save after a one-shot's report.
//! - Files without a poll operation (regular files, directories, `/dev/null`) are refused with `EPERM`. An epoll in itself is `EINVAL`, a cycle `ELOOP`.
//! - `epoll_wait` counts milliseconds; `epoll_pwait2` (5.11) nanoseconds. Sandboxes answer unknown calls with `ENOSYS` or `EPERM`: a timerfd does it then.
//! - At most 4 % of low memory goes to a user's watches; beyond that it is `ENOSPC`.

use super::{Alarm, Backend, Entry, Features, Interest, Mode, Report, WatchError, cvt};
use evd_proto::What;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// As libevent's.
pub(super) const FEATURES: Features = Features::ET.union(Features::O1).union(Features::EARLY_CLOSE);

const FEWEST: usize = 32;
const MOST: usize = 4096;
/// The token of our own timerfd.
const OWN: u64 = u64::MAX;

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    Ok(Box::new(Epoll::new()?))
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// Where the kernel lacks `epoll_pwait2`.
    alarm: Option<Alarm>,
    added: Cell<u64>,
    /// By number: whether the kernel has an entry that no watch has.
    left: Vec<Left>,
    /// Numbers that are, or were, [`Left::Live`].
    live: Vec<RawFd>,
}

/// An entry in the kernel that no watch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    None,
    /// It reports, so it goes before the next wait.
    Live,
    /// Its one-shot has reported.
    Spent,
}

impl Epoll {
    /// A new one, closed on exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    ///
    /// Source: epoll_create1(2).
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1 takes a number.
        let fd = cvt(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made `fd`; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; FEWEST],
            alarm: None,
            added: Cell::new(0),
            left: Vec::new(),
            live: Vec::new(),
        })
    }

    /// One that waits as it must where the kernel lacks `epoll_pwait2`; for tests.
    ///
    /// # Errors
    /// As [`Epoll::new`].
    #[doc(hidden)]
    pub fn with_timerfd() -> io::Result<Epoll> {
        let mut epoll = Epoll::new()?;
        epoll.add_alarm()?;
        Ok(epoll)
    }

    fn add_alarm(&mut self) -> io::Result<()> {
        let alarm = Alarm::new()?;
        self.control(libc::EPOLL_CTL_ADD, alarm.as_fd().as_raw_fd(), OWN, libc::EPOLLIN as u32)?;
        self.alarm = Some(alarm);
        Ok(())
    }

    fn control(&self, op: libc::c_int, number: RawFd, token: u64, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` is a live epoll_event that the kernel only reads; a number that is not open gives EBADF.
        cvt(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, number, &mut event) })?;
        if op == libc::EPOLL_CTL_ADD {
            self.added.set(self.added.get() + 1);
        }
        Ok(())
    }

    /// Replaces the watch of a number, see [`Backend::watch`].
    ///
    /// # Errors
    /// See [`WatchError`].
    pub(super) fn set(
        &mut self,
        number: RawFd,
        token: u64,
        interest: Interest,
        entry: Entry,
    ) -> Result<(), WatchError> {
        let events = events_of(interest);
        let entry = if self.take_left(number) == Left::None { entry } else { Entry::Known };
        let (first, wrong, second) = match entry {
            Entry::New => (libc::EPOLL_CTL_ADD, libc::EEXIST, libc::EPOLL_CTL_MOD),
            Entry::Known => (libc::EPOLL_CTL_MOD, libc::ENOENT, libc::EPOLL_CTL_ADD),
        };
        match self.control(first, number, token, events) {
            Err(e) if e.raw_os_error() == Some(wrong) => self.control(second, number, token, events),
            other => other,
        }
        .map_err(|e| match e.raw_os_error() {
            Some(libc::EPERM) => WatchError::AlwaysReady,
            Some(libc::EBADF) => WatchError::BadFd,
            Some(libc::ELOOP | libc::EINVAL) => WatchError::Loop,
            Some(libc::ENOSPC) => WatchError::Full,
            _ => WatchError::Os(e),
        })
    }

    /// Ends the watch of a number.
    pub(super) fn clear(&mut self, number: RawFd) {
        self.take_left(number);
        // ENOENT, EBADF, EPERM: there is no such watch, which is what was asked for.
        let _ = self.control(libc::EPOLL_CTL_DEL, number, 0, 0);
    }

    /// Notes that no watch has the entry of a number any more, see [`Backend::rest`].
    pub(super) fn leave(&mut self, number: RawFd, spent: bool) {
        let Ok(at) = usize::try_from(number) else { return };
        if self.left.len() <= at {
            self.left.resize(at + 1, Left::None);
        }
        self.left[at] = if spent { Left::Spent } else { Left::Live };
        if !spent {
            self.live.push(number);
        }
    }

    /// Takes out what [`Epoll::leave`] left of a number.
    pub(super) fn clear_left(&mut self, number: RawFd) {
        if self.take_left(number) != Left::None {
            self.clear(number);
        }
    }

    fn take_left(&mut self, number: RawFd) -> Left {
        let left = usize::try_from(number).ok().and_then(|at| self.left.get_mut(at));
        left.map_or(Left::None, |left| std::mem::replace(left, Left::None))
    }

    /// Takes the entries out that would report for no watch.
    fn clear_live(&mut self) {
        while let Some(number) = self.live.pop() {
            if self.left[number as usize] == Left::Live {
                self.clear(number);
            }
        }
    }

    /// Waits; returns how many of `events` are filled.
    fn collect(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        if self.alarm.is_none() {
            match self.pwait2(timeout) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => self.add_alarm()?,
                other => return other,
            }
        }
        match (&self.alarm, timeout) {
            (Some(alarm), Some(delay)) if !delay.is_zero() => {
                alarm.set_after(delay)?;
                let n = self.wait_ms(-1);
                if let Some(alarm) = &self.alarm {
                    // A timer that is left would make this epoll readable for whoever nests it.
                    alarm.set(None)?;
                }
                n
            }
            (_, None) => self.wait_ms(-1),
            (_, Some(_)) => self.wait_ms(0),
        }
    }

    fn pwait2(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        // The kernel's own timespec: 64 bits on every architecture.
        let spec = timeout.map(|t| [t.as_secs().min(i32::MAX as u64) as i64, i64::from(t.subsec_nanos())]);
        let at = spec.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
        let (events, most) = (self.events.as_mut_ptr(), self.events.len() as libc::c_int);
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: `events` has room for `most` entries and `at` is null or two live i64, as the call's timespec; a null mask is allowed.
        let n = unsafe {
            libc::syscall(libc::SYS_epoll_pwait2, self.fd.as_raw_fd(), events, most, at, no_mask, 0usize)
        };
        cvt(n as libc::c_int).map(|n| n as usize)
    }

    fn wait_ms(&mut self, ms: libc::c_int) -> io::Result<usize> {
        let (events, most) = (self.events.as_mut_ptr(), self.events.len() as libc::c_int);
        // SAFETY: `events` has room for `most` entries.
        cvt(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, most, ms) }).map(|n| n as usize)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Backend for Epoll {
    fn method(&self) -> &'static str {
        "epoll"
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
        entry: Entry,
    ) -> Result<(), WatchError> {
        self.set(fd.as_raw_fd(), token, interest, entry)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.clear(fd.as_raw_fd());
    }

    fn rest(&mut self, fd: BorrowedFd<'_>, spent: bool) {
        self.leave(fd.as_raw_fd(), spent);
    }

    fn forget(&mut self, fd: BorrowedFd<'_>) {
        self.clear_left(fd.as_raw_fd());
    }

    /// As an edge it reports a hang-up that stays once, and what may still come as well.
    fn mute(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) {
        if interest.mode == Mode::Level {
            let events = events_of(Interest { mode: Mode::Edge, ..interest });
            let _ = self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token, events);
        }
    }

    /// MOD and never ADD: a number that means another file by now is not touched.
    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        let _ = self.control(libc::EPOLL_CTL_MOD, number, token, events_of(interest));
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        self.clear_live();
        let n = match self.collect(timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        for event in &self.events[..n] {
            // Copied out: on x86_64 the struct is packed.
            let (bits, token) = (event.events, event.u64);
            if token != OWN {
                reports.push(Report { token, ready: ready_of(bits) });
            }
        }
        if n == self.events.len() && n < MOST {
            self.events.resize(n * 2, libc::epoll_event { events: 0, u64: 0 });
        }
        Ok(())
    }

    fn apply(&mut self) {
        self.clear_live();
    }

    fn added(&self) -> u64 {
        self.added.get()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn events_of(interest: Interest) -> u32 {
    let mut bits = match interest.mode {
        Mode::Level => 0,
        Mode::Edge => libc::EPOLLET,
        Mode::OneShot => libc::EPOLLONESHOT,
    };
    if interest.what.contains(What::READ) {
        bits |= libc::EPOLLIN;
    }
    if interest.what.contains(What::WRITE) {
        bits |= libc::EPOLLOUT;
    }
    if interest.what.contains(What::CLOSED) {
        bits |= libc::EPOLLRDHUP;
    }
    bits as u32
}

/// What is usual is READ, WRITE or both.
#[inline]
fn ready_of(bits: u32) -> What {
    const USUAL: u32 = (libc::EPOLLIN | libc::EPOLLOUT) as u32;
    if bits & !USUAL != 0 {
        return ready_with_more(bits);
    }
    let mut what = What::empty();
    what.set(What::READ, bits & libc::EPOLLIN as u32 != 0);
    what.set(What::WRITE, bits & libc::EPOLLOUT as u32 != 0);
    what
}

/// libevent's mapping, except that CLOSED is not lost beside an error: a reset connection wakes a watch of CLOSED alone, where libevent spins.
#[cold]
fn ready_with_more(bits: u32) -> What {
    let has = |bit: libc::c_int| bits & bit as u32 != 0;
    let mut what = What::empty();
    if has(libc::EPOLLERR) || (has(libc::EPOLLHUP) && !has(libc::EPOLLRDHUP)) {
        what |= What::READ | What::WRITE;
    }
    if has(libc::EPOLLIN) {
        what |= What::READ;
    }
    if has(libc::EPOLLOUT) {
        what |= What::WRITE;
    }
    if has(libc::EPOLLRDHUP) {
        what |= What::CLOSED;
    }
    what
}
