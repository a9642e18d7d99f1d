//! A model of kqueue(2), by the manuals of FreeBSD and macOS.
//!
//! Two epolls, as epoll has one entry a number and kqueue one for each filter; a third around them is the kqueue's own fd. What epoll says is looked at again by
//! the rules of the filters: a new socket is hung up for Linux and not for a BSD.

use super::{Identity, Set, identity, look, sleep_on};
use evd::backend::kqueue::{Calls, Filter, Flags, Kevent};
use evd_proto::sys::Wake;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

type Key = (RawFd, Filter);

#[derive(Debug)]
struct Knote {
    shape: Flags,
    enabled: bool,
    identity: Identity,
    /// epoll refuses it: a vnode, ready until its end.
    vnode: bool,
}

/// A kqueue.
#[derive(Debug)]
pub struct Kqueue {
    knotes: BTreeMap<Key, Knote>,
    read: Set,
    write: Set,
    own: Set,
    /// Readable while a vnode is enabled.
    vnodes: Wake,
}

impl Kqueue {
    pub fn new() -> Kqueue {
        let (read, write, own, vnodes) = (Set::new(), Set::new(), Set::new(), Wake::new().unwrap());
        own.nest(&read);
        own.nest(&write);
        own.control(libc::EPOLL_CTL_ADD, vnodes.as_fd().as_raw_fd(), libc::EPOLLIN).unwrap();
        Kqueue { knotes: BTreeMap::new(), read, write, own, vnodes }
    }

    fn set(&self, filter: Filter) -> &Set {
        match filter {
            Filter::Read => &self.read,
            Filter::Write => &self.write,
        }
    }

    /// Closing a number removes its knotes; here they are found when somebody looks.
    fn drop_closed(&mut self) {
        let closed = |(key, k): (&Key, &Knote)| (identity(key.0) != Some(k.identity)).then_some(*key);
        for key in self.knotes.iter().filter_map(closed).collect::<Vec<_>>() {
            self.knotes.remove(&key);
        }
        self.show_vnodes();
    }

    fn show_vnodes(&self) {
        if self.knotes.values().any(|k| k.vnode && k.enabled) {
            self.vnodes.notify();
        } else {
            self.vnodes.drain();
        }
    }

    /// Has epoll watch a knote, if it is enabled, and look at its file again.
    fn enter(&mut self, key: Key) -> Result<(), i32> {
        let events = match key.1 {
            Filter::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Filter::Write => libc::EPOLLOUT,
        };
        let knote = &self.knotes[&key];
        let set = self.set(key.1);
        let edge = if knote.shape.contains(Flags::CLEAR) { libc::EPOLLET } else { 0 };
        let _ = set.control(libc::EPOLL_CTL_DEL, key.0, 0);
        let entered =
            if knote.enabled { set.control(libc::EPOLL_CTL_ADD, key.0, events | edge) } else { Ok(()) };
        if entered == Err(libc::EPERM) {
            self.knotes.get_mut(&key).unwrap().vnode = true;
        } else {
            entered?;
        }
        self.show_vnodes();
        Ok(())
    }

    fn change(&mut self, change: &Kevent) -> Result<(), i32> {
        let key = (change.ident, change.filter);
        let identity = identity(change.ident).ok_or(libc::EBADF)?;
        let flags = change.flags;
        if flags.contains(Flags::ADD) {
            match self.knotes.get(&key) {
                Some(knote) => {
                    assert!(knote.enabled, "{key:?}: not every system enables what is added again");
                    let shape = flags & (Flags::CLEAR | Flags::DISPATCH);
                    assert_eq!(knote.shape, shape, "{key:?}: adding again does not change the shape");
                }
                None => {
                    let is_pipe = identity.2 == libc::S_IFIFO;
                    if change.filter == Filter::Write && is_pipe && look(change.ident) & libc::POLLERR != 0 {
                        return Err(libc::EPIPE);
                    }
                    let shape = flags & (Flags::CLEAR | Flags::DISPATCH);
                    self.knotes.insert(key, Knote { shape, enabled: true, identity, vnode: false });
                }
            }
            let entered = self.enter(key);
            if entered.is_err() {
                self.knotes.remove(&key);
            }
            return entered;
        }
        let knote = self.knotes.get_mut(&key).ok_or(libc::ENOENT)?;
        if flags.contains(Flags::DELETE) {
            self.knotes.remove(&key);
            let _ = self.set(key.1).control(libc::EPOLL_CTL_DEL, key.0, 0);
            self.show_vnodes();
            return Ok(());
        }
        knote.enabled = flags.contains(Flags::ENABLE);
        self.enter(key)
    }

