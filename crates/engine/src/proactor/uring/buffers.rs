//! The buffers that all receivers share (`io_uring_register_buf_ring(3)`).
//!
//! They are offered to the kernel in a ring of its own, from which it takes one when data is
//! there, not when a receive is submitted: so a thousand idle connections need no buffer at all.
//!
//! The kernel takes them in the order in which they are offered, and so goes through all of them,
//! be there ever so little to receive. Hence only few go round at first; the others are spare, and
//! join them when receivers find none, unless there was much in those that they found: it is many
//! small messages that need many buffers. When few were enough for a while, some become spare again.
//!
//! What surprised us: the end of the ring lies inside its first entry, in a field that is reserved
//! in all others; an entry must therefore be written field by field, never as a whole. And the
//! memory is the kernel's to write for as long as the ring of submissions lives, hence `close`
//! comes first, and this memory is given back after it.
#![allow(unsafe_code)] // memory that the kernel writes

use std::io;
use std::mem;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::super::{Chunk, Config};
use super::ring::Ring;

/// The name of the only group of buffers.
pub(super) const GROUP: u16 = 0;

/// How many buffers go round at least, if there are as many.
const FIRST: usize = 16;
/// So many full buffers are enough for a turn.
const ENOUGH: usize = 32;
/// How many buffers are filled before it is asked whether fewer would do.
const PERIOD: u32 = 10_000;
/// Buffers begin in different sets of the processor's caches: with a power of two between them
/// their first bytes, all that most messages need, would displace each other.
const STAGGER: usize = 4096 + 64;

/// Where a buffer is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Place {
    /// Nowhere: it is not needed.
    Spare,
    /// In the ring, for the kernel to fill, or being filled.
    Offered,
    /// With the consumer.
    Held,
}

/// All buffers.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The entries of the ring and, behind them, the buffers: one mapping of `length` bytes, which
    /// lives as long as this value, and in which the kernel writes the buffers that are offered.
    /// Of no length until `register`.
    memory: NonNull<u8>,
    length: usize,
    /// Where in the mapping the buffers begin.
    start: usize,
    /// How many bytes a buffer has.
    size: usize,
    /// How many buffers there are, once there are any.
    count: u16,
    /// Where each buffer is, by number.
    places: Vec<Place>,
    /// The spare ones; the last one that was used is used first, as its memory is warm.
    spare: Vec<u16>,
    /// How many are offered or held at most, at present.
    round: usize,
    /// How many buffers are offered.
    offered: usize,
    /// How many bytes have come since `next_turn`.
    volume: usize,
    /// How many were held at once in this period, at most.
    most_held: usize,
    /// How many were filled in this period.
    filled: u32,
    /// Where the next buffer is offered: a count that wraps.
    tail: u16,
    /// Set by `leak`: the mapping is never given back.
    leaked: bool,
}

// SAFETY: the mapping belongs to the value, whichever thread that is on.
unsafe impl Send for Buffers {}
// SAFETY: without `&mut` it is only read from, and only where the kernel does not write.
unsafe impl Sync for Buffers {}

impl Buffers {
    /// No buffers before `register`.
    pub(super) fn new(config: &Config) -> Self {
        let count = usize::from(config.buffers);
        Self {
            memory: NonNull::dangling(),
            length: 0,
            start: (count * size_of::<BufRingEntry>()).next_multiple_of(64),
            size: config.buffer_size as usize,
            count: config.buffers,
            places: Vec::new(),
            spare: Vec::new(),
            round: 0,
            offered: 0,
            volume: 0,
            most_held: 0,
            filled: 0,
            tail: 0,
            leaked: false,
        }
    }

    /// Makes the memory, all of it spare.
    fn map(&mut self) -> io::Result<()> {
        let length = usize::from(self.count)
            .checked_mul(self.size.checked_add(STAGGER).ok_or(io::ErrorKind::OutOfMemory)?)
            .and_then(|length| length.checked_add(self.start))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nobody.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        self.length = length;
        self.places = vec![Place::Spare; self.count.into()];
        self.spare = (0..self.count).rev().collect();
        Ok(())
    }

    /// Registers the ring, in place of any other, and offers the buffers again that were in it.
    pub(super) fn register(&mut self, ring: &Ring) -> io::Result<()> {
        if self.length == 0 {
            self.map()?;
        }
        let address = self.memory.as_ptr() as u64;
        // A tail that was left in the memory would offer what lies behind it to the new ring.
        self.publish(0);
        // SAFETY: the mapping holds that many entries at its beginning, on a page's; it outlives
        // the ring, or is leaked (see `Uring`).
        unsafe { ring.submitter()?.register_buf_ring_with_flags(address, self.count, GROUP, 0)? };
        self.offered = 0;
        for buffer in 0..self.count {
            if self.places[usize::from(buffer)] == Place::Offered {
                self.offer(buffer);
            }
        }
        self.widen(FIRST);
        Ok(())
    }

