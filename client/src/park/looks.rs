//! Looks at what is parked that do not wait for evd's report: where a program would notice that there is an evd.

use crate::state::{Place, State};
use evd_proto::sys::{self, PollFd};
use std::time::Duration;

/// With so many watches at most all are looked at when some are reported.
const FEW: usize = 64;
/// The same where there are priorities.
const MOST_URGENT: usize = 1024;

impl State {
    /// Asks the kernel, without waiting, about these parked watches, and fires those that are ready.
    pub fn look_at(&mut self, parked: &[u32]) {
        let mut polls: Vec<PollFd> =
            parked.iter().map(|w| PollFd::new(self.watch(*w).fd, self.watch(*w).interest)).collect();
        if parked.is_empty() || sys::poll(&mut polls, Some(Duration::ZERO)).is_err() {
            return;
        }
        for (&w, poll) in parked.iter().zip(&polls) {
            if !poll.ready().is_empty() {
                self.set_place(w, Place::Out);
                self.fire(w, poll.ready() & self.known_bits());
            }
        }
    }

    /// The parked watches that can be looked at: an edge that was told before would be told again.
    fn parked_levels(&self) -> Vec<u32> {
        let parked = self.watches.iter().filter(|(_, w)| w.place == Place::Parked && !w.is_edge());
        parked.map(|(w, _)| w as u32).collect()
    }

    /// For a loop that does not wait: what is ready this moment is to be found, whether evd has reported it or not. From the second time on, if none has waited in between,
    /// the watches come back instead: a program that only ever looks is served as without evd. New edge-triggered ones stay here at once: nobody could look at them.
    pub fn look_at_parked(&mut self) {
        let edges: Vec<u32> = self.outs.iter().copied().filter(|w| self.watch(*w).is_edge()).collect();
        edges.into_iter().for_each(|w| self.fall_back(w));
        if self.park.parked == 0 {
            return;
        }
        let parked = self.parked_levels();
        if !std::mem::replace(&mut self.park.was_asked, true) {
            return self.look_at(&parked);
        }
        let now = self.base.now();
        for w in parked {
            self.set_place(w, Place::Out);
            self.disarm(w, None);
            // Until it was quiet for the linger.
            self.park.infos.of(w).fired_at = now;
            self.fall_back(w);
        }
    }

    /// What became ready together may be reported one by one. Where that costs little, or the more urgent is to run first, the others are looked at as well.
    pub fn look_beside_reports(&mut self) {
        let most = if self.queues.priorities() > 1 { MOST_URGENT } else { FEW };
        if self.park.parked > 0 && self.watches.len() <= most {
            let parked = self.parked_levels();
            self.look_at(&parked);
        }
    }
}
