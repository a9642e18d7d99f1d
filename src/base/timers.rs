//! The timers of one base: a 4-ary heap of 16-byte entries over a slab of 16-byte slots.
//!
//! A deadline is compared where it lies in the heap, so a comparison never leaves the heap; a slot knows where its entry is, so moving and cancelling
//! need no search. Adding a timer that is later than most (the usual timeout) moves nothing. Equal deadlines go in the order in which they were set: each
//! setting takes the next number of a sequence. 32 bytes a timer, half as much again while the vectors have room to grow.
//!
//! Room goes back when a quarter or less is in use. A slot stays where it is for as long as its timer lives, so one timer in a high slot keeps the
//! slots below it; the lowest free slot is the first to be used again after each give-back.

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
    /// Where the entry is in the heap; with `FREE` set, the next free slot.
    at: u32,
}

/// Marks a free slot; limits the timers of one base to 2^31 - 1.
const FREE: u32 = 1 << 31;
/// The end of the list of free slots.
const END: u32 = FREE - 1;
const FEWEST: usize = 64;
const ARITY: usize = 4;

/// The timers of one base.
#[derive(Debug)]
pub(super) struct Timers {
    heap: Vec<Entry>,
    slots: Vec<Slot>,
    free: u32,
    seq: u32,
}

impl Timers {
    pub(super) fn new() -> Timers {
        Timers { heap: Vec::new(), slots: Vec::new(), free: END, seq: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.heap.first().map(|e| e.deadline)
    }

    /// Whether `timer` is set now.
    fn is_set(&self, timer: TimerId) -> bool {
        self.slots.get(timer.slot() as usize).is_some_and(|s| s.at & FREE == 0)
    }

    /// Sets a new timer, or moves one that is set.
    pub(super) fn set(&mut self, timer: Option<TimerId>, deadline: u64, token: u64) -> TimerId {
        let seq = self.next_seq();
        if let Some(timer) = timer.filter(|t| self.is_set(*t)) {
            let slot = &mut self.slots[timer.slot() as usize];
            slot.token = token;
            let at = slot.at as usize;
            let later = deadline >= self.heap[at].deadline;
            let entry = Entry { deadline, seq, slot: timer.slot() };
            if later {
                self.sink(at, entry)
            } else {
                self.rise(at, entry)
            }
            return timer;
        }
        let slot = self.take_slot(token);
        let at = self.heap.len();
        grow(&mut self.heap);
        let entry = Entry { deadline, seq, slot };
        self.heap.push(entry);
        self.rise(at, entry);
        TimerId::new(slot)
    }

    /// Cancels a timer; one that is not set is not an error.
    pub(super) fn cancel(&mut self, timer: TimerId) {
        if self.is_set(timer) {
            let at = self.slots[timer.slot() as usize].at as usize;
            self.remove(at);
            self.give_back();
        }
    }

    /// Takes the first timer if it is due at `now`: its token and its deadline.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<(u64, u64)> {
        let first = *self.heap.first()?;
        if first.deadline > now {
            return None;
        }
        let token = self.slots[first.slot as usize].token;
        self.remove(0);
        self.give_back();
        Some((token, first.deadline))
    }

    fn remove(&mut self, at: usize) {
        let gone = self.heap[at];
        if let Some(last) = self.heap.pop() {
            if at < self.heap.len() {
                if last.key() < gone.key() { self.rise(at, last) } else { self.sink(at, last) }
            }
        }
        self.slots[gone.slot as usize] = Slot { token: 0, at: FREE | self.free };
        self.free = gone.slot;
    }

    fn put(&mut self, at: usize, entry: Entry) {
        self.heap[at] = entry;
        self.slots[entry.slot as usize].at = at as u32;
    }

    fn rise(&mut self, mut at: usize, entry: Entry) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.heap[parent].key() <= entry.key() {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, entry);
    }

    fn sink(&mut self, mut at: usize, entry: Entry) {
        loop {
            let first = at * ARITY + 1;
            let children = &self.heap[first.min(self.heap.len())..(first + ARITY).min(self.heap.len())];
            let Some((child, least)) = children.iter().enumerate().min_by_key(|(_, e)| e.key()) else {
                break;
            };
            if entry.key() <= least.key() {
                break;
            }
            self.put(at, *least);
            at = first + child;
        }
        self.put(at, entry);
    }

    fn take_slot(&mut self, token: u64) -> u32 {
        if self.free != END {
            let slot = self.free;
            let s = &mut self.slots[slot as usize];
            self.free = s.at & !FREE;
            s.token = token;
            return slot;
        }
        assert!(self.slots.len() < END as usize, "2^31 timers in one base");
        grow(&mut self.slots);
        self.slots.push(Slot { token, at: 0 });
        self.slots.len() as u32 - 1
    }

    /// The next number of the sequence. After 2^32 settings all timers are numbered anew, in their order: a sorted array is a heap.
    fn next_seq(&mut self) -> u32 {
        if self.seq == u32::MAX {
            self.heap.sort_unstable_by_key(Entry::key);
            for at in 0..self.heap.len() {
                self.put(at, Entry { seq: at as u32, ..self.heap[at] });
            }
            self.seq = self.heap.len() as u32;
        }
        self.seq += 1;
        self.seq - 1
    }

    fn give_back(&mut self) {
        let live = self.heap.len();
        if live == 0 {
            self.slots.clear();
            self.slots.shrink_to(FEWEST);
            self.free = END;
        }
        if self.heap.capacity() > FEWEST && live <= self.heap.capacity() / 4 {
            self.heap.shrink_to((live * 2).max(FEWEST));
            // Once for each time that the heap shrinks, so its cost is shared by as many cancels as there are slots.
            self.give_back_slots();
        }
    }

    fn give_back_slots(&mut self) {
        while self.slots.last().is_some_and(|s| s.at & FREE != 0) {
            self.slots.pop();
        }
        self.slots.shrink_to((self.slots.len() + self.slots.len() / 2).max(FEWEST));
        self.free = END;
        for slot in (0..self.slots.len()).rev() {
            if self.slots[slot].at & FREE != 0 {
                self.slots[slot].at = FREE | self.free;
                self.free = slot as u32;
            }
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.heap.capacity() * size_of::<Entry>() + self.slots.capacity() * size_of::<Slot>()
    }
}

/// Room for one more, half as much again when full: doubling would cost up to twice what is in use.
fn grow<T>(v: &mut Vec<T>) {
    if v.len() == v.capacity() {
        v.reserve_exact((v.len() / 2).max(FEWEST));
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
        timers.seq = u32::MAX - 40_000;
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
            match (random(8), any) {
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
                    let now = random(100);
                    while let Some((token, deadline)) = timers.pop_due(now) {
                        let ((first, _), expected) = model.pop_first().unwrap();
                        assert_eq!((token, deadline), (expected, first));
                        ids.remove(&token);
                    }
                    assert!(model.keys().next().is_none_or(|(d, _)| *d > now));
                }
            }
            assert_eq!(timers.len(), model.len());
            assert_eq!(timers.next(), model.keys().next().map(|k| k.0));
            if token == 100_000 {
                timers.seq = u32::MAX - 1;
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
