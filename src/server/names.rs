//! Named user events: who subscribed to what, by user.

use super::mail::{Handle, lock};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// One subscription.
#[derive(Clone)]
pub(super) struct Subscriber {
    pub worker: Arc<Handle>,
    pub session: u64,
    /// The client's id of it.
    pub id: u32,
}

type Table = HashMap<String, Vec<Subscriber>>;

/// All names: a table for each user, so that nobody meets another user's.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<u32, Table>>);

impl Names {
    pub fn add(&self, uid: u32, name: &str, subscriber: Subscriber) {
        let mut all = lock(&self.0);
        let table = all.entry(uid).or_default();
        match table.get_mut(name) {
            Some(list) => list.push(subscriber),
            None => drop(table.insert(name.to_owned(), vec![subscriber])),
        }
    }

    pub fn remove(&self, uid: u32, name: &str, session: u64, id: u32) {
        let mut all = lock(&self.0);
        let Some(table) = all.get_mut(&uid) else { return };
        let Some(list) = table.get_mut(name) else { return };
        list.retain(|s| s.session != session || s.id != id);
        if list.is_empty() {
            table.remove(name);
        }
        if table.is_empty() {
            all.remove(&uid);
        }
    }

    /// The subscribers of a name; none: there is no such name.
    pub fn subscribers(&self, uid: u32, name: &str) -> Vec<Subscriber> {
        let all = lock(&self.0);
        all.get(&uid).and_then(|t| t.get(name)).cloned().unwrap_or_default()
    }

    /// How many names there are of one user, or of all.
    pub fn count(&self, uid: Option<u32>) -> u32 {
        let all = lock(&self.0);
        match uid {
            Some(uid) => all.get(&uid).map_or(0, HashMap::len) as u32,
            None => all.values().map(|t| t.len() as u32).sum(),
        }
    }
}
