//! An operation while it is the kernel's, and what the kernel reads and writes for it.
#![allow(unsafe_code)] // what the kernel writes

use std::fmt::{self, Debug, Formatter};
use std::io;

use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS, STATUS_CANCELLED};
use windows_sys::Win32::Networking::WinSock::{SOCKADDR_STORAGE, SOCKET, WSABUF};
use windows_sys::Win32::System::IO::{CancelIoEx, OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0};

use super::super::{Lent, LentMut, Operation, Returned};
use super::afd::{Found, Poll};
use super::signalled::Wait;
use crate::sys::address::Name;
use crate::sys::fd::{OwnedFd, RawFd, handle};
use crate::sys::status;
use crate::{Address, Interest, Token};

/// What `AcceptEx` wants for each of the two addresses that it writes.
pub(super) const ACCEPTED_NAME: usize = size_of::<SOCKADDR_STORAGE>() + 16;

/// What an operation is carried out on.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum File {
    /// It was not asked yet.
    Unknown,
    /// A socket, and the one of the driver below it.
    Socket(SOCKET),
    /// A pipe, or another file.
    Pipe,
    /// Something to wait for.
    Waitable,
}

/// An operation and what the kernel is told of it.
#[derive(Debug)]
pub(super) struct InFlight<B, M> {
    /// What the owner gave with it.
    pub(super) owner: Token,
    /// The operation. Its buffers are lent while `resting` is false: nobody calls a method of
    /// theirs between the start and the packet.
    pub(super) operation: Operation<B, M>,
    /// Set by `cancel`: the operation is never started again.
    pub(super) cancelled: bool,
    /// Whether the operation is not the kernel's at the moment: it waits to be started (again).
    pub(super) resting: bool,
    /// Whether the kernel only tells of the end of its descriptor, until somebody waits.
    pub(super) guarded: bool,
    /// What its descriptor is; asked once, as the number is the operation's as long as it lasts.
    pub(super) file: File,
    /// Whether the port is told of ends by this descriptor, and whether only of those that did not
    /// come at once.
    pub(super) associated: Option<bool>,
    /// The shared buffer that a pipe reads into.
    pub(super) buffer: Option<u16>,
    /// Who has sent the datagram.
    pub(super) sender: Option<Address>,
    /// The wait for something that is no file.
    pub(super) wait: Option<Wait>,
    /// The handle by which the kernel was asked, if not by the operation's own descriptor.
    pub(super) driver: Option<HANDLE>,
    /// What the kernel reads or writes besides the buffers; at one place until the end.
    pub(super) packet: Option<Box<Packet>>,
}

// SAFETY: the handle is of the whole process; the rest says for itself.
unsafe impl<B: Send, M: Send> Send for InFlight<B, M> {}
// SAFETY: as above.
unsafe impl<B: Sync, M: Sync> Sync for InFlight<B, M> {}

/// What a packet of the port points to.
#[repr(C)]
pub(super) struct Packet {
    /// First, as its address is that of the packet.
    overlapped: OVERLAPPED,
    /// Whose it is.
    pub(super) token: Token,
    pub(super) poll: Poll,
    pub(super) message: Message,
}

/// Arguments that must stay where they are, of those operations that have such.
#[derive(Default)]
pub(super) struct Message {
    pub(super) slices: Vec<WSABUF>,
    pub(super) name: Option<Box<Name>>,
    pub(super) flags: u32,
    /// What is written to a pipe, of several buffers.
    pub(super) joined: Vec<u8>,
    /// The socket that the next connection becomes.
    pub(super) accepted: Option<OwnedFd>,
    /// Where the addresses of that are written.
    pub(super) names: Option<Box<[u8; 2 * ACCEPTED_NAME]>>,
}

// SAFETY: the pointers are to the fields of the same box and to buffers that the operation owns.
unsafe impl Send for Packet {}
// SAFETY: nothing is reachable through a shared reference.
unsafe impl Sync for Packet {}

impl Debug for Packet {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Packet").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Packet {
    /// Whose packet it is, and how its operation ended: how many bytes were moved, or which error
    /// of the kernel.
    ///
    /// # Safety
    /// `overlapped` is of a packet, which still lives.
    pub(super) unsafe fn read(overlapped: *mut OVERLAPPED) -> (Token, NTSTATUS, usize) {
        // SAFETY: the caller's promise; the kernel is done with it.
        let packet = unsafe { &*overlapped.cast::<Self>() };
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "32 bits")]
        let status = packet.overlapped.Internal as NTSTATUS;
        (packet.token, status, packet.overlapped.InternalHigh)
    }

    /// How many bytes an operation has moved that has ended at once.
    pub(super) const fn moved(&self) -> usize {
        self.overlapped.InternalHigh
    }

    /// Has a file read from `offset` on.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of an offset")]
    pub(super) fn set_offset(&mut self, offset: u64) {
        let place = OVERLAPPED_0_0 { Offset: offset as u32, OffsetHigh: (offset >> 32) as u32 };
        self.overlapped.Anonymous = OVERLAPPED_0 { Anonymous: place };
    }

    /// Where the kernel writes how the operation ends; cleared for the next start.
    pub(super) fn start(&mut self) -> *mut OVERLAPPED {
        self.overlapped = OVERLAPPED::default();
        // Of the whole packet, as that is what `read` makes of it.
        std::ptr::from_mut(self).cast()
    }
}

