//! The kernel's side of wepoll: polls by `\Device\Afd`, answers by an I/O completion port.
//!
//! Each poll is an [`Op`] on the heap. From the moment it is asked until its answer was taken out of the port its memory is the kernel's, which writes into it, so a cancelled one
//! is only marked, and freed when its answer comes.
//!
//! Source: Microsoft, I/O Completion Ports, CancelIoEx, SIO_BASE_HANDLE; wepoll; Wine, server/sock.c.

use super::Backend;
use super::handles::Handles;
use super::wepoll::{Calls, Events, MOST, Wepoll};
use evd_proto::sys::{AsFd, BAD_FD, BorrowedFd, RawFd, Wake, is_open};
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use windows_sys::Wdk::Foundation::OBJECT_ATTRIBUTES;
use windows_sys::Wdk::Storage::FileSystem::{FILE_OPEN, NtCreateFile};
use windows_sys::Win32::Foundation::{
    ERROR_INVALID_HANDLE, ERROR_IO_PENDING, HANDLE, INVALID_HANDLE_VALUE, RtlNtStatusToDosError,
    UNICODE_STRING, WAIT_TIMEOUT,
};
use windows_sys::Win32::Networking::WinSock::{SIO_BASE_HANDLE, SOCKET, WSAIoctl};
use windows_sys::Win32::Storage::FileSystem::{FILE_SHARE_READ, FILE_SHARE_WRITE, SYNCHRONIZE};
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, DeviceIoControl, GetQueuedCompletionStatusEx, IO_STATUS_BLOCK,
    OVERLAPPED, OVERLAPPED_ENTRY, PostQueuedCompletionStatus,
};

/// The driver's call for polls. Source: Wine, include/wine/afd.h, IOCTL_AFD_POLL.
const POLL: u32 = 0x0001_2024;
/// How many polls go through one handle of the driver: to cancel one it looks through all of a handle's.
const GROUP: u32 = 32;
/// Answers that are taken with one call.
const BATCH: usize = 256;
/// Ends the thread of a pollable port.
const END: usize = 1;
/// Tells that thread to say how far it is.
const MARK: usize = 2;

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    Ok(Box::new(Handles::beside(Wepoll::on(Driver::new()?))))
}

/// Some sockets of a poll, or of its answer. Source: as [`POLL`].
#[repr(C)]
struct PollInfo {
    timeout: i64,
    count: u32,
    exclusive: u32,
    sockets: [PollSocket; MOST],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PollSocket {
    socket: SOCKET,
    events: u32,
    status: i32,
}

/// One poll.
#[repr(C)]
struct Op {
    /// First, as it is what the port tells it by.
    overlapped: OVERLAPPED,
    info: PollInfo,
    /// Number and base socket of each, as the answer overwrites what was asked; -1 for one that was taken back.
    members: [(RawFd, SOCKET); MOST],
    len: usize,
    group: usize,
    cancelled: bool,
}

struct Group {
    driver: OwnedHandle,
    polls: u32,
}

/// The driver and the port.
pub(super) struct Driver {
    port: Arc<OwnedHandle>,
    groups: Vec<Group>,
    /// By number: the poll that is asked, or null.
    asked: Vec<*mut Op>,
    /// Polls that are the kernel's: those asked, and the cancelled.
    pending: usize,
    #[allow(clippy::vec_box, reason = "what is lent to the kernel is the box")]
    spare: Vec<Box<Op>>,
    /// Sockets of layered providers, whose base socket is another one: rare.
    bases: Vec<(RawFd, SOCKET)>,
    entries: Vec<OVERLAPPED_ENTRY>,
    thread: Option<Arc<Shared>>,
    /// As many as the thread was asked for.
    marks: u64,
}

// SAFETY: the pointers are to polls that only this one names, and the kernel's writing to them is bound to no thread.
unsafe impl Send for Driver {}

/// What the thread of a pollable port has taken.
struct Shared {
    taken: Mutex<Taken>,
    came: Condvar,
    wake: Wake,
}

#[derive(Default)]
struct Taken {
    /// By their polls' addresses.
    answers: Vec<usize>,
    marks: u64,
    /// The thread has ended.
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, port: &OwnedHandle) {
        let mut entries = room();
        loop {
            let came = dequeue(port, &mut entries, None);
            let mut taken = self.lock();
            for entry in &entries[..*came.as_ref().unwrap_or(&0)] {
                match entry.lpCompletionKey {
                    END => taken.over = true,
                    MARK => taken.marks += 1,
                    _ => taken.answers.push(entry.lpOverlapped as usize),
                }
            }
            taken.over |= came.is_err();
            // Under the lock: who takes the answers takes the wake-up back.
            if !taken.answers.is_empty() {
                self.wake.notify();
            }
            self.came.notify_one();
            if taken.over {
                return;
            }
        }
    }
}

