//! The proactor of systems without one: a type that has no values.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use super::{Chunk, Completion, Completions, Config, Lent, LentMut, Operation, Setup, Unavailable};
use crate::{Token, Waker};

/// Nothing.
#[derive(Debug)]
pub struct Uring<B: Lent, M: LentMut> {
    never: Infallible,
    buffers: PhantomData<(B, M)>,
}

impl<B: Lent, M: LentMut> Uring<B, M> {
    pub(super) fn new(_config: Config) -> Result<Self, Unavailable> {
        Err(Unavailable::System)
    }

    pub(super) fn lazy(config: Config) -> Result<Self, Unavailable> {
        Self::new(config)
    }

    pub(super) fn waker(&self) -> io::Result<Waker> {
        match self.never {}
    }

    pub(super) const fn setup(&self) -> Setup {
        match self.never {}
    }

    pub(super) fn len(&self) -> usize {
        match self.never {}
    }

    pub(super) fn submit(&mut self, _owner: Token, _operation: Operation<B, M>) -> Token {
        match self.never {}
    }

    pub(super) fn set_patient(&mut self, _poll: Token) {
        match self.never {}
    }

    pub(super) fn hurry(&mut self) {
        match self.never {}
    }

    pub(super) fn pause_poll(&mut self, _poll: Token) -> bool {
        match self.never {}
    }

    pub(super) fn resume_poll(&mut self, _poll: Token) {
        match self.never {}
    }

    pub(super) fn cancel(&mut self, _operation: Token) -> bool {
        match self.never {}
    }

    pub(super) fn withdraw(&mut self, _operation: Token) -> Option<Completion<B, M>> {
        match self.never {}
    }

    pub(super) fn suspend(&mut self, _completions: &mut Completions<B, M>) -> io::Result<()> {
        match self.never {}
    }

    pub(super) fn wait(
        &mut self,
        _completions: &mut Completions<B, M>,
        _timeout: Option<Duration>,
    ) -> io::Result<()> {
        match self.never {}
    }

    pub(super) fn bytes(&self, _chunk: &Chunk) -> &[u8] {
        match self.never {}
    }

    pub(super) fn recycle(&mut self, _chunk: Chunk) {
        match self.never {}
    }

    pub(super) fn close(self, _completions: &mut Completions<B, M>) -> io::Result<()> {
        match self.never {}
    }
}
