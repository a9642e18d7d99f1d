//! What evctl sees of workers and bases.
//!
//! What workers share (user, thread, number of sessions, since when busy) is read from the registry; only what a base knows itself is asked from its worker. So
//! a stuck worker is shown as such, and its bases with what is known of them.

use super::log::info_of;
use super::mail::{Asker, Handle, Mail};
use super::registry::Listed;
use super::tickets::{Gathering, Pending};
use super::wishes::no_base;
use super::worker::Worker;
use evd_proto::reply::{BaseInfo, StatusPage, WorkerInfo};
use evd_proto::request::Selector;
use evd_proto::{PROTOCOL_VERSION, sys};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bases in one page: each is at most 750 bytes.
const PAGE: usize = 60;
/// Bases in the first page, beside at most 100 workers of 45 bytes and 100 accounts of 350.
const FIRST_PAGE: usize = 20;
const MOST: usize = 100;

impl Worker {
    /// Describes those of the bases that are here.
    pub(super) fn describe(&mut self, ids: &[u64]) -> Vec<BaseInfo> {
        let worker = self.me.id;
        ids.iter().filter_map(|id| Some(self.session(*id)?.base_info(worker))).collect()
    }

    /// Puts a page of the status together for session `id`.
    pub(super) fn status(&mut self, id: u64, serial: u64, after: u64) {
        let Some(viewer) = self.session(id).map(|s| s.viewer()) else { return };
        let (wanted, more) = self.shared.bases(viewer, after, if after == 0 { FIRST_PAGE } else { PAGE });
        let others = wanted.iter().find(|b| b.who.peer.uid != viewer.uid).map(|b| b.who.peer.uid);
        if let Some(other) = others.filter(|_| after == 0) {
            self.note_look(id, other, "the status of all");
        }
        let mut by_worker: BTreeMap<u32, (Arc<Handle>, Vec<u64>)> = BTreeMap::new();
        for base in &wanted {
            let of =
                by_worker.entry(base.worker.id).or_insert_with(|| (Arc::clone(&base.worker), Vec::new()));
            of.1.push(base.who.id);
        }
        let (_, mine) = by_worker.remove(&self.me.id).unzip();
        let others = by_worker.into_values().map(|(worker, ids)| {
            let mail = move |ticket| Mail::AskBases { ids, ticket };
            (worker, mail)
        });
        self.ask(id, serial, others.collect(), |worker| {
            let bases = worker.describe(&mine.unwrap_or_default());
            Pending::Status(Gathering { first: after == 0, wanted, bases, more })
        });
    }

    /// Answers with a page that is complete, or as complete as it gets.
    pub(super) fn show_status(&mut self, id: u64, serial: u64, page: Gathering) {
        let Gathering { first, wanted, mut bases, more } = page;
        let now = sys::monotonic_ns();
        let missing = wanted.iter().filter(|w| !bases.iter().any(|b| b.id == w.who.id));
        let missing: Vec<BaseInfo> = missing.map(|listed| outline(listed, now)).collect();
        bases.extend(missing);
        bases.sort_by_key(|b| b.id);
        let Some(viewer) = self.session(id).map(|s| s.viewer()) else { return };
        let of = if viewer.all { None } else { Some(viewer.uid) };
        let workers = if first { self.shared.workers(viewer) } else { Vec::new() };
        let workers = workers.iter().take(MOST).map(|w| worker_info(w, now)).collect();
        let accounts = if first { self.shared.books.shown(of, MOST) } else { Vec::new() };
        let status = StatusPage {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION,
            pid: std::process::id() as i32,
            uid: sys::effective_ids().0,
            uptime: now.saturating_sub(self.shared.started),
            methods: crate::backend::supported(false).into_iter().map(str::to_owned).collect(),
            workers,
            accounts,
            bases,
            holds: self.shared.holds.count(of),
            mortal: self.shared.holds.why_mortal().unwrap_or_default().to_owned(),
            names: self.shared.names.count(of),
            more,
        };
        self.reply(id, serial, &status);
    }

    /// Answers with what a base waits for, a page at a time.
    pub(super) fn events(&mut self, id: u64, serial: u64, which: &Selector, from: (u8, u32)) {
        let Some(viewer) = self.session(id).map(|s| s.viewer()) else { return };
        let Some(found) = self.shared.find(viewer, which) else {
            return self.refuse_unknown(id, serial, no_base(which));
        };
        let base = found.who.id;
        if from == (0, 0) {
            self.note_look(id, found.who.peer.uid, "its events");
        }
        if found.worker.id == self.me.id {
            return match self.session(base).map(|s| s.events_page(from)) {
                Some(page) => self.reply(id, serial, &page),
                None => self.refuse_unknown(id, serial, no_base(which)),
            };
        }
        let Some(question) = self.question(id, serial) else { return };
        let number = self.tickets.next();
        let ticket = Asker { worker: Arc::clone(&self.me), ticket: number };
        if found.worker.post(Mail::AskEvents { base, from, ticket }) {
            self.await_answers(number, question, 1, Pending::Events(base));
        } else {
            self.refuse_unknown(id, serial, no_base(which));
        }
    }
}

impl Worker {
    /// That somebody looks at what is not his user's is logged.
    pub(super) fn note_look(&mut self, id: u64, uid: u32, what: &str) {
        let Some(session) = self.session(id) else { return };
        let (who, own) = (session.who(), session.who().peer.uid);
        if own != uid {
            info_of!(own, "process {} of user {own} looks at user {uid}: {what}", who.peer.pid);
        }
    }
}

fn worker_info(worker: &Handle, now: u64) -> WorkerInfo {
    WorkerInfo {
        id: worker.id,
        uid: worker.uid,
        tid: worker.tid.load(Ordering::Relaxed),
        method: worker.method.to_owned(),
        sessions: worker.sessions.load(Ordering::Relaxed),
        busy: worker.busy_for(now),
    }
}

/// A base whose worker does not answer.
fn outline(listed: &Listed, now: u64) -> BaseInfo {
    let who = &listed.who;
    BaseInfo {
        id: who.id,
        name: who.name.clone(),
        pid: who.peer.pid,
        uid: who.peer.uid,
        worker: listed.worker.id,
        age: now.saturating_sub(who.since),
        method: listed.method.to_owned(),
        features: listed.features,
        parked: 0,
        local: 0,
        timers: 0,
        signals: 0,
        daemon_signals: 0,
        names: Vec::new(),
        activations: 0,
        per_second: 0,
        wakeups: 0,
        callbacks: 0,
        unread: 0,
    }
}