fn room() -> Vec<OVERLAPPED_ENTRY> {
    vec![
        OVERLAPPED_ENTRY {
            lpCompletionKey: 0,
            lpOverlapped: null_mut(),
            Internal: 0,
            dwNumberOfBytesTransferred: 0
        };
        BATCH
    ]
}

/// Waits for one answer and takes as many as there is room for; 0: the time is over.
fn dequeue(
    port: &OwnedHandle,
    entries: &mut [OVERLAPPED_ENTRY],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    // u32::MAX is for ever; a longer wait comes back early.
    let ms =
        timeout.map_or(u32::MAX, |t| t.as_nanos().div_ceil(1_000_000).min(u128::from(u32::MAX - 1)) as u32);
    let (at, len, mut n) = (entries.as_mut_ptr(), entries.len() as u32, 0);
    // SAFETY: `at` is `len` live, writable entries, and the port is open.
    if unsafe { GetQueuedCompletionStatusEx(port.as_raw_handle(), at, len, &mut n, ms, 0) } != 0 {
        return Ok(n as usize);
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(WAIT_TIMEOUT as i32) => Ok(0),
        e => Err(e),
    }
}

impl Driver {
    fn new() -> io::Result<Driver> {
        // SAFETY: it takes numbers, and makes a new port without a file.
        let port = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, null_mut(), 0, 0) };
        if port.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just made; nobody else owns it.
        let port = Arc::new(unsafe { OwnedHandle::from_raw_handle(port) });
        let mut driver = Driver {
            port,
            groups: Vec::new(),
            asked: Vec::new(),
            pending: 0,
            spare: Vec::new(),
            bases: Vec::new(),
            entries: room(),
            thread: None,
            marks: 0,
        };
        // So that a system without it is found out here.
        driver.group()?;
        Ok(driver)
    }

    /// A handle of the driver that has room for one more poll.
    fn group(&mut self) -> io::Result<usize> {
        if let Some(at) = self.groups.iter().rposition(|g| g.polls < GROUP) {
            return Ok(at);
        }
        let driver = open_driver()?;
        // SAFETY: both handles are open; the key is a number.
        let port = unsafe { CreateIoCompletionPort(driver.as_raw_handle(), self.port.as_raw_handle(), 0, 0) };
        if port.is_null() {
            return Err(io::Error::last_os_error());
        }
        self.groups.push(Group { driver, polls: 0 });
        Ok(self.groups.len() - 1)
    }

    /// The answer of a poll has come: its memory is ours again.
    fn answered(&mut self, op: *mut Op, into: &mut Vec<(RawFd, Events)>) {
        // SAFETY: it was made by `Box::into_raw` in `poll`, and its answer, which comes once, was just taken out of the port: the kernel has done with it.
        let op = unsafe { Box::from_raw(op) };
        self.pending -= 1;
        self.groups[op.group].polls -= 1;
        let failed = (op.overlapped.Internal as i32) < 0;
        let count = if failed { 0 } else { (op.info.count as usize).min(op.len) };
        for &(number, base) in &op.members[..op.len] {
            if number < 0 {
                continue;
            }
            self.asked[number as usize] = null_mut();
            let found = op.info.sockets[..count].iter().find(|s| s.socket == base);
            let events = match found {
                Some(socket) => Events::from_bits_truncate(socket.events),
                None if failed && !op.cancelled && is_open(number) => Events::ABORT,
                None if failed && !op.cancelled => Events::LOCAL_CLOSE,
                None => Events::empty(),
            };
            into.push((number, events));
        }
        self.spare.push(op);
    }

    fn base(&self, number: RawFd) -> SOCKET {
        self.bases.iter().find(|(n, _)| *n == number).map_or(number as SOCKET, |(_, b)| *b)
    }

    fn take_from_thread(
        &mut self,
        shared: &Shared,
        into: &mut Vec<(RawFd, Events)>,
        timeout: Option<Duration>,
    ) {
        if timeout == Some(Duration::ZERO) {
            self.settle();
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut taken = shared.lock();
        while taken.answers.is_empty() && !taken.over {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            taken = shared.came.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        shared.wake.drain();
        let answers = std::mem::take(&mut taken.answers);
        drop(taken);
        answers.into_iter().for_each(|op| self.answered(op as *mut Op, into));
    }

    fn take_from_port(
        &mut self,
        into: &mut Vec<(RawFd, Events)>,
        mut timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut entries = std::mem::take(&mut self.entries);
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let result = loop {
            let before = into.len();
            let n = match dequeue(&self.port, &mut entries, timeout) {
                Ok(n) => n,
                Err(e) => break Err(e),
            };
            entries[..n].iter().for_each(|e| self.answered(e.lpOverlapped.cast(), into));
            if n == 0 || (n < BATCH && into.len() > before) {
                break Ok(());
            }
            // A full room may have left some; answers of cancelled polls alone are none.
            timeout = match deadline {
                _ if !into.is_empty() => Some(Duration::ZERO),
                Some(at) => Some(at.saturating_duration_since(Instant::now())),
                None => timeout,
            };
        };
        self.entries = entries;
        result
    }
}

/// A handle of the driver, which no child inherits.
fn open_driver() -> io::Result<OwnedHandle> {
    // Any name below the device opens the driver without a socket.
    let name: Vec<u16> = r"\Device\Afd\evd".encode_utf16().collect();
    let bytes = (name.len() * 2) as u16;
    let name = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: name.as_ptr().cast_mut() };
    let attributes = OBJECT_ATTRIBUTES {
        Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
        RootDirectory: null_mut(),
        ObjectName: &name,
        Attributes: 0,
        SecurityDescriptor: null(),
        SecurityQualityOfService: null(),
    };
    let mut handle: HANDLE = null_mut();
    let mut status = IO_STATUS_BLOCK::default();
    let share = FILE_SHARE_READ | FILE_SHARE_WRITE;
    // SAFETY: `attributes` and the name that it points to live for the call, and the two places are writable.
    let code = unsafe {
        NtCreateFile(
            &mut handle,
            SYNCHRONIZE,
            &attributes,
            &mut status,
            null(),
            0,
            share,
            FILE_OPEN,
            0,
            null(),
            0,
        )
    };
    if code < 0 {
        // SAFETY: it takes a number.
        let code = unsafe { RtlNtStatusToDosError(code) };
        return Err(io::Error::from_raw_os_error(code as i32));
    }
    // SAFETY: it was just made; nobody else owns it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// The socket that the driver knows, under what layered providers have put on it.
fn base_of(number: RawFd) -> io::Result<SOCKET> {
    let (mut base, mut len): (SOCKET, u32) = (0, 0);
    let (socket, out, room) = (number as SOCKET, (&raw mut base).cast(), size_of::<SOCKET>() as u32);
    // SAFETY: `out` is `room` writable bytes; nothing goes in, and without an OVERLAPPED it is done when it returns.
    let failed =
        unsafe { WSAIoctl(socket, SIO_BASE_HANDLE, null(), 0, out, room, &mut len, null_mut(), None) };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(base) }
}

