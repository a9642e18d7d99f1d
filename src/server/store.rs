//! The service manager's fd store: what is in it comes back to the next evd.
//!
//! "Stored" must be true when it is said, so each of these calls waits until the service manager has done what it was told. A store that is full says nothing, it just
//! closes what it gets (measured); so a canary is stored behind the fds, and evd looks whether it is alive.
//!
//! Source: sd_notify(3) on FDSTORE, FDPOLL and BARRIER.

use super::mail::lock;
use evd_proto::What;
use evd_proto::sys::{self, Notifier, OwnedFd, PollFd};
use evd_proto::sys::{AsFd, AsRawFd, BorrowedFd};
use std::io;
use std::sync::Mutex;
use std::time::Duration;

/// How long the service manager may take for one step. Only the user waits whose hold it is, and with him all his sessions of this worker: while PID 1 or the keeper
/// does not get to run for seconds (it reloads all units; the machine is overloaded) his worker counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// Fds that the shipped units let evd store, where the service manager does not say it (systemd 253 and older).
const USUAL: usize = 4096;

const STORES_NONE: &str = "the service manager stores no fds: FileDescriptorStoreMax= is not set";

/// Names of canaries begin with this.
pub(super) const CANARY: &str = "t";

/// Something is not stored.
#[derive(Debug)]
pub(super) struct NotStored {
    /// `StorageFull`; or evd is short of fds or memory; or the service manager does not answer.
    pub why: io::Error,
    /// The service manager has it perhaps: it was told to remove it, and [`Store::remove`] says when that is done.
    pub may_be_there: bool,
}

/// A store that works.
#[derive(Debug)]
pub(super) struct Store {
    manager: Notifier,
    /// Fds that it takes in all.
    most: usize,
    /// Locked while messages are sent that others must not come between. Who waits for it would find the service manager's queue as full.
    in_a_row: Mutex<()>,
}

impl Store {
    /// The one that the environment names, if it really stores. `has_stored`: something that was in it was passed to this evd; then one that does not answer just now is
    /// waited for when there is something to be stored.
    ///
    /// # Errors
    /// Why nothing can be stored, for people.
    pub fn find(has_stored: bool) -> Result<Store, &'static str> {
        if !sys::KEEPS_FDS {
            return Err("this system can't keep fds beyond a process's end; Linux can");
        }
        let Some(manager) = std::env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty()) else {
            return Err("no service manager");
        };
        let manager = Notifier::new(&manager).map_err(|e| {
            log::error!("no socket for what the service manager is told: {e}");
            "evd had no fds for it when it started"
        })?;
        // systemd 254 and later; 0 is no store.
        let told = std::env::var("FDSTORE").ok().and_then(|n| n.parse().ok());
        let store = Store { manager, most: told.unwrap_or(USUAL), in_a_row: Mutex::default() };
        if store.most == 0 {
            return Err(STORES_NONE);
        }
        match store.store_before_canary("", &[], CANARY, &mut false) {
            Ok(true) => Ok(store),
            Ok(false) => Err(STORES_NONE),
            Err(e) => {
                log::warn!("the service manager does not answer: {e}");
                if has_stored { Ok(store) } else { Err("the service manager does not answer") }
            }
        }
    }

    /// How many fds it takes in all.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Stores `fds` under `name`, all or none.
    ///
    /// # Errors
    /// See [`NotStored`].
    pub fn put(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<(), NotStored> {
        let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
        let mut may_be_there = false;
        let stored = self.store_before_canary(&text, &numbers, &format!("{CANARY}{name}"), &mut may_be_there);
        let why = match stored {
            Ok(true) => return Ok(()),
            Ok(false) => io::Error::new(io::ErrorKind::StorageFull, "its store is full"),
            Err(e) => e,
        };
        if may_be_there {
            self.remove_later(name);
        }
        Err(NotStored { why, may_be_there })
    }

    /// Removes what is stored under `names`. When this returns, nobody but us has it.
    ///
    /// # Errors
    /// The service manager does not answer; evd is short of fds, and it was told nothing.
    pub fn remove<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> io::Result<()> {
        let barrier = sys::pipe()?;
        names.try_for_each(|name| self.forget(name))?;
        self.wait(barrier)
    }

    /// Removes what is stored under `name`, without waiting for it: where the next start would do it as well.
    pub fn remove_later(&self, name: &str) {
        if let Err(e) = self.forget(name) {
            log::warn!("the service manager does not answer: {e}");
        }
    }

    /// Stores `fds`, and behind them a socket, and looks whether its peer still has it. By then all that was told before is done. `told`: the service manager has heard of them.
    fn store_before_canary(&self, text: &str, fds: &[i32], name: &str, told: &mut bool) -> io::Result<bool> {
        // Whoever is short of fds is to find out before anything is told: these are all that it takes.
        let ((ours, theirs), barrier) = (sys::socketpair()?, sys::pipe()?);
        {
            // No removal comes in between: then there could be room for the canary, and have been none for what is before it.
            let _in_a_row = lock(&self.in_a_row);
            if !fds.is_empty() {
                self.tell(text, fds)?;
                *told = true;
            }
            self.tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[theirs.as_raw_fd()])?;
        }
        drop(theirs);
        self.wait(barrier)?;
        let mut look = [PollFd::new(ours.as_raw_fd(), What::READ)];
        let stored = sys::poll(&mut look, Some(Duration::ZERO))? == 0;
        self.forget(name)?;
        Ok(stored)
    }

    /// Waits until the service manager has read all that it was told: it closes the fd of this message when it comes to it.
    fn wait(&self, (ours, theirs): (OwnedFd, OwnedFd)) -> io::Result<()> {
        self.tell("BARRIER=1", &[theirs.as_fd().as_raw_fd()])?;
        drop(theirs);
        let until = sys::monotonic_ns() + PATIENCE.as_nanos() as u64;
        loop {
            let left = until.saturating_sub(sys::monotonic_ns());
            let mut look = [PollFd::new(ours.as_raw_fd(), What::READ)];
            if sys::poll(&mut look, Some(Duration::from_nanos(left)))? > 0 {
                return Ok(());
            }
            if left == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn forget(&self, name: &str) -> io::Result<()> {
        let _in_a_row = lock(&self.in_a_row);
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    fn tell(&self, text: &str, fds: &[i32]) -> io::Result<()> {
        self.manager.tell(text, fds, PATIENCE)
    }
}
