//! What a session subscribed to: named user events, and signals that are sent to evd.

use super::Session;
use super::books::{Account, Over, Purse};
use evd_proto::notice::{ActiveName, ActiveSignal};
use evd_proto::reply::{Code, Resource};
use evd_proto::sys::SignalSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One subscription to a name.
#[derive(Debug, Default)]
pub(super) struct Name {
    pub name: String,
    /// How often in all.
    pub count: u64,
    /// How often since the last notice.
    fresh: u32,
}

/// The subscriptions of one session, by the client's id.
#[derive(Debug)]
pub(super) struct Names {
    pub table: BTreeMap<u32, Name>,
    due: Vec<u32>,
    purse: Purse,
}

impl Names {
    pub fn new(account: &Arc<Account>) -> Names {
        Names { table: BTreeMap::new(), due: Vec::new(), purse: account.purse(Resource::Names) }
    }

    /// Adds one. `false`: the id is in use.
    pub fn add(&mut self, id: u32, name: String) -> Result<bool, Over> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        Ok(match self.table.entry(id) {
            Occupied(_) => false,
            Vacant(v) => {
                self.purse.take(1)?;
                v.insert(Name { name, ..Name::default() });
                true
            }
        })
    }

    /// Removes one and gives its name.
    pub fn remove(&mut self, id: u32) -> Option<String> {
        let removed = self.table.remove(&id)?;
        self.purse.give(1);
        Some(removed.name)
    }

    /// Counts one activation of `name`. `false`: there is no such subscription (any more), or its id is by now that of another name.
    pub fn triggered(&mut self, id: u32, name: &str) -> bool {
        let Some(name) = self.table.get_mut(&id).filter(|n| n.name == name) else { return false };
        name.count += 1;
        name.fresh = name.fresh.saturating_add(1);
        if name.fresh == 1 {
            self.due.push(id);
        }
        true
    }

    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Moves at most `most` reports to `into`.
    pub fn take_due(&mut self, most: usize, into: &mut Vec<ActiveName>) {
        for id in self.due.drain(..most.min(self.due.len())) {
            let Some(name) = self.table.get_mut(&id) else { continue };
            // An id that was given up and used again may be listed twice.
            let count = std::mem::take(&mut name.fresh);
            if count > 0 {
                into.push(ActiveName { id, count });
            }
        }
    }
}

impl Session {
    /// Subscribes the client to a name. `false`: it can't be, and the client is told why.
    pub fn subscribe(&mut self, serial: u64, id: u32, name: &str) -> bool {
        match self.state.names.add(id, name.to_owned()) {
            Ok(true) => return true,
            Ok(false) => {
                let text = format!("subscription {id} is in use");
                self.refuse(serial, Code::BadRequest, 0, u64::from(id), text);
            }
            Err(over) => self.reply(serial, &over.refused()),
        }
        false
    }

    /// Gives a subscription up, and gives its name; `None`: there is no such subscription.
    pub fn unsubscribe(&mut self, id: u32) -> Option<String> {
        self.state.names.remove(id)
    }

    /// Gives all of them up.
    pub fn unsubscribe_all(&mut self) -> Vec<(u32, String)> {
        let all: Vec<u32> = self.state.names.table.keys().copied().collect();
        all.into_iter().filter_map(|id| Some((id, self.unsubscribe(id)?))).collect()
    }
}

/// The signals of evd that a session asked for.
#[derive(Debug, Default)]
pub(super) struct DaemonSignals {
    /// How often each came in all.
    pub counts: BTreeMap<i32, u64>,
    due: Vec<ActiveSignal>,
}

impl DaemonSignals {
    pub fn add(&mut self, signo: i32) {
        self.counts.entry(signo).or_default();
    }

    pub fn remove(&mut self, signo: i32) {
        self.counts.remove(&signo);
        self.due.retain(|s| s.signo != signo);
    }

    /// Takes in what came. `false`: it is not wanted (any more).
    pub fn came(&mut self, set: &SignalSet) -> bool {
        let Some(count) = self.counts.get_mut(&set.signo) else { return false };
        *count += u64::from(set.count);
        match self.due.iter_mut().find(|s| s.signo == set.signo) {
            Some(s) => {
                s.count = s.count.saturating_add(set.count);
                (s.pid, s.uid, s.code) = (set.pid, set.uid, set.code);
            }
            None => {
                let SignalSet { signo, count, pid, uid, code } = *set;
                self.due.push(ActiveSignal { signo, count, pid, uid, code });
            }
        }
        true
    }

    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Moves the reports to `into`: there are at most 64.
    pub fn take_due(&mut self, into: &mut Vec<ActiveSignal>) {
        into.append(&mut self.due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::books::{Books, Quotas};

    #[test]
    fn an_activation_that_comes_late_is_not_of_the_name_that_has_the_id_now() {
        const KINDS: usize = Resource::ALL.len();
        let account = Books::new(Quotas { each: [9; KINDS], whole: [99; KINDS] }).account(1);
        let mut names = Names::new(&account);
        assert!(names.add(3, "old".into()).unwrap());
        assert!(names.triggered(3, "old"));
        assert_eq!(names.remove(3).unwrap(), "old");
        assert!(names.add(3, "new".into()).unwrap());
        assert!(!names.triggered(3, "old"));
        let mut told = Vec::new();
        names.take_due(9, &mut told);
        assert!(told.is_empty(), "{told:?}");
        assert!(names.triggered(3, "new"));
        names.take_due(9, &mut told);
        assert_eq!(told, [ActiveName { id: 3, count: 1 }]);
    }
}
