//! The timers of a session, by the client's id.

use super::pages::Pages;
use crate::base::{Base, TimerId};
use evd_proto::notice::ActiveTimer;

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
    limit: u32,
}

impl Timers {
    pub fn new(limit: u32) -> Timers {
        Timers { table: Pages::default(), due: Vec::new(), limit }
    }

    /// Sets a timer, or sets it anew: what was due of it is forgotten. `false`: the id is over the limit.
    pub fn set(&mut self, base: &mut Base, id: u32, deadline: u64) -> bool {
        if id >= self.limit {
            return false;
        }
        let timer = self.table.entry(id);
        timer.set = Some(base.set_timer(timer.set.take(), deadline, u64::from(id)));
        timer.deadline = deadline;
        timer.due = false;
        true
    }

    /// Cancels a timer; one that is not set is not an error.
    pub fn cancel(&mut self, base: &mut Base, id: u32) {
        let Some(timer) = self.table.get_mut(id) else { return };
        timer.due = false;
        if let Some(set) = timer.set.take() {
            base.cancel_timer(set);
        }
    }

    /// Takes in that a timer was due. `Some`: its id.
    pub fn fired(&mut self, token: u64, deadline: u64) -> Option<u32> {
        let id = u32::try_from(token).ok()?;
        let timer = self.table.get_mut(id)?;
        timer.set.take()?;
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
