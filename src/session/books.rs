//! What each user uses of evd, and how much of it he may.
//!
//! Whatever a client can make evd keep is charged to its user. A [`Charge`] is a value: dropped, it gives back what it took, so nothing has to be remembered
//! and nothing can be given back twice. When the last session of a user has ended (and nothing is held for him) all his numbers are zero, and he is no
//! longer in the books.
//!
//! Two limits apply. Each user has a **limit** of his own. And of what is there for the **whole** evd one user has at most his share:
//!
//! > `share = reach - reach/4`, or `reach - reach/16` while he is the only one, where `reach` is what he has plus what nobody has.
//!
//! So one user of several gets at most three quarters of the whole, the second at most three quarters of what is left then, and so on; and one who was
//! alone has left something for the first who comes. After a refusal a user gets more only when that leaves him at or below nine tenths of his limit (the
//! low mark): a client at its limit does not flap. What is asked for one by one, and answered, has no low mark: holds, threads, questions.
//!
//! The books have one lock. A session takes it when it needs more than it ever had, not for each of its watches and never for an activation: a [`Purse`]
//! keeps what it has reserved, and gives back when it uses less than half.

use evd_proto::reply::{AccountInfo, Code, Refused, Resource, Use};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How many kinds of things are counted.
const KINDS: usize = Resource::ALL.len();
/// So much more than it uses a purse keeps at least.
const SPARE: u64 = 64;

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// For one user, by [`Resource`].
    pub each: [u64; KINDS],
    /// For all together.
    pub whole: [u64; KINDS],
}

/// The books of one evd.
#[derive(Debug)]
pub struct Books {
    quotas: Quotas,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    whole: [u64; KINDS],
    users: BTreeMap<u32, User>,
}

#[derive(Debug)]
struct User {
    account: Weak<Account>,
    used: [u64; KINDS],
    refused: [u64; KINDS],
    /// Was refused, and has not fallen to the low mark since.
    wary: [bool; KINDS],
}

/// The account of one user: there is one as long as somebody has it.
#[derive(Debug)]
pub struct Account {
    uid: u32,
    books: Arc<Books>,
    /// More than half of what may wait for clients to read it waits.
    tight: AtomicBool,
}

/// A limit is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Whose.
    pub uid: u32,
    /// Of what.
    pub what: Resource,
    /// How much he may have now.
    pub limit: u64,
    /// How much he has.
    pub used: u64,
    /// How much more was asked for.
    pub asked: u64,
}

/// So much of something, until this is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    what: Resource,
    amount: u64,
}

/// What a session counts by itself, with a charge that covers it.
#[derive(Debug)]
pub struct Purse {
    charge: Charge,
    used: u64,
}

impl Books {
    /// Empty ones.
    pub fn new(quotas: Quotas) -> Arc<Books> {
        Arc::new(Books { quotas, state: Mutex::default() })
    }

    /// The account of a user.
    pub fn account(self: &Arc<Self>, uid: u32) -> Arc<Account> {
        let mut state = self.lock();
        let user = state.users.entry(uid).or_insert_with(User::new);
        if let Some(account) = user.account.upgrade() {
            return account;
        }
        let account = Arc::new(Account { uid, books: Arc::clone(self), tight: AtomicBool::new(false) });
        user.account = Arc::downgrade(&account);
        account
    }

    /// What is used against which limits, by one user or by all: at most `most` of them.
    pub fn shown(&self, uid: Option<u32>, most: usize) -> Vec<AccountInfo> {
        let state = self.lock();
        let all = state.users.iter().filter(|(of, _)| uid.is_none_or(|uid| uid == **of));
        let all = all.take(most).map(|(of, user)| AccountInfo {
            uid: *of,
            uses: Resource::ALL
                .map(|what| Use {
                    what,
                    used: user.used[what as usize],
                    limit: state.share(&self.quotas, user, what),
                    refused: user.refused[what as usize],
                })
                .to_vec(),
        });
        all.collect()
    }

    /// Whether nobody has anything.
    pub fn is_even(&self) -> bool {
        let state = self.lock();
        state.users.is_empty() && state.whole == [0; KINDS]
    }

    /// A thread that panicked with the lock left plain numbers behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn charge(&self, uid: u32, what: Resource, amount: u64) -> Result<(), Over> {
        let mut state = self.lock();
        let at = what as usize;
        let Some(user) = state.users.get(&uid) else { return Ok(()) };
        let (limit, used) = (state.share(&self.quotas, user, what), user.used[at]);
        let mark = if user.wary[at] { low_mark(limit) } else { limit };
        let fits = used.checked_add(amount).is_some_and(|sum| sum <= mark);
        let Some(user) = state.users.get_mut(&uid) else { return Ok(()) };
        user.wary[at] = !fits && has_low_mark(what);
        if !fits {
            user.refused[at] += 1;
            return Err(Over { uid, what, limit, used, asked: amount });
        }
        user.used[at] += amount;
        state.whole[at] += amount;
        Ok(())
    }

    /// Counts `to` of something where `from` was counted, over the limit too. Returns how much more the user may have then.
    fn change(&self, uid: u32, what: Resource, from: u64, to: u64) -> u64 {
        let mut state = self.lock();
        let at = what as usize;
        let State { whole, users } = &mut *state;
        let Some(user) = users.get_mut(&uid) else { return 0 };
        debug_assert!(user.used[at] >= from, "{what:?} of user {uid}");
        user.used[at] = user.used[at] - from + to;
        whole[at] = whole[at] - from + to;
        state.left(&self.quotas, uid, what)
    }
}

