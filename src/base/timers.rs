//! The timers of one base: a 4-ary heap of deadlines over a slab, lazy in both directions.
//!
//! A deadline is compared where it lies in the heap, and a slot does not know where its entry is, so setting and firing never touch other timers' slots. The
//! price is that an entry can't be found from its timer, so nobody looks for it:
//! - A cancelled timer leaves its entry behind, which is dead because its slot no longer names it. Dead entries are swept out before they are a third of the heap.
//! - A timer moved to a later time (the idle timeout of a busy connection) only notes it in its slot. Its entry is put right when it gets to the top.
//! - A timer moved to an earlier time gets a new entry, and the old one is dead.
//!
//! The top is put right when somebody asks for it, so the next deadline is always exact, and many cancels between two waits cost one look. Equal deadlines go in the order in which they were set: each setting takes
//! the next number of a sequence, which also names entries. 40 bytes a timer, at most half as much again for dead entries and room to grow.
//!
//! Timeouts of one length that many timers share (libevent's common timeouts) have a queue: what is set later is due later, so an entry goes to the back and
//! comes out at the front. What does not fit that order goes into the heap. Entries of queues are lazy in the same ways; a moved one goes into the heap.
//!
//! Room goes back when a quarter or less is in use. A slot stays where it is for as long as its timer lives, so one timer in a high slot keeps the slots
//! below it; the lowest free ones are the first to be used again after each give-back.

use std::collections::VecDeque;
use std::num::NonZeroU32;

/// A timer that is set. Its number may be used again as soon as it has expired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId(NonZeroU32);

impl TimerId {
    fn new(slot: u32) -> TimerId {
        TimerId(NonZeroU32::MIN.saturating_add(slot))
    }

    fn slot(self) -> u32 {
        self.0.get() - 1
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: u64,
    seq: u32,
    slot: u32,
}

impl Entry {
    /// As one number, so that comparing does not branch.
    fn key(&self) -> u128 {
        (u128::from(self.deadline) << 32) | u128::from(self.seq)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    token: u64,
    deadline: u64,
    /// When it was set, as a number of the sequence; of a free slot: the next free one.
    seq: u32,
    /// The number of its entry in the heap, whose key is never after the timer's own. `NONE` if the slot is free.
    entry: u32,
}

/// The timers of one common timeout.
#[derive(Debug)]
struct Queue {
    interval: u64,
    entries: VecDeque<Entry>,
}

/// Never a number of the sequence, and never a slot.
const NONE: u32 = u32::MAX;
const FEWEST: usize = 64;
const ARITY: usize = 4;

/// The timers of one base.
#[derive(Debug)]
pub(super) struct Timers {
    heap: Vec<Entry>,
    queues: Vec<Queue>,
    slots: Vec<Slot>,
    live: usize,
    free: u32,
    seq: u32,
}

impl Timers {
    pub(super) fn new() -> Timers {
        Timers { heap: Vec::new(), queues: Vec::new(), slots: Vec::new(), live: 0, free: NONE, seq: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// The first deadline.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.live == 0 {
            return None;
        }
        self.first().map(|(_, first)| first.deadline)
    }

    /// The first entry, and where it is: in the heap, or in a queue.
    fn first(&mut self) -> Option<(Option<usize>, Entry)> {
        // Queues first: what has moved goes from there into the heap.
        for queue in 0..self.queues.len() {
            self.put_front_right(queue);
        }
        self.put_top_right();
        let heads = self.queues.iter().enumerate().filter_map(|(i, q)| Some((Some(i), *q.entries.front()?)));
        heads.chain(self.heap.first().map(|top| (None, *top))).min_by_key(|(_, e)| e.key())
    }

    /// Makes a queue for timers that are set to `interval` from when they are set; or finds it. `None`: there are 256 already.
    pub(super) fn common(&mut self, interval: u64) -> Option<u8> {
        let known = self.queues.iter().position(|q| q.interval == interval);
        let at = known.unwrap_or(self.queues.len());
        let number = u8::try_from(at).ok()?;
        if known.is_none() {
            self.queues.push(Queue { interval, entries: VecDeque::new() });
        }
        Some(number)
    }

    /// As [`Timers::set`] to the queue's time after `now`.
    pub(super) fn set_common(&mut self, timer: Option<TimerId>, queue: u8, now: u64, token: u64) -> TimerId {
        let Some(Queue { interval, entries }) = self.queues.get(usize::from(queue)) else {
            return self.set(timer, now, token);
        };
        let deadline = now.saturating_add(*interval);
        let in_order = entries.back().is_none_or(|last| last.deadline <= deadline);
        // One that is set stays where it is until it gets to the front.
        if !in_order || timer.is_some_and(|t| self.is_set(t)) {
            return self.set(timer, deadline, token);
        }
        let seq = self.next_seq();
        let slot = self.take_slot(Slot { token, deadline, seq, entry: seq });
        self.live += 1;
        let entries = &mut self.queues[usize::from(queue)].entries;
        if entries.len() == entries.capacity() {
            entries.reserve_exact((entries.len() / 4).max(FEWEST));
        }
        entries.push_back(Entry { deadline, seq, slot });
        TimerId::new(slot)
    }

