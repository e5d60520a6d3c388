//! What a transport has still to send: whole buffers in order, never joined.
//!
//! The kernel may take part of a buffer; the queue remembers how much of the first one went, and
//! hands a buffer back only when all of it did.

use std::collections::VecDeque;
use std::io::IoSlice;

/// Buffers on their way out. A buffer's bytes must not change while it is here.
#[derive(Debug)]
pub struct WriteQueue<B> {
    buffers: VecDeque<B>,
    /// How many bytes of the first buffer have gone. Less than its length, or 0 if it is empty.
    sent: usize,
    /// How many bytes are still to go.
    len_bytes: usize,
}

impl<B> Default for WriteQueue<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> WriteQueue<B> {
    /// An empty queue; allocates nothing.
    pub const fn new() -> Self {
        Self { buffers: VecDeque::new(), sent: 0, len_bytes: 0 }
    }

    /// How many bytes are still to go; a count that is kept, not made.
    #[inline]
    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// How many buffers have not gone in full.
    #[inline]
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there is no buffer.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Takes all buffers out, the first one perhaps sent in part, for the caller to drop.
    #[must_use = "dropping the buffers is the caller's act"]
    pub fn clear(&mut self) -> VecDeque<B> {
        self.sent = 0;
        self.len_bytes = 0;
        std::mem::take(&mut self.buffers)
    }
}

impl<B: AsRef<[u8]>> WriteQueue<B> {
    /// Appends a buffer.
    #[inline]
    pub fn push(&mut self, buffer: B) {
        self.len_bytes += buffer.as_ref().len();
        self.buffers.push_back(buffer);
    }

    /// Appends a buffer of which the first `sent` bytes have gone already: what is left of a send
    /// that was tried at once, into an empty queue.
    ///
    /// # Panics
    /// When the queue is not empty, or not even one byte is left.
    pub fn push_rest(&mut self, buffer: B, sent: usize) {
        let length = buffer.as_ref().len();
        assert!(self.buffers.is_empty() && sent < length, "the rest of a buffer goes first");
        self.sent = sent;
        self.len_bytes = length - sent;
        self.buffers.push_back(buffer);
    }

    /// Fills `target` with what is to go next, and says how many slices there are.
    #[inline]
    pub fn slices<'a>(&'a self, target: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent;
        let mut count = 0;
        for (slice, buffer) in target.iter_mut().zip(&self.buffers) {
            *slice = IoSlice::new(&buffer.as_ref()[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// All that is to go, a part for each buffer.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.sent;
        self.buffers.iter().map(move |buffer| &buffer.as_ref()[std::mem::take(&mut skip)..])
    }

    /// What is to go next, as one slice: what is left of the first buffer.
    #[inline]
    pub fn first_slice(&self) -> Option<&[u8]> {
        self.buffers.front().map(|buffer| &buffer.as_ref()[self.sent..])
    }

    /// Notes that `count` more bytes have gone, and gives every buffer that has gone in full to
    /// `done`. Empty buffers go with the one before them.
    ///
    /// # Panics
    /// When more bytes have gone than were there.
    #[inline]
    pub fn advance(&mut self, count: usize, mut done: impl FnMut(B)) {
        assert!(count <= self.len_bytes, "the kernel takes no more than it is given");
        self.len_bytes -= count;
        self.sent += count;
        while let Some(first) = self.buffers.front() {
            let length = first.as_ref().len();
            if self.sent < length {
                break;
            }
            self.sent -= length;
            if let Some(buffer) = self.buffers.pop_front() {
                done(buffer);
            }
        }
    }
}

/// How often who writes does so in one callback. Where that is more than once, one system call sends
/// it all at the callback's end.
#[derive(Copy, Clone, Default, Debug)]
pub struct Habit {
    /// The callback that has written last.
    callback: u64,
    /// How often it has, up to [`BURST`].
    count: u8,
    /// How many more callbacks of one write end the habit.
    left: u8,
}

/// After so many callbacks of one write each is sent at once again.
const FORGOTTEN: u8 = 16;
/// So many writes in one callback tell that there are more to come in it.
const BURST: u8 = 8;

impl Habit {
    /// Notes a write in a callback; whether others are to be expected in it.
    #[inline]
    pub const fn note(&mut self, callback: u64) -> bool {
        if self.callback != callback {
            self.callback = callback;
            self.left = if self.count > 1 { FORGOTTEN } else { self.left.saturating_sub(1) };
            self.count = 1;
        } else if self.count < BURST {
            self.count += 1;
        } else {
            return true;
        }
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(queue: &WriteQueue<&'static str>, most: usize) -> Vec<String> {
        let mut slices = vec![IoSlice::new(&[]); most];
        let count = queue.slices(&mut slices);
        slices[..count].iter().map(|slice| String::from_utf8_lossy(slice).into_owned()).collect()
    }

    #[test]
    fn buffers_go_in_order_and_in_part() {
        let mut queue = WriteQueue::new();
        for buffer in ["abc", "", "de", "f"] {
            queue.push(buffer);
        }
        assert_eq!((queue.len_bytes(), queue.len()), (6, 4));
        assert_eq!(pending(&queue, 2), ["abc", ""]);
        let mut gone = Vec::new();
        queue.advance(1, |buffer| gone.push(buffer));
        assert_eq!(pending(&queue, 8), ["bc", "", "de", "f"]);
        assert_eq!(queue.first_slice(), Some(&b"bc"[..]));
        queue.advance(3, |buffer| gone.push(buffer));
        assert_eq!(pending(&queue, 8), ["e", "f"]);
        assert_eq!(gone, ["abc", ""]);
        queue.advance(0, |buffer| gone.push(buffer));
        assert_eq!(queue.len_bytes(), 2);
        queue.advance(2, |buffer| gone.push(buffer));
        assert_eq!(gone, ["abc", "", "de", "f"]);
        assert!(queue.is_empty());
        assert_eq!((queue.len_bytes(), pending(&queue, 8).len()), (0, 0));
    }

    #[test]
    fn a_habit_is_learnt_and_forgotten() {
        let mut habit = Habit::default();
        // What a callback does tells of the next one.
        assert!(!habit.note(1) && !habit.note(3) && !habit.note(3));
        assert!(habit.note(5) && habit.note(5));
        for callback in 0..u64::from(FORGOTTEN) {
            assert!(habit.note(7 + 2 * callback), "{callback}");
        }
        assert!(!habit.note(97) && !habit.note(99));
    }

    #[test]
    fn a_burst_tells_of_itself() {
        let mut habit = Habit::default();
        assert!((0..BURST).all(|_| !habit.note(1)));
        assert!(habit.note(1) && habit.note(1) && habit.note(3));
    }

    #[test]
    fn the_rest_of_a_buffer() {
        let mut queue = WriteQueue::new();
        queue.push_rest("abcdef", 4);
        queue.push("gh");
        assert_eq!(queue.len_bytes(), 4);
        assert_eq!(pending(&queue, 8), ["ef", "gh"]);
        assert_eq!(queue.clear(), ["abcdef", "gh"]);
        queue.push("i");
        assert_eq!((queue.len_bytes(), pending(&queue, 8)), (1, vec!["i".to_owned()]));
    }
}
