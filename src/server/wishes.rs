//! What a worker does for a session that the session can't do alone.

use super::book::Giver;
use super::log::info_of;
use super::mail::Mail;
use super::names::Subscriber;
use super::registry::{Follower, MOST_FOLLOWED};
use super::tickets::{Pending, Triggering};
use super::worker::Worker;
use crate::session::{Gift, Refusal, Wish};
use evd_proto::frame::Body;
use evd_proto::name::shown;
use evd_proto::reply::{Code, Done, Holds, Triggered};
use evd_proto::request::Selector;
use std::sync::Arc;

impl Worker {
    /// Does what session `id` wishes.
    pub(super) fn grant(&mut self, id: u64, wish: Wish) {
        match wish {
            Wish::Subscribe { serial, id: sub, name } => {
                if !self.session(id).is_some_and(|s| s.subscribe(serial, sub, &name)) {
                    return;
                }
                let subscriber = Subscriber { worker: Arc::clone(&self.me), session: id, id: sub };
                self.shared.names.add(self.me.uid, &name, subscriber);
                self.reply(id, serial, &Done {});
            }
            Wish::Unsubscribe { id: sub } => {
                if let Some(name) = self.session(id).and_then(|s| s.unsubscribe(sub)) {
                    self.shared.names.remove(self.me.uid, &name, id, sub);
                }
            }
            Wish::Trigger { serial, name } => self.trigger(id, serial, &name),
            Wish::Hold { serial, gifts, replace } => self.hold(id, serial, gifts, replace),
            Wish::Take { serial, name, keep } => self.take(id, serial, &name, keep),
            Wish::TakeAll { serial, prefix } => self.take_all(id, serial, &prefix),
            Wish::Taken { holds } => {
                self.shared.holds.taken(self.me.uid, &holds, id);
                self.holds_changed();
            }
            // Answers of many pages to many questions of a few bytes.
            Wish::ListHolds { serial, .. } | Wish::Status { serial, .. } | Wish::Events { serial, .. }
                if !self.session(id).is_some_and(|s| s.has_room(serial)) => {}
            Wish::ListHolds { serial, after } => match self.shared.holds.list(self.me.uid, &after) {
                Ok((holds, more)) => self.reply(id, serial, &Holds { holds, more }),
                Err(e) => self.refuse(id, serial, e),
            },
            Wish::DropHold { serial, name } => {
                let dropped = self.shared.holds.drop(self.me.uid, &name);
                self.holds_changed();
                self.done_or_refused(id, serial, dropped);
            }
            Wish::Sync { serial } => self.reply(id, serial, &Done {}),
            Wish::Status { serial, after } => self.status(id, serial, after),
            Wish::Events { serial, base, from } => self.events(id, serial, &base, from),
            Wish::Follow { serial, base } => self.follow(id, serial, base.as_ref()),
        }
    }

    /// Answers, if the session is still there.
    pub(super) fn reply<B: Body>(&mut self, id: u64, serial: u64, body: &B) {
        if let Some(session) = self.session(id) {
            session.reply(serial, body);
        }
    }

    pub(super) fn refuse(&mut self, id: u64, serial: u64, why: Refusal) {
        if let Some(session) = self.session(id) {
            session.refuse(serial, why.code, why.limit, why.value, why.text);
        }
    }

    pub(super) fn refuse_unknown(&mut self, id: u64, serial: u64, text: String) {
        self.refuse(id, serial, Refusal::new(Code::Unknown, text));
    }

    fn trigger(&mut self, id: u64, serial: u64, name: &str) {
        let subscribers = self.shared.names.subscribers(self.me.uid, name);
        if subscribers.is_empty() {
            match self.shared.holds.count_up(self.me.uid, name) {
                Ok(true) => return self.reply(id, serial, &Triggered { reached: 0, queued: 1 }),
                Ok(false) => {}
                Err(e) => return self.refuse(id, serial, e),
            }
            let text = format!("nobody subscribed to the name {}", shown(name));
            return self.refuse_unknown(id, serial, text);
        }
        let (mine, others): (Vec<_>, Vec<_>) =
            subscribers.into_iter().partition(|s| s.worker.id == self.me.id);
        let name: Arc<str> = Arc::from(name);
        let others = others.into_iter().map(|Subscriber { worker, session, id: sub }| {
            let name = Arc::clone(&name);
            (worker, move |ticket| Mail::Trigger { session, id: sub, name, ticket })
        });
        self.ask(id, serial, others.collect(), |worker| {
            let mut result = Triggering::default();
            for Subscriber { session, id: sub, .. } in mine {
                result.add(worker.activate(session, sub, &name));
            }
            Pending::Trigger(result)
        });
    }

    /// Activates a subscription to `name` of a session of this worker. `Some(true)`: it is in the client's socket. `None`: there is no such subscription.
    pub(super) fn activate(&mut self, session: u64, sub: u32, name: &str) -> Option<bool> {
        self.session(session)?.trigger(sub, name).then_some(())?;
        Some(self.settle(session))
    }

    fn hold(&mut self, id: u64, serial: u64, gifts: Vec<Gift>, replace: bool) {
        let Some(session) = self.session(id) else { return };
        let who = session.who();
        let giver = Giver { pid: who.peer.pid, name: who.name.clone() };
        let held = self.shared.holds.put(self.me.uid, gifts, replace, &giver);
        self.holds_changed();
        self.done_or_refused(id, serial, held);
    }

    fn holds_changed(&mut self) {
        self.plan_holds();
        self.shared.holds_changed(&self.me);
    }

    fn done_or_refused(&mut self, id: u64, serial: u64, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.reply(id, serial, &Done {}),
            Err(why) => self.refuse(id, serial, why),
        }
    }

    fn follow(&mut self, id: u64, serial: u64, base: Option<&Selector>) {
        let Some(viewer) = self.session(id).map(|s| s.viewer()) else { return };
        let one = match base {
            None if viewer.all => {
                let Some(who) = self.session(id).map(|s| s.who().clone()) else { return };
                info_of!(viewer.uid, "process {} of user {} follows all users", who.peer.pid, viewer.uid);
                None
            }
            None => None,
            Some(which) => match self.shared.find(viewer, which) {
                Some(found) => {
                    self.note_look(id, found.who.peer.uid, "what happens");
                    Some(found.who.id)
                }
                None => return self.refuse_unknown(id, serial, no_base(which)),
            },
        };
        let to = Follower { worker: Arc::clone(&self.me), session: id };
        if self.shared.follow(to, viewer, one) {
            return self.reply(id, serial, &Done {});
        }
        let (limit, text) =
            (MOST_FOLLOWED as u64, format!("one connection follows at most {MOST_FOLLOWED} bases"));
        self.refuse(id, serial, Refusal { code: Code::Limit, limit, value: limit, text });
    }
}

/// What to say if there is no such base, or the asker may not know of it.
pub(super) fn no_base(which: &Selector) -> String {
    match which {
        Selector::Id(id) => format!("there is no base {id}"),
        Selector::Name(name) => format!("there is no base named {}", shown(name)),
    }
}
