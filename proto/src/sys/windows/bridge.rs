//! A connected pipe as a socket: what the rest of evd has of a connection is the number of a socket that is readable and writable when the pipe is.
//!
//! Pipes have no readiness. Zero-byte reads on a completion port would tell of what can be read, but only to a method that waits on that port (`win32` and `poll` do not), not of what can be
//! written, and would put pipes into code that is about sockets. So each pipe has a thread and a pair of connected loopback sockets, which carry readiness and nothing else:
//!
//! - The thread reads the pipe into the inbox, up to a limit; while there is something in the inbox, the pair has a byte to be read, and at the pipe's end the end.
//! - A send is written to the pipe itself, at once and whole. What is written is the system's, and arrives also if this process is killed next. One such write may wait until
//!   the peer reads; whoever wants to send meanwhile is told to come back, and the pair is filled up so that it is not writable. When the write is done, it is emptied.
//! - When the socket is closed, the pair is reset, which the thread sees; it waits a moment for the last write, and closes the pipe.
//!
//! The number is all that others know. What belongs to it stands in a table here; the entry of a number that is used again is replaced before anybody knows the number.

use super::chunk;
use super::handle::{Event, Operation, wait_any};
use super::identity::Process;
use super::passing;
use super::{AsFd, AsRawFd, OwnedFd, PollFd, RawFd, Received, poll};
use crate::sys::What;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::windows::io::{AsRawSocket, OwnedHandle};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use windows_sys::Win32::Foundation::ERROR_PIPE_NOT_CONNECTED;
use windows_sys::Win32::Networking::WinSock::{
    FD_CLOSE, LINGER, SO_LINGER, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET, WSAEventSelect, setsockopt,
};

/// Bytes that wait here until they are received. Beyond it the pipe is not read, and the peer's sends wait.
const MOST_WAITING: usize = 128 * 1024;
/// Bytes of one read.
const READ: usize = 64 * 1024;
/// What the pair may buffer each way: little, so that it is soon full.
const PAIR: i32 = 4096;
/// How long the last write of a closed connection may take.
const LINGERS: Duration = Duration::from_secs(2);

/// So many reads are made of what a closed connection has left: more than the inbox and the system's buffer hold.
const LEFT: usize = 16;

/// By the number of the socket that stands for it.
static ALL: RwLock<BTreeMap<RawFd, Arc<Bridge>>> = RwLock::new(BTreeMap::new());

/// What stands behind one socket.
#[derive(Debug)]
pub(super) struct Bridge {
    pub peer: Process,
    /// The peer, to take handles from, once that was asked for.
    source: OnceLock<OwnedHandle>,
    inbox: Mutex<Inbox>,
    outbox: Mutex<Outbox>,
    /// The thread's end of the pair. Non-blocking.
    far: TcpStream,
    /// Wakes the thread: it is to look at the boxes again.
    look: Event,
}

#[derive(Debug, Default)]
struct Inbox {
    chunks: VecDeque<Chunk>,
    /// Bytes in them, as they came: those of their sockets too.
    waiting: usize,
    /// No more will come, and why.
    end: Option<End>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    at: usize,
    fds: Vec<OwnedFd>,
    fds_lost: bool,
    weight: usize,
}

#[derive(Clone, Debug)]
enum End {
    Closed,
    Broken(io::ErrorKind, String),
}

#[derive(Debug)]
struct Outbox {
    write: Operation,
    /// Bytes of the write that has not ended.
    unread: usize,
    /// Bytes that make the pair unwritable.
    filled: usize,
    is_broken: bool,
}