impl State {
    /// How much of something a user may have now.
    fn share(&self, quotas: &Quotas, user: &User, what: Resource) -> u64 {
        let at = what as usize;
        let left = quotas.whole[at].saturating_sub(self.whole[at]);
        let reach = user.used[at].saturating_add(left);
        let part = if self.users.len() > 1 { reach / 4 } else { reach / 16 };
        quotas.each[at].min(reach - part)
    }

    /// How much more of it he may have.
    fn left(&self, quotas: &Quotas, uid: u32, what: Resource) -> u64 {
        let left = |user: &User| self.share(quotas, user, what).saturating_sub(user.used[what as usize]);
        self.users.get(&uid).map_or(0, left)
    }
}

fn has_low_mark(what: Resource) -> bool {
    !matches!(what, Resource::Holds | Resource::HoldBytes | Resource::Requests | Resource::Threads)
}

/// Where a user must be after he was refused, before he gets more.
fn low_mark(limit: u64) -> u64 {
    limit - (limit / 10).max(1).min(limit)
}

impl User {
    fn new() -> User {
        User { account: Weak::new(), used: [0; KINDS], refused: [0; KINDS], wary: [false; KINDS] }
    }
}

impl Account {
    /// Takes so much of something.
    ///
    /// # Errors
    /// It is more than the user may have now. Nothing was taken.
    pub fn charge(self: &Arc<Self>, what: Resource, amount: u64) -> Result<Charge, Over> {
        self.books.charge(self.uid, what, amount)?;
        Ok(Charge { account: Arc::clone(self), what, amount })
    }

    /// Takes it whether the user may or not: for what is there already, and must be counted.
    pub fn charge_anyway(self: &Arc<Self>, what: Resource, amount: u64) -> Charge {
        let mut charge = Charge { account: Arc::clone(self), what, amount: 0 };
        charge.set_anyway(amount);
        charge
    }

    /// An empty purse.
    pub fn purse(self: &Arc<Self>, what: Resource) -> Purse {
        Purse { charge: Charge { account: Arc::clone(self), what, amount: 0 }, used: 0 }
    }

    /// Whether more than half of what may wait for the user's clients to read it waits. Costs next to nothing to ask.
    pub fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// How much more of something the user may have now.
    pub fn left(&self, what: Resource) -> u64 {
        self.books.lock().left(&self.books.quotas, self.uid, what)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut state = self.books.lock();
        let gone = state.users.get(&self.uid).filter(|user| user.account.strong_count() == 0);
        if let Some(user) = gone {
            debug_assert_eq!(user.used, [0; KINDS], "user {} is gone and has something", self.uid);
            state.users.remove(&self.uid);
        }
    }
}

impl Charge {
    /// Takes so much more.
    ///
    /// # Errors
    /// As [`Account::charge`].
    pub fn more(&mut self, amount: u64) -> Result<(), Over> {
        self.account.books.charge(self.account.uid, self.what, amount)?;
        self.amount += amount;
        Ok(())
    }

    /// Gives so much back, or all if it has less.
    pub fn less(&mut self, amount: u64) {
        self.set_anyway(self.amount.saturating_sub(amount));
    }

    /// Takes more or gives back until it has so much, over the limit too.
    pub fn set_anyway(&mut self, amount: u64) {
        if amount == self.amount {
            return;
        }
        let books = &self.account.books;
        let left = books.change(self.account.uid, self.what, self.amount, amount);
        self.amount = amount;
        if self.what == Resource::Output {
            let limit = books.quotas.each[Resource::Output as usize];
            self.account.tight.store(left < limit / 2, Ordering::Relaxed);
        }
    }

    /// How much it has.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Whose it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set_anyway(0);
    }
}

impl Purse {
    /// Reserves as much as is missing for `amount` more, so that they can be taken without the lock.
    ///
    /// # Errors
    /// As [`Account::charge`]; what was reserved before still is.
    pub fn reserve(&mut self, amount: u64) -> Result<(), Over> {
        match (self.used + amount).saturating_sub(self.charge.amount) {
            0 => Ok(()),
            missing => self.charge.more(missing),
        }
    }

