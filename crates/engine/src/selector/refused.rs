//! What kqueue refuses to watch, watched by select(2) together with the queue.
//!
//! Not by poll(2), which is made of a kqueue on macOS and refuses the same devices (XNU,
//! `poll_nocancel`).

use std::io;
use std::time::Duration;

use super::Events;
use super::select::Select;
use crate::sys::fd::RawFd;
use crate::{Interest, Token};

/// The name of the queue. It is never reported.
const QUEUE: Token = Token::reserved(u32::MAX);

/// The descriptors that a queue has refused, and the queue.
#[derive(Debug)]
pub(super) struct Refused(Select);

impl Refused {
    pub(super) fn new(queue: RawFd) -> io::Result<Self> {
        let mut select = Select::default();
        select.register(queue, QUEUE, Interest::READABLE)?;
        Ok(Self(select))
    }

    pub(super) fn contains(&self, fd: RawFd) -> bool {
        self.0.sources.get(fd).is_some()
    }

    /// Whether there is nothing but the queue.
    pub(super) fn is_empty(&self) -> bool {
        self.0.sources.iter().nth(1).is_none()
    }

    pub(super) fn register(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.0.register(fd, token, interest)
    }

    pub(super) fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        self.0.deregister(fd)
    }

    /// Reports what is ready, too, and ends when something is in the queue: whether it is.
    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        self.0.wait(events, timeout)?;
        let with_queue = events.len();
        events.events.retain(|event| event.token != QUEUE);
        Ok(events.len() < with_queue)
    }
}
