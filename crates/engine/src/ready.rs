//! The queue of what runs next.

use std::collections::{VecDeque, vec_deque};

/// Payloads in the order in which they are to be run: asyncio's `_ready`.
#[derive(Debug)]
pub struct Ready<T> {
    queue: VecDeque<T>,
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Ready<T> {
    /// An empty queue; allocates nothing.
    pub const fn new() -> Self {
        Self { queue: VecDeque::new() }
    }

    /// Appends at the back.
    #[inline]
    pub fn push(&mut self, payload: T) {
        self.queue.push_back(payload);
    }

    /// Takes from the front.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.queue.pop_front()
    }

    /// How many payloads wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The payloads from front to back.
    pub fn iter(&self) -> vec_deque::Iter<'_, T> {
        self.queue.iter()
    }

    /// The queue itself, for [`Inbox::drain_into`](crate::Inbox::drain_into).
    #[inline]
    pub fn queue_mut(&mut self) -> &mut VecDeque<T> {
        &mut self.queue
    }

    /// Takes all payloads out, front first, for the caller to drop.
    #[must_use = "dropping the payloads is the caller's act"]
    pub fn drain(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.queue)
    }
}

impl<'a, T> IntoIterator for &'a Ready<T> {
    type Item = &'a T;
    type IntoIter = vec_deque::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::Ready;

    #[test]
    fn first_in_first_out() {
        let mut ready = Ready::new();
        ready.push(1);
        ready.push(2);
        ready.queue_mut().extend([3, 4]);
        assert_eq!(ready.pop(), Some(1));
        assert_eq!(ready.iter().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(ready.len(), 3);
        assert_eq!(ready.drain(), [2, 3, 4]);
        assert!(ready.is_empty());
        assert_eq!(ready.pop(), None);
    }
}