    /// Uses so much.
    ///
    /// # Errors
    /// As [`Account::charge`].
    pub fn take(&mut self, amount: u64) -> Result<(), Over> {
        self.reserve(amount)?;
        self.used += amount;
        Ok(())
    }

    /// Uses so much less. What is not used is kept for the next, up to as much as is used.
    pub fn give(&mut self, amount: u64) {
        debug_assert!(self.used >= amount, "{:?}", self.charge.what);
        self.used = self.used.saturating_sub(amount);
        if self.charge.amount > 2 * self.used + SPARE {
            self.trim();
        }
    }

    /// Gives back all that is not used.
    pub fn trim(&mut self) {
        self.charge.less(self.charge.amount - self.used);
    }

    /// How much is used.
    pub fn used(&self) -> u64 {
        self.used
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Over { uid, what, limit, used, asked } = self;
        write!(f, "user {uid} has {used} {what} of at most {limit}")?;
        if *asked > 1 {
            write!(f, ", and {asked} more are asked for")?;
        }
        if has_low_mark(*what) { write!(f, "; more when it is {}", low_mark(*limit)) } else { Ok(()) }
    }
}

impl Over {
    /// What the client is told.
    pub fn refused(&self) -> Refused {
        let (limit, value) = (self.limit, self.used);
        Refused { code: Code::Limit, limit, value, text: self.to_string(), ids: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Resource::{Timers, Watches};

    fn books(each: u64, whole: u64) -> Arc<Books> {
        Books::new(Quotas { each: [each; KINDS], whole: [whole; KINDS] })
    }

    #[test]
    fn what_is_taken_comes_back_with_its_value() {
        let books = books(100, 1000);
        let a = books.account(1);
        let mut one = a.charge(Watches, 60).unwrap();
        let over = a.charge(Watches, 41).unwrap_err();
        assert_eq!((over.limit, over.used), (100, 60));
        one.less(30);
        let purse = {
            let mut purse = a.purse(Watches);
            purse.take(10).unwrap();
            purse.reserve(20).unwrap();
            assert_eq!(books.shown(Some(1), 9)[0].uses[Watches as usize].used, 60);
            purse.give(10);
            purse.trim();
            purse
        };
        drop((one, a));
        assert!(!books.is_even(), "a purse is left");
        drop(purse);
        assert!(books.is_even());
    }

    #[test]
    fn who_was_refused_gets_more_only_below_the_low_mark() {
        let books = books(100, 1000);
        let a = books.account(1);
        let mut all = a.charge(Watches, 100).unwrap();
        assert!(a.charge(Watches, 1).is_err());
        all.less(9);
        assert!(a.charge(Watches, 1).is_err(), "91 and one more are over 90");
        all.less(2);
        let one = a.charge(Watches, 1).unwrap();
        drop(one);
        assert!(a.charge(Watches, 11).is_ok(), "it is not wary any more");
        assert!(a.charge(Timers, 100).is_ok(), "others are others");
    }

    #[test]
    fn one_of_several_has_at_most_three_quarters_and_leaves_as_much_of_the_rest() {
        let books = books(u64::MAX, 1600);
        let fill = |a: &Arc<Account>| {
            let mut all = a.purse(Watches);
            while all.take(1).is_ok() {}
            all
        };
        let first = books.account(1);
        let mut alone = fill(&first);
        assert_eq!(alone.used(), 1500, "a sixteenth is left for who comes");
        let second = books.account(2);
        assert_eq!(fill(&second).used(), 75);
        // While the other is there, the first gets nothing more above its share.
        alone.give(1500);
        alone.trim();
        let of_first = fill(&first);
        assert_eq!(of_first.used(), 1200);
        let of_second = fill(&second);
        assert_eq!(of_second.used(), 300);
        let third = books.account(3);
        assert_eq!(fill(&third).used(), 75);
        drop((alone, of_first, of_second, first, second, third));
        assert!(books.is_even());
    }

    #[test]
    fn a_purse_that_goes_up_and_down_keeps_what_it_needs() {
        let books = books(1000, 10_000);
        let a = books.account(1);
        let mut purse = a.purse(Watches);
        purse.reserve(500).unwrap();
        for _ in 0..500 {
            purse.take(1).unwrap();
        }
        purse.give(200);
        assert_eq!(purse.charge.amount(), 500, "half is used: the rest is kept");
        purse.give(200);
        assert_eq!((purse.charge.amount(), purse.used()), (100, 100));
    }

    #[test]
    fn output_over_half_is_tight_and_may_be_over_the_limit() {
        let books = books(1000, 100_000);
        let a = books.account(1);
        let mut out = a.charge_anyway(Resource::Output, 400);
        assert!(!a.is_tight());
        out.set_anyway(5000);
        assert!(a.is_tight() && a.left(Resource::Output) == 0);
        drop(out);
        assert!(!a.is_tight());
    }
}
