//! Active queues: one FIFO for each priority, linked through the events.

use crate::state::{NIL, Slot};
use slab::Slab;

#[derive(Clone, Copy)]
struct Queue {
    head: u32,
    tail: u32,
}

/// The active events of a base.
pub(crate) struct Queues {
    queues: Vec<Queue>,
    len: usize,
}

impl Queues {
    pub fn new(priorities: usize) -> Queues {
        Queues { queues: vec![Queue { head: NIL, tail: NIL }; priorities], len: 0 }
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
    pub fn first(&self, priority: usize) -> Option<u32> {
        Some(self.queues[priority].head).filter(|id| *id != NIL)
    }

    /// Appends to the queue of the event's priority.
    pub fn push(&mut self, events: &mut Slab<Slot>, id: u32) {
        let slot = &mut events[id as usize];
        // Priorities may have been reduced since the event got its own.
        let priority = usize::from(slot.priority).min(self.queues.len() - 1);
        slot.priority = priority as u8;
        let queue = &mut self.queues[priority];
        slot.before = queue.tail;
        slot.after = NIL;
        slot.active = true;
        match queue.tail {
            NIL => queue.head = id,
            tail => events[tail as usize].after = id,
        }
        queue.tail = id;
        self.len += 1;
    }

    /// Takes an active event out.
    pub fn remove(&mut self, events: &mut Slab<Slot>, id: u32) {
        let slot = &mut events[id as usize];
        let (before, after, priority) = (slot.before, slot.after, usize::from(slot.priority));
        slot.active = false;
        let queue = &mut self.queues[priority];
        match before {
            NIL => queue.head = after,
            b => events[b as usize].after = after,
        }
        match after {
            NIL => queue.tail = before,
            a => events[a as usize].before = before,
        }
        self.len -= 1;
    }
}
