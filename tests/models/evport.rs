//! A model of event ports, by port_create(3C), port_associate(3C) and port_get(3C), and what illumos' source says they leave open.
//!
//! An event is queued once, with what was so then, and is delivered however old it is.

use super::{Identity, Set, fault, identity, look_for, sleep_on};
use evd::backend::evport::Calls;
use evd_proto::sys::Wake;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Association {
    events: libc::c_short,
    identity: Identity,
}

/// An event port.
#[derive(Debug)]
pub struct Port {
    /// Those whose event has not come.
    associations: BTreeMap<RawFd, Association>,
    queue: VecDeque<(RawFd, Association)>,
    waits: Set,
    own: Set,
    /// Readable while something is queued.
    queued: Wake,
}

impl Port {
    pub fn new() -> Port {
        let (waits, own, queued) = (Set::new(), Set::new(), Wake::new().unwrap());
        own.nest(&waits);
        own.control(libc::EPOLL_CTL_ADD, queued.as_fd().as_raw_fd(), libc::EPOLLIN).unwrap();
        Port { associations: BTreeMap::new(), queue: VecDeque::new(), waits, own, queued }
    }

    /// Queues what has become ready, and drops what was closed.
    fn harvest(&mut self) {
        self.queue.retain(|(fd, a)| identity(*fd) == Some(a.identity));
        self.associations.retain(|fd, a| identity(*fd) == Some(a.identity));
        for fd in self.waits.ready() {
            let Some(a) = self.associations.remove(&fd) else { continue };
            if look_for(fd, a.events) == 0 {
                self.enter(fd, a.events).unwrap();
                self.associations.insert(fd, a);
            } else {
                self.queue.push_back((fd, a));
            }
        }
        self.show();
    }

    fn show(&self) {
        if self.queue.is_empty() {
            self.queued.drain();
        } else {
            self.queued.notify();
        }
    }

    fn enter(&self, fd: RawFd, events: libc::c_short) -> Result<(), i32> {
        let bits = libc::c_int::from(events) | libc::EPOLLONESHOT;
        let _ = self.waits.control(libc::EPOLL_CTL_DEL, fd, 0);
        self.waits.control(libc::EPOLL_CTL_ADD, fd, bits)
    }

    fn drop_of(&mut self, fd: RawFd) -> bool {
        let had = self.associations.remove(&fd).is_some();
        let before = self.queue.len();
        self.queue.retain(|(queued, _)| *queued != fd);
        let _ = self.waits.control(libc::EPOLL_CTL_DEL, fd, 0);
        self.show();
        had || self.queue.len() < before
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.0.as_fd()
    }
}

impl Calls for Port {
    fn associate(&mut self, fd: RawFd, events: libc::c_short) -> io::Result<()> {
        self.harvest();
        let identity = identity(fd).ok_or_else(|| fault(libc::EBADF))?;
        self.drop_of(fd);
        let association = Association { events, identity };
        if look_for(fd, events) != 0 {
            self.queue.push_back((fd, association));
        } else {
            self.enter(fd, events).map_err(fault)?;
            self.associations.insert(fd, association);
        }
        self.show();
        Ok(())
    }

    fn dissociate(&mut self, fd: RawFd) -> io::Result<()> {
        self.harvest();
        identity(fd).ok_or_else(|| fault(libc::EBADF))?;
        if self.drop_of(fd) { Ok(()) } else { Err(fault(libc::ENOENT)) }
    }

    fn take(&mut self, into: &mut Vec<RawFd>, room: usize, timeout: Option<Duration>) -> io::Result<()> {
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            self.harvest();
            if !self.queue.is_empty() {
                let n = room.min(self.queue.len());
                into.extend(self.queue.drain(..n).map(|(fd, _)| fd));
                self.show();
                return Ok(());
            }
            let fd = self.waits.0.as_raw_fd();
            let mut own = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
            if sleep_on(&mut own, deadline).map_err(fault)? == 0 {
                return Ok(());
            }
        }
    }
}
