//! Operations as plain data, and the buffers that they own.
#![allow(unsafe_code)] // promises about memory that the kernel uses

use std::net::Shutdown;
use std::sync::Arc;

use super::Returned;
use crate::sys::fd::{OwnedFd, RawFd};
use crate::{Address, Interest};

/// Bytes that the kernel may read while their owner lies in an operation.
///
/// # Safety
/// For as long as the value lives and nobody calls a method of it that takes `&mut self`, the bytes
/// stay valid and where they are, also when the value itself is moved, and do not change.
pub unsafe trait Lent: 'static {
    /// The bytes; the same ones each time.
    fn bytes(&self) -> &[u8];
}

/// Memory that the kernel may write while its owner lies in an operation.
///
/// # Safety
/// For as long as the value lives and nobody calls a method of it, the memory stays valid and where
/// it is, also when the value itself is moved, and nobody else reads or writes it.
pub unsafe trait LentMut: 'static {
    /// Where the memory begins and how many bytes it has. It need not be initialised.
    fn room(&mut self) -> (*mut u8, usize);
}

// SAFETY: the bytes are on the heap, and a vector changes them through `&mut self` alone.
unsafe impl Lent for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: as above.
unsafe impl Lent for Box<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: nobody changes what is shared.
unsafe impl Lent for Arc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: nobody changes what is shared, and it lives for ever.
unsafe impl Lent for &'static [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: the bytes are on the heap, and they are the vector's own.
unsafe impl LentMut for Vec<u8> {
    /// As many bytes as its length: what it has room for beyond is not used.
    fn room(&mut self) -> (*mut u8, usize) {
        (self.as_mut_ptr(), self.len())
    }
}

// SAFETY: as above.
unsafe impl LentMut for Box<[u8]> {
    fn room(&mut self) -> (*mut u8, usize) {
        (self.as_mut_ptr(), self.len())
    }
}

/// What the kernel is to do. Descriptors are numbers that somebody else owns, except where said.
#[derive(Debug)]
pub enum Operation<B, M> {
    /// Accepts connections, non-blocking and closed by `exec`, until accepting fails. Each comes as
    /// [`Returned::Connection`](super::Returned::Connection). A peer that has gone before it was
    /// accepted is no failure.
    ///
    /// The server's end of a named pipe is the connection itself, once somebody has connected: that is the
    /// last completion.
    Accept {
        /// A listening socket, or the server's end of a named pipe.
        fd: RawFd,
    },
    /// Receives into the buffers that all receivers share, until the stream ends, which is a last
    /// completion of 0 bytes. Each piece comes as [`Returned::Chunk`](super::Returned::Chunk).
    Receive {
        /// A socket, or a pipe of Windows.
        fd: RawFd,
    },
    /// Receives once; 0 bytes are the end of the stream.
    ReceiveInto {
        /// A socket.
        fd: RawFd,
        /// Where to.
        buffer: M,
    },
    /// Sends all buffers in order. Less than that is only sent when sending fails or is cancelled
    /// halfway, and of more than 1,024 buffers.
    Send {
        /// A connected socket.
        fd: RawFd,
        /// What to send.
        buffers: Vec<B>,
        /// How many bytes of the first buffer have gone already.
        skip: usize,
    },
    /// Sends one buffer as [`Send`](Self::Send) does, without a list of one.
    SendOne {
        /// A connected socket.
        fd: RawFd,
        /// What to send.
        buffer: B,
        /// How many of its bytes have gone already.
        skip: usize,
    },
    /// Receives one datagram, cut to the buffer's length, and the address of its sender.
    ReceiveFrom {
        /// A socket.
        fd: RawFd,
        /// Where to.
        buffer: M,
    },
    /// Sends the buffers as one datagram.
    SendTo {
        /// A socket.
        fd: RawFd,
        /// What to send.
        buffers: Vec<B>,
        /// Where to; nowhere else than to its peer from a connected socket.
        address: Option<Address>,
    },
    /// Connects, and completes when the connection is made or refused.
    Connect {
        /// A socket.
        fd: RawFd,
        /// Where to.
        address: Address,
    },
    /// shutdown(2).
    Shutdown {
        /// A connected socket.
        fd: RawFd,
        /// Which of its directions.
        direction: Shutdown,
    },
    /// close(2); the descriptor is closed whatever the result.
    Close {
        /// What to close.
        fd: OwnedFd,
    },
    /// Watches a descriptor as a selector does; nothing is reported of no interest.
    Poll {
        /// What to watch; on Windows a socket, or the handle of something that becomes signalled, which
        /// is ready then in every direction asked for.
        fd: RawFd,
        /// What for.
        interest: Interest,
    },
    /// Reads once from a pipe or terminal; 0 bytes are its end.
    Read {
        /// What to read from.
        fd: RawFd,
        /// Where to.
        buffer: M,
    },
    /// Writes the buffers to a pipe or terminal, as much as there is room for; on Windows everything.
    /// Raises SIGPIPE as write(2) does.
    Write {
        /// What to write to.
        fd: RawFd,
        /// What to write.
        buffers: Vec<B>,
        /// How many bytes of the first buffer have gone already.
        skip: usize,
    },
}

#[allow(dead_code)] // where there is no proactor
impl<B, M> Operation<B, M> {
    /// Whether there is nothing to wait for: a poll of no interest.
    pub(super) const fn is_silent(&self) -> bool {
        matches!(self, Self::Poll { interest, .. } if interest.is_empty())
    }

    /// Whether it has completions before its last one: it is started again whenever the kernel has let go of it.
    pub(super) const fn goes_on(&self) -> bool {
        matches!(self, Self::Accept { .. } | Self::Receive { .. } | Self::Poll { .. })
    }

    /// What the last completion brings: the buffers, which are the kernel's no longer. `sender`: who has sent the
    /// datagram. A descriptor that was to be closed is dropped.
    pub(super) fn returned(self, sender: Option<Address>) -> Returned<B, M> {
        match self {
            Self::ReceiveInto { buffer, .. } | Self::Read { buffer, .. } => {
                Returned::Buffer(buffer)
            }
            Self::ReceiveFrom { buffer, .. } => Returned::Datagram(buffer, sender),
            Self::SendOne { buffer, .. } => Returned::Sent(buffer),
            Self::Send { buffers, .. }
            | Self::SendTo { buffers, .. }
            | Self::Write { buffers, .. } => Returned::Buffers(buffers),
            Self::Accept { .. }
            | Self::Receive { .. }
            | Self::Connect { .. }
            | Self::Shutdown { .. }
            | Self::Close { .. }
            | Self::Poll { .. } => Returned::Nothing,
        }
    }
}
