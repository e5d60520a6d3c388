//! What kqueue refuses to watch, watched by select(2) together with the queue.
//!
//! Not by poll(2), which is made of a kqueue on macOS and refuses the same devices (XNU,
//! `poll_nocancel`).

use std::io;
use std::time::Duration;

use super::Events;
use super::select::Select;
use crate::sys::descriptor::DescriptorMap;
use crate::sys::fd::RawFd;
use crate::{Interest, Token};

/// The name of the queue. It is never reported.
const QUEUE: Token = Token::reserved(u32::MAX);

/// The descriptors that a queue has refused.
#[derive(Debug)]
pub(super) struct Refused {
    select: Select,
    known: DescriptorMap<()>,
    count: usize,
}

impl Refused {
    pub(super) fn new(queue: RawFd) -> io::Result<Self> {
        let mut select = Select::default();
        select.register(queue, QUEUE, Interest::READABLE)?;
        Ok(Self { select, known: DescriptorMap::default(), count: 0 })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn register(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.select.register(fd, token, interest)?;
        if self.known.insert(fd, ()).is_none() {
            self.count += 1;
        }
        Ok(())
    }

    pub(super) fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        if self.known.remove(fd).is_some() {
            self.count -= 1;
            self.select.deregister(fd)?;
        }
        Ok(())
    }

    /// Reports what is ready, too, and ends when something is in the queue: whether it is.
    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        self.select.wait(events, timeout)?;
        let with_queue = events.len();
        events.events.retain(|event| event.token != QUEUE);
        Ok(events.len() < with_queue)
    }
}