impl Calls for Driver {
    fn enter(&mut self, number: RawFd) -> io::Result<()> {
        self.bases.retain(|(n, _)| *n != number);
        let base = base_of(number)?;
        if base != number as SOCKET {
            self.bases.push((number, base));
        }
        Ok(())
    }

    fn poll(&mut self, sockets: &[(RawFd, Events)]) -> io::Result<()> {
        sockets.iter().for_each(|(number, _)| self.cancel(*number));
        let group = self.group()?;
        let (mut asked, mut members) = ([PollSocket::default(); MOST], [(-1, 0); MOST]);
        for (at, &(number, events)) in sockets.iter().enumerate() {
            members[at] = (number, self.base(number));
            asked[at] = PollSocket { socket: members[at].1, events: events.bits(), status: 0 };
        }
        let info = PollInfo { timeout: i64::MAX, count: sockets.len() as u32, exclusive: 0, sockets: asked };
        let (overlapped, len) = (OVERLAPPED::default(), sockets.len());
        let op = Op { overlapped, info, members, len, group, cancelled: false };
        let op = match self.spare.pop() {
            Some(mut room) => {
                *room = op;
                room
            }
            None => Box::new(op),
        };
        let op = Box::into_raw(op);
        // SAFETY: `op` is live; only an address is taken.
        let info = unsafe { &raw mut (*op).info }.cast();
        let bytes = size_of::<PollInfo>() - (MOST - len) * size_of::<PollSocket>();
        let (bytes, driver) = (bytes as u32, self.groups[group].driver.as_raw_handle());
        // SAFETY: `op`, with what goes in and comes out, stays where it is until its answer has come by the port.
        let done = unsafe { DeviceIoControl(driver, POLL, info, bytes, info, bytes, null_mut(), op.cast()) };
        if done == 0 {
            let e = io::Error::last_os_error();
            if e.raw_os_error() != Some(ERROR_IO_PENDING as i32) {
                // SAFETY: the call has failed, so that no answer comes: it is ours alone.
                self.spare.push(unsafe { Box::from_raw(op) });
                let gone = e.raw_os_error() == Some(ERROR_INVALID_HANDLE as i32);
                return Err(if gone { io::Error::from_raw_os_error(BAD_FD) } else { e });
            }
        }
        self.pending += 1;
        self.groups[group].polls += 1;
        for (number, _) in sockets {
            let place = *number as usize;
            if self.asked.len() <= place {
                self.asked.resize(place + 1, null_mut());
            }
            self.asked[place] = op;
        }
        Ok(())
    }

