//! Readiness of file descriptors, by the mechanism that the owner chooses at run time.
//!
//! # Contract of every kind
//!
//! * Level triggered: a descriptor that is ready is reported by every wait until it no longer is.
//! * Errors and hang-ups are reported in every direction that was asked for, as Python's
//!   `selectors` do; the one who then reads or writes learns what it was.
//! * `register` and `modify` say what is wanted from now on, whatever was registered before under
//!   that number: descriptors are closed behind our back and their numbers used again.
//! * `register` gives EBADF for a descriptor that is not open. One that is closed later is
//!   forgotten (epoll, kqueue) or reported as ready (poll, select); it never makes `wait` fail.
//! * `wait` replaces what was in [`Events`], and reports a descriptor at most once. EINTR is the
//!   caller's to see (`ErrorKind::Interrupted`), as a signal may have something to say.
//! * The nanoseconds of a timeout count: a wait never ends before it, unless something is ready.

use std::io;
use std::time::Duration;

use crate::sys::fd::RawFd;
use crate::{Interest, Token};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(any(target_vendor = "apple", target_os = "freebsd", oxloop_libkqueue))]
mod kqueue;
#[cfg(unix)]
mod poll;
#[cfg(any(target_vendor = "apple", target_os = "freebsd", oxloop_libkqueue))]
mod refused;
#[cfg(unix)]
mod select;
#[cfg(windows)]
#[path = "winsock_select.rs"]
mod select;

// The system calls of kqueue: the kernel's, or a library's to test our side of them on Linux.
#[cfg(any(target_vendor = "apple", target_os = "freebsd", oxloop_libkqueue))]
mod kernel_queue;
#[cfg(oxloop_libkqueue)]
mod libkqueue;
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
use {kernel_queue::Queue, libc as system};
#[cfg(oxloop_libkqueue)]
use {libkqueue as system, libkqueue::Queue};

/// What a wait found out about one file descriptor.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Event {
    /// The name that the descriptor was registered under.
    pub token: Token,
    /// What it is ready for: part of the interest, and never empty.
    pub readiness: Interest,
}

/// What a wait found out; keeps its memory from wait to wait.
#[derive(Debug, Default)]
pub struct Events {
    events: Vec<Event>,
}

impl Events {
    /// No events, and memory for `capacity` of them. It grows as needed: a wait reports everything
    /// that is ready, as asyncio's do.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { events: Vec::with_capacity(capacity) }
    }

    /// The events in the order in which the kernel gave them.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.events.iter()
    }

    /// How many events there are.
    pub const fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the wait ended without an event.
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Forgets the events.
    pub fn clear(&mut self) {
        self.events.clear();
    }

    #[inline]
    fn push(&mut self, token: Token, readiness: Interest) {
        if !readiness.is_empty() {
            self.events.push(Event { token, readiness });
        }
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The mechanisms, of which a system has some.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum SelectorKind {
    /// epoll(7) of Linux.
    Epoll,
    /// kqueue(2) of macOS and the BSDs.
    Kqueue,
    /// poll(2).
    Poll,
    /// select(2), or Winsock's.
    Select,
}

impl SelectorKind {
    /// The kinds that this system has, best first.
    pub const fn available() -> &'static [Self] {
        #[cfg(all(any(target_os = "linux", target_os = "android"), not(oxloop_libkqueue)))]
        const AVAILABLE: &[SelectorKind] =
            &[SelectorKind::Epoll, SelectorKind::Poll, SelectorKind::Select];
        #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
        const AVAILABLE: &[SelectorKind] =
            &[SelectorKind::Kqueue, SelectorKind::Poll, SelectorKind::Select];
        #[cfg(windows)]
        const AVAILABLE: &[SelectorKind] = &[SelectorKind::Select];
        #[cfg(oxloop_libkqueue)]
        const AVAILABLE: &[SelectorKind] =
            &[SelectorKind::Kqueue, SelectorKind::Epoll, SelectorKind::Poll, SelectorKind::Select];
        AVAILABLE
    }

    /// The most efficient kind of this system.
    pub const fn best() -> Self {
        Self::available()[0]
    }

    /// The name of the mechanism, in small letters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Kqueue => "kqueue",
            Self::Poll => "poll",
            Self::Select => "select",
        }
    }
}

/// A set of file descriptors and what is waited for on each.
#[derive(Debug)]
pub enum Selector {
    /// epoll(7) of Linux.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Epoll(epoll::Epoll),
    /// kqueue(2) of macOS and the BSDs.
    #[cfg(any(target_vendor = "apple", target_os = "freebsd", oxloop_libkqueue))]
    Kqueue(kqueue::Kqueue),
    /// poll(2).
    #[cfg(unix)]
    Poll(poll::Poll),
    /// select(2), or Winsock's.
    Select(select::Select),
}

macro_rules! backend {
    ($selector:expr, $backend:ident => $call:expr) => {
        match $selector {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Selector::Epoll($backend) => $call,
            #[cfg(any(target_vendor = "apple", target_os = "freebsd", oxloop_libkqueue))]
            Selector::Kqueue($backend) => $call,
            #[cfg(unix)]
            Selector::Poll($backend) => $call,
            Selector::Select($backend) => $call,
        }
    };
}

impl Selector {
    /// An empty selector. `ErrorKind::Unsupported` when the system has none of that kind.
    pub fn new(kind: SelectorKind) -> io::Result<Self> {
        match kind {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            SelectorKind::Epoll => Ok(Self::Epoll(epoll::Epoll::new()?)),
            #[cfg(any(target_vendor = "apple", target_os = "freebsd", oxloop_libkqueue))]
            SelectorKind::Kqueue => Ok(Self::Kqueue(kqueue::Kqueue::new()?)),
            #[cfg(unix)]
            SelectorKind::Poll => Ok(Self::Poll(poll::Poll::default())),
            SelectorKind::Select => Ok(Self::Select(select::Select::default())),
            #[allow(unreachable_patterns)] // libkqueue beside epoll: no kind is missing
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The mechanism.
    pub const fn kind(&self) -> SelectorKind {
        match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Epoll(_) => SelectorKind::Epoll,
            #[cfg(any(target_vendor = "apple", target_os = "freebsd", oxloop_libkqueue))]
            Self::Kqueue(_) => SelectorKind::Kqueue,
            #[cfg(unix)]
            Self::Poll(_) => SelectorKind::Poll,
            Self::Select(_) => SelectorKind::Select,
        }
    }

    /// Watches `fd` for `interest` and reports it as `token`. An empty interest is allowed, and
    /// keeps the descriptor registered without an event.
    #[inline]
    pub fn register(&mut self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        backend!(self, backend => backend.register(fd, token, interest))
    }

    /// Changes what a registered descriptor is watched for and the name that it is reported as.
    #[inline]
    pub fn modify(&mut self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        backend!(self, backend => backend.modify(fd, token, interest))
    }

    /// Ends watching `fd`. Fine, too, when it is closed already or was never watched.
    #[inline]
    pub fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        backend!(self, backend => backend.deregister(fd))
    }

    /// Waits until a descriptor is ready, for at most `timeout` (`None`: without end).
    #[inline]
    pub fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        backend!(self, backend => backend.wait(events, timeout))
    }

    /// The descriptor of the mechanism itself, where it has one.
    pub fn as_raw_fd(&self) -> Option<RawFd> {
        backend!(self, backend => backend.as_raw_fd())
    }
}