/// Puts a bridge before a connected pipe; returns the socket that stands for it. It is non-blocking, and no child inherits it.
///
/// # Errors
/// Out of handles, memory or threads.
pub(super) fn build(pipe: OwnedHandle, peer: Process) -> io::Result<OwnedFd> {
    let (near, far) = pair()?;
    let pipe = Arc::new(pipe);
    let outbox = Outbox { write: Operation::new(&pipe)?, unread: 0, filled: 0, is_broken: false };
    let (read, closed) = (Operation::new(&pipe)?, Event::new(false)?);
    // SAFETY: an open socket and an open event, which lives as long as the thread that waits for it.
    super::cvt(unsafe {
        WSAEventSelect(far.as_raw_socket() as usize, closed.raw() as isize, FD_CLOSE as i32)
    })?;
    let (inbox, outbox) = (Mutex::default(), Mutex::new(outbox));
    let bridge =
        Arc::new(Bridge { peer, source: OnceLock::new(), inbox, outbox, far, look: Event::new(false)? });
    let near = OwnedFd::from(near);
    let number = near.as_raw_fd();
    table_mut().insert(number, Arc::clone(&bridge));
    let of = Arc::clone(&bridge);
    let thread = std::thread::Builder::new().name("evd-pipe".to_owned()).stack_size(256 * 1024);
    let started = thread.spawn(move || {
        of.run(read, &closed);
        forget(number, &of);
    });
    if let Err(e) = started {
        forget(number, &bridge);
        return Err(e);
    }
    Ok(near)
}

/// What stands behind a socket; `None`: it is a plain one.
pub(super) fn of(number: RawFd) -> Option<Arc<Bridge>> {
    ALL.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
}

/// Sockets of these numbers are plain ones from now on.
pub(super) fn are_plain(numbers: [RawFd; 2]) {
    let mut all = table_mut();
    numbers.iter().for_each(|n| drop(all.remove(n)));
}

fn forget(number: RawFd, bridge: &Arc<Bridge>) {
    let mut all = table_mut();
    if all.get(&number).is_some_and(|known| Arc::ptr_eq(known, bridge)) {
        all.remove(&number);
    }
}

fn table_mut() -> std::sync::RwLockWriteGuard<'static, BTreeMap<RawFd, Arc<Bridge>>> {
    ALL.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two connected sockets of this process: nobody else got in between. Both are non-blocking, and buffer little.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let (near, far) = super::socket::loopback_pair()?;
    for one in [&near, &far] {
        set(one, SO_SNDBUF, &PAIR)?;
        set(one, SO_RCVBUF, &PAIR)?;
        one.set_nodelay(true)?;
    }
    // What it carries is worth nothing: its end is to be seen at once, also where it is full.
    set(&near, SO_LINGER, &LINGER { l_onoff: 1, l_linger: 0 })?;
    Ok((near, far))
}

fn set<T>(socket: &TcpStream, name: i32, value: &T) -> io::Result<()> {
    let (at, len) = ((&raw const *value).cast(), size_of::<T>() as i32);
    // SAFETY: `value` is `len` readable bytes for the call.
    super::cvt(unsafe { setsockopt(socket.as_raw_socket() as usize, SOL_SOCKET, name, at, len) }).map(drop)
}

