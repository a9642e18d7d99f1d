//! Held fds: kept by name for whoever of the same user takes them, beyond their owner's life, and beyond evd's where a service manager stores them.
//!
//! A hold that somebody takes stays until he says that it arrived; a taker who dies before leaves it held. Each user's holds have a lock of their own, and only
//! workers of the user take it: what blocks under it (closing a hostile file, a slow service manager) is the user's own affair. How many there are is also in
//! numbers that anybody may read.
//!
//! With a store (see `store`, `parcel`) a hold is acknowledged when it would survive a kill. What is let go is first written down as gone, and really closed
//! when the parcel is made anew, some milliseconds later: once for all that was let go meanwhile.

use super::book::{Book, Given, Giver, Held};
use super::mail::lock;
use super::parcel::Left;
use super::store::Store;
use super::turns::Turns;
use crate::base::Waker;
use crate::session::books::{Account, Books, Charge};
use crate::session::{Gift, Refusal};
use evd_proto::What;
use evd_proto::name::shown;
use evd_proto::reply::{Code, HoldInfo, Resource};
use evd_proto::sys::{self, FileKind, PollFd};
use evd_proto::sys::{AsFd, AsRawFd};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Holds in one page of a list: each is at most 250 bytes.
const PAGE: usize = 200;

impl Refusal {
    fn unread() -> Refusal {
        let (limit, _) = sys::open_files();
        let text = format!(
            "what an earlier evd has held needs more fds than there are, at most {limit}; it is tried again"
        );
        Refusal { code: Code::OutOfFds, limit, value: 0, text }
    }

    fn unknown(name: &str) -> Refusal {
        Refusal::new(Code::Unknown, format!("nothing is held under the name {}", shown(name)))
    }

    /// It could not be made to outlive evd.
    fn not_stored(e: &io::Error) -> Refusal {
        if e.raw_os_error() == Some(sys::TOO_MANY_IN_FLIGHT) {
            let (limit, _) = sys::open_files();
            let text = format!("evd has too many fds on their way to be held, at most {limit} may be");
            return Refusal { code: Code::OutOfFds, limit, value: 0, text };
        }
        Refusal::system(e, format!("it can't be stored so that it would survive evd: {e}"))
    }
}

/// All held fds, by user and name.
pub(super) struct Holds {
    shelves: Mutex<HashMap<u32, Arc<Shelf>>>,
    last: AtomicU64,
    store: Result<Store, &'static str>,
    books: Arc<Books>,
    /// Users who were short of fds for this.
    pub turns: Turns,
    /// Held fds of all users.
    count: AtomicUsize,
    /// Users whose holds of an earlier evd are not here yet.
    unread: AtomicUsize,
}

/// The holds of one user.
#[derive(Default)]
struct Shelf {
    count: AtomicUsize,
    book: Mutex<Book>,
}

impl Holds {
    /// Nothing is held yet. `store`: where parcels go, or why there is no such place. What is held is charged to its user. `waker`: of who gives the turns.
    pub fn new(store: Result<Store, &'static str>, books: Arc<Books>, waker: Waker) -> Holds {
        Holds {
            shelves: Mutex::default(),
            // Of another evd's numbers none must be mistaken for one of ours.
            last: AtomicU64::new(sys::monotonic_ns()),
            store,
            books,
            turns: Turns::new(waker),
            count: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
        }
    }

