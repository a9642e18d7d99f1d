//! Active queues: one FIFO for each priority.
//!
//! An event knows its place in its queue. One that is taken out from the middle leaves its place behind, and whoever comes to the front passes over it: so
//! taking out touches no other event.

use crate::state::{Bits, Slot};
use slab::Slab;
use std::collections::VecDeque;

#[derive(Default)]
struct Queue {
    ids: VecDeque<u32>,
    /// The place of the first, counted from when the queue was made, modulo 2^32.
    start: u32,
}

impl Queue {
    /// Drops the places of events that are gone.
    fn close_up(&mut self, events: &mut Slab<Slot>, priority: usize) {
        let (mut place, start) = (self.start, self.start);
        let mut kept = 0u32;
        self.ids.retain(|id| {
            let slot = events
                .get_mut(*id as usize)
                .filter(|s| s.is(Bits::ACTIVE) && s.position == place && usize::from(s.priority) == priority);
            place = place.wrapping_add(1);
            let Some(slot) = slot else { return false };
            slot.position = start.wrapping_add(kept);
            kept += 1;
            true
        });
    }
}

/// The active events of a base.
pub(crate) struct Queues {
    queues: Vec<Queue>,
    len: usize,
}

impl Queues {
    pub fn new(priorities: usize) -> Queues {
        Queues { queues: std::iter::repeat_with(Queue::default).take(priorities).collect(), len: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many events are active.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn priorities(&self) -> usize {
        self.queues.len()
    }

    /// The first event of a queue.
    pub fn first(&mut self, events: &Slab<Slot>, priority: usize) -> Option<u32> {
        let queue = &mut self.queues[priority];
        while let Some(&id) = queue.ids.front() {
            let is_here = |s: &Slot| {
                s.is(Bits::ACTIVE) && s.position == queue.start && usize::from(s.priority) == priority
            };
            if events.get(id as usize).is_some_and(is_here) {
                return Some(id);
            }
            queue.ids.pop_front();
            queue.start = queue.start.wrapping_add(1);
        }
        None
    }

    /// Appends to the queue of the event's priority.
    pub fn push(&mut self, events: &mut Slab<Slot>, id: u32) {
        let slot = &mut events[id as usize];
        // Priorities may have been reduced since the event got its own.
        let priority = usize::from(slot.priority).min(self.queues.len() - 1);
        slot.priority = priority as u8;
        let queue = &mut self.queues[priority];
        if queue.ids.len() > 64 + 4 * self.len {
            queue.close_up(events, priority);
        }
        let slot = &mut events[id as usize];
        slot.position = queue.start.wrapping_add(queue.ids.len() as u32);
        slot.bits |= Bits::ACTIVE;
        queue.ids.push_back(id);
        self.len += 1;
    }

    /// Takes an active event out.
    pub fn remove(&mut self, events: &mut Slab<Slot>, id: u32) {
        let slot = &mut events[id as usize];
        slot.bits -= Bits::ACTIVE;
        self.len -= 1;
        let queue = &mut self.queues[usize::from(slot.priority)];
        if slot.position == queue.start {
            queue.ids.pop_front();
            queue.start = queue.start.wrapping_add(1);
        }
        if self.len == 0 {
            // What is left are places of events that are gone.
            for queue in &mut self.queues {
                queue.start = queue.start.wrapping_add(queue.ids.len() as u32);
                queue.ids.clear();
            }
        }
    }
}