impl Bridge {
    /// Sends some of `bytes`, or all of them with sockets, as one chunk; returns how many were taken.
    ///
    /// # Errors
    /// `WouldBlock`: the peer does not read. `BrokenPipe`: it is gone. What `passing` says of the sockets.
    pub fn send(&self, near: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
        let mut out = lock(&self.outbox);
        out.look();
        if out.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if out.write.is_pending() {
            out.filled += fill(near);
            drop(out);
            self.look.set();
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = if fds.is_empty() { &bytes[..bytes.len().min(chunk::MOST)] } else { bytes };
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut chunk = chunk::begin(bytes.len(), fds.len());
        // First all are looked at: what was described stays open at the peer, also if it is not sent.
        fds.iter().try_for_each(|fd| passing::check(*fd))?;
        for fd in fds {
            passing::describe(*fd, self.peer.pid, &mut chunk)?;
        }
        chunk.extend_from_slice(bytes);
        out.unread = bytes.len();
        match out.write.write(chunk) {
            Ok(done) => {
                if done.is_some() {
                    out.unread = 0;
                }
                Ok(bytes.len())
            }
            Err(_) => {
                // What else it may be, nothing can be sent any more; why shows in what is received.
                out.is_broken = true;
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    /// The peer's process, to take handles from.
    ///
    /// # Errors
    /// `PermissionDenied`: it may not be opened. `ERROR_PIPE_NOT_CONNECTED`: it has gone.
    pub fn source(&self) -> io::Result<&OwnedHandle> {
        if let Some(source) = self.source.get() {
            return Ok(source);
        }
        let source = self.peer.open_to_take()?;
        // Now that the peer is known to have been there when it was looked at, it is the one that connected.
        if !lock(&self.outbox).write.is_connected() {
            return Err(io::Error::from_raw_os_error(ERROR_PIPE_NOT_CONNECTED as i32));
        }
        Ok(self.source.get_or_init(|| source))
    }

    /// How much of what was sent waits here, in bytes. What the system has already taken is not known.
    pub fn unread(&self) -> usize {
        let mut out = lock(&self.outbox);
        out.look();
        out.unread
    }

    /// Receives as `recvmsg` would: a chunk with sockets ends it, and they come with its first byte that is received.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is there. `InvalidData`: what came is not the protocol. `ConnectionReset`.
    pub fn recv(&self, near: RawFd, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
        let mut inbox = lock(&self.inbox);
        let (mut len, mut fds_lost) = (0, false);
        let was_full = inbox.waiting >= MOST_WAITING;
        while let Some(chunk) = inbox.chunks.front_mut() {
            let n = (buf.len() - len).min(chunk.bytes.len() - chunk.at);
            if n == 0 {
                break;
            }
            buf[len..len + n].copy_from_slice(&chunk.bytes[chunk.at..chunk.at + n]);
            len += n;
            chunk.at += n;
            let had = !chunk.fds.is_empty() || chunk.fds_lost;
            fds_lost |= std::mem::take(&mut chunk.fds_lost);
            fds.append(&mut chunk.fds);
            if chunk.at == chunk.bytes.len() {
                let weight = chunk.weight;
                inbox.waiting -= weight;
                inbox.chunks.pop_front();
            }
            if had {
                break;
            }
        }
        if inbox.chunks.is_empty() && inbox.end.is_none() {
            // A byte that comes late makes it readable once for nothing.
            empty(near);
        }
        let end = inbox.end.clone();
        let has_room = was_full && inbox.waiting < MOST_WAITING;
        drop(inbox);
        if has_room {
            self.look.set();
        }
        match end {
            _ if len > 0 => Ok(Received { len, fds_lost }),
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(End::Closed) => Ok(Received { len: 0, fds_lost: false }),
            Some(End::Broken(kind, text)) => Err(io::Error::new(kind, text)),
        }
    }

    /// The thread's work, until the socket is closed.
    fn run(&self, mut read: Operation, closed: &Event) {
        let mut came = Vec::new();
        loop {
            if !read.is_pending() && self.wants_more() {
                match read.read(READ) {
                    Ok(Some(n)) => {
                        self.take_in(&mut came, &read.bytes()[..n]);
                        continue;
                    }
                    Ok(None) => {}
                    Err(e) => self.end(&e),
                }
            }
            let writes = self.waits_for_write();
            let mut handles = vec![closed.raw(), self.look.raw()];
            if read.is_pending() {
                handles.push(read.event());
            }
            handles.extend(writes);
            match wait_any(&handles, None) {
                Ok(Some(0)) | Err(_) => break,
                _ => {}
            }
            if read.is_pending() {
                match read.ended(false) {
                    Ok(Some(n)) => self.take_in(&mut came, &read.bytes()[..n]),
                    Ok(None) => {}
                    Err(e) => self.end(&e),
                }
            }
            self.make_writable();
        }
        self.finish();
        self.discard(read, came);
    }

    /// Whether the pipe is to be read.
    fn wants_more(&self) -> bool {
        let inbox = lock(&self.inbox);
        inbox.end.is_none() && inbox.waiting < MOST_WAITING
    }

    /// What is set when a write ends that somebody waits for.
    fn waits_for_write(&self) -> Option<windows_sys::Win32::Foundation::HANDLE> {
        let out = lock(&self.outbox);
        (out.filled > 0 && out.write.is_pending()).then(|| out.write.event())
    }

    /// Takes whole chunks out of what came.
    fn take_in(&self, came: &mut Vec<u8>, fresh: &[u8]) {
        came.extend_from_slice(fresh);
        let mut at = 0;
        loop {
            match chunk::first(&came[at..]) {
                Ok(Some(raw)) => {
                    let next = came.len() - raw.rest.len();
                    let chunk = Chunk::new(&raw);
                    at = next;
                    self.deliver(chunk);
                }
                Ok(None) => break,
                Err(e) => {
                    self.end(&e);
                    break;
                }
            }
        }
        came.drain(..at);
    }

    fn deliver(&self, chunk: Chunk) {
        let mut inbox = lock(&self.inbox);
        if inbox.end.is_some() {
            return;
        }
        let was_empty = inbox.chunks.is_empty();
        inbox.waiting += chunk.weight;
        inbox.chunks.push_back(chunk);
        if was_empty {
            // With the lock held: so nobody takes this byte for an earlier one's. If there is no room for it, there are others.
            let _ = (&self.far).write(&[1]);
        }
    }

    /// Nothing more will come. The socket is readable for good.
    fn end(&self, why: &io::Error) {
        let mut inbox = lock(&self.inbox);
        if inbox.end.is_none() {
            inbox.end = Some(match why.kind() {
                io::ErrorKind::BrokenPipe => End::Closed,
                io::ErrorKind::InvalidData => End::Broken(why.kind(), why.to_string()),
                _ => End::Broken(io::ErrorKind::ConnectionReset, why.to_string()),
            });
            let _ = self.far.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Lets the socket be writable again if the write has ended that it waited for.
    fn make_writable(&self) {
        let mut out = lock(&self.outbox);
        out.look();
        if !out.write.is_pending() {
            let filled = std::mem::take(&mut out.filled);
            self.swallow(filled);
        }
    }

    /// Reads what made the pair full. It is on its way, so nothing is waited for that may not come, but for the other end being closed.
    fn swallow(&self, mut left: usize) {
        let mut buf = [0; 4096];
        while left > 0 {
            let most = left.min(buf.len());
            match (&self.far).read(&mut buf[..most]) {
                Ok(0) => return,
                Ok(n) => left -= n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let mut one = [PollFd::new(self.far.as_raw_fd(), What::READ)];
                    if poll(&mut one, None).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// The socket is closed. What was taken from its owner is still to arrive, if the peer reads.
    fn finish(&self) {
        let mut out = lock(&self.outbox);
        if out.write.is_pending() {
            let _ = wait_any(&[out.write.event()], Some(LINGERS));
            out.look();
        }
        out.is_broken = true;
        // Sockets that nobody took are closed now, and not with the last who knows of the bridge.
        let mut inbox = lock(&self.inbox);
        inbox.chunks.clear();
        inbox.end.get_or_insert(End::Closed);
    }

    /// Opens and closes the sockets of what came and nobody will read: where they were described they are open in this process already, and nobody else can close them.
    fn discard(&self, mut read: Operation, mut came: Vec<u8>) {
        for _ in 0..LEFT {
            match if read.is_pending() { read.ended(false) } else { read.read(READ) } {
                Ok(Some(n)) => self.take_in(&mut came, &read.bytes()[..n]),
                _ => return,
            }
        }
    }
}

impl Chunk {
    fn new(raw: &chunk::Raw<'_>) -> Chunk {
        let weight = raw.bytes.len() + raw.sockets.len();
        let mut chunk = Chunk { bytes: raw.bytes.to_vec(), at: 0, fds: Vec::new(), fds_lost: false, weight };
        for description in raw.sockets.chunks_exact(passing::LEN) {
            let adopted = description.try_into().map_err(io::Error::other).and_then(passing::adopt);
            match adopted {
                Ok(fd) => chunk.fds.push(fd),
                Err(_) => chunk.fds_lost = true,
            }
        }
        chunk
    }
}

impl Outbox {
    /// Takes note if the write has ended.
    fn look(&mut self) {
        if self.write.is_pending() {
            self.is_broken |= self.write.ended(false).is_err();
            if !self.write.is_pending() {
                self.unread = 0;
            }
        }
    }
}

/// Makes a socket unwritable; returns with how many bytes.
fn fill(near: RawFd) -> usize {
    let (zeroes, mut filled) = ([0; 4096], 0);
    while let Ok(n) = super::socket::send_plain(super::FdNumber(near).as_fd(), &zeroes) {
        filled += n;
    }
    filled
}

/// Takes what makes a socket readable.
fn empty(near: RawFd) {
    let mut buf = [0; 64];
    while super::socket::recv_plain(super::FdNumber(near).as_fd(), &mut buf).is_ok_and(|n| n > 0) {}
}
