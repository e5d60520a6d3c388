//! The waker of systems without eventfd: a pipe, both of its ends non-blocking.

use std::io;

use rustix::io::Errno;

use crate::sys::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use crate::sys::pipe::pipe;

/// Ends the wait of a selector that watches its file descriptor for reading.
#[derive(Debug)]
pub struct Waker {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Waker {
    /// A waker that nobody has woken yet.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pipe()?;
        Ok(Self { reader, writer })
    }

    /// Makes the descriptor readable.
    #[inline]
    pub fn wake(&self) {
        // EAGAIN is a full pipe: readable already. EINTR comes before anything was written.
        while rustix::io::write(&self.writer, &[0]) == Err(Errno::INTR) {}
    }

    /// Makes the descriptor unreadable until the next wake-up.
    pub fn drain(&self) {
        let mut buffer = [0_u8; 4096];
        loop {
            match rustix::io::read(&self.reader, &mut buffer) {
                // A short read has emptied the pipe.
                Ok(count) if count == buffer.len() => {}
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }

    /// The descriptor to watch for reading; there always is one.
    #[inline]
    pub fn source(&self) -> Option<RawFd> {
        Some(self.reader.as_raw_fd())
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