    pub(super) fn deadline_of(&self, timer: TimerId) -> Option<u64> {
        self.slots.get(timer.slot() as usize).filter(|s| s.entry != NONE).map(|s| s.deadline)
    }

    /// Whether `timer` is set now.
    fn is_set(&self, timer: TimerId) -> bool {
        self.slots.get(timer.slot() as usize).is_some_and(|s| s.entry != NONE)
    }

    /// Sets a new timer, or moves one that is set.
    pub(super) fn set(&mut self, timer: Option<TimerId>, deadline: u64, token: u64) -> TimerId {
        let seq = self.next_seq();
        let Some(timer) = timer.filter(|t| self.is_set(*t)) else {
            let slot = self.take_slot(Slot { token, deadline, seq, entry: seq });
            self.live += 1;
            self.push(Entry { deadline, seq, slot });
            return TimerId::new(slot);
        };
        let slot = &mut self.slots[timer.slot() as usize];
        let later = deadline >= slot.deadline;
        *slot = Slot { token, deadline, seq, entry: if later { slot.entry } else { seq } };
        if !later {
            self.push(Entry { deadline, seq, slot: timer.slot() });
            self.sweep();
        }
        timer
    }

    /// Cancels a timer; one that is not set is not an error.
    pub(super) fn cancel(&mut self, timer: TimerId) {
        if self.is_set(timer) {
            self.release(timer.slot());
            self.sweep();
        }
    }

    /// Takes the first timer if it is due at `now`: its token and its deadline.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<(u64, u64)> {
        let (queue, first) = self.first()?;
        if first.deadline > now {
            return None;
        }
        let token = self.slots[first.slot as usize].token;
        self.release(first.slot);
        if let Some(queue) = queue {
            self.queues[queue].entries.pop_front();
        }
        self.sweep();
        Some((token, first.deadline))
    }

    /// As [`Timers::put_top_right`] for the front of a queue.
    fn put_front_right(&mut self, queue: usize) {
        while let Some(&front) = self.queues[queue].entries.front() {
            let slot = &mut self.slots[front.slot as usize];
            if slot.entry == front.seq {
                if slot.seq == front.seq {
                    break;
                }
                slot.entry = slot.seq;
                let entry = Entry { deadline: slot.deadline, seq: slot.seq, slot: front.slot };
                self.push(entry);
            }
            self.queues[queue].entries.pop_front();
        }
    }

    /// Takes dead entries out at the top, and puts those where they belong whose timers have moved, until the top says the truth.
    fn put_top_right(&mut self) {
        while let Some(top) = self.heap.first() {
            let slot = &mut self.slots[top.slot as usize];
            if slot.entry != top.seq {
                if let Some(last) = self.heap.pop().filter(|_| !self.heap.is_empty()) {
                    self.sink(0, last);
                }
            } else if slot.seq != top.seq {
                slot.entry = slot.seq;
                let entry = Entry { deadline: slot.deadline, seq: slot.seq, slot: top.slot };
                self.sink(0, entry);
            } else {
                break;
            }
        }
    }

    fn push(&mut self, entry: Entry) {
        grow(&mut self.heap);
        self.heap.push(entry);
        self.rise(self.heap.len() - 1, entry);
    }