    /// How many buffers the kernel can take.
    pub(super) const fn offered(&self) -> usize {
        self.offered
    }

    /// Lets more buffers go round if there are receivers that have found none, and yet few bytes have
    /// come. Called once in a turn.
    #[inline]
    pub(super) fn next_turn(&mut self, starving: usize) {
        let volume = mem::take(&mut self.volume);
        if starving > 0 && volume < ENOUGH * self.size {
            self.widen(starving.max(self.round * 2));
            (self.filled, self.most_held) = (0, 0);
        }
    }

    /// Lets at least as many buffers go round, if there are as many.
    fn widen(&mut self, round: usize) {
        self.round = self.round.max(round).min(self.places.len());
        while self.places.len() - self.spare.len() < self.round {
            let Some(buffer) = self.spare.pop() else { break };
            self.offer(buffer);
        }
    }

    /// Notes that the kernel has filled a buffer.
    #[inline]
    pub(super) fn take(&mut self, buffer: u16, len: usize) -> Chunk {
        self.places[usize::from(buffer)] = Place::Held;
        self.offered -= 1;
        self.volume += len;
        self.filled += 1;
        let held = self.places.len() - self.spare.len() - self.offered;
        self.most_held = self.most_held.max(held);
        if self.filled >= PERIOD {
            // Half of them would have been twice as many as were needed.
            if self.most_held <= self.round / 4 {
                self.round = (self.round / 2).max(FIRST).min(self.places.len());
            }
            (self.filled, self.most_held) = (0, 0);
        }
        let len = u32::try_from(len.min(self.size)).unwrap_or(u32::MAX);
        Chunk { buffer, len }
    }

    /// The bytes of a buffer that is held.
    #[inline]
    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        let held = self.places[usize::from(chunk.buffer)] == Place::Held;
        assert!(held && chunk.len() <= self.size, "a chunk of another proactor");
        // SAFETY: the buffer is inside the mapping, which is initialised (with zeros, by mmap); the
        // kernel writes no buffer that is held, and it is held until `recycle` takes `&mut self`.
        unsafe {
            let start = self.memory.as_ptr().add(self.place_of(chunk.buffer));
            slice::from_raw_parts(start, chunk.len())
        }
    }

    /// Takes the buffer of a chunk back, and offers it again unless enough others go round.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "the chunk is no more")]
    pub(super) fn recycle(&mut self, chunk: Chunk) {
        let count = self.places.len();
        let place = self.places.get_mut(usize::from(chunk.buffer));
        // A chunk of another proactor must not offer what is offered already.
        let Some(place) = place.filter(|place| **place == Place::Held) else { return };
        if count - self.spare.len() > self.round {
            *place = Place::Spare;
            self.spare.push(chunk.buffer);
        } else {
            self.offer(chunk.buffer);
        }
    }

    /// Leaves the memory to the kernel, which may still write to it.
    pub(super) const fn leak(&mut self) {
        self.leaked = true;
    }

    /// Where in the mapping a buffer begins.
    const fn place_of(&self, buffer: u16) -> usize {
        self.start + buffer as usize * (self.size + STAGGER)
    }

    fn offer(&mut self, buffer: u16) {
        let count = self.places.len();
        let entries: *mut BufRingEntry = self.memory.as_ptr().cast();
        let place = usize::from(self.tail) & (count - 1);
        self.places[usize::from(buffer)] = Place::Offered;
        self.offered += 1;
        let address = self.place_of(buffer);
        // SAFETY: the place is one of `count` entries at the beginning of the mapping. The kernel
        // reads it only after the tail has passed it.
        unsafe {
            let entry = &mut *entries.add(place);
            entry.set_addr(self.memory.as_ptr().add(address) as u64);
            entry.set_len(u32::try_from(self.size).unwrap_or(u32::MAX));
            entry.set_bid(buffer);
        }
        self.publish(self.tail.wrapping_add(1));
    }

    /// Tells the kernel where the entries end.
    fn publish(&mut self, tail: u16) {
        self.tail = tail;
        let entries: *mut BufRingEntry = self.memory.as_ptr().cast();
        // SAFETY: the tail is an aligned u16 inside the first entry that only we write.
        unsafe {
            let place = BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*place).store(tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.leaked || self.length == 0 {
            return;
        }
        // SAFETY: the mapping is ours, and borrows of it have ended with those of `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}