    /// Appends what is ready, at most `room`.
    fn scan(&mut self, events: &mut Vec<Kevent>, room: usize) {
        self.drop_closed();
        let mut ready: Vec<Key> = self.knotes.iter().filter(|(_, k)| k.vnode).map(|(key, _)| *key).collect();
        ready.extend(self.read.ready().into_iter().map(|n| (n, Filter::Read)));
        ready.extend(self.write.ready().into_iter().map(|n| (n, Filter::Write)));
        for key in ready {
            let Some(knote) = self.knotes.get_mut(&key).filter(|k| k.enabled) else { continue };
            let level = !knote.shape.contains(Flags::CLEAR);
            if events.len() == room {
                // It stays active: an edge is kept for the next call.
                if !level {
                    self.enter(key).unwrap();
                }
                continue;
            }
            let Some(flags) = condition(key, knote) else {
                // Ready for epoll only, and for long: to be woken by the next change is enough.
                if level && !knote.vnode {
                    let bits = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLOUT | libc::EPOLLET;
                    let _ = self.set(key.1).control(libc::EPOLL_CTL_MOD, key.0, bits);
                }
                continue;
            };
            events.push(Kevent { ident: key.0, filter: key.1, flags, data: 0 });
            if knote.shape.contains(Flags::DISPATCH) {
                knote.enabled = false;
            }
            // A level that was woken by a change is a level again.
            if level {
                self.enter(key).unwrap();
            }
        }
    }
}

/// Whether a filter says that a file is ready, and the flags that it reports.
fn condition(key: Key, knote: &Knote) -> Option<Flags> {
    let r = look(key.0);
    let has = |bits| r & bits != 0;
    let new_socket = has(libc::POLLHUP) && !has(libc::POLLRDHUP);
    let (ready, eof) = match (key.1, knote.identity.2) {
        (Filter::Read, libc::S_IFSOCK) => {
            (has(libc::POLLIN | libc::POLLRDHUP | libc::POLLERR), has(libc::POLLRDHUP))
        }
        (Filter::Read, _) => (has(libc::POLLIN | libc::POLLHUP), has(libc::POLLHUP)),
        (Filter::Write, libc::S_IFSOCK) => {
            (has(libc::POLLOUT | libc::POLLERR) && !new_socket, has(libc::POLLHUP))
        }
        (Filter::Write, _) => (has(libc::POLLOUT | libc::POLLERR), has(libc::POLLERR)),
    };
    ready.then_some(if eof { Flags::EOF } else { Flags::empty() })
}

impl AsFd for Kqueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.0.as_fd()
    }
}

impl Calls for Kqueue {
    fn kevent(
        &mut self,
        changes: &[Kevent],
        events: &mut Vec<Kevent>,
        room: usize,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        assert!(events.is_empty());
        self.drop_closed();
        for change in changes {
            let Err(errno) = self.change(change) else { continue };
            if events.len() == room {
                return Err(io::Error::from_raw_os_error(errno));
            }
            events.push(Kevent { flags: Flags::ERROR, data: errno.into(), ..*change });
        }
        if room == 0 || !events.is_empty() {
            return Ok(());
        }
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            self.scan(events, room);
            if !events.is_empty() {
                return Ok(());
            }
            let fd = self.own.0.as_raw_fd();
            let mut own = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
            match sleep_on(&mut own, deadline) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}