impl<B: Lent, M: LentMut> InFlight<B, M> {
    pub(super) const fn new(owner: Token, operation: Operation<B, M>) -> Self {
        Self {
            owner,
            operation,
            cancelled: false,
            resting: true,
            guarded: false,
            file: File::Unknown,
            associated: None,
            buffer: None,
            sender: None,
            wait: None,
            driver: None,
            packet: None,
        }
    }

    /// Whether there is nothing to wait for: a poll of no interest.
    pub(super) const fn is_silent(&self) -> bool {
        matches!(self.operation, Operation::Poll { interest, .. } if interest.is_empty())
    }

    /// Whether the operation has completions before its last one.
    pub(super) const fn goes_on(&self) -> bool {
        matches!(
            self.operation,
            Operation::Accept { .. } | Operation::Receive { .. } | Operation::Poll { .. }
        )
    }

    /// Whether a poll has ended as its socket was closed: the number may be another one's by now.
    pub(super) fn is_closed(&self) -> bool {
        let poll = self.packet.as_ref().map(|packet| packet.poll.found(Interest::BOTH));
        poll == Some(Found::Closed)
    }

    /// The descriptor of the operation.
    pub(super) const fn fd(&self) -> RawFd {
        match &self.operation {
            Operation::Accept { fd }
            | Operation::Receive { fd }
            | Operation::ReceiveInto { fd, .. }
            | Operation::Send { fd, .. }
            | Operation::SendOne { fd, .. }
            | Operation::ReceiveFrom { fd, .. }
            | Operation::SendTo { fd, .. }
            | Operation::SendFile { fd, .. }
            | Operation::Connect { fd, .. }
            | Operation::Shutdown { fd, .. }
            | Operation::Poll { fd, .. }
            | Operation::Read { fd, .. }
            | Operation::Write { fd, .. } => *fd,
            Operation::Close { .. } => -1,
        }
    }

    /// Asks the kernel to end the operation. True when nothing is left to come from it.
    pub(super) fn ask_to_cancel(&mut self) -> bool {
        if let Some(wait) = &mut self.wait {
            return wait.end();
        }
        let Some(packet) = &self.packet else { return false };
        let file = self.driver.unwrap_or_else(|| handle(self.fd()));
        // SAFETY: the kernel looks for an operation of this file at this address, and does not look
        // at what is there. If there is none the packet is in the queue.
        unsafe { CancelIoEx(file, std::ptr::from_ref(&**packet).cast()) };
        false
    }

    /// What the kernel's result means.
    pub(super) fn result(&self, status: NTSTATUS, moved: usize) -> Result<usize, i32> {
        match status {
            // A part had gone by then.
            STATUS_CANCELLED if moved > 0 => Ok(moved),
            _ if status::is_success(status) => Ok(moved),
            _ if matches!(self.file, File::Socket(_)) => Err(status::winsock(status)),
            _ => Err(status::win32(status)),
        }
    }

    /// What the last completion brings: the buffers, which are the kernel's no longer.
    pub(super) fn finish(self, result: &io::Result<usize>) -> Returned<B, M> {
        match self.operation {
            Operation::ReceiveInto { buffer, .. } | Operation::Read { buffer, .. } => {
                Returned::Buffer(buffer)
            }
            Operation::ReceiveFrom { buffer, .. } => {
                Returned::Datagram(buffer, result.as_ref().ok().and(self.sender))
            }
            Operation::SendOne { buffer, .. } => Returned::Sent(buffer),
            Operation::Send { buffers, .. }
            | Operation::SendTo { buffers, .. }
            | Operation::Write { buffers, .. } => Returned::Buffers(buffers),
            // Dropping the descriptor closes it.
            Operation::Close { .. }
            | Operation::Accept { .. }
            | Operation::Receive { .. }
            | Operation::SendFile { .. }
            | Operation::Connect { .. }
            | Operation::Shutdown { .. }
            | Operation::Poll { .. } => Returned::Nothing,
        }
    }

    /// The packet, made by the first start.
    pub(super) fn packet(&mut self, token: Token) -> &mut Packet {
        self.packet.get_or_insert_with(|| {
            let overlapped = OVERLAPPED::default();
            let message = Message::default();
            Box::new(Packet { overlapped, token, poll: Poll::new(), message })
        })
    }
}
