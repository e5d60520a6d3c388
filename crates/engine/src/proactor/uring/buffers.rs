//! The buffers that all receivers share (`io_uring_register_buf_ring(3)`).
//!
//! They are offered to the kernel in a ring of its own, from which it takes one when data is
//! there, not when a receive is submitted: so a thousand idle connections need no buffer at all.
//!
//! What surprised us: the end of the ring lies inside its first entry, in a field that is reserved
//! in all others; an entry must therefore be written field by field, never as a whole. And the
//! memory is the kernel's to write for as long as the ring of submissions lives, hence `close`
//! comes first, and this memory is given back after it.
#![allow(unsafe_code)] // memory that the kernel writes

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::super::{Chunk, Config};

/// The name of the only group of buffers.
pub(super) const GROUP: u16 = 0;

/// Buffers, each of them either offered to the kernel or held by the consumer.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The entries of the ring and, behind them, the buffers: one mapping of `length` bytes, which
    /// lives as long as this value, and in which the kernel writes the buffers that are not held.
    memory: NonNull<u8>,
    length: usize,
    /// Where in the mapping the buffers begin.
    start: usize,
    /// How many bytes a buffer has.
    size: usize,
    /// Which buffers the consumer holds, by number.
    held: Vec<bool>,
    /// How many buffers are offered.
    offered: usize,
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
    /// All buffers, offered to nobody yet.
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        let count = usize::from(config.buffers);
        let size = config.buffer_size as usize;
        let start = (count * size_of::<BufRingEntry>()).next_multiple_of(64);
        let length = count
            .checked_mul(size)
            .and_then(|length| length.checked_add(start))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nobody.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            memory,
            length,
            start,
            size,
            held: vec![false; count],
            offered: 0,
            tail: 0,
            leaked: false,
        })
    }

    /// Registers the ring, in place of any other, and offers every buffer that is not held.
    pub(super) fn register(&mut self, ring: &IoUring) -> io::Result<()> {
        let count = u16::try_from(self.held.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let address = self.memory.as_ptr() as u64;
        // SAFETY: the mapping holds that many entries at its beginning, on a page's; it outlives
        // the ring, or is leaked (see `Uring`).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0)? };
        (self.tail, self.offered) = (0, 0);
        for buffer in 0..count {
            if !self.held[usize::from(buffer)] {
                self.offer(buffer);
            }
        }
        Ok(())
    }

    /// How many buffers the kernel can take.
    pub(super) const fn offered(&self) -> usize {
        self.offered
    }

    /// Notes that the kernel has filled a buffer.
    #[inline]
    pub(super) fn take(&mut self, buffer: u16, len: usize) -> Chunk {
        self.held[usize::from(buffer)] = true;
        self.offered -= 1;
        let len = u32::try_from(len.min(self.size)).unwrap_or(u32::MAX);
        Chunk { buffer, len }
    }

    /// The bytes of a buffer that is held.
    #[inline]
    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        let buffer = usize::from(chunk.buffer);
        assert!(self.held[buffer] && chunk.len() <= self.size, "a chunk of another proactor");
        // SAFETY: the buffer is inside the mapping, which is initialised (with zeros, by mmap); the
        // kernel writes no buffer that is held, and it is held until `recycle` takes `&mut self`.
        unsafe {
            let start = self.memory.as_ptr().add(self.start + buffer * self.size);
            slice::from_raw_parts(start, chunk.len())
        }
    }

    /// Offers the buffer of a chunk again.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "the chunk is no more")]
    pub(super) fn recycle(&mut self, chunk: Chunk) {
        let buffer = usize::from(chunk.buffer);
        // A chunk of another proactor must not offer what is offered already.
        if self.held.get(buffer) == Some(&true) {
            self.held[buffer] = false;
            self.offer(chunk.buffer);
        }
    }

    /// Leaves the memory to the kernel, which may still write to it.
    pub(super) const fn leak(&mut self) {
        self.leaked = true;
    }

    fn offer(&mut self, buffer: u16) {
        let count = self.held.len();
        let entries: *mut BufRingEntry = self.memory.as_ptr().cast();
        let place = usize::from(self.tail) & (count - 1);
        self.tail = self.tail.wrapping_add(1);
        self.offered += 1;
        let address = self.start + usize::from(buffer) * self.size;
        // SAFETY: the place is one of `count` entries at the beginning of the mapping. The kernel
        // reads it only after the tail has passed it, and the tail, which the store publishes, is
        // an aligned u16 inside the first entry that only we write.
        unsafe {
            let entry = &mut *entries.add(place);
            entry.set_addr(self.memory.as_ptr().add(address) as u64);
            entry.set_len(u32::try_from(self.size).unwrap_or(u32::MAX));
            entry.set_bid(buffer);
            let tail = BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: the mapping is ours, and borrows of it have ended with those of `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}
