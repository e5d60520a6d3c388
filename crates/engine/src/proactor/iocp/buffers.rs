//! The buffers that all receivers share.
//!
//! The kernel is never lent one by a socket: it tells that there is something, and only then is that
//! received. So a thousand idle connections need no buffer at all. A pipe has one while it reads.

use super::super::{Chunk, Config};

/// How many buffers are kept although nobody uses them.
const SPARE: usize = 64;

/// All buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// By number; `None` is not in memory at present.
    all: Vec<Option<Box<[u8]>>>,
    /// Those that nobody uses; the last one that was used is used first, as its memory is warm.
    free: Vec<u16>,
    /// How many there are at most.
    count: u16,
    /// How many bytes one has.
    size: usize,
}

impl Buffers {
    pub(super) const fn new(config: &Config) -> Self {
        let size = config.buffer_size as usize;
        Self { all: Vec::new(), free: Vec::new(), count: config.buffers, size }
    }

    /// How many can be taken.
    pub(super) fn available(&self) -> usize {
        self.free.len() + (usize::from(self.count) - self.all.len())
    }

    /// A buffer that nobody uses.
    pub(super) fn take(&mut self) -> Option<u16> {
        if let Some(buffer) = self.free.pop() {
            return Some(buffer);
        }
        let buffer = u16::try_from(self.all.len()).ok().filter(|next| *next < self.count)?;
        self.all.push(None);
        Some(buffer)
    }

    /// The memory of a buffer that was taken.
    pub(super) fn memory(&mut self, buffer: u16) -> &mut [u8] {
        let size = self.size;
        self.all[usize::from(buffer)].get_or_insert_with(|| vec![0; size].into_boxed_slice())
    }

    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        let memory = self.all[usize::from(chunk.buffer)].as_deref().unwrap_or_default();
        &memory[..chunk.len as usize]
    }

    pub(super) fn recycle(&mut self, buffer: u16) {
        if self.free.len() >= SPARE {
            self.all[usize::from(buffer)] = None;
            // It comes last: those before it have memory.
            self.free.insert(0, buffer);
        } else {
            self.free.push(buffer);
        }
    }
}
