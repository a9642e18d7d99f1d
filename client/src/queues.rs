//! Active queues: one FIFO for each priority.
//!
//! An event knows its place in its queue. One that is taken out from the middle leaves its place behind, and whoever comes to the front passes over it: so
//! taking out touches no other event.

use crate::state::{Bits, Slot};
use slab::Slab;

#[derive(Default)]
struct Queue {
    ids: Vec<u32>,
    /// How many of `ids` have been passed.
    passed: usize,
    /// The place of `ids[0]`, counted from when the queue was made, modulo 2^32.
    start: u32,
}

impl Queue {
    fn place(&self, at: usize) -> u32 {
        self.start.wrapping_add(at as u32)
    }

    /// The queue is at its end: whatever is in it was passed.
    fn clear(&mut self) {
        self.start = self.place(self.ids.len());
        self.ids.clear();
        self.passed = 0;
    }

    /// Makes room for one more: drops what was passed and the places of events that are gone, if that is at least half, or takes more memory.
    #[cold]
    fn make_room(&mut self, events: &mut Slab<Slot>, priority: usize) {
        let start = self.start;
        let mut at = 0;
        let mut kept = 0;
        let passed = std::mem::take(&mut self.passed);
        self.ids.retain(|id| {
            let place = start.wrapping_add(at as u32);
            let slot =
                events.get_mut(*id as usize).filter(|slot| at >= passed && is_at(slot, place, priority));
            at += 1;
            let Some(slot) = slot else { return false };
            slot.position = start.wrapping_add(kept);
            kept += 1;
            true
        });
        if self.ids.len() * 2 > self.ids.capacity() {
            self.ids.reserve(self.ids.len().max(8));
        }
    }
}

fn is_at(slot: &Slot, place: u32, priority: usize) -> bool {
    slot.is(Bits::ACTIVE) && slot.position == place && usize::from(slot.priority) == priority
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
    #[inline]
    pub fn first(&mut self, events: &Slab<Slot>, priority: usize) -> Option<u32> {
        // The callback that has just run may have reduced the number of priorities.
        let queue = self.queues.get_mut(priority)?;
        while let Some(&id) = queue.ids.get(queue.passed) {
            if events.get(id as usize).is_some_and(|slot| is_at(slot, queue.place(queue.passed), priority)) {
                return Some(id);
            }
            queue.passed += 1;
        }
        queue.clear();
        None
    }

    /// Appends to the queue of the event's priority.
    #[inline]
    pub fn push(&mut self, events: &mut Slab<Slot>, id: u32) {
        let most = self.queues.len() - 1;
        let slot = &mut events[id as usize];
        // Priorities may have been reduced since the event got its own.
        if usize::from(slot.priority) > most {
            slot.priority = most as u8;
        }
        let priority = usize::from(slot.priority);
        let queue = &mut self.queues[priority];
        slot.position = queue.place(queue.ids.len());
        if queue.ids.len() == queue.ids.capacity() {
            queue.make_room(events, priority);
            events[id as usize].position = queue.place(queue.ids.len());
        }
        events[id as usize].bits |= Bits::ACTIVE;
        queue.ids.push(id);
        self.len += 1;
    }

    /// Takes an active event out.
    #[inline]
    pub fn remove(&mut self, slot: &mut Slot) {
        slot.bits -= Bits::ACTIVE;
        self.len -= 1;
        let queue = &mut self.queues[usize::from(slot.priority)];
        if slot.position == queue.place(queue.passed) {
            queue.passed += 1;
        }
    }
}
