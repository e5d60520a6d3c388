//! An operation while it is the kernel's, and how it is written into the submission queue.
//!
//! What surprised us: `O_NONBLOCK` on a descriptor changes nothing for sockets and pipes, whose
//! operations wait for readiness inside the kernel all the same. And a send of the whole is what
//! `MSG_WAITALL` asks for: without it `io_uring` reports what fitted, as send(2) does.
#![allow(unsafe_code)] // addresses of buffers for the kernel

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::net::Shutdown;
use std::ptr;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use rustix::net::SocketAddrAny;
use rustix::net::addr::SocketAddrStorage;

use super::super::{Lent, LentMut, Operation, Returned};
use super::buffers::GROUP;
use crate::sys::fd::{AsRawFd, IntoRawFd, RawFd};
use crate::sys::{MAX_SLICES, address};
use crate::{Address, Interest, Token};

/// The most that Linux moves in one call (`MAX_RW_COUNT`); it cuts what is more, and so do we, as
/// the submission has only 32 bits for it.
const MOST_BYTES: usize = 0x7fff_f000;
/// The whole, and an error instead of a signal.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
/// The file position "where the file is": pipes and terminals have no other.
const CURRENT: u64 = u64::MAX;

/// An operation and what the kernel is told of it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is independent of the others")]
pub(super) struct InFlight<B, M> {
    /// What the owner gave with it.
    pub(super) owner: Token,
    /// What it does.
    pub(super) work: Work<B, M>,
    /// Set by `cancel`: the operation is never submitted again.
    pub(super) cancelled: bool,
    /// Whether the operation is not the kernel's at the moment: it waits to be submitted (again).
    pub(super) resting: bool,
    /// Whether a receive has got data since it was submitted.
    pub(super) served: bool,
    /// Whether a poll tells of changes, and its level is asked for now and then.
    pub(super) patient: bool,
    /// Whether the owner of a patient poll wants to hear nothing for now.
    pub(super) paused: bool,
    /// Whether a patient poll was told of, and was not seen to be unready since.
    pub(super) told: bool,
    /// Whether a poll waits for a change: the level says that the peer sends no more, and nothing else.
    pub(super) edge: bool,
}

/// An operation. Those that go on are small, as each connection has one all the time.
#[derive(Debug)]
pub(super) enum Work<B, M> {
    Accept { fd: RawFd },
    Receive { fd: RawFd },
    Poll { fd: RawFd, interest: Interest },
    Once(Box<Once<B, M>>),
}

// Each idle connection has one.
const _: () = assert!(size_of::<InFlight<Vec<u8>, Vec<u8>>>() <= 32);

/// An operation that is done once.
#[derive(Debug)]
pub(super) struct Once<B, M> {
    /// Its buffers are lent while it does not rest: nobody calls a method of theirs between the submission and the last
    /// completion.
    operation: Operation<B, M>,
    /// What the kernel reads or writes besides the buffers; at one place until the end.
    message: Option<Box<Message>>,
}

/// A `msghdr` and what it points to.
struct Message {
    header: libc::msghdr,
    slices: Vec<libc::iovec>,
    address: MaybeUninit<SocketAddrStorage>,
}

// SAFETY: the pointers are to the fields of the same box and to buffers that the operation owns.
unsafe impl Send for Message {}
// SAFETY: nothing is reachable through a shared reference.
unsafe impl Sync for Message {}

impl std::fmt::Debug for Message {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Message")
            .field("slices", &self.slices.len())
            .finish_non_exhaustive()
    }
}

impl<B: Lent, M: LentMut> InFlight<B, M> {
    pub(super) fn new(owner: Token, operation: Operation<B, M>) -> Self {
        let work = match operation {
            Operation::Accept { fd } => Work::Accept { fd },
            Operation::Receive { fd } => Work::Receive { fd },
            Operation::Poll { fd, interest } => Work::Poll { fd, interest },
            operation => Work::Once(Box::new(Once { operation, message: None })),
        };
        let (cancelled, served, edge) = (false, false, false);
        let (patient, paused, told) = (false, false, false);
        Self { owner, work, cancelled, resting: true, served, patient, paused, told, edge }
    }

