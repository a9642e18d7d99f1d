//! win32: Winsock's `select`, as libevent's method of this name.
//!
//! Kernel facts and defects:
//! - A set is an array of sockets and their number, not bits. `FD_SETSIZE` (64) is the headers', not the kernel's: the sets here are as long as they need to be.
//! - A connect that fails makes a socket neither readable nor writable: it is told in the third set, which also tells of urgent data. So what waits for WRITE is in both.
//! - Three empty sets are `WSAEINVAL`, so then it only sleeps.
//! - One closed socket fails the whole wait with `WSAENOTSOCK` and does not say which. It is looked for, dropped, and the wait goes on.
//! - Every wait hands all sockets to the kernel and gets them looked at: it costs by what is watched.
//! - Readable includes hang-up and error. CLOSED has no equivalent: accepted, never reported.
//! - Only sockets.
//!
//! Source: Microsoft, select; libevent, win32select.c.

use super::handles::Handles;
use super::table::Table;
use super::{Backend, Entry, Features, Interest, Mode, Report, WatchError};
use evd_proto::What;
use evd_proto::sys::{AsRawFd, BAD_FD, BorrowedFd, RawFd, is_open};
use std::io;
use std::time::Duration;
use windows_sys::Win32::Networking::WinSock::{FD_SET, SOCKET, SOCKET_ERROR, TIMEVAL, select};

/// As libevent's.
pub(super) const FEATURES: Features = Features::empty();

pub(super) fn open() -> io::Result<Box<dyn Backend + Send>> {
    let sets = [Set::new(), Set::new(), Set::new()];
    let table = Table::new(What::READ.union(What::WRITE));
    Ok(Box::new(Handles::beside(Win32 { table, sets, ready: Vec::new() })))
}

/// Sockets as `select` takes them: their number, which has the room of one, and then they themselves.
#[derive(Debug)]
struct Set(Vec<SOCKET>);

impl Set {
    fn new() -> Set {
        Set(vec![0])
    }

    fn clear(&mut self) {
        self.0.truncate(1);
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    fn push(&mut self, number: RawFd) {
        self.0.push(number as SOCKET);
    }

    /// For the call, with its number in place; null if there is nothing in it.
    fn lend(&mut self) -> *mut FD_SET {
        if self.is_empty() {
            return std::ptr::null_mut();
        }
        // The number is a u32 at the beginning; little-endian is all that Windows knows.
        self.0[0] = self.0.len() - 1;
        self.0.as_mut_ptr().cast()
    }

    /// What the call has left in it.
    fn found(&self) -> &[SOCKET] {
        let n = if self.is_empty() { 0 } else { self.0[0] as u32 as usize };
        &self.0[1..=n]
    }
}

/// Three sets of sockets for `select`.
#[derive(Debug)]
pub(super) struct Win32 {
    table: Table,
    /// To be read, to be written, with an error.
    sets: [Set; 3],
    /// By row.
    ready: Vec<What>,
}

impl Win32 {
    /// Drops the watches whose sockets were closed; tells whether there were any.
    fn drop_dead(&mut self) -> bool {
        let dead: Vec<RawFd> = self.table.rows().iter().map(|r| r.number).filter(|n| !is_open(*n)).collect();
        for number in &dead {
            self.table.remove(*number);
        }
        !dead.is_empty()
    }

    /// One call. `false`: nothing was found.
    fn ask(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let [read, write, error] = &mut self.sets;
        [&mut *read, &mut *write, &mut *error].into_iter().for_each(Set::clear);
        for row in self.table.rows() {
            if row.live.contains(What::READ) {
                read.push(row.number);
            }
            if row.live.contains(What::WRITE) {
                write.push(row.number);
                error.push(row.number);
            }
        }
        if read.is_empty() && write.is_empty() {
            std::thread::sleep(timeout.unwrap_or(Duration::MAX));
            return Ok(false);
        }
        // Beyond three years it comes back early.
        let timeout = timeout.map(|t| {
            let micros = t.as_nanos().div_ceil(1000).min(100_000_000_000_000);
            TIMEVAL { tv_sec: (micros / 1_000_000) as i32, tv_usec: (micros % 1_000_000) as i32 }
        });
        let at = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let (read, write, error) = (read.lend(), write.lend(), error.lend());
        // SAFETY: each set is null or as many sockets as its number says, live and writable; `at` is null or a live time.
        match unsafe { select(0, read, write, error, at) } {
            SOCKET_ERROR => Err(io::Error::last_os_error()),
            n => Ok(n > 0),
        }
    }
}

impl Backend for Win32 {
    fn method(&self) -> &'static str {
        "win32"
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
        _entry: Entry,
    ) -> Result<(), WatchError> {
        if interest.mode == Mode::Edge {
            return Err(WatchError::Unsupported("win32 has no edge-triggered watches; ask for level"));
        }
        self.table.set(fd, token, interest).map(drop)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.table.remove(fd.as_raw_fd());
    }

    fn rest(&mut self, fd: BorrowedFd<'_>, _spent: bool) {
        if let Some(at) = self.table.row_of(fd.as_raw_fd()) {
            self.table.rest(at);
        }
    }

    /// A row that rests still would be taken for whatever comes to its number, which may be no socket.
    fn forget(&mut self, fd: BorrowedFd<'_>) {
        self.table.remove(fd.as_raw_fd());
    }

    fn mute(&mut self, fd: BorrowedFd<'_>, _token: u64, _interest: Interest) {
        if let Some(at) = self.table.row_of(fd.as_raw_fd()) {
            self.table.pause(at);
        }
    }

    fn unmute(&mut self, number: RawFd, token: u64, interest: Interest) {
        self.table.resume(number, token, interest);
    }

    fn wait(&mut self, timeout: Option<Duration>, reports: &mut Vec<Report>) -> io::Result<()> {
        while let Some(number) = self.table.next_resting() {
            self.table.remove(number);
        }
        loop {
            match self.ask(timeout) {
                Ok(true) => break,
                Ok(false) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(BAD_FD) => {
                    if !self.drop_dead() {
                        return Ok(());
                    }
                }
                Err(e) => return Err(e),
            }
        }
        self.ready.clear();
        self.ready.resize(self.table.rows().len(), What::empty());
        // An error is both, as elsewhere.
        for (set, what) in self.sets.iter().zip([What::READ, What::WRITE, What::READ | What::WRITE]) {
            for &socket in set.found() {
                if let Some(at) = self.table.row_of(socket as RawFd) {
                    self.ready[at] |= what;
                }
            }
        }
        for at in 0..self.ready.len() {
            if self.ready[at].is_empty() {
                continue;
            }
            let row = &self.table.rows()[at];
            reports.push(Report { token: row.token, ready: self.ready[at] });
            if row.mode == Mode::OneShot {
                self.table.pause(at);
            }
        }
        Ok(())
    }

    fn apply(&mut self) {
        self.table.apply();
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.table.pollable()
    }

    fn make_pollable(&mut self) -> io::Result<()> {
        self.table.make_pollable()
    }
}
