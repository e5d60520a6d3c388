//! The wakers of Windows: a pair of sockets for whatever watches descriptors, a packet in the
//! completion port for the proactor.

use std::io;
use std::sync::Arc;

use crate::sys::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use crate::sys::port::Port;
use crate::sys::socket;

/// Ends the wait of a selector or proactor.
#[derive(Debug)]
pub struct Waker {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// What the loop watches, and what makes that readable.
    Sockets { reader: OwnedFd, writer: OwnedFd },
    /// Where the proactor waits.
    Port(Arc<Port>),
}

impl Waker {
    /// A waker that nobody has woken yet.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = socket::pair()?;
        Ok(Self { kind: Kind::Sockets { reader, writer } })
    }

    pub(crate) const fn of_port(port: Arc<Port>) -> Self {
        Self { kind: Kind::Port(port) }
    }

    /// Ends a wait, this one or the next.
    #[inline]
    pub fn wake(&self) {
        match &self.kind {
            // The only error left is WSAEWOULDBLOCK: readable already.
            Kind::Sockets { writer, .. } => drop(socket::send(writer.as_fd(), &[0])),
            Kind::Port(port) => port.wake(),
        }
    }

    /// Makes the descriptor unreadable until the next wake-up.
    pub fn drain(&self) {
        if let Kind::Sockets { reader, .. } = &self.kind {
            let mut buffer = [0_u8; 4096];
            // A short read has taken everything.
            while socket::recv(reader.as_fd(), &mut buffer).is_ok_and(|len| len == buffer.len()) {}
        }
    }

    /// The descriptor to watch for reading, if that is needed.
    #[inline]
    pub fn source(&self) -> Option<RawFd> {
        match &self.kind {
            Kind::Sockets { reader, .. } => Some(reader.as_raw_fd()),
            Kind::Port(_) => None,
        }
    }
}
