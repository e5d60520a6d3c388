//! What has become of operations.

use std::io;

use crate::sys::fd::OwnedFd;
use crate::sys::os_error;
use crate::{Address, Interest, Token};

/// Data in a buffer that all receivers share.
///
/// Give it back: a chunk that is dropped takes its buffer out of circulation.
#[must_use = "the buffer goes back to the receivers by `Proactor::recycle`"]
#[derive(Eq, PartialEq, Debug)]
pub struct Chunk {
    /// Which of the buffers.
    pub(super) buffer: u16,
    /// How many bytes of it.
    pub(super) len: u32,
}

impl Chunk {
    /// How many bytes there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none; never, as the kernel reports the end of a stream without a chunk.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What a completion brings besides its result.
#[derive(Debug)]
pub enum Returned<B, M> {
    /// Nothing.
    Nothing,
    /// A connection that was accepted.
    Connection(OwnedFd),
    /// Data that was received into a shared buffer.
    Chunk(Chunk),
    /// The buffer that was lent, filled as far as the result says.
    Buffer(M),
    /// The same, with the address that the datagram came from, if that has one.
    Datagram(M, Option<Address>),
    /// The only buffer that was lent, whether it was sent or not.
    Sent(B),
    /// The buffers that were lent, whether they were sent or not.
    Buffers(Vec<B>),
    /// What a descriptor is ready for: part of the interest, and never empty.
    Readiness(Interest),
}

/// What has become of one operation.
#[derive(Debug)]
pub struct Completion<B, M> {
    /// The operation.
    pub token: Token,
    /// What was given with it.
    pub owner: Token,
    /// How many bytes were moved (0 where none can be), or the kernel's error.
    pub result: io::Result<usize>,
    /// What it brings.
    pub returned: Returned<B, M>,
    /// Whether the operation goes on; false in its last completion.
    pub more: bool,
}

impl<B, M> Completion<B, M> {
    /// That a poll, which goes on, has found its descriptor ready.
    #[allow(dead_code)] // where there is no proactor
    pub(super) const fn ready(token: Token, owner: Token, readiness: Interest) -> Self {
        let returned = Returned::Readiness(readiness);
        Self { token, owner, result: Ok(0), returned, more: true }
    }
}

/// What a wait has to report; keeps its memory from wait to wait.
#[derive(Debug)]
pub struct Completions<B, M> {
    pub(super) list: Vec<Completion<B, M>>,
}

impl<B, M> Default for Completions<B, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, M> Completions<B, M> {
    /// No completions; allocates nothing.
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The completions in the order in which the kernel gave them.
    pub fn iter(&self) -> std::slice::Iter<'_, Completion<B, M>> {
        self.list.iter()
    }

    /// Takes the completions out, in the order in which the kernel gave them.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Completion<B, M>> {
        self.list.drain(..)
    }
}

impl<'a, B, M> IntoIterator for &'a Completions<B, M> {
    type Item = &'a Completion<B, M>;
    type IntoIter = std::slice::Iter<'a, Completion<B, M>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The last completion of an operation that has ended, if it says nothing and nothing comes before it.
#[allow(dead_code)] // where there is no proactor
pub(super) fn hand_back<B, M>(
    early: &mut Vec<Completion<B, M>>,
    token: Token,
) -> Option<Completion<B, M>> {
    let mut places = (0..early.len()).filter(|place| early[*place].token == token);
    let (Some(place), None) = (places.next(), places.next()) else { return None };
    let cancelled = matches!(&early[place].result,
        Err(error) if error.raw_os_error() == Some(os_error::ECANCELED));
    cancelled.then(|| early.remove(place))
}
