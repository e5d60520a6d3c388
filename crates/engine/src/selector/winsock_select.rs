//! `select` of Winsock, which knows sockets and nothing else.
//!
//! `FD_SETSIZE` (64, and 512 in Python's build) limits the headers' type alone: a set is a count and an
//! array, and Winsock takes arrays of any length. What surprised us: a connect that failed is told in
//! the third set; without any socket the call fails and does not wait; and one socket that was closed
//! makes the whole call fail, without a word which one it was.
#![allow(unsafe_code)] // select on sockets that may be closed by now

use std::io;
use std::ptr;
use std::time::{Duration, Instant};

use windows_sys::Win32::Networking::WinSock::{FD_SET, TIMEVAL, WSAENOTSOCK, select};

use super::Events;
use crate::sys::descriptor::{self, DescriptorMap};
use crate::sys::fd::{RawFd, of_winsock, socket};
use crate::{Interest, Token};

/// The sockets that are selected from.
#[derive(Debug, Default)]
pub struct Select {
    sources: DescriptorMap<(Token, Interest)>,
    sets: Sets,
}

/// What Winsock reads and writes: who is wanted at first, then who is ready.
#[derive(Debug, Default)]
struct Sets {
    read: Set,
    write: Set,
    /// The writers again: Winsock tells here that a connect has failed.
    failed: Set,
}

/// The count of sockets, then the sockets: a `FD_SET` of any length. The count is of 32 bits, with
/// as many unused ones behind it where a socket has 64.
#[derive(Debug)]
struct Set(Vec<usize>);

impl Default for Set {
    fn default() -> Self {
        Self(vec![0])
    }
}

impl Set {
    fn clear(&mut self) {
        self.0.truncate(1);
        self.0[0] = 0;
    }

    fn insert(&mut self, fd: RawFd) {
        self.0.push(socket(fd));
        self.0[0] = self.0.len() - 1;
    }

    fn is_empty(&self) -> bool {
        self.sockets().is_empty()
    }

    /// Who is in it; after a call those who are ready.
    fn sockets(&self) -> &[usize] {
        let count = self.0[0].min(self.0.len() - 1);
        &self.0[1..=count]
    }

    fn as_mut_ptr(&mut self) -> *mut FD_SET {
        if self.is_empty() { ptr::null_mut() } else { self.0.as_mut_ptr().cast() }
    }
}

impl Sets {
    fn is_empty(&self) -> bool {
        self.read.is_empty() && self.write.is_empty()
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
        Ok(())
    }

    pub(super) fn modify(&mut self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.register(fd, token, interest)
    }

    #[expect(clippy::unnecessary_wraps, reason = "one signature for all kinds")]
    pub(super) fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        self.sources.remove(fd);
        Ok(())
    }

    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            self.load(|_| true);
            match self.sets.select(left) {
                Ok(()) => self.report(events),
                Err(error) if error.raw_os_error() == Some(WSAENOTSOCK) => {
                    return self.wait_without_closed(events);
                }
                Err(error) => return Err(error),
            }
            // The system's clock moves in steps, and may wake us in the one before.
            if !events.is_empty() || left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
        }
    }

    #[expect(clippy::unused_self, reason = "one signature for all kinds")]
    pub(super) const fn as_raw_fd(&self) -> Option<RawFd> {
        None
    }

    /// Reports the closed sockets in every direction beside those that are ready now.
    #[cold]
    fn wait_without_closed(&mut self, events: &mut Events) -> io::Result<()> {
        let mut closed = Vec::new();
        for (fd, &(token, interest)) in self.sources.iter() {
            if !interest.is_empty() && descriptor::check_open(fd).is_err() {
                closed.push(fd);
                events.push(token, interest);
            }
        }
        self.load(|fd| !closed.contains(&fd));
        match self.sets.select(Some(Duration::ZERO)) {
            Ok(()) => self.report(events),
            // Another thread has closed one more: the next wait will tell.
            Err(error) if error.raw_os_error() == Some(WSAENOTSOCK) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn load(&mut self, wanted: impl Fn(RawFd) -> bool) {
        let Sets { read, write, failed } = &mut self.sets;
        for set in [&mut *read, &mut *write, &mut *failed] {
            set.clear();
        }
        for (fd, &(_, interest)) in self.sources.iter().filter(|(fd, _)| wanted(*fd)) {
            if interest.is_readable() {
                read.insert(fd);
            }
            if interest.is_writable() {
                write.insert(fd);
                failed.insert(fd);
            }
        }
    }

    fn report(&mut self, events: &mut Events) {
        // A set that was empty was not given to Winsock, and one that was is in no order.
        let Sets { read, write, failed } = &mut self.sets;
        let mut ready: Vec<(usize, Interest)> = Vec::new();
        ready.extend(read.sockets().iter().map(|socket| (*socket, Interest::READABLE)));
        for set in [write, failed] {
            ready.extend(set.sockets().iter().map(|socket| (*socket, Interest::WRITABLE)));
        }
        ready.sort_unstable_by_key(|(socket, _)| *socket);
        for same in ready.chunk_by(|left, right| left.0 == right.0) {
            let readiness = same.iter().fold(Interest::NONE, |all, (_, next)| all.with(*next));
            if let Some((token, interest)) = self.sources.get(of_winsock(same[0].0)) {
                // A failure is of every direction that was asked for.
                events.push(*token, readiness.and(*interest));
            }
        }
    }
}

impl Sets {
    /// Waits, for at most `timeout`, rounded up to microseconds.
    fn select(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.is_empty() {
            // It would fail. Without a timeout nothing could ever end the wait.
            let Some(timeout) = timeout else { return Err(io::ErrorKind::InvalidInput.into()) };
            std::thread::sleep(timeout);
            return Ok(());
        }
        let timeout = timeout.map(|timeout| {
            let micros = timeout.as_nanos().div_ceil(1000);
            TIMEVAL {
                tv_sec: (micros / 1_000_000).try_into().unwrap_or(i32::MAX),
                tv_usec: (micros % 1_000_000).try_into().unwrap_or(0),
            }
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let Self { read, write, failed } = self;
        // SAFETY: each set has as many sockets as it says, and Winsock writes no more than were there; the
        // timeout is null or valid.
        let result = unsafe {
            select(0, read.as_mut_ptr(), write.as_mut_ptr(), failed.as_mut_ptr(), timeout)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