    fn cancel(&mut self, number: RawFd) {
        let Some(place) = self.asked.get_mut(number as usize) else { return };
        let op = *place;
        if op.is_null() {
            return;
        }
        *place = null_mut();
        // SAFETY: its answer was not taken, so it is live, and this part of it is not the kernel's; nobody else refers to it.
        let members = unsafe { &mut (*op).members };
        members.iter_mut().filter(|m| m.0 == number).for_each(|m| m.0 = -1);
        // SAFETY: as above.
        if std::mem::replace(unsafe { &mut (*op).cancelled }, true) {
            return;
        }
        // SAFETY: as above.
        let group = unsafe { (*op).group };
        // SAFETY: `op` is live. It may have been answered already: then there is nothing to be cancelled.
        unsafe { CancelIoEx(self.groups[group].driver.as_raw_handle(), op.cast()) };
    }

    fn take(&mut self, into: &mut Vec<(RawFd, Events)>, timeout: Option<Duration>) -> io::Result<()> {
        match self.thread.clone() {
            Some(shared) => {
                self.take_from_thread(&shared, into, timeout);
                Ok(())
            }
            None => self.take_from_port(into, timeout),
        }
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        if self.thread.is_some() {
            return Ok(());
        }
        let shared = Arc::new(Shared { taken: Mutex::default(), came: Condvar::new(), wake: Wake::new()? });
        let (of_thread, port) = (Arc::clone(&shared), Arc::clone(&self.port));
        std::thread::Builder::new().name("evd-port".to_owned()).spawn(move || of_thread.run(&port))?;
        self.thread = Some(shared);
        Ok(())
    }

    fn settle(&mut self) {
        let Some(shared) = &self.thread else { return };
        // SAFETY: the port is open, and nothing is behind a null.
        if unsafe { PostQueuedCompletionStatus(self.port.as_raw_handle(), 0, MARK, null()) } == 0 {
            return;
        }
        self.marks += 1;
        let mut taken = shared.lock();
        while taken.marks < self.marks && !taken.over {
            taken = shared.came.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.thread.as_ref().map(|shared| shared.wake.as_fd())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        (0..self.asked.len()).for_each(|number| self.cancel(number as RawFd));
        let mut into = Vec::new();
        let until = Instant::now() + Duration::from_secs(5);
        // What the kernel does not give back by then is left to it.
        while self.pending > 0 && Instant::now() < until {
            if self.take(&mut into, Some(Duration::from_millis(100))).is_err() {
                break;
            }
        }
        if self.thread.is_some() {
            // SAFETY: the port is open, and nothing is behind a null.
            unsafe { PostQueuedCompletionStatus(self.port.as_raw_handle(), 0, END, null()) };
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("pending", &self.pending).finish_non_exhaustive()
    }
}
