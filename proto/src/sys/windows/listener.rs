//! The pipe that clients connect to, as something that can be waited for and accepted from.
//!
//! A pipe has as many ends as were made of it, and each takes one client. So some are made ahead, which is the backlog, and a thread waits at all of them; whoever has come stands in a
//! queue until accepted, and a wake-up says that somebody does.

use super::bridge;
use super::handle::{Event, Operation, wait_any};
use super::identity::{OwnerOnly, Process};
use super::{AsFd, BorrowedFd, OwnedFd, Wake, pipe};
use std::collections::VecDeque;
use std::io;
use std::os::windows::io::OwnedHandle;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Ends that wait for a client.
const AHEAD: usize = 8;
/// Connections that wait to be accepted; more are closed.
const MOST: usize = 4096;
/// How long nothing is done when an end can't be made: the system is out of memory.
const PAUSE: Duration = Duration::from_millis(50);

/// A pipe that is listened at. With it the name goes.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Readable while somebody waits.
    wake: Wake,
    waiting: Mutex<VecDeque<OwnedHandle>>,
    stop: Event,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<OwnedHandle>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end that somebody may connect to.
struct Free {
    pipe: Arc<OwnedHandle>,
    connect: Operation,
}

/// Listens at the pipe `path` (`\\.\pipe\NAME`), for this user and SYSTEM.
///
/// # Errors
/// `AddrInUse`: somebody serves it. `InvalidInput`: it is not the name of a pipe. `Unsupported`: `mode` and `gid` are to let in others than the owner.
///
/// Source: CreateNamedPipeW.
pub fn listen(path: &Path, mode: u32, gid: Option<u32>) -> io::Result<Listener> {
    if mode != 0o600 || gid.is_some() {
        let text = "on Windows only evd's own user and SYSTEM can be let in: do without --allow-uid, --allow-gid and --admin-gid";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let in_use = || io::Error::new(io::ErrorKind::AddrInUse, "another process serves this pipe");
    // The system refuses a second one by itself, but for Wine.
    if pipe::is_served(path)? {
        return Err(in_use());
    }
    let access = OwnerOnly::new()?;
    let mut free = Vec::new();
    for n in 0..AHEAD {
        let end = Free::new(path, &access, n == 0);
        free.push(end.map_err(|e| if e.kind() == io::ErrorKind::PermissionDenied { in_use() } else { e })?);
    }
    let (wake, waiting, stop) = (Wake::new()?, Mutex::default(), Event::new(true)?);
    let shared = Arc::new(Shared { wake, waiting, stop });
    let (of, at) = (Arc::clone(&shared), path.to_owned());
    let run = move || of.run(&at, &access, free);
    let thread = Some(std::thread::Builder::new().name("evd-listen".to_owned()).spawn(run)?);
    Ok(Listener { shared, path: path.to_owned(), thread })
}

impl Free {
    fn new(path: &Path, access: &OwnerOnly, first: bool) -> io::Result<Free> {
        let pipe = Arc::new(pipe::create(path, access, first)?);
        let connect = Operation::new(&pipe)?;
        Ok(Free { pipe, connect })
    }

    /// `Some`: somebody has come, or come and gone.
    fn has_come(&mut self) -> Option<io::Result<()>> {
        let state =
            if self.connect.is_pending() { self.connect.ended(false) } else { self.connect.connect() };
        state.map(|came| came.map(drop)).transpose()
    }

    /// The connected end.
    fn take(self) -> Option<OwnedHandle> {
        let Free { pipe, connect } = self;
        drop(connect);
        Arc::into_inner(pipe)
    }
}

impl Shared {
    fn run(&self, path: &Path, access: &OwnerOnly, mut free: Vec<Free>) {
        loop {
            let mut n = 0;
            while n < free.len() {
                match free[n].has_come() {
                    None => n += 1,
                    Some(came) => {
                        let end = free.swap_remove(n);
                        // First the next one: there is always one to be connected to.
                        free.extend(Free::new(path, access, false));
                        if let (Ok(()), Some(pipe)) = (came, end.take()) {
                            let mut waiting = self.waiting();
                            if waiting.len() < MOST {
                                waiting.push_back(pipe);
                                self.wake.notify();
                            }
                        }
                    }
                }
            }
            while free.len() < AHEAD {
                match Free::new(path, access, false) {
                    Ok(one) => free.push(one),
                    Err(_) => break,
                }
            }
            if free.iter().any(|f| !f.connect.is_pending()) {
                continue;
            }
            let handles: Vec<_> =
                [self.stop.raw()].into_iter().chain(free.iter().map(|f| f.connect.event())).collect();
            let pause = (free.len() < AHEAD).then_some(PAUSE);
            if matches!(wait_any(&handles, pause), Ok(Some(0)) | Err(_)) {
                return;
            }
        }
    }
}

impl Listener {
    /// A pipe that somebody listens at can't be removed, so there is nothing to be made anew.
    ///
    /// # Errors
    /// None.
    pub fn restore(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    /// Takes one waiting connection, as a non-blocking socket that no child inherits.
    ///
    /// # Errors
    /// `WouldBlock`: none is waiting. `ConnectionAborted`: it is gone again. Out of sockets or threads: it is closed.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        let pipe = {
            let mut waiting = self.shared.waiting();
            if waiting.is_empty() {
                self.shared.wake.drain();
            }
            waiting.pop_front().ok_or(io::ErrorKind::WouldBlock)?
        };
        let pid = pipe::client_of(&pipe).map_err(|e| io::Error::new(io::ErrorKind::ConnectionAborted, e))?;
        bridge::build(pipe, Process::open(pid)?)
    }

    /// Its name, which is no file.
    pub fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stop.set();
        if let Some(thread) = self.thread.take() {
            // With the thread the ends go.
            let _ = thread.join();
        }
        self.shared.waiting().clear();
    }
}