    fn rise(&mut self, mut at: usize, entry: Entry) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.heap[parent].key() <= entry.key() {
                break;
            }
            self.heap[at] = self.heap[parent];
            at = parent;
        }
        self.heap[at] = entry;
    }

    /// Fills the hole at `at` with `entry`. The hole goes down first, all the way, without a look at the entry: what is put in at the top comes from the bottom and
    /// nearly always belongs there again.
    fn sink(&mut self, top: usize, entry: Entry) {
        let mut at = top;
        loop {
            let first = at * ARITY + 1;
            let (child, least) = match self.heap.get(first..first + ARITY) {
                Some(&[a, b, c, d]) => {
                    let (i, x) = if b.key() < a.key() { (1, b) } else { (0, a) };
                    let (j, y) = if d.key() < c.key() { (3, d) } else { (2, c) };
                    if y.key() < x.key() { (j, y) } else { (i, x) }
                }
                _ => match self.heap.iter().enumerate().skip(first).min_by_key(|(_, e)| e.key()) {
                    Some((child, least)) => (child - first, *least),
                    None => break,
                },
            };
            self.heap[at] = least;
            at = first + child;
        }
        while at > top {
            let parent = (at - 1) / ARITY;
            if self.heap[parent].key() <= entry.key() {
                break;
            }
            self.heap[at] = self.heap[parent];
            at = parent;
        }
        self.heap[at] = entry;
    }

    fn take_slot(&mut self, new: Slot) -> u32 {
        if self.free != NONE {
            let slot = self.free;
            self.free = self.slots[slot as usize].seq;
            self.slots[slot as usize] = new;
            return slot;
        }
        assert!(self.slots.len() < NONE as usize - 1, "more than 2^32 timers in one base");
        grow(&mut self.slots);
        self.slots.push(new);
        self.slots.len() as u32 - 1
    }

    fn release(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot { token: 0, deadline: 0, seq: self.free, entry: NONE };
        self.free = slot;
        self.live -= 1;
    }

    /// The next number of the sequence. Before it wraps all timers are numbered anew, in their order.
    fn next_seq(&mut self) -> u32 {
        if self.seq >= NONE - 1 {
            self.put_all_right();
            let queued = self.queues.iter_mut().flat_map(|q| q.entries.iter_mut());
            let mut all: Vec<&mut Entry> = self.heap.iter_mut().chain(queued).collect();
            all.sort_unstable_by_key(|e| e.key());
            for (seq, entry) in (0..).zip(all) {
                entry.seq = seq;
                let slot = &mut self.slots[entry.slot as usize];
                (slot.seq, slot.entry) = (seq, seq);
            }
            self.make_heap();
            self.seq = self.live as u32;
        }
        self.seq += 1;
        self.seq - 1
    }

    /// Drops the dead entries and gives the others their timers' own keys. The heap is not one after this.
    fn put_all_right(&mut self) {
        let slots = &mut self.slots;
        let moved = &mut self.heap;
        for queue in &mut self.queues {
            queue.entries.retain(|entry| {
                let slot = &mut slots[entry.slot as usize];
                if slot.entry == entry.seq && slot.seq != entry.seq {
                    slot.entry = slot.seq;
                    moved.push(Entry { deadline: slot.deadline, seq: slot.seq, slot: entry.slot });
                    return false;
                }
                slot.entry == entry.seq
            });
        }
        self.heap.retain_mut(|entry| {
            let slot = &mut slots[entry.slot as usize];
            let alive = slot.entry == entry.seq;
            if alive {
                slot.entry = slot.seq;
                (entry.seq, entry.deadline) = (slot.seq, slot.deadline);
            }
            alive
        });
    }

    fn make_heap(&mut self) {
        for at in (0..self.heap.len().div_ceil(ARITY)).rev() {
            self.sink(at, self.heap[at]);
        }
    }

    fn entries(&self) -> usize {
        self.heap.len() + self.queues.iter().map(|q| q.entries.len()).sum::<usize>()
    }

    /// Sweeps out dead entries when they are many, and gives back room that is not needed.
    fn sweep(&mut self) {
        if self.entries() - self.live > self.live / 2 + FEWEST {
            self.put_all_right();
            self.make_heap();
        }
        if self.live == 0 {
            self.heap.clear();
            self.queues.iter_mut().for_each(|q| q.entries.clear());
            self.slots.clear();
            self.slots.shrink_to(FEWEST);
            self.free = NONE;
        }
        // Once for each time that something shrinks, so its cost is shared by many cancels.
        let mut shrunk = shrinks(self.heap.len(), self.heap.capacity());
        if shrunk {
            self.heap.shrink_to((self.heap.len() * 2).max(FEWEST));
        }
        for queue in &mut self.queues {
            if shrinks(queue.entries.len(), queue.entries.capacity()) {
                queue.entries.shrink_to((queue.entries.len() * 2).max(FEWEST));
                shrunk = true;
            }
        }
        if shrunk && self.live <= self.slots.len() / 4 {
            self.give_back_slots();
        }
    }

    fn give_back_slots(&mut self) {
        while self.slots.last().is_some_and(|s| s.entry == NONE) {
            self.slots.pop();
        }
        // Dead entries may still speak of the slots that are gone.
        let most = self.slots.len();
        self.heap.retain(|e| (e.slot as usize) < most);
        self.make_heap();
        self.queues.iter_mut().for_each(|q| q.entries.retain(|e| (e.slot as usize) < most));
        self.slots.shrink_to((most + most / 4).max(FEWEST));
        self.free = NONE;
        for slot in (0..most).rev() {
            if self.slots[slot].entry == NONE {
                self.slots[slot].seq = self.free;
                self.free = slot as u32;
            }
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let queued: usize = self.queues.iter().map(|q| q.entries.capacity()).sum();
        (self.heap.capacity() + queued) * size_of::<Entry>() + self.slots.capacity() * size_of::<Slot>()
    }
}

