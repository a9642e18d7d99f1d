//! A model of `\Device\Afd` and its completion port, by wepoll's documents and Wine's server: one-shot polls of several sockets, and their answers.
//!
//! An answer is queued once, with what was so then, and is delivered however old it is. Pipes and files do here too, as if they were sockets.

use super::{Identity, Set, fault, identity, look_for, sleep_on};
use evd::backend::wepoll::{Calls, Events, MOST};
use evd_proto::sys::Wake;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// One socket of a poll.
#[derive(Clone, Copy, Debug)]
struct Member {
    number: RawFd,
    events: Events,
    identity: Identity,
}

/// The driver and the port.
#[derive(Debug)]
pub struct Afd {
    pending: Vec<Vec<Member>>,
    queue: VecDeque<(RawFd, Events)>,
    /// Readable while something is queued, or should be.
    own: Set,
    queued: Wake,
}

impl Afd {
    pub fn new() -> Afd {
        let (own, queued) = (Set::new(), Wake::new().unwrap());
        own.control(libc::EPOLL_CTL_ADD, queued.as_fd().as_raw_fd(), libc::EPOLLIN).unwrap();
        Afd { pending: Vec::new(), queue: VecDeque::new(), own, queued }
    }

    /// What the driver says of a socket now.
    fn found(member: &Member) -> Events {
        if identity(member.number) != Some(member.identity) {
            return Events::LOCAL_CLOSE;
        }
        let bits = look_for(member.number, asked(member.events) as libc::c_short);
        let mut found = Events::empty();
        for (bit, event) in PAIRS {
            found.set(event, libc::c_int::from(bits) & bit != 0);
        }
        let is_socket = member.identity.2 == libc::S_IFSOCK;
        // Linux calls a socket that is not connected yet hung up; the driver does not.
        let hung_up = bits & libc::POLLHUP != 0
            && (!is_socket || look_for(member.number, libc::POLLRDHUP) & libc::POLLRDHUP != 0);
        // Both sides have closed in good order: the driver tells of the peer's only.
        let aborted = bits & libc::POLLERR != 0 || (hung_up && !is_socket);
        found.set(Events::DISCONNECT, hung_up || found.contains(Events::DISCONNECT));
        found.set(Events::ABORT, aborted);
        found & (member.events | Events::ABORT)
    }

    fn answer(&mut self, poll: Vec<Member>) {
        for member in poll {
            let _ = self.own.control(libc::EPOLL_CTL_DEL, member.number, 0);
            self.queue.push_back((member.number, Afd::found(&member)));
        }
    }

    /// Queues the answers of polls that have one.
    fn harvest(&mut self) {
        for poll in std::mem::take(&mut self.pending) {
            self.consider(poll);
        }
        self.show();
    }

    fn consider(&mut self, poll: Vec<Member>) {
        if poll.iter().all(|m| Afd::found(m).is_empty()) {
            self.pending.push(poll);
        } else {
            self.answer(poll);
        }
    }

    fn show(&self) {
        if self.queue.is_empty() {
            self.queued.drain();
        } else {
            self.queued.notify();
        }
    }
}

const PAIRS: [(libc::c_int, Events); 3] = [
    (libc::EPOLLIN, Events::RECEIVE),
    (libc::EPOLLOUT, Events::SEND),
    (libc::EPOLLRDHUP, Events::DISCONNECT),
];

fn asked(events: Events) -> libc::c_int {
    PAIRS.iter().filter(|(_, e)| events.contains(*e)).fold(0, |all, (bit, _)| all | bit)
}

impl Calls for Afd {
    fn enter(&mut self, number: RawFd) -> io::Result<()> {
        identity(number).map(drop).ok_or_else(|| fault(libc::EBADF))
    }

    fn poll(&mut self, sockets: &[(RawFd, Events)]) -> io::Result<()> {
        assert!((1..=MOST).contains(&sockets.len()));
        sockets.iter().for_each(|(number, _)| self.cancel(*number));
        let member = |&(number, events)| {
            let identity = identity(number).ok_or_else(|| fault(libc::EBADF))?;
            Ok(Member { number, events, identity })
        };
        let poll = sockets.iter().map(member).collect::<io::Result<Vec<_>>>()?;
        for m in &poll {
            // A file that is always ready is refused, and has its answer at once.
            let _ = self.own.control(libc::EPOLL_CTL_DEL, m.number, 0);
            let _ = self.own.control(libc::EPOLL_CTL_ADD, m.number, asked(m.events));
        }
        self.consider(poll);
        self.show();
        Ok(())
    }

    fn cancel(&mut self, number: RawFd) {
        self.queue.retain(|(n, _)| *n != number);
        if let Some(at) = self.pending.iter().position(|p| p.iter().any(|m| m.number == number)) {
            for member in self.pending.remove(at) {
                let _ = self.own.control(libc::EPOLL_CTL_DEL, member.number, 0);
                if member.number != number {
                    self.queue.push_back((member.number, Events::empty()));
                }
            }
        }
        self.show();
    }

    fn take(&mut self, into: &mut Vec<(RawFd, Events)>, timeout: Option<Duration>) -> io::Result<()> {
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            self.harvest();
            if !self.queue.is_empty() {
                into.extend(self.queue.drain(..));
                self.show();
                return Ok(());
            }
            let fd = self.own.0.as_raw_fd();
            let mut own = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
            // A signal ends the wait early.
            if sleep_on(&mut own, deadline).unwrap_or(0) == 0 || deadline.is_some_and(|d| d <= Instant::now())
            {
                self.harvest();
                into.extend(self.queue.drain(..));
                self.show();
                return Ok(());
            }
        }
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.own.0.as_fd())
    }
}
