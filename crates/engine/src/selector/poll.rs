//! poll(2), with the timeout in nanoseconds where there is ppoll(2).
//!
//! The kernel is handed the whole list on every wait, in the order of registration, as Python's
//! `PollSelector` does. Removing leaves a hole, a negative number, which the kernel skips; holes
//! are closed when they are more than half of the list, so that removing stays constant on
//! average and keeps the order. A descriptor without interest is skipped in the same way, by the
//! complement of its number: with no bits set poll still reports hang-ups, and would without end.

use std::io;
use std::time::Duration;

use libc::pollfd;

use super::Events;
use crate::sys::descriptor::{self, DescriptorMap};
use crate::sys::fd::RawFd;
use crate::{Interest, Token};

/// Fewer entries than this are not worth compacting.
const COMPACT_FROM: usize = 64;
/// The `fd` of an entry whose descriptor was deregistered. Complements of numbers are others.
const HOLE: RawFd = RawFd::MIN;

/// The descriptors that are polled.
#[derive(Debug, Default)]
pub struct Poll {
    /// What the kernel reads and writes.
    entries: Vec<pollfd>,
    /// The name and the interest of the entry at the same place.
    sources: Vec<(Token, Interest)>,
    /// Where the entry of a descriptor is.
    places: DescriptorMap<usize>,
    holes: usize,
}

impl Poll {
    pub(super) fn register(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        descriptor::check_open(fd)?;
        let entry = pollfd { fd: number(fd, interest), events: bits(interest), revents: 0 };
        if let Some(&place) = self.places.get(fd) {
            self.entries[place] = entry;
            self.sources[place] = (token, interest);
        } else {
            self.places.insert(fd, self.entries.len());
            self.entries.push(entry);
            self.sources.push((token, interest));
        }
        Ok(())
    }

    pub(super) fn modify(&mut self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.register(fd, token, interest)
    }

    #[expect(clippy::unnecessary_wraps, reason = "one signature for all kinds")]
    pub(super) fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        if let Some(place) = self.places.remove(fd) {
            self.entries[place].fd = HOLE;
            self.holes += 1;
            if self.holes > COMPACT_FROM && self.holes > self.entries.len() / 2 {
                self.compact();
            }
        }
        Ok(())
    }

    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut left = match descriptor::poll(&mut self.entries, timeout) {
            // RLIMIT_NOFILE holds for the length of the list, holes included (poll(2)).
            Err(error) if self.holes > 0 && error.raw_os_error() == Some(libc::EINVAL) => {
                self.compact();
                descriptor::poll(&mut self.entries, timeout)?
            }
            polled => polled?,
        };
        for (entry, (token, interest)) in self.entries.iter().zip(&self.sources) {
            if left == 0 {
                break;
            }
            // The kernel zeroes the entries that it skips, too.
            if entry.revents != 0 {
                left -= 1;
                events.push(*token, readiness(entry.revents).and(*interest));
            }
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "one signature for all kinds")]
    pub(super) const fn as_raw_fd(&self) -> Option<RawFd> {
        None
    }

    #[cold]
    fn compact(&mut self) {
        let mut kept = 0;
        for place in 0..self.entries.len() {
            let entry = self.entries[place];
            if entry.fd == HOLE {
                continue;
            }
            let fd = if entry.fd < 0 { !entry.fd } else { entry.fd };
            self.entries[kept] = entry;
            self.sources[kept] = self.sources[place];
            self.places.insert(fd, kept);
            kept += 1;
        }
        self.entries.truncate(kept);
        self.sources.truncate(kept);
        self.holes = 0;
    }
}

/// The number that makes the kernel watch `fd`, or skip it when nothing is wanted of it.
const fn number(fd: RawFd, interest: Interest) -> RawFd {
    if interest.is_empty() { !fd } else { fd }
}

const fn bits(interest: Interest) -> libc::c_short {
    let readable = if interest.is_readable() { libc::POLLIN } else { 0 };
    let writable = if interest.is_writable() { libc::POLLOUT } else { 0 };
    readable | writable
}

/// As `selectors.PollSelector.select`: whatever is not plain readiness for the one direction
/// counts for the other. POLLNVAL, a descriptor that is closed by now, counts for both.
const fn readiness(bits: libc::c_short) -> Interest {
    let writable = if bits & !libc::POLLIN != 0 { Interest::WRITABLE } else { Interest::NONE };
    let readable = if bits & !libc::POLLOUT != 0 { Interest::READABLE } else { Interest::NONE };
    readable.with(writable)
}