/// Whether so little of a room is in use that some of it goes back.
fn shrinks(len: usize, capacity: usize) -> bool {
    capacity > FEWEST && len <= capacity / 4
}

/// Room for one more, a quarter as much again when full: doubling would cost up to twice what is in use.
fn grow<T>(v: &mut Vec<T>) {
    if v.len() == v.capacity() {
        v.reserve_exact((v.len() / 4).max(FEWEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_optional_id_takes_four_bytes() {
        assert_eq!(size_of::<Option<TimerId>>(), 4);
    }

    #[test]
    fn agrees_with_a_sorted_map_over_random_operations() {
        let (mut timers, mut model, mut ids) = (Timers::new(), BTreeMap::new(), BTreeMap::new());
        // The sequence wraps twice on the way.
        timers.seq = NONE - 40_000;
        let (short, long) = (timers.common(20).unwrap(), timers.common(90).unwrap());
        assert_eq!((timers.common(20), timers.common(90)), (Some(short), Some(long)));
        let (mut x, mut order) = (0x9e37_79b9_7f4a_7c15u64, 0u64);
        let mut random = move |below: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % below
        };
        for token in 0..200_000u64 {
            order += 1;
            // Few different deadlines, so that most have company.
            let deadline = random(500);
            let any = ids.keys().nth(random(20) as usize).copied();
            // Mostly, but not always, later than the one before.
            let at = token % 400 + random(8);
            match (random(12), any) {
                (8 | 9, _) => {
                    let id = timers.set_common(None, if token % 2 == 0 { short } else { long }, at, token);
                    let deadline = at + if token % 2 == 0 { 20 } else { 90 };
                    ids.insert(token, (id, deadline, order));
                    model.insert((deadline, order), token);
                }
                (10, Some(old)) => {
                    let (id, was, first) = ids[&old];
                    assert_eq!(timers.set_common(Some(id), long, at, old), id);
                    assert_eq!(model.remove(&(was, first)), Some(old));
                    model.insert((at + 90, order), old);
                    ids.insert(old, (id, at + 90, order));
                }
                (0..4, _) | (_, None) => {
                    let id = timers.set(None, deadline, token);
                    assert!(ids.insert(token, (id, deadline, order)).is_none());
                    model.insert((deadline, order), token);
                }
                (4 | 5, Some(old)) => {
                    let (id, was, at) = ids[&old];
                    assert_eq!(timers.set(Some(id), deadline, old), id);
                    assert_eq!(model.remove(&(was, at)), Some(old));
                    model.insert((deadline, order), old);
                    ids.insert(old, (id, deadline, order));
                }
                (6, Some(old)) => {
                    let (id, was, at) = ids.remove(&old).unwrap();
                    timers.cancel(id);
                    assert_eq!(model.remove(&(was, at)), Some(old));
                }
                _ => {
                    let now = random(200);
                    while let Some((token, deadline)) = timers.pop_due(now) {
                        let ((first, _), expected) = model.pop_first().unwrap();
                        assert_eq!((token, deadline), (expected, first));
                        ids.remove(&token);
                    }
                    assert!(model.keys().next().is_none_or(|(d, _)| *d > now));
                }
            }
            assert_eq!(timers.len(), model.len());
            // Not each time: a look puts the top right.
            if token % 3 == 0 {
                assert_eq!(timers.next(), model.keys().next().map(|k| k.0));
            }
            if token == 100_000 {
                timers.seq = NONE - 1;
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let mut timers = Timers::new();
        let ids: Vec<_> = (0..100_000).map(|i| timers.set(None, i % 977, i)).collect();
        assert!(timers.bytes() <= 64 * 100_000, "{} bytes", timers.bytes());
        for id in ids {
            timers.cancel(id);
        }
        assert!(timers.bytes() <= 64 * FEWEST, "{} bytes", timers.bytes());
    }

    #[test]
    fn entries_of_slots_that_were_given_back_are_forgotten() {
        let mut timers = Timers::new();
        timers.set(None, 10_000, 0);
        let ids: Vec<_> = (1..1000).map(|i| timers.set(None, i, i)).collect();
        // So few that they are not swept out.
        ids[950..].iter().for_each(|id| timers.cancel(*id));
        for i in 1..=950 {
            assert_eq!(timers.pop_due(u64::MAX), Some((i, i)));
        }
        assert_eq!(timers.pop_due(u64::MAX), Some((0, 10_000)));
    }

    #[test]
    fn cancelling_twice_is_harmless() {
        let mut timers = Timers::new();
        let (a, b) = (timers.set(None, 1, 1), timers.set(None, 2, 2));
        timers.cancel(a);
        timers.cancel(a);
        assert_eq!((timers.len(), timers.pop_due(5)), (1, Some((2, 2))));
        timers.cancel(b);
        assert_eq!(timers.pop_due(u64::MAX), None);
    }
}
