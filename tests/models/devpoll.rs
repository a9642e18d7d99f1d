//! A model of /dev/poll, by poll(7D) and illumos' source: a set by number, to which events are only ever added.

use super::{check, fault, sleep_on};
use evd::backend::devpoll::{Calls, POLLREMOVE, PollEntry};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// A set of /dev/poll.
#[derive(Debug)]
pub struct Devpoll {
    set: BTreeMap<RawFd, libc::c_short>,
    /// Where the next look begins, as the kernel's does not begin at the same number each time.
    start: RawFd,
}

impl Devpoll {
    pub fn new() -> Devpoll {
        Devpoll { set: BTreeMap::new(), start: 0 }
    }
}

impl Calls for Devpoll {
    fn write(&mut self, changes: &[PollEntry]) -> io::Result<()> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is live and writable.
        check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }).map_err(fault)?;
        if changes.len() > usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) {
            return Err(fault(libc::EINVAL));
        }
        for PollEntry { number, events } in changes {
            if *events == POLLREMOVE {
                self.set.remove(number);
            } else {
                assert_eq!(events & POLLREMOVE, 0, "POLLREMOVE goes alone");
                *self.set.entry(*number).or_default() |= events;
            }
        }
        Ok(())
    }

    fn poll(&mut self, into: &mut Vec<PollEntry>, room: usize, timeout: Option<Duration>) -> io::Result<()> {
        assert!(room > 0, "a set is not asked for nothing");
        let entry = |(number, events): (&RawFd, &libc::c_short)| libc::pollfd {
            fd: *number,
            events: *events,
            revents: 0,
        };
        let after = self.set.range(self.start..).map(entry);
        let mut fds: Vec<_> = after.chain(self.set.range(..self.start).map(entry)).collect();
        let ms = |t: Duration| Duration::from_millis(t.as_nanos().div_ceil(1_000_000) as u64);
        sleep_on(&mut fds, timeout.map(|t| Instant::now() + ms(t))).map_err(fault)?;
        for fd in fds.iter().filter(|fd| fd.revents != 0).take(room) {
            into.push(PollEntry { number: fd.fd, events: fd.revents });
            self.start = fd.fd + 1;
        }
        Ok(())
    }
}
