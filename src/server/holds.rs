//! Held fds: kept by name for whoever of the same user takes them, beyond their owner's life.
//!
//! A hold that somebody takes stays until he says that it arrived; a taker who dies before leaves it held. Fds are handed back to the caller to be closed:
//! that can block, and so must happen in the user's worker and never under the lock.

use super::mail::lock;
use crate::session::books::{Account, Charge};
use evd_proto::What;
use evd_proto::name::printable;
use evd_proto::reply::{Code, HoldInfo, Resource};
use evd_proto::sys::{self, FileKind, PollFd};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Holds in one page of a list: each is at most 250 bytes.
const PAGE: usize = 200;

/// One held fd.
pub(super) struct Held {
    pub number: u64,
    pub fd: Arc<OwnedFd>,
    kind: FileKind,
    ino: u64,
    attachment: Vec<u8>,
    since: u64,
    /// When it is let go, in nanoseconds; 0: never.
    pub expires: u64,
    pid: i32,
    giver: String,
    taking: Option<u64>,
    _charges: [Charge; 2],
}

/// Why something about a hold is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub code: Code,
    pub limit: u64,
    pub value: u64,
    pub text: String,
}

impl Refusal {
    fn new(code: Code, text: String) -> Refusal {
        Refusal { code, limit: 0, value: 0, text }
    }

    fn unknown(name: &str) -> Refusal {
        Refusal::new(Code::Unknown, format!("nothing is held under the name {:?}", printable(name)))
    }
}

/// What is given to a taker.
pub(super) struct Given {
    /// 0: it stays held.
    pub number: u64,
    pub fd: Arc<OwnedFd>,
    pub attachment: Vec<u8>,
    /// Nanoseconds left; 0: no limit.
    pub left: u64,
}

/// What is to be held.
pub(super) struct Gift {
    pub fd: OwnedFd,
    pub attachment: Vec<u8>,
    /// Nanoseconds; 0: for ever.
    pub ttl: u64,
    pub replace: bool,
    pub pid: i32,
    pub giver: String,
    pub account: Arc<Account>,
}

/// All held fds, by user and name.
#[derive(Default)]
pub(super) struct Holds {
    tables: Mutex<HashMap<u32, BTreeMap<String, Held>>>,
    last: AtomicU64,
}

impl Holds {
    /// Keeps an fd. Returns its number, when it expires (0: never), and what it replaced, to be closed.
    pub fn put(&self, uid: u32, name: &str, gift: Gift) -> Result<(u64, u64, Option<Held>), Refusal> {
        let file = sys::identify(gift.fd.as_fd());
        let (kind, ino) = file.map_or((FileKind::Other, 0), |f| (f.kind, f.ino));
        let now = sys::monotonic_ns();
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let expires = if gift.ttl == 0 { 0 } else { now.saturating_add(gift.ttl) };
        let bytes = gift.attachment.len() as u64;
        let held = |charges| Held {
            number,
            fd: Arc::new(gift.fd),
            kind,
            ino,
            attachment: gift.attachment,
            since: now,
            expires,
            pid: gift.pid,
            giver: gift.giver,
            taking: None,
            _charges: charges,
        };
        // What is refused is dropped, and so closed, after the lock.
        let refused;
        {
            let mut tables = lock(&self.tables);
            let table = tables.entry(uid).or_default();
            let exists = table.contains_key(name);
            // What is replaced gives back its own.
            let charge = |what, n| {
                if exists { Ok(gift.account.charge_anyway(what, n)) } else { gift.account.charge(what, n) }
            };
            if exists && !gift.replace {
                let text = format!("something is held under the name {:?} already", printable(name));
                refused = (Refusal::new(Code::Exists, text), held);
            } else {
                match charge(Resource::Holds, 1)
                    .and_then(|one| Ok([one, charge(Resource::HoldBytes, bytes)?]))
                {
                    Ok(charges) => {
                        return Ok((number, expires, table.insert(name.to_owned(), held(charges))));
                    }
                    Err(over) => {
                        let (limit, value) = (over.limit, over.used);
                        let why = Refusal { code: Code::Limit, limit, value, text: over.to_string() };
                        refused = (why, held);
                    }
                }
            }
        }
        Err(refused.0)
    }

    /// Gives a held fd to a session. Unless it is a copy, it is marked as being taken until [`Holds::taken`] or [`Holds::left`].
    pub fn take(&self, uid: u32, name: &str, session: u64, keep: bool) -> Result<Given, Refusal> {
        let mut tables = lock(&self.tables);
        let held = tables.get_mut(&uid).and_then(|t| t.get_mut(name));
        let held = held.ok_or_else(|| Refusal::unknown(name))?;
        if !keep {
            if held.taking.is_some() {
                let text = format!("somebody is just taking {:?}; try again", printable(name));
                return Err(Refusal::new(Code::Busy, text));
            }
            held.taking = Some(session);
        }
        let left = match held.expires {
            0 => 0,
            at => at.saturating_sub(sys::monotonic_ns()).max(1),
        };
        let number = if keep { 0 } else { held.number };
        Ok(Given { number, fd: Arc::clone(&held.fd), attachment: held.attachment.clone(), left })
    }

    /// The taker has it: it is no longer held. Returned to be closed.
    pub fn taken(&self, uid: u32, number: u64, session: u64) -> Option<Held> {
        self.remove(uid, |h| h.number == number && h.taking == Some(session))
    }

    /// Its time has come. Returned to be closed.
    pub fn expired(&self, uid: u32, number: u64) -> Option<Held> {
        self.remove(uid, |h| h.number == number)
    }

