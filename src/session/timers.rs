//! The timers of a session, by the client's id.

use super::books::{Account, Over, Purse};
use super::pages::{PAGE, Pages};
use crate::base::{Base, TimerId};
use evd_proto::notice::ActiveTimer;
use evd_proto::reply::Resource;
use std::sync::Arc;

/// What a timer takes in its base, about.
const IN_BASE: u64 = 64;

#[derive(Debug, Default)]
pub(super) struct Timer {
    /// The base's timer while it is set.
    pub set: Option<TimerId>,
    pub deadline: u64,
    /// It was due, and that is to be reported.
    due: bool,
    listed: bool,
}

/// The timers of one session.
#[derive(Debug)]
pub(super) struct Timers {
    pub table: Pages<Timer>,
    due: Vec<u32>,
    /// Those that are set.
    purse: Purse,
    bytes: Purse,
}

impl Timers {
    pub fn new(account: &Arc<Account>) -> Timers {
        Timers {
            table: Pages::default(),
            due: Vec::new(),
            purse: account.purse(Resource::Timers),
            bytes: account.purse(Resource::Tables),
        }
    }

    /// So many may be set: what is missing for them is reserved at once.
    pub fn expect(&mut self, count: usize) {
        // What can't be reserved is refused one by one.
        let _ = self.purse.reserve(count as u64);
    }

    /// Sets a timer, or sets it anew: what was due of it is forgotten. The caller keeps `id` within its limit.
    pub fn set(&mut self, base: &mut Base, id: u32, deadline: u64) -> Result<(), Over> {
        let cost = self.table.cost(id);
        if cost > 0 {
            self.bytes.take(cost + IN_BASE * PAGE as u64)?;
        }
        let timer = self.table.entry(id);
        if timer.set.is_none() {
            self.purse.take(1)?;
        }
        timer.set = Some(base.set_timer(timer.set.take(), deadline, u64::from(id)));
        timer.deadline = deadline;
        timer.due = false;
        Ok(())
    }

    /// Cancels a timer; one that is not set is not an error.
    pub fn cancel(&mut self, base: &mut Base, id: u32) {
        let Some(timer) = self.table.get_mut(id) else { return };
        timer.due = false;
        if let Some(set) = timer.set.take() {
            base.cancel_timer(set);
            self.purse.give(1);
        }
    }

    /// Takes in that a timer was due. `Some`: its id.
    pub fn fired(&mut self, token: u64, deadline: u64) -> Option<u32> {
        let id = u32::try_from(token).ok()?;
        let timer = self.table.get_mut(id)?;
        timer.set.take()?;
        self.purse.give(1);
        timer.deadline = deadline;
        timer.due = true;
        if !timer.listed {
            timer.listed = true;
            self.due.push(id);
        }
        Some(id)
    }

    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Moves at most `most` reports to `into`.
    pub fn take_due(&mut self, most: usize, into: &mut Vec<ActiveTimer>) {
        let table = &mut self.table;
        for id in self.due.drain(..most.min(self.due.len())) {
            let Some(timer) = table.get_mut(id) else { continue };
            timer.listed = false;
            if std::mem::take(&mut timer.due) {
                into.push(ActiveTimer { id, deadline: timer.deadline });
            }
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        debug_assert_eq!(
            self.table.iter_from(0).filter(|(_, t)| t.set.is_some()).count() as u64,
            self.purse.used(),
            "timers that are set"
        );
    }
}
