//! How each operation is started.
//!
//! What surprised us: whether an operation of a non-blocking socket waits depends upon nothing but
//! whether it is overlapped.
#![allow(unsafe_code)] // addresses of buffers for the kernel

use std::net::Shutdown;
use std::ptr;

use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_HANDLE_EOF, ERROR_INVALID_HANDLE, ERROR_IO_PENDING, ERROR_MORE_DATA,
    ERROR_PIPE_NOT_CONNECTED,
};
use windows_sys::Win32::Networking::WinSock::{
    SD_BOTH, SD_RECEIVE, SD_SEND, WSA_IO_PENDING, WSABUF, WSAEINVAL, WSAENOTSOCK, WSARecv, WSASend,
    WSASendTo, shutdown,
};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};

use super::super::{Lent, LentMut, Operation};
use super::afd;
use super::buffers::Buffers;
use super::connections::family;
use super::in_flight::{File, InFlight, Told};
use super::kernel::{Kernel, last_error, number};
use super::signalled::Wait;
use crate::sys::address::Name;
use crate::sys::descriptor::{Object, object};
use crate::sys::fd::{RawFd, handle, socket};
use crate::sys::{MAX_SLICES, os_error, socket as winsock, status};
use crate::{Interest, Token};

/// What has become of a start.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Begun {
    /// A packet will come.
    Pending,
    /// It has ended, and no packet will come.
    Ended(Result<usize, i32>),
    /// There is no buffer for it.
    Starved,
}

/// Which operations of a socket need the port.
const fn needs_port<B, M>(operation: &Operation<B, M>) -> bool {
    !matches!(
        operation,
        Operation::Receive { .. }
            | Operation::ReceiveFrom { .. }
            | Operation::Poll { .. }
            | Operation::Shutdown { .. }
            | Operation::Close { .. }
    )
}

impl<B: Lent, M: LentMut> InFlight<B, M> {
    /// Starts the operation, which rests.
    ///
    /// What the kernel is given stays where it is until the packet comes: buffers by the promise of
    /// [`Lent`] and [`LentMut`], the rest in the packet.
    pub(super) fn begin(
        &mut self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        token: Token,
    ) -> Begun {
        const NOT_OPEN: i32 = ERROR_INVALID_HANDLE.cast_signed();
        self.try_begin(kernel, buffers, token).unwrap_or_else(|error| {
            // The kernel's word for what Winsock calls no socket.
            Begun::Ended(Err(if error == NOT_OPEN { os_error::EBADF } else { error }))
        })
    }

    fn try_begin(
        &mut self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        token: Token,
    ) -> Result<Begun, i32> {
        let fd = self.fd();
        if matches!(self.operation, Operation::Close { .. }) {
            return Ok(Begun::Ended(Ok(0)));
        }
        self.look(fd)?;
        let told = self.tell_port(kernel, fd)?;
        let (file, operation) = (self.file, &self.operation);
        match (file, operation) {
            (File::Socket(_), Operation::Shutdown { direction, .. }) => shut_down(fd, *direction),
            (File::Socket(base), Operation::Receive { .. } | Operation::ReceiveFrom { .. }) => {
                self.poll(kernel, token, base, Interest::READABLE)
            }
            (File::Socket(base), Operation::Accept { .. }) if told == Told::Nothing => {
                self.poll(kernel, token, base, Interest::READABLE)
            }
            (File::Socket(base), Operation::Poll { interest, .. }) => {
                let interest = *interest;
                self.poll(kernel, token, base, interest)
            }
            (File::Waitable, Operation::Poll { .. }) => {
                let overlapped = self.packet().start();
                let wait = Wait::new(fd, &kernel.port, overlapped).map_err(|e| number(&e))?;
                self.wait = Some(wait);
                Ok(Begun::Pending)
            }
            (File::Socket(_), Operation::Accept { .. }) => self.begin_accepting(kernel, told),
            (File::Socket(_), Operation::Connect { address, .. }) => {
                let address = address.clone();
                self.connect(kernel, &address, told)
            }
            (File::Pipe, Operation::Accept { .. } | Operation::Poll { .. }) => {
                Ok(self.accept_of_pipe())
            }
            (File::Pipe, Operation::Receive { .. }) => Ok(self.receive_of_pipe(buffers)),
            (File::Pipe | File::Socket(_), Operation::Read { .. } | Operation::Write { .. }) => {
                Ok(self.begin_of_file())
            }
            (File::Socket(_), _) => self.begin_of_socket(told),
            _ => Err(WSAENOTSOCK),
        }
    }

