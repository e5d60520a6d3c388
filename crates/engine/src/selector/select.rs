//! select(2), or pselect(2) where the timeout can be in nanoseconds.
//!
//! `FD_SETSIZE` limits the C library's type and not the kernel: Linux and the BSDs take bitmaps of
//! any length, and so does macOS (`_DARWIN_UNLIMITED_SELECT`). What surprised us: one closed
//! descriptor makes the whole call fail with EBADF, without a word which one it was.
#![allow(unsafe_code)] // select on numbers that may be closed by now

use std::io;
use std::time::Duration;

use rustix::event::{FdSetElement, FdSetIter, fd_set_bound, fd_set_insert, fd_set_remove, select};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::Events;
use crate::sys::descriptor::{self, DescriptorMap, timespec};
use crate::sys::fd::RawFd;
use crate::{Interest, Token};

/// The descriptors that are selected from.
#[derive(Default)]
pub struct Select {
    pub(super) sources: DescriptorMap<(Token, Interest)>,
    /// Who is watched, one bit for each number.
    wanted: Sets,
    /// What the kernel reads and writes: a copy of `wanted` at first, then who is ready.
    ready: Sets,
}

#[derive(Default)]
struct Sets {
    read: Vec<FdSetElement>,
    write: Vec<FdSetElement>,
}

impl std::fmt::Debug for Select {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Select").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Select {
    pub(super) fn register(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        descriptor::check_open(fd)?;
        self.sources.insert(fd, (token, interest));
        set(&mut self.wanted.read, fd, interest.is_readable());
        set(&mut self.wanted.write, fd, interest.is_writable());
        Ok(())
    }

    pub(super) fn modify(&mut self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.register(fd, token, interest)
    }

    #[expect(clippy::unnecessary_wraps, reason = "one signature for all kinds")]
    pub(super) fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        if self.sources.remove(fd).is_some() {
            set(&mut self.wanted.read, fd, false);
            set(&mut self.wanted.write, fd, false);
        }
        Ok(())
    }

    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.load();
        match self.select(timeout.map(timespec).as_ref()) {
            Ok(()) => {}
            Err(Errno::BADF) => return self.wait_without_closed(events),
            Err(error) => return Err(error.into()),
        }
        self.report(events);
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "one signature for all kinds")]
    pub(super) const fn as_raw_fd(&self) -> Option<RawFd> {
        None
    }

    /// Reports the closed descriptors in every direction, as poll does, beside those that are
    /// ready now.
    #[cold]
    fn wait_without_closed(&mut self, events: &mut Events) -> io::Result<()> {
        self.load();
        for (fd, &(token, interest)) in self.sources.iter() {
            if !interest.is_empty() && descriptor::check_open(fd).is_err() {
                set(&mut self.ready.read, fd, false);
                set(&mut self.ready.write, fd, false);
                events.push(token, interest);
            }
        }
        match self.select(Some(&Timespec::default())) {
            Ok(()) => self.report(events),
            // Another thread has closed one more: the next wait will tell.
            Err(Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn load(&mut self) {
        self.ready.read.clone_from(&self.wanted.read);
        self.ready.write.clone_from(&self.wanted.write);
    }

    fn select(&mut self, timeout: Option<&Timespec>) -> rustix::io::Result<()> {
        let Sets { read, write } = &mut self.ready;
        let bound = fd_set_bound(read).max(fd_set_bound(write));
        // SAFETY: both sets have the bits of all numbers below `bound`, as `set` keeps them of one
        // length. Numbers that are not open any more make the kernel return EBADF.
        unsafe { select(bound, Some(read), Some(write), None, timeout) }?;
        Ok(())
    }

    fn report(&self, events: &mut Events) {
        let mut read = FdSetIter::new(&self.ready.read).peekable();
        let mut write = FdSetIter::new(&self.ready.write).peekable();
        loop {
            let next = match (read.peek(), write.peek()) {
                (Some(read), Some(write)) => *read.min(write),
                (Some(fd), None) | (None, Some(fd)) => *fd,
                (None, None) => return,
            };
            let mut readiness = Interest::NONE;
            if read.next_if_eq(&next).is_some() {
                readiness = readiness.with(Interest::READABLE);
            }
            if write.next_if_eq(&next).is_some() {
                readiness = readiness.with(Interest::WRITABLE);
            }
            if let Some((token, interest)) = self.sources.get(next) {
                events.push(*token, readiness.and(*interest));
            }
        }
    }
}

/// Sets or clears the bit of `fd`; a set grows for either, so that all are of one length.
fn set(bits: &mut Vec<FdSetElement>, fd: RawFd, wanted: bool) {
    let length = rustix::event::fd_set_num_elements(0, fd + 1);
    if bits.len() < length {
        bits.resize(length, FdSetElement::default());
    }
    if wanted {
        fd_set_insert(bits, fd);
    } else {
        fd_set_remove(bits, fd);
    }
}