    /// Whether it has completions before its last one.
    pub(super) const fn goes_on(&self) -> bool {
        !matches!(self.work, Work::Once(_))
    }

    /// Whether there is nothing to wait for.
    pub(super) const fn is_silent(&self) -> bool {
        matches!(self.work, Work::Poll { interest, .. } if interest.is_empty())
    }

    /// What the kernel is to be told. `multishot`: whether receives may go on by themselves.
    ///
    /// Called while the operation rests. What the entry points to stays where it is for as long as
    /// this value lives and is not asked again: buffers by the promise of [`Lent`] and
    /// [`LentMut`], the rest in the box.
    pub(super) fn entry(&mut self, multishot: bool) -> io::Result<Entry> {
        let multi = self.edge || self.patient;
        Ok(match &mut self.work {
            Work::Accept { fd } => opcode::AcceptMulti::new(types::Fd(*fd))
                .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
                .build(),
            Work::Receive { fd } if multishot => {
                opcode::RecvMulti::new(types::Fd(*fd), GROUP).build()
            }
            Work::Receive { fd } => {
                let receive = opcode::Recv::new(types::Fd(*fd), ptr::null_mut(), 0);
                receive.buf_group(GROUP).build().flags(Flags::BUFFER_SELECT)
            }
            Work::Poll { fd, interest } => {
                let bits = poll_bits(*interest).cast_unsigned();
                opcode::PollAdd::new(types::Fd(*fd), bits.into()).multi(multi).build()
            }
            Work::Once(once) => return once.entry(),
        })
    }

    /// What the last completion brings: the buffers, which are the kernel's no longer.
    pub(super) fn finish(self, result: &io::Result<usize>) -> Returned<B, M> {
        match self.work {
            Work::Once(once) => once.finish(result),
            Work::Accept { .. } | Work::Receive { .. } | Work::Poll { .. } => Returned::Nothing,
        }
    }
}

impl<B: Lent, M: LentMut> Once<B, M> {
    /// As of [`InFlight::entry`].
    fn entry(&mut self) -> io::Result<Entry> {
        let message = &mut self.message;
        Ok(match &mut self.operation {
            Operation::ReceiveInto { fd, buffer } => {
                let (start, len) = buffer.room();
                opcode::Recv::new(types::Fd(*fd), start, length(len)).build()
            }
            Operation::SendOne { fd, buffer, skip } => send_one(*fd, buffer, *skip),
            Operation::Send { fd, buffers, skip } => match &buffers[..] {
                [buffer] => send_one(*fd, buffer, *skip),
                buffers => {
                    let message = message.get_or_insert_with(Message::new);
                    message.send(*fd, slices(buffers, *skip), None, SEND_FLAGS)?
                }
            },
            Operation::ReceiveFrom { fd, buffer } => {
                message.get_or_insert_with(Message::new).receive(*fd, buffer.room())
            }
            Operation::SendTo { fd, buffers, address } => {
                let message = message.get_or_insert_with(Message::new);
                message.send(*fd, slices(buffers, 0), address.as_ref(), libc::MSG_NOSIGNAL)?
            }
            Operation::Connect { fd, address } => {
                message.get_or_insert_with(Message::new).connect(*fd, address)?
            }
            Operation::Shutdown { fd, direction } => {
                let how = match direction {
                    Shutdown::Read => libc::SHUT_RD,
                    Shutdown::Write => libc::SHUT_WR,
                    Shutdown::Both => libc::SHUT_RDWR,
                };
                opcode::Shutdown::new(types::Fd(*fd), how).build()
            }
            Operation::Close { fd } => opcode::Close::new(types::Fd(fd.as_raw_fd())).build(),
            Operation::Read { fd, buffer } => {
                let (start, len) = buffer.room();
                opcode::Read::new(types::Fd(*fd), start, length(len)).offset(CURRENT).build()
            }
            Operation::Write { fd, buffers, skip } => {
                message.get_or_insert_with(Message::new).write(*fd, slices(buffers, *skip))
            }
            Operation::Accept { .. } | Operation::Receive { .. } | Operation::Poll { .. } => {
                unreachable!("it goes on")
            }
        })
    }

