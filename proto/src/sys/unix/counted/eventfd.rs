//! Fds that count by themselves, whoever has them: how often somebody called, how often a timer was due. So the count outlives each process that had one.
//!
//! Source: eventfd(2), timerfd_create(2), proc_pid_fdinfo(5).

use crate::sys::unix::file::own;
use crate::sys::unix::{PollFd, cvt, cvt_size, look, poll};
use crate::sys::{FileKind, What};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A counter that is zero; non-blocking, closed on exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn counter() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes numbers.
    Ok(own(cvt(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?))
}

/// A timer that counts how often it was due: after a time, and then every so often. It goes by `CLOCK_MONOTONIC`, from now on; non-blocking, closed on exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`; `EINVAL`: a time that the kernel can't count.
pub fn counting_timer(first: Duration, every: Option<Duration>) -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: timerfd_create takes numbers.
    let fd = own(cvt(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?);
    let spec = |t: Duration| libc::timespec {
        tv_sec: t.as_secs().min(i64::MAX as u64) as libc::time_t,
        tv_nsec: t.subsec_nanos() as libc::c_long,
    };
    // Zero would disarm it, or make it count once only.
    let least = Duration::from_nanos(1);
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let spec = libc::itimerspec {
        it_interval: every.map_or(zero, |t| spec(t.max(least))),
        it_value: spec(first.max(least)),
    };
    // SAFETY: `spec` is a live itimerspec, and a null old value is allowed.
    cvt(unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &spec, std::ptr::null_mut()) })?;
    Ok(fd)
}

/// Adds one to a counter. A full one stays as it is.
///
/// # Errors
/// It is no counter.
pub fn count_up(counter: BorrowedFd<'_>) -> io::Result<()> {
    // Who made it may have left it blocking; full ones are not written to.
    let mut look = [PollFd::new(counter.as_raw_fd(), What::WRITE)];
    if poll(&mut look, Some(Duration::ZERO))? == 0 {
        return Ok(());
    }
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is readable for its length.
    match cvt_size(unsafe { libc::write(counter.as_raw_fd(), one.as_ptr().cast(), one.len()) }) {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
        _ => Ok(()),
    }
}

/// Takes what a counter or a timer has counted; it is zero then.
///
/// # Errors
/// `InvalidInput`: it is neither, and nothing was read.
pub fn take_count(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let kind = look(fd)?.kind;
    // Without /proc files without a name are not told apart; those that don't count refuse to give 8 bytes.
    if !matches!(kind, FileKind::EventFd | FileKind::TimerFd | FileKind::Other) {
        let kind = format!("{kind:?}").to_lowercase();
        let text = format!("only an eventfd or a timerfd counts, and this is a {kind}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut look = [PollFd::new(fd.as_raw_fd(), What::READ)];
    if poll(&mut look, Some(Duration::ZERO))? == 0 {
        return Ok(0);
    }
    let mut count = [0u8; 8];
    // SAFETY: `count` is writable for its length.
    match cvt_size(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) }) {
        Ok(8) => Ok(u64::from_ne_bytes(count)),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(e) => Err(e),
    }
}

/// What a counter or a timer has counted, without taking it; 0 for anything else, and where it can't be told.
pub fn look_at_count(fd: BorrowedFd<'_>) -> u64 {
    // A timer that goes on adds up what it has missed only when it is read, or asked for its time.
    // SAFETY: all zeroes are a valid itimerspec.
    let mut spec: libc::itimerspec = unsafe { std::mem::zeroed() };
    // SAFETY: `spec` is writable for the call. For what is no timer it is an error, which says nothing here.
    unsafe { libc::timerfd_gettime(fd.as_raw_fd(), &mut spec) };
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap_or_default();
    let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
    let counter = value("eventfd-count:").and_then(|n| u64::from_str_radix(n, 16).ok());
    counter.or_else(|| value("ticks:").and_then(|n| n.parse().ok())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_counter_counts_until_it_is_taken() {
        let counter = counter().unwrap();
        assert_eq!(take_count(counter.as_fd()).unwrap(), 0);
        for _ in 0..20 {
            count_up(counter.as_fd()).unwrap();
        }
        assert_eq!(look_at_count(counter.as_fd()), 20);
        assert_eq!((take_count(counter.as_fd()).unwrap(), take_count(counter.as_fd()).unwrap()), (20, 0));
    }

    #[test]
    fn what_counts_nothing_is_refused_and_not_read() {
        use std::io::{Read, Write};
        let (mut near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        far.write_all(b"precious").unwrap();
        let refused = take_count(near.as_fd()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("socket"), "{refused}");
        let mut got = [0; 8];
        near.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"precious");
        // Also where there is nothing to be read.
        assert!(take_count(near.as_fd()).is_err());
    }

    #[test]
    fn a_full_counter_blocks_nobody() {
        // SAFETY: eventfd takes numbers; blocking, and almost full.
        let counter = own(cvt(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }).unwrap());
        let most = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: `most` is readable for its length.
        assert_eq!(unsafe { libc::write(counter.as_raw_fd(), most.as_ptr().cast(), 8) }, 8);
        count_up(counter.as_fd()).unwrap();
        assert_eq!(look_at_count(counter.as_fd()), u64::MAX - 1);
    }

    #[test]
    fn a_timer_counts_by_itself() {
        let every = Duration::from_millis(1);
        let timer = counting_timer(Duration::ZERO, Some(every)).unwrap();
        while look_at_count(timer.as_fd()) < 3 {
            std::thread::yield_now();
        }
        assert!(take_count(timer.as_fd()).unwrap() >= 3);
        let once = counting_timer(every, None).unwrap();
        while look_at_count(once.as_fd()) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(take_count(once.as_fd()).unwrap(), 1);
        let far = counting_timer(Duration::from_secs(3600), None).unwrap();
        assert_eq!(take_count(far.as_fd()).unwrap(), 0);
    }
}
