//! An evd without threads, sockets of its own or signals: whoever has it hands it connections and drives it turn by turn.
//!
//! The fuzzer and the model of sessions run on it. All that is served is served by the very code of a worker; only who waits is another.

use super::access::{Access, Allowed};
use super::builder::new_base;
use super::error::Error;
use super::holds::Holds;
use super::quotas::Wanted;
use super::records;
use super::registry::{Shared, Unassigned};
use super::service;
use super::worker::Worker;
use crate::base::Base;
use crate::session::books::Books;
use evd_proto::reply::{AccountInfo, Refused, Resource};
use evd_proto::sys::OwnedFd;
use evd_proto::sys::{Listener, Peer};
use std::io;
use std::sync::Arc;

/// No turn is to need so many waits.
const MOST_STEPS: usize = 10_000;

/// An evd that is driven by hand.
pub struct Evd {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Its waker is the acceptor's.
    _base: Base,
}

impl Evd {
    /// One with these quotas and else those that an evd has by itself.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new(quotas: &[(Resource, u64)]) -> Result<Evd, Error> {
        let mut base = new_base()?;
        let waker = base.waker().map_err(Error::os("make a mailbox"))?;
        let mut wanted = Wanted::default();
        quotas.iter().for_each(|(what, each)| wanted.set(*what, *each));
        let access = Access::new(Allowed::default(), true);
        let books = Books::new(wanted.quotas());
        let turns = base.waker().map_err(Error::os("make a mailbox"))?;
        let holds = Holds::new(Err("nobody keeps it"), Arc::clone(&books), turns);
        let shared = Shared::new(access, books, 1, waker, holds);
        Ok(Evd { shared: Arc::new(shared), workers: Vec::new(), _base: base })
    }

    /// Takes in a connection, as the acceptor does. It is served in the next turn. `Some`: it is refused, and closed.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn connect(&mut self, socket: OwnedFd, peer: Peer, inspects: bool) -> io::Result<Option<Refused>> {
        self.workers.extend(self.shared.worker_by_hand(peer.uid)?);
        match self.shared.assign(socket, peer, inspects) {
            Ok(()) => Ok(None),
            Err((_, Unassigned::Refused(why))) => Ok(Some(why)),
            Err((_, Unassigned::Os(e))) => Err(e),
        }
    }

    /// Does all that is to be done now.
    ///
    /// # Errors
    /// A wait failed.
    ///
    /// # Panics
    /// It does not come to rest.
    pub fn turn(&mut self) -> io::Result<()> {
        for _ in 0..MOST_STEPS {
            let mut found = false;
            for worker in &mut self.workers {
                found |= worker.step(Some(0))?;
            }
            if !found {
                self.workers.retain(|worker| !worker.is_done());
                return Ok(());
            }
        }
        panic!("evd has something to do and does not come to rest");
    }

    /// What each user is charged.
    pub fn accounts(&self) -> Vec<AccountInfo> {
        self.shared.books.shown(None, usize::MAX)
    }

    /// Whether nobody is charged anything, and nothing is there any more: bases, workers, held fds, names.
    pub fn is_empty(&self) -> bool {
        let tables = (self.shared.holds.count(None), self.shared.names.count(None));
        self.workers.is_empty()
            && self.shared.books.is_even()
            && self.shared.counts() == (0, 0)
            && tables == (0, 0)
    }
}

/// The socket that the environment says was passed.
///
/// # Errors
/// As evd's start.
pub fn passed_listener() -> io::Result<Option<Listener>> {
    Ok(service::passed()?.listener)
}

/// A hold's number, name and attachment.
pub type Written = (u64, String, Vec<u8>);

/// What is written down of held fds as an evd that starts reads it: whose it is, and each hold. `None`: it can't be read at all.
pub fn read_records(bytes: &[u8]) -> Option<(u32, Vec<Written>)> {
    let log = records::read(bytes).ok()?;
    Some((log.uid, log.live.into_iter().map(|r| (r.number, r.name, r.attachment)).collect()))
}

/// The start of such a log.
pub fn records_head(uid: u32) -> Vec<u8> {
    records::head(uid, 1).to_vec()
}

/// Appends an entry with any body, and the right checksum.
pub fn records_entry(to: &mut Vec<u8>, body: &[u8]) {
    records::entry(to, |entry| entry.extend_from_slice(body));
}
