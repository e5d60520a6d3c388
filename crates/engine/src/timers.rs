//! What is to be run later: a heap of small keys over a slab of payloads.
//!
//! The payload lies in a [`Slots`], and only its key (deadline, number, name) moves in the heap.
//! Cancelling takes the payload out of the slab and leaves the key behind, so that it costs the
//! same however many timers there are and the payload is given back at once; a key whose name is
//! dead is skipped when it comes to the top, and all of them are swept when they are more than
//! half of the heap. A sweep looks at fewer than twice the keys that were cancelled since the one
//! before, so cancelling stays constant on average.
//!
//! The heap has four children to a node: half the levels of a binary heap, and the four keys that
//! are compared lie beside each other in memory.

use crate::{Slots, Timestamp, Token};

const CHILDREN: usize = 4;
/// Below this many keys a sweep is not worth its bookkeeping.
const SWEEP_FROM: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Key {
    when: Timestamp,
    /// Counts insertions: what tells equal deadlines apart.
    number: u64,
    token: Token,
}

impl Key {
    #[inline]
    const fn is_before(&self, other: &Self) -> bool {
        self.order() < other.order()
    }

    /// Deadline and number as one integer: comparing takes no branch, which would be a coin toss.
    #[inline]
    const fn order(&self) -> i128 {
        (self.when.0 as i128) << 64 | self.number as i128
    }
}

/// Payloads with a deadline each. Equal deadlines come out in the order of insertion.
#[derive(Debug)]
pub struct Timers<T> {
    /// Heap order: no key is before its parent, the one at `(index - 1) / CHILDREN`. There are
    /// `heap.len() - payloads.len()` keys whose payload was cancelled.
    heap: Vec<Key>,
    payloads: Slots<T>,
    next_number: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Timers<T> {
    /// No timers; allocates nothing.
    pub const fn new() -> Self {
        Self { heap: Vec::new(), payloads: Slots::new(), next_number: 0 }
    }

    /// How many timers are live: neither fired nor cancelled.
    #[inline]
    pub const fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Whether no timer is live.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// Schedules `payload` for `when`.
    #[inline]
    pub fn insert(&mut self, when: Timestamp, payload: T) -> Token {
        let token = self.payloads.insert(payload);
        let key = Key { when, number: self.next_number, token };
        self.next_number += 1;
        self.heap.push(key);
        self.sift_up(self.heap.len() - 1, key);
        token
    }

    /// Takes the timer back, and its payload with it; `None` when it has fired or was cancelled.
    #[inline]
    pub fn cancel(&mut self, token: Token) -> Option<T> {
        let payload = self.payloads.remove(token)?;
        if self.heap.len() > SWEEP_FROM && self.payloads.len() < self.heap.len() / 2 {
            self.sweep();
        }
        Some(payload)
    }

    /// The payload of a live timer.
    #[inline]
    pub fn get(&self, token: Token) -> Option<&T> {
        self.payloads.get(token)
    }

    /// The payload of a live timer.
    #[inline]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.payloads.get_mut(token)
    }

    /// The earliest deadline of the live timers.
    #[inline]
    pub fn next_deadline(&mut self) -> Option<Timestamp> {
        loop {
            let head = self.heap.first()?;
            if self.payloads.contains(head.token) {
                return Some(head.when);
            }
            self.pop_key();
        }
    }