    fn finish(self, result: &io::Result<usize>) -> Returned<B, M> {
        match self.operation {
            // Of a close that was cancelled before it began the kernel has touched nothing, and
            // dropping the descriptor closes it. Any other one has closed it, error or not.
            Operation::Close { fd } if !matches!(result, Err(e) if e.raw_os_error() == Some(libc::ECANCELED)) =>
            {
                let _ = fd.into_raw_fd();
                Returned::Nothing
            }
            Operation::ReceiveFrom { buffer, .. } => {
                let sender = result.as_ref().ok().and(self.message).and_then(|m| m.sender());
                Returned::Datagram(buffer, sender)
            }
            operation => operation.returned(None),
        }
    }
}

impl Message {
    fn new() -> Box<Self> {
        Box::new(Self {
            // SAFETY: a header of zeros is one without a name, slices and control data.
            header: unsafe { std::mem::zeroed() },
            slices: Vec::new(),
            address: MaybeUninit::zeroed(),
        })
    }

    /// A send of a datagram or of bytes of a stream, to `address` if there is one.
    fn send(
        &mut self,
        fd: RawFd,
        slices: Vec<libc::iovec>,
        address: Option<&Address>,
        flags: i32,
    ) -> io::Result<Entry> {
        self.slices = slices;
        let len = address.map_or(Ok(0), |address| self.name(address))?;
        let header = self.link(len);
        Ok(opcode::SendMsg::new(types::Fd(fd), header).flags(flags.cast_unsigned()).build())
    }

    /// A receive of a datagram and of its sender's address.
    fn receive(&mut self, fd: RawFd, (start, len): (*mut u8, usize)) -> Entry {
        self.slices = vec![libc::iovec { iov_base: start.cast(), iov_len: len }];
        let header = self.link(size_of::<libc::sockaddr_storage>());
        opcode::RecvMsg::new(types::Fd(fd), header).build()
    }

    fn connect(&mut self, fd: RawFd, address: &Address) -> io::Result<Entry> {
        let len = self.name(address)?;
        Ok(opcode::Connect::new(types::Fd(fd), self.address.as_ptr().cast(), length(len)).build())
    }

    /// A write to a file or pipe, where it is.
    fn write(&mut self, fd: RawFd, slices: Vec<libc::iovec>) -> Entry {
        self.slices = slices;
        let (start, count) = (self.slices.as_ptr(), length(self.slices.len()));
        opcode::Writev::new(types::Fd(fd), start, count).offset(CURRENT).build()
    }

    /// Writes the address, and says how long it is.
    fn name(&mut self, address: &Address) -> io::Result<usize> {
        let address = address::to_kernel(address)?;
        let len = address.addr_len() as usize;
        // SAFETY: both are storage for an address, of which `len` bytes are initialised.
        unsafe {
            let source = address.as_ptr().cast::<u8>();
            ptr::copy_nonoverlapping(source, self.address.as_mut_ptr().cast::<u8>(), len);
        }
        Ok(len)
    }

    /// Makes the header point to the slices and to `name_len` bytes for the address.
    fn link(&mut self, name_len: usize) -> *mut libc::msghdr {
        let name: *mut libc::c_void = self.address.as_mut_ptr().cast();
        self.header.msg_name = if name_len == 0 { ptr::null_mut() } else { name };
        self.header.msg_namelen = length(name_len);
        self.header.msg_iov = self.slices.as_mut_ptr();
        self.header.msg_iovlen = self.slices.len() as _;
        &raw mut self.header
    }