    /// Why holds do not survive evd; `None`: they do.
    pub fn why_mortal(&self) -> Option<&'static str> {
        self.store.as_ref().err().copied()
    }

    /// Takes over what an earlier evd has left in the store: it is read with the first thing that a worker of the user does about holds. Returns the users.
    /// `skip` says which parcels are not to be read: they are let go.
    pub fn inherit(&self, left: Vec<Left>, skip: impl Fn(&Left) -> bool) -> Vec<u32> {
        let mut uids = BTreeSet::new();
        for one in left {
            uids.insert(one.uid);
            let shelf = self.shelf(one.uid);
            let mut book = lock(&shelf.book);
            let skip = skip(&one);
            book.left.push((one, skip));
            book.is_unread = true;
        }
        self.unread.store(uids.len(), Ordering::Release);
        uids.into_iter().collect()
    }

    /// Whether there is nothing left to be read of what an earlier evd has left.
    pub fn is_settled(&self) -> bool {
        self.unread.load(Ordering::Acquire) == 0
    }

    fn shelf(&self, uid: u32) -> Arc<Shelf> {
        Arc::clone(lock(&self.shelves).entry(uid).or_default())
    }

    /// Runs `act` on a user's book. What it removes is closed here.
    fn with<T>(&self, uid: u32, act: impl FnOnce(&mut Book) -> T) -> T {
        let shelf = self.shelf(uid);
        let mut book = lock(&shelf.book);
        let failures = book.short;
        if book.is_unread && failures == 0 {
            self.restore(uid, &mut book);
        }
        let result = act(&mut book);
        if book.short > failures {
            self.turns.wait(uid, book.short);
        }
        // Others add up only numbers, and never wait for this lock.
        let count = book.table.len();
        let before = shelf.count.swap(count, Ordering::Relaxed);
        // Wraps where it becomes less.
        self.count.fetch_add(count.wrapping_sub(before), Ordering::Relaxed);
        result
    }

    /// Runs `act` on a user's book, if all that he holds is in it.
    fn with_all<T>(&self, uid: u32, act: impl FnOnce(&mut Book) -> Result<T, Refusal>) -> Result<T, Refusal> {
        self.with(uid, |book| if book.is_unread { Err(Refusal::unread()) } else { act(book) })
    }

    /// Reads what an earlier evd has left. The newest parcel that can be read is the state; all of them leave the store once it is in a new one.
    fn restore(&self, uid: u32, book: &mut Book) {
        book.left.sort_by_key(|(l, _)| std::cmp::Reverse(l.generation));
        let mut found = None;
        for (left, _) in book.left.iter_mut().filter(|(_, skip)| !skip) {
            match left.unpack() {
                Ok(Some(all)) => {
                    found = Some(all);
                    break;
                }
                Ok(None) => {}
                Err(e) => {
                    if book.short == 0 {
                        log::error!(
                            "parcel {} of user {uid} can't be read now: {e}; it is tried again",
                            left.name
                        );
                    }
                    book.short += 1;
                    return;
                }
            }
        }
        book.is_unread = false;
        let now = sys::monotonic_ns();
        let account = self.books.account(uid);
        let (mut expired, mut last) = (0, 0);
        for (record, fd) in found.into_iter().flatten() {
            last = last.max(record.number);
            if record.expires != 0 && record.expires <= now {
                expired += 1;
                continue;
            }
            let giver = Giver { pid: record.pid, name: record.giver };
            let times = (record.since, record.expires);
            let charges = [
                account.charge_anyway(Resource::Holds, 1),
                account.charge_anyway(Resource::HoldBytes, record.attachment.len() as u64),
            ];
            let held = Held::new(record.number, fd, record.attachment.into(), times, &giver, charges);
            drop(book.insert(record.name, held));
        }
        self.last.fetch_max(last, Ordering::Relaxed);
        log::info!(
            "user {uid} has {} held fds from an earlier evd, and {expired} that expired",
            book.table.len()
        );
        match &self.store {
            Ok(store) => book.tidy(uid, store),
            Err(_) => book.short = 0,
        }
        self.unread.fetch_sub(1, Ordering::Release);
    }

    /// Does what could not be done before, now that it is the user's turn.
    pub fn take_turn(&self, uid: u32) {
        let worked = self.with(uid, |book| {
            if book.short > 0 {
                match &self.store {
                    _ if book.is_unread => self.restore(uid, book),
                    Ok(store) => book.tidy(uid, store),
                    Err(_) => book.short = 0,
                }
            }
            // A service manager that did not answer is asked again when it is time.
            book.short == 0 && book.dirty.is_none()
        });
        self.turns.tried(uid, worked);
    }

    /// Keeps fds, all or none, each by its own name.
    ///
    /// # Errors
    /// A limit; a name that is taken, if it is not to be replaced; they can't be stored.
    pub fn put(&self, uid: u32, gifts: Vec<Gift>, replace: bool, giver: &Giver) -> Result<(), Refusal> {
        self.with_all(uid, |book| {
            let charges = self.charge(uid, book, &gifts, replace)?;
            let now = sys::monotonic_ns();
            let first = self.last.fetch_add(gifts.len() as u64, Ordering::Relaxed) + 1;
            let new: Vec<(String, Held)> = (first..)
                .zip(gifts.into_iter().zip(charges))
                .map(|(number, (gift, charges))| {
                    let expires = if gift.ttl == 0 { 0 } else { now.saturating_add(gift.ttl) };
                    let times = (now, expires);
                    let attachment = gift.attachment.into();
                    (gift.name, Held::new(number, gift.fd, attachment, times, giver, charges))
                })
                .collect();
            if let Ok(store) = &self.store {
                book.add(uid, store, &new).map_err(|e| Refusal::not_stored(&e))?;
            }
            for (name, held) in new {
                if book.insert(name, held).is_some() {
                    book.soon(now);
                }
            }
            Ok(())
        })
    }

    /// What these cost, if they may be held.
    fn charge(
        &self,
        uid: u32,
        book: &Book,
        gifts: &[Gift],
        replace: bool,
    ) -> Result<Vec<[Charge; 2]>, Refusal> {
        let account = self.books.account(uid);
        let mut names = BTreeSet::new();
        let mut charges = Vec::with_capacity(gifts.len());
        for gift in gifts {
            if !names.insert(&gift.name) {
                let text = format!("the name {} is twice in one request", shown(&gift.name));
                return Err(Refusal::new(Code::BadRequest, text));
            }
            let exists = book.table.contains_key(&gift.name);
            if exists && !replace {
                let text = format!("something is held under the name {} already", shown(&gift.name));
                return Err(Refusal::new(Code::Exists, text));
            }
            // What is replaced gives back its own.
            let charge = |account: &Arc<Account>, what, n| {
                if exists { Ok(account.charge_anyway(what, n)) } else { account.charge(what, n) }
            };
            let one = charge(&account, Resource::Holds, 1)?;
            charges.push([one, charge(&account, Resource::HoldBytes, gift.attachment.len() as u64)?]);
        }
        if let (Ok(store), None) = (&self.store, &book.parcel) {
            // Two fds a user; while one is made anew, four; and the canary, and the count of starts.
            let holding = |s: &&Arc<Shelf>| s.count.load(Ordering::Relaxed) > 0;
            let users = lock(&self.shelves).values().filter(holding).count();
            let most = (store.most() / 2).saturating_sub(3);
            if users >= most && book.table.is_empty() {
                let text = format!("{users} users hold fds, and the service manager stores those of {most}");
                let (limit, value) = (most as u64, users as u64);
                return Err(Refusal { code: Code::Limit, limit, value, text });
            }
        }
        Ok(charges)
    }

    /// Gives a held fd to a session. Unless it is a copy, it is marked as being taken until [`Holds::taken`] or [`Holds::left`].
    pub fn take(&self, uid: u32, name: &str, session: u64, keep: bool) -> Result<Given, Refusal> {
        self.with_all(uid, |book| {
            let held = book.table.get_mut(name).ok_or_else(|| Refusal::unknown(name))?;
            if !keep {
                if held.taking.is_some() {
                    let text = format!("somebody is just taking {}; try again", shown(name));
                    return Err(Refusal::new(Code::Busy, text));
                }
                held.taking = Some(session);
            }
            Ok(held.give(keep))
        })
    }

    /// Gives a session what is held under names that begin with `prefix`, at most `most` and as many as fit a frame, those that can be read first; and whether
    /// there is more.
    pub fn take_all(
        &self,
        uid: u32,
        prefix: &str,
        session: u64,
        most: usize,
    ) -> Result<(Vec<(String, Given)>, bool), Refusal> {
        self.with_all(uid, |book| Ok(book.give_all(prefix, session, most)))
    }

    /// The takers have these: they are no longer held. One that its session has lost meanwhile counts, unless somebody else is taking it: who has outlived evd
    /// says again what he has. Returns whether all of them were held.
    pub fn taken(&self, uid: u32, numbers: &[u64], session: u64) -> bool {
        self.with(uid, |book| {
            let mut names: Vec<String> = Vec::with_capacity(numbers.len());
            for number in numbers {
                let Some(name) = book.names.get(number) else { continue };
                if book.table.get(name).is_some_and(|h| h.taking.is_none_or(|s| s == session)) {
                    names.push(name.clone());
                }
            }
            book.let_go(&names);
            names.len() == numbers.len()
        })
    }

    /// The session will not say that these arrived.
    pub fn left(&self, uid: u32, session: u64, numbers: &[u64]) {
        self.with(uid, |book| {
            for number in numbers {
                let Some(held) = book.names.get(number).and_then(|name| book.table.get_mut(name)) else {
                    continue;
                };
                if held.taking == Some(session) {
                    held.taking = None;
                }
            }
        });
    }

    /// The session will not say any more that anything arrived.
    pub fn left_all(&self, uid: u32, session: u64) {
        self.with(uid, |book| {
            for held in book.table.values_mut().filter(|h| h.taking == Some(session)) {
                held.taking = None;
            }
        });
    }

    /// Counts a trigger for whoever takes a held name later. `false`: no name is held so.
    pub fn count_up(&self, uid: u32, name: &str) -> Result<bool, Refusal> {
        self.with_all(uid, |book| {
            let Some(held) = book.table.get(name).filter(|h| h.is_counter()) else { return Ok(false) };
            let counted = sys::count_up(held.fd.as_fd());
            counted.map(|()| true).map_err(|e| {
                let text = format!("what is held under the name {} can't count: {e}", shown(name));
                Refusal::system(&e, text)
            })
        })
    }

    /// Lets a hold go.
    pub fn drop(&self, uid: u32, name: &str) -> Result<(), Refusal> {
        self.with_all(uid, |book| {
            if !book.table.contains_key(name) {
                return Err(Refusal::unknown(name));
            }
            book.let_go(&[name.to_owned()]);
            Ok(())
        })
    }

    /// When [`Holds::sweep`] has something to do for a user.
    pub fn next_due(&self, uid: u32) -> Option<u64> {
        self.with(uid, |book| {
            let expires = book.times.first().map(|(at, _)| *at);
            [expires, book.dirty].into_iter().flatten().min()
        })
    }

    /// Lets go what has expired by `now`, and makes the parcel anew if it is time.
    pub fn sweep(&self, uid: u32, now: u64) {
        self.with(uid, |book| {
            let due = book.times.iter().take_while(|(at, _)| *at <= now);
            let names: Vec<String> = due.filter_map(|(_, n)| book.names.get(n).cloned()).collect();
            if !names.is_empty() {
                log::debug!("{} held fds of user {uid} have expired", names.len());
                book.let_go(&names);
            }
            if book.dirty.is_some_and(|at| at <= now) {
                match &self.store {
                    Ok(store) => book.tidy(uid, store),
                    // An earlier evd's could store, this one's can't: there is nothing to be made anew.
                    Err(_) => book.dirty = None,
                }
            }
        });
    }

    /// How many are held for one user, or for all.
    pub fn count(&self, uid: Option<u32>) -> u32 {
        let count = match uid {
            Some(uid) => lock(&self.shelves).get(&uid).map_or(0, |s| s.count.load(Ordering::Relaxed)),
            None => {
                // The watchdog asks this, and is to find out whether it can be locked.
                drop(lock(&self.shelves));
                self.count.load(Ordering::Relaxed)
            }
        };
        count as u32
    }

    /// A page of what is held for a user, by name, and whether there is more. Looks whether each is ready.
    pub fn list(&self, uid: u32, after: &str) -> Result<(Vec<HoldInfo>, bool), Refusal> {
        let now = sys::monotonic_ns();
        let (mut infos, mut fds, mut more) = (Vec::new(), Vec::new(), false);
        self.with_all(uid, |book| {
            for (name, h) in book.table.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)) {
                if infos.len() == PAGE {
                    more = true;
                    break;
                }
                fds.push(Arc::clone(&h.fd));
                infos.push(h.info(name, now));
            }
            Ok(())
        })?;
        let mut look: Vec<PollFd> = fds.iter().map(|fd| PollFd::new(fd.as_raw_fd(), What::IO)).collect();
        if sys::poll(&mut look, Some(Duration::ZERO)).is_ok() {
            for ((info, seen), fd) in infos.iter_mut().zip(&look).zip(&fds) {
                info.ready = seen.ready();
                if matches!(info.kind, FileKind::EventFd | FileKind::TimerFd) {
                    info.count = sys::look_at_count(fd.as_fd());
                }
            }
        }
        Ok((infos, more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 300;

    fn holds() -> Holds {
        use crate::session::books::Quotas;
        const KINDS: usize = Resource::ALL.len();
        let books = Books::new(Quotas { each: [MOST; KINDS], whole: [u64::MAX; KINDS] });
        let waker = crate::server::builder::new_base().unwrap().waker().unwrap();
        Holds::new(Err("a test"), books, waker)
    }

    fn put(holds: &Holds, name: &str, replace: bool) -> Result<(), Refusal> {
        let fd = sys::reserve_fd().unwrap();
        let gift = Gift { name: name.into(), fd, attachment: vec![1], ttl: 0 };
        holds.put(1, vec![gift], replace, &Giver { pid: 1, name: "test".into() })
    }

    #[test]
    fn a_hold_stays_until_its_taker_says_that_it_came() {
        let holds = holds();
        put(&holds, "a", false).unwrap();
        assert_eq!(put(&holds, "a", false).unwrap_err().code, Code::Exists);
        assert_eq!(holds.take(2, "a", 9, false).map(drop).unwrap_err().code, Code::Unknown);
        let number = holds.take(1, "a", 7, false).unwrap().number;
        assert_eq!(holds.take(1, "a", 8, false).map(drop).unwrap_err().code, Code::Busy);
        assert_eq!(holds.take(1, "a", 8, true).unwrap().number, 0);
        holds.left_all(1, 7);
        assert_eq!(holds.take(1, "a", 8, false).unwrap().attachment[..], [1]);
        assert!(!holds.taken(1, &[number], 7), "it is not his any more");
        assert!(holds.taken(1, &[number], 8));
        assert_eq!((holds.count(Some(1)), holds.count(None)), (0, 0));
    }

    #[test]
    fn lists_go_on_after_a_name_and_limits_hold() {
        let holds = holds();
        for i in 0..MOST {
            put(&holds, &format!("n{i:04}"), false).unwrap();
        }
        let why = put(&holds, "x", true).unwrap_err();
        assert_eq!((why.code, why.limit, why.value), (Code::Limit, MOST, MOST));
        put(&holds, "n0003", true).unwrap();
        assert_eq!(holds.books.account(1).left(Resource::Holds), 0);
        let (mut all, mut after) = (0, String::new());
        loop {
            let (page, more) = holds.list(1, &after).unwrap();
            all += page.len();
            after = page.last().unwrap().name.clone();
            if !more {
                break;
            }
        }
        assert_eq!((all, holds.count(None)), (MOST as usize, MOST as u32));
        assert!(holds.drop(1, "n0003").is_ok() && holds.drop(1, "n0003").is_err());
        assert_eq!((holds.count(Some(1)), holds.count(None)), (MOST as u32 - 1, MOST as u32 - 1));
    }
}
