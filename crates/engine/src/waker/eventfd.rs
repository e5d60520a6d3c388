//! The waker of Linux: an eventfd, a counter in the kernel (eventfd(2)).

use std::io;

use rustix::event::{EventfdFlags, eventfd};

use crate::sys::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Ends the wait of a selector that watches its file descriptor for reading.
#[derive(Debug)]
pub struct Waker {
    counter: OwnedFd,
}

impl Waker {
    /// A waker that nobody has woken yet.
    pub fn new() -> io::Result<Self> {
        let counter = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { counter })
    }

    /// Makes the descriptor readable.
    #[inline]
    pub fn wake(&self) {
        // The only error left is EAGAIN, a counter at its end: readable already.
        let _ = rustix::io::write(&self.counter, &1_u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable until the next wake-up.
    #[inline]
    pub fn drain(&self) {
        // One read takes the whole count; EAGAIN says that there was none.
        let _ = rustix::io::read(&self.counter, &mut [0_u8; 8]);
    }

    /// The descriptor to watch for reading; there always is one.
    #[inline]
    pub fn source(&self) -> Option<RawFd> {
        Some(self.counter.as_raw_fd())
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}