    /// Asks the kernel to tell of the end of the descriptor, if it is a socket.
    pub(super) fn guard(&mut self, kernel: &mut Kernel, token: Token) -> bool {
        let Ok(()) = self.look(self.fd()) else { return false };
        let File::Socket(base) = self.file else { return false };
        self.guarded = self.poll(kernel, token, base, Interest::NONE).is_ok();
        self.guarded
    }

    /// Finds out what the descriptor is.
    fn look(&mut self, fd: RawFd) -> Result<(), i32> {
        if self.file == File::Unknown {
            let polls = matches!(self.operation, Operation::Poll { .. });
            self.file = match object(fd) {
                Some(Object::Socket) => File::Socket(afd::base(fd)?),
                Some(Object::Waitable) if polls => File::Waitable,
                Some(Object::Waitable) | None => return Err(os_error::EBADF),
                Some(_) => File::Pipe,
            };
        }
        Ok(())
    }

    /// Has the port told of the operation's end.
    fn tell_port(&mut self, kernel: &Kernel, fd: RawFd) -> Result<Told, i32> {
        let is_socket = matches!(self.file, File::Socket(_));
        if self.file == File::Waitable || (is_socket && !needs_port(&self.operation)) {
            return Ok(Told::Everything);
        }
        if let Some(told) = self.told {
            return Ok(told);
        }
        let told = if is_socket && matches!(self.operation, Operation::Accept { .. }) {
            let told = match family(fd)? {
                Some(_) => kernel.associate_listener(fd, self.file)?,
                None => Told::Nothing,
            };
            if told == Told::Nothing {
                // Another process may have accepted the connection that a poll tells of.
                winsock::set_nonblocking(fd).map_err(|error| number(&error))?;
            }
            told
        } else {
            kernel.associate(fd, self.file)?
        };
        self.told = Some(told);
        Ok(told)
    }

    fn poll(
        &mut self,
        kernel: &mut Kernel,
        token: Token,
        base: usize,
        interest: Interest,
    ) -> Result<Begun, i32> {
        let driver = kernel.driver.handle(token.index(), &kernel.port).map_err(|e| number(&e))?;
        let packet = self.packet();
        let overlapped = packet.start();
        // SAFETY: both are of the packet, which stays.
        unsafe { afd::start(driver, base, interest, &raw mut packet.poll, overlapped)? };
        self.driver = Some(driver);
        Ok(Begun::Pending)
    }

    /// Starts what sends or receives by a socket.
    fn begin_of_socket(&mut self, told: Told) -> Result<Begun, i32> {
        let (slices, name) = self.arguments()?;
        let fd = socket(self.fd());
        let receives = matches!(self.operation, Operation::ReceiveInto { .. });
        let packet = self.packet();
        let overlapped = packet.start();
        let message = &mut packet.message;
        (message.slices, message.flags) = (slices, 0);
        message.name = name.map(Box::new);
        let (slices, count) = (message.slices.as_ptr(), message.slices.len());
        let count = length(count);
        let flags = &raw mut message.flags;
        let mut moved = 0;
        let name = message.name.as_deref();
        // SAFETY: the slices, the flags, the name and the packet stay, and so do the buffers.
        let result = unsafe {
            let moved = &raw mut moved;
            match name {
                Some(name) => {
                    let (name, len) = (name.as_ptr(), name.len());
                    WSASendTo(fd, slices, count, moved, 0, name, len, overlapped, None)
                }
                None if receives => WSARecv(fd, slices, count, moved, flags, overlapped, None),
                None => WSASend(fd, slices, count, moved, 0, overlapped, None),
            }
        };
        Ok(of_socket(result, moved, told))
    }

    /// The memory that a socket's operation is about, and the address where to.
    fn arguments(&mut self) -> Result<(Vec<WSABUF>, Option<Name>), i32> {
        Ok(match &mut self.operation {
            Operation::ReceiveInto { buffer, .. } => (vec![room(buffer)], None),
            Operation::SendOne { buffer, skip, .. } => (slices([&*buffer], *skip), None),
            Operation::Send { buffers, skip, .. } => (slices(&*buffers, *skip), None),
            Operation::SendTo { buffers, address, .. } => {
                let name = address.as_ref().map(Name::new).transpose();
                (slices(&*buffers, 0), name.map_err(|error| number(&error))?)
            }
            _ => return Err(WSAEINVAL),
        })
    }

