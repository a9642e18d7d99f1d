//! Who follows a base sees what happens in it, as it happens.

use super::mail::{Mail, Traced};
use super::registry::Follower;
use super::worker::{Occupant, Worker};
use evd_proto::notice::TraceEntry;
use evd_proto::request::Role;
use evd_proto::sys;
use std::sync::Arc;

impl Worker {
    /// Tells those who follow base `id` what happened in it.
    pub(super) fn tell_followers(&mut self, id: u64, entries: Vec<TraceEntry>) {
        let Some(seat) = self.seat(id) else { return };
        let Occupant::Session(session) = &seat.occupant else { return };
        let name = session.who().name.clone();
        let trace = Arc::new(Traced { base: id, name, at: sys::monotonic_ns(), entries });
        for Follower { worker, session } in seat.followers.clone() {
            if worker.id == self.me.id {
                self.show_trace(session, &trace);
            } else {
                worker.post(Mail::Trace { to: session, trace: Arc::clone(&trace) });
            }
        }
    }

    /// Shows a follower what happened.
    pub(super) fn show_trace(&mut self, to: u64, trace: &Traced) {
        if let Some(session) = self.session(to) {
            session.show_trace(trace.base, &trace.name, trace.at, &trace.entries);
            self.settle(to);
        }
    }

    /// Finds out anew who follows each base of this worker.
    pub(super) fn refresh_followers(&mut self) {
        let ids: Vec<u64> = self.places.keys().copied().collect();
        for id in ids {
            let shared = Arc::clone(&self.shared);
            let Some(seat) = self.seat(id) else { continue };
            let Occupant::Session(session) = &mut seat.occupant else { continue };
            if session.who().role != Role::Client {
                continue;
            }
            seat.followers = shared.followers(id, session.who().peer.uid);
            session.attend(!seat.followers.is_empty());
            self.settle(id);
        }
    }
}