    /// Takes out the earliest timer if its deadline is not after `now`.
    #[inline]
    pub fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        loop {
            let head = self.heap.first()?;
            if head.when > now {
                return None;
            }
            let token = head.token;
            self.pop_key();
            if let Some(payload) = self.payloads.remove(token) {
                return Some(payload);
            }
        }
    }

    /// The payloads of the live timers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.payloads.iter().map(|(_, payload)| payload)
    }

    /// Takes all payloads out, for the caller to drop; in no order.
    #[must_use = "dropping the payloads is the caller's act"]
    pub fn drain(&mut self) -> Vec<T> {
        self.heap.clear();
        self.payloads.drain()
    }

    fn pop_key(&mut self) {
        let Some(last) = self.heap.pop() else { return };
        if !self.heap.is_empty() {
            self.sift_down(0, last);
        }
    }

    /// Places `key` at `hole` or above it.
    #[inline]
    fn sift_up(&mut self, mut hole: usize, key: Key) {
        while hole > 0 {
            let parent = (hole - 1) / CHILDREN;
            if !key.is_before(&self.heap[parent]) {
                break;
            }
            self.heap[hole] = self.heap[parent];
            hole = parent;
        }
        self.heap[hole] = key;
    }

    /// Places `key` at `hole` or below it.
    #[inline]
    fn sift_down(&mut self, mut hole: usize, key: Key) {
        let heap = self.heap.as_mut_slice();
        loop {
            let first = hole * CHILDREN + 1;
            let Some(children) = heap.get(first..) else { break };
            let Some(least) = least_of(children) else { break };
            if !children[least].is_before(&key) {
                break;
            }
            heap[hole] = heap[first + least];
            hole = first + least;
        }
        heap[hole] = key;
    }

    /// Drops the keys of cancelled timers and restores the heap order of the rest.
    #[cold]
    fn sweep(&mut self) {
        let payloads = &self.payloads;
        self.heap.retain(|key| payloads.contains(key.token));
        if self.heap.len() > 1 {
            for hole in (0..=(self.heap.len() - 2) / CHILDREN).rev() {
                self.sift_down(hole, self.heap[hole]);
            }
        }
    }
}

/// The place of the earliest of the first `CHILDREN` keys; `None` when there is no key.
#[inline]
fn least_of(keys: &[Key]) -> Option<usize> {
    if let Some([a, b, c, d]) = keys.first_chunk::<CHILDREN>() {
        // A tournament: the first two comparisons do not wait for each other.
        let (left, left_at) = if b.is_before(a) { (b, 1) } else { (a, 0) };
        let (right, right_at) = if d.is_before(c) { (d, 3) } else { (c, 2) };
        return Some(if right.is_before(left) { right_at } else { left_at });
    }
    (0..keys.len()).min_by_key(|&place| keys[place].order())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire_all(timers: &mut Timers<u32>, now: i64) -> Vec<u32> {
        std::iter::from_fn(|| timers.pop_due(Timestamp(now))).collect()
    }

    #[test]
    fn deadlines_then_insertion_order() {
        let mut timers = Timers::new();
        for (when, payload) in [(30, 0), (10, 1), (20, 2), (10, 3), (10, 4), (-5, 5)] {
            timers.insert(Timestamp(when), payload);
        }
        assert_eq!(timers.next_deadline(), Some(Timestamp(-5)));
        assert_eq!(fire_all(&mut timers, 9), [5]);
        assert_eq!(fire_all(&mut timers, 20), [1, 3, 4, 2]);
        assert_eq!(timers.len(), 1);
        assert_eq!(fire_all(&mut timers, 29), []);
        assert_eq!(fire_all(&mut timers, 30), [0]);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn cancelled_keys_are_swept() {
        let mut timers = Timers::new();
        let tokens: Vec<_> = (0..1_000).map(|n| timers.insert(Timestamp(5_000 - n), n)).collect();
        for token in &tokens[100..] {
            assert!(timers.cancel(*token).is_some());
        }
        assert_eq!(timers.cancel(tokens[500]), None);
        assert_eq!(timers.len(), 100);
        assert!(timers.heap.len() <= 2 * timers.len() + 1, "{} keys", timers.heap.len());
        let left: Vec<_> = std::iter::from_fn(|| timers.pop_due(Timestamp(5_000))).collect();
        assert_eq!(left, (0..100).rev().collect::<Vec<_>>());
    }
}