    /// Starts what reads or writes a pipe once.
    fn begin_of_file(&mut self) -> Begun {
        let fd = handle(self.fd());
        let (start, len, writes) = match &mut self.operation {
            Operation::Read { buffer, .. } => {
                let (start, len) = buffer.room();
                (start, len, false)
            }
            Operation::Write { buffers, skip, .. } => {
                let parts = slices(&*buffers, *skip);
                if let [part] = &parts[..] {
                    (part.buf, part.len as usize, true)
                } else {
                    let joined = join(buffers, *skip);
                    let joined = {
                        let packet = self.packet();
                        packet.message.joined = joined;
                        &mut packet.message.joined
                    };
                    (joined.as_mut_ptr(), joined.len(), true)
                }
            }
            _ => return Begun::Ended(Err(WSAEINVAL)),
        };
        let overlapped = self.packet().start();
        let len = length(len);
        // SAFETY: the memory and the packet stay.
        let result = unsafe {
            if writes {
                WriteFile(fd, start, len, ptr::null_mut(), overlapped)
            } else {
                ReadFile(fd, start, len, ptr::null_mut(), overlapped)
            }
        };
        match of_file(result) {
            Begun::Ended(result) => Begun::Ended(self.end_of_pipe(result)),
            begun => begun,
        }
    }

    /// Starts a read of a pipe into a shared buffer.
    fn receive_of_pipe(&mut self, buffers: &mut Buffers) -> Begun {
        let Some(buffer) = self.buffer.or_else(|| buffers.take()) else { return Begun::Starved };
        self.buffer = Some(buffer);
        let memory = buffers.memory(buffer);
        let (start, len) = (memory.as_mut_ptr(), memory.len());
        let len = length(len);
        let fd = handle(self.fd());
        let overlapped = self.packet().start();
        // SAFETY: the buffer is this operation's alone until the packet comes, and the packet stays.
        let result = unsafe { ReadFile(fd, start, len, ptr::null_mut(), overlapped) };
        match of_file(result) {
            Begun::Ended(result) => Begun::Ended(self.end_of_pipe(result)),
            begun => begun,
        }
    }

    /// What a pipe without a writer means to whoever reads: its end.
    pub(super) fn end_of_pipe(&self, result: Result<usize, i32>) -> Result<usize, i32> {
        let reads = matches!(self.operation, Operation::Read { .. } | Operation::Receive { .. });
        match result.map_err(i32::cast_unsigned) {
            Err(ERROR_BROKEN_PIPE | ERROR_HANDLE_EOF | ERROR_PIPE_NOT_CONNECTED) if reads => Ok(0),
            _ => result,
        }
    }
}

/// What a call of Winsock says of an overlapped operation. `told`: whether a packet comes of one that
/// has ended at once.
pub(super) fn of_socket(result: i32, moved: u32, told: Told) -> Begun {
    if result == 0 {
        return if told == Told::Everything {
            Begun::Pending
        } else {
            Begun::Ended(Ok(moved as usize))
        };
    }
    match last_error() {
        WSA_IO_PENDING => Begun::Pending,
        error => Begun::Ended(Err(status::winsock_of_win32(error))),
    }
}

/// What a call says of an overlapped operation of a file, of which the port is always told.
pub(super) fn of_file(result: i32) -> Begun {
    if result != 0 {
        return Begun::Pending;
    }
    match last_error().cast_unsigned() {
        // Of a message that was cut there is a packet, as the kernel calls that no error.
        ERROR_IO_PENDING | ERROR_MORE_DATA => Begun::Pending,
        error => Begun::Ended(Err(error.cast_signed())),
    }
}

fn shut_down(fd: RawFd, direction: Shutdown) -> Result<Begun, i32> {
    let how = match direction {
        Shutdown::Read => SD_RECEIVE,
        Shutdown::Write => SD_SEND,
        Shutdown::Both => SD_BOTH,
    };
    // SAFETY: no pointers.
    let result = unsafe { shutdown(socket(fd), how) };
    if result == 0 { Ok(Begun::Ended(Ok(0))) } else { Err(last_error()) }
}

fn room(buffer: &mut impl LentMut) -> WSABUF {
    let (start, len) = buffer.room();
    WSABUF { buf: start, len: length(len) }
}

fn slices<'a, B: Lent>(buffers: impl IntoIterator<Item = &'a B>, mut skip: usize) -> Vec<WSABUF> {
    let slice = |buffer: &B| {
        let bytes = buffer.bytes().get(std::mem::take(&mut skip)..).unwrap_or_default();
        WSABUF { buf: bytes.as_ptr().cast_mut(), len: length(bytes.len()) }
    };
    buffers.into_iter().take(MAX_SLICES).map(slice).collect()
}

fn join<B: Lent>(buffers: &[B], mut skip: usize) -> Vec<u8> {
    let mut joined = Vec::new();
    for buffer in buffers {
        let bytes = buffer.bytes().get(std::mem::take(&mut skip)..);
        joined.extend_from_slice(bytes.unwrap_or_default());
    }
    joined
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
