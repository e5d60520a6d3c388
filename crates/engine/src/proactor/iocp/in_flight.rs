//! An operation while it is the kernel's, and what the kernel reads and writes for it.
#![allow(unsafe_code)] // what the kernel writes

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::ptr::NonNull;

use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS, STATUS_BUFFER_OVERFLOW, STATUS_CANCELLED};
use windows_sys::Win32::Networking::WinSock::{SOCKADDR_STORAGE, SOCKET, WSABUF};
use windows_sys::Win32::System::IO::{CancelIoEx, OVERLAPPED};

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

/// Which ends of operations by a descriptor the port is told of.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Told {
    /// All.
    Everything,
    /// Those that did not come at once.
    Later,
    /// None: of a listener that another port is told of, or the family of which we do not know.
    Nothing,
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
    /// Whether the port is told of ends by this descriptor; asked once.
    pub(super) told: Option<Told>,
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
        formatter.debug_struct("Packet").field("poll", &self.poll).finish_non_exhaustive()
    }
}

impl Packet {
    /// How the operation ended, the packet of which has come: how many bytes were moved, or which error of the
    /// kernel.
    const fn end(&self) -> (NTSTATUS, usize) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "32 bits")]
        let status = self.overlapped.Internal as NTSTATUS;
        (status, self.overlapped.InternalHigh)
    }

    /// Where the kernel writes how the operation ends; cleared for the next start.
    pub(super) fn start(&mut self) -> *mut OVERLAPPED {
        self.overlapped = OVERLAPPED::default();
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
            told: None,
            buffer: None,
            sender: None,
            wait: None,
            driver: None,
            packet: None,
        }
    }

    /// Whether connections are accepted after a poll.
    pub(super) fn polls_to_accept(&self) -> bool {
        self.told == Some(Told::Nothing)
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

    /// What the kernel's result means, once the packet has come.
    pub(super) fn result(&self) -> Result<usize, i32> {
        let (status, moved) = self.packet.as_ref().map_or((0, 0), |packet| packet.end());
        match status {
            // A part had gone by then.
            STATUS_CANCELLED if moved > 0 => Ok(moved),
            _ if status::is_success(status) => Ok(moved),
            // What is left of a message comes by the next read.
            STATUS_BUFFER_OVERFLOW if self.file == File::Pipe => Ok(moved),
            _ if matches!(self.file, File::Socket(_)) => Err(status::winsock(status)),
            _ => Err(status::win32(status)),
        }
    }

    /// What the last completion brings: the buffers, which are the kernel's no longer.
    pub(super) fn finish(self, result: &io::Result<usize>) -> Returned<B, M> {
        self.operation.returned(result.as_ref().ok().and(self.sender))
    }

    /// What the port calls the operation by.
    pub(super) fn name(&self) -> Option<NonNull<OVERLAPPED>> {
        self.packet.as_deref().map(|packet| NonNull::from(packet).cast())
    }

    /// The packet, made by the first start.
    pub(super) fn packet(&mut self) -> &mut Packet {
        self.packet.get_or_insert_with(|| {
            let overlapped = OVERLAPPED::default();
            let message = Message::default();
            Box::new(Packet { overlapped, poll: Poll::new(), message })
        })
    }
}