    /// The address that the kernel wrote.
    fn sender(&self) -> Option<Address> {
        let len = self.header.msg_namelen;
        let has_family = len as usize > offset_of!(libc::sockaddr, sa_family);
        // SAFETY: the kernel wrote `len` bytes of an address, the family among them; what it did
        // not write is zero.
        has_family.then(|| unsafe { address::from_kernel(&SocketAddrAny::new(self.address, len)) })
    }
}

/// Whether the result of a poll says what its descriptor is ready for. It does not if there is no
/// such descriptor, or the poll was cancelled. Whatever else is wrong (ENOMEM; EINVAL of a device
/// with more queues than `io_uring` can watch) is no reason never to speak of a descriptor again.
pub(super) const fn is_readiness(result: i32) -> bool {
    !matches!(-result, libc::EBADF | libc::ECANCELED)
}

/// The readiness that the result of a poll means: the bits of poll(2), of which errors and hang-ups
/// are of every direction, as is a failure. That the peer sends no more, which `io_uring` tells
/// unasked, is something to read.
pub(super) fn readiness(bits: i32, interest: Interest) -> Interest {
    const READ: i32 = (libc::POLLIN | libc::POLLRDHUP) as i32;
    const WRITE: i32 = libc::POLLOUT as i32;
    if bits < 0 {
        return interest;
    }
    let mut readiness = Interest::NONE;
    if bits & !READ != 0 {
        readiness = readiness.with(Interest::WRITABLE);
    }
    if bits & !WRITE != 0 {
        readiness = readiness.with(Interest::READABLE);
    }
    readiness.and(interest)
}

/// The bits of poll(2) that an interest means.
pub(super) const fn poll_bits(interest: Interest) -> libc::c_short {
    let read = if interest.is_readable() { libc::POLLIN } else { 0 };
    let write = if interest.is_writable() { libc::POLLOUT } else { 0 };
    read | write
}

fn send_one<B: Lent>(fd: RawFd, buffer: &B, skip: usize) -> Entry {
    let bytes = buffer.bytes().get(skip..).unwrap_or_default();
    opcode::Send::new(types::Fd(fd), bytes.as_ptr(), length(bytes.len())).flags(SEND_FLAGS).build()
}

fn slices<B: Lent>(buffers: &[B], mut skip: usize) -> Vec<libc::iovec> {
    let slice = |buffer: &B| {
        let bytes = buffer.bytes().get(std::mem::take(&mut skip)..).unwrap_or_default();
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
    };
    buffers.iter().take(MAX_SLICES).map(slice).collect()
}

fn length(len: usize) -> u32 {
    u32::try_from(len.min(MOST_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_that_fail_are_ready() {
        for interest in [Interest::READABLE, Interest::WRITABLE, Interest::BOTH] {
            for error in [libc::ENOMEM, libc::EINVAL, libc::EAGAIN] {
                assert!(is_readiness(-error));
                assert_eq!(readiness(-error, interest), interest);
            }
            let error = libc::POLLERR.into();
            assert!(is_readiness(error));
            assert_eq!(readiness(error, interest), interest);
        }
        assert!(!is_readiness(-libc::EBADF) && !is_readiness(-libc::ECANCELED));
        let writable = readiness(libc::POLLOUT.into(), Interest::BOTH);
        assert_eq!(writable, Interest::WRITABLE);
        let end = readiness(libc::POLLIN.into(), Interest::WRITABLE);
        assert_eq!(end, Interest::NONE);
        let half_closed = libc::POLLRDHUP.into();
        assert_eq!(readiness(half_closed, Interest::WRITABLE), Interest::NONE);
        assert_eq!(readiness(half_closed, Interest::BOTH), Interest::READABLE);
        let room = (libc::POLLRDHUP | libc::POLLOUT).into();
        assert_eq!(readiness(room, Interest::WRITABLE), Interest::WRITABLE);
    }
}