    fn remove(&self, uid: u32, which: impl Fn(&Held) -> bool) -> Option<Held> {
        let mut tables = lock(&self.tables);
        let table = tables.get_mut(&uid)?;
        let name = table.iter().find(|(_, h)| which(h))?.0.clone();
        let held = table.remove(&name);
        if table.is_empty() {
            tables.remove(&uid);
        }
        held
    }

    /// The session will not say any more that something arrived; `number`: only this hold.
    pub fn left(&self, uid: u32, session: u64, number: Option<u64>) {
        let mut tables = lock(&self.tables);
        for held in tables.get_mut(&uid).into_iter().flat_map(BTreeMap::values_mut) {
            if held.taking == Some(session) && number.is_none_or(|n| n == held.number) {
                held.taking = None;
            }
        }
    }

    /// Lets a hold go. Returned to be closed.
    pub fn drop(&self, uid: u32, name: &str) -> Result<Held, Refusal> {
        let mut tables = lock(&self.tables);
        let held = tables.get_mut(&uid).and_then(|t| t.remove(name));
        held.ok_or_else(|| Refusal::unknown(name))
    }

    /// How many are held for one user, or for all.
    pub fn count(&self, uid: Option<u32>) -> u32 {
        let tables = lock(&self.tables);
        match uid {
            Some(uid) => tables.get(&uid).map_or(0, BTreeMap::len) as u32,
            None => tables.values().map(|t| t.len() as u32).sum(),
        }
    }

    /// A page of what is held for a user, by name, and whether there is more. Looks whether each is ready.
    pub fn list(&self, uid: u32, after: &str) -> (Vec<HoldInfo>, bool) {
        let now = sys::monotonic_ns();
        let (mut infos, mut fds, mut more) = (Vec::new(), Vec::new(), false);
        if let Some(table) = lock(&self.tables).get(&uid) {
            for (name, h) in table.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)) {
                if infos.len() == PAGE {
                    more = true;
                    break;
                }
                fds.push(Arc::clone(&h.fd));
                infos.push(HoldInfo {
                    name: name.clone(),
                    kind: h.kind,
                    ino: h.ino,
                    ready: What::empty(),
                    attachment: h.attachment.len() as u32,
                    age: now.saturating_sub(h.since),
                    left: if h.expires == 0 { 0 } else { h.expires.saturating_sub(now).max(1) },
                    pid: h.pid,
                    giver: h.giver.clone(),
                });
            }
        }
        let mut look: Vec<PollFd> = fds.iter().map(|fd| PollFd::new(fd.as_raw_fd(), What::IO)).collect();
        if sys::poll(&mut look, Some(Duration::ZERO)).is_ok() {
            for (info, seen) in infos.iter_mut().zip(&look) {
                info.ready = seen.ready();
            }
        }
        (infos, more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 300;

    fn account() -> Arc<Account> {
        use crate::session::books::{Books, Quotas};
        const KINDS: usize = Resource::ALL.len();
        Books::new(Quotas { each: [MOST; KINDS], whole: [u64::MAX; KINDS] }).account(1)
    }

    fn gift(account: &Arc<Account>, replace: bool) -> Gift {
        let (fd, account) = (sys::reserve_fd().unwrap(), Arc::clone(account));
        Gift { fd, attachment: vec![1], ttl: 0, replace, pid: 1, giver: "test".into(), account }
    }

    #[test]
    fn a_hold_stays_until_its_taker_says_that_it_came() {
        let (holds, of) = (Holds::default(), account());
        let (number, ..) = holds.put(1, "a", gift(&of, false)).unwrap();
        assert_eq!(holds.put(1, "a", gift(&of, false)).map(drop).unwrap_err().code, Code::Exists);
        assert_eq!(holds.take(2, "a", 9, false).map(drop).unwrap_err().code, Code::Unknown);
        assert_eq!(holds.take(1, "a", 7, false).unwrap().number, number);
        assert_eq!(holds.take(1, "a", 8, false).map(drop).unwrap_err().code, Code::Busy);
        assert_eq!(holds.take(1, "a", 8, true).unwrap().number, 0);
        holds.left(1, 7, None);
        assert_eq!(holds.take(1, "a", 8, false).unwrap().attachment, [1]);
        assert!(holds.taken(1, number, 7).is_none(), "it is not his any more");
        assert!(holds.taken(1, number, 8).is_some());
        assert_eq!((holds.count(Some(1)), holds.count(None)), (0, 0));
    }

    #[test]
    fn lists_go_on_after_a_name_and_limits_hold() {
        let (holds, of) = (Holds::default(), account());
        for i in 0..MOST {
            holds.put(1, &format!("n{i:04}"), gift(&of, false)).unwrap();
        }
        let why = holds.put(1, "x", gift(&of, true)).map(drop).unwrap_err();
        assert_eq!((why.code, why.limit, why.value), (Code::Limit, MOST, MOST));
        assert!(holds.put(1, "n0003", gift(&of, true)).unwrap().2.is_some());
        assert_eq!(of.left(Resource::Holds), 0);
        let (mut all, mut after) = (0, String::new());
        loop {
            let (page, more) = holds.list(1, &after);
            all += page.len();
            after = page.last().unwrap().name.clone();
            if !more {
                break;
            }
        }
        assert_eq!(all, MOST as usize);
        assert!(holds.drop(1, "n0003").is_ok() && holds.drop(1, "n0003").is_err());
    }
}
