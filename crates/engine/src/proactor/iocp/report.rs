//! What the kernel says of operations, and what their owners are told.
#![allow(unsafe_code)] // sockets that the kernel has connected

use std::io;
use std::mem;

use windows_sys::Win32::Networking::WinSock::{
    SO_UPDATE_ACCEPT_CONTEXT, SO_UPDATE_CONNECT_CONTEXT, SOL_SOCKET, WSAECONNABORTED,
    WSAECONNRESET, setsockopt,
};

use super::super::{Chunk, Completion, Completions, Lent, LentMut, Operation, Returned};
use super::Iocp;
use super::afd::Found;
use super::in_flight::File;
use super::kernel::number;
use crate::Token;
use crate::sys::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd, socket};
use crate::sys::{datagram, os_error, socket as winsock};

impl<B: Lent, M: LentMut> Iocp<B, M> {
    /// The packet of an operation has come.
    pub(super) fn complete(&mut self, token: Token, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        operation.resting = true;
        operation.wait = None;
        let result = operation.result();
        if mem::take(&mut operation.guarded) {
            operation.driver = None;
            return match result {
                Ok(_) if operation.is_closed() => {
                    self.finish(token, Err(os_error::EBADF), completions);
                }
                _ => self.rest(token, completions),
            };
        }
        let result = match (operation.file, &operation.operation) {
            (File::Pipe, _) => operation.end_of_pipe(result),
            // That is of the connection. Of what is wrong with the listener the next start tells.
            (_, Operation::Accept { .. }) if !operation.polls_to_accept() => {
                result.or(Err(WSAECONNRESET))
            }
            _ => result,
        };
        self.ended(token, result, completions);
    }

    /// An operation is the kernel's no longer.
    pub(super) fn ended(
        &mut self,
        token: Token,
        result: Result<usize, i32>,
        completions: &mut Completions<B, M>,
    ) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        match (&operation.operation, operation.file) {
            (Operation::Accept { .. }, File::Socket(_)) if operation.polls_to_accept() => {
                match result {
                    Ok(_) if operation.is_closed() => {
                        self.finish(token, Err(os_error::EBADF), completions);
                    }
                    Ok(_) => self.accept(token, completions),
                    Err(error) => self.end_of_what_goes_on(token, error, completions),
                }
            }
            (Operation::Accept { .. }, File::Socket(_)) => {
                self.end_accepting(token, result, completions);
            }
            (Operation::Receive { .. }, File::Socket(_)) | (Operation::ReceiveFrom { .. }, _)
                if result.is_ok() && operation.is_closed() =>
            {
                self.finish(token, Err(os_error::EBADF), completions);
            }
            (Operation::Receive { .. }, File::Socket(_)) => match result {
                Ok(_) => self.receive(token, completions),
                Err(error) => self.end_of_what_goes_on(token, error, completions),
            },
            (Operation::ReceiveFrom { .. }, _) => match result {
                Ok(_) => self.receive_from(token, completions),
                Err(error) => self.finish(token, Err(error), completions),
            },
            (Operation::Receive { .. }, _) => self.end_reading(token, result, completions),
            (Operation::Poll { .. }, _) => match result {
                Ok(_) => self.end_polling(token, completions),
                Err(error) => self.end_of_what_goes_on(token, error, completions),
            },
            (Operation::Connect { fd, .. }, _) if result.is_ok() => {
                let fd = *fd;
                // A datagram's socket needs it not, and refuses.
                // SAFETY: the option has no value.
                unsafe {
                    let option = SO_UPDATE_CONNECT_CONTEXT;
                    setsockopt(socket(fd), SOL_SOCKET, option, std::ptr::null(), 0)
                };
                self.finish(token, Ok(0), completions);
            }
            _ => self.finish(token, result, completions),
        }
    }

    /// An error of something that goes on. The kernel's cancellation is one if the owner wanted it,
    /// and otherwise the end of the thread that has submitted it, or of the descriptor, which the
    /// next start tells.
    fn end_of_what_goes_on(
        &mut self,
        token: Token,
        error: i32,
        completions: &mut Completions<B, M>,
    ) {
        if error == os_error::ECANCELED {
            self.rest(token, completions);
        } else {
            self.finish(token, Err(error), completions);
        }
    }

    fn end_accepting(
        &mut self,
        token: Token,
        result: Result<usize, i32>,
        completions: &mut Completions<B, M>,
    ) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        let accepted = operation.packet.as_mut().and_then(|packet| packet.message.accepted.take());
        match (result, accepted) {
            (Ok(_), Some(connection)) => match adopt(operation.fd(), &connection) {
                Ok(()) => {
                    self.go_on(token, 0, Returned::Connection(connection), completions);
                }
                // The peer has gone.
                Err(_) => self.rest(token, completions),
            },
            (Err(WSAECONNRESET | WSAECONNABORTED), _) => self.rest(token, completions),
            (Err(error), _) => self.end_of_what_goes_on(token, error, completions),
            (Ok(_), None) => self.finish(token, Err(os_error::EINVAL), completions),
        }
    }

    /// There is somebody to accept, as a poll says.
    fn accept(&mut self, token: Token, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        if operation.cancelled {
            // He waits for whoever comes next.
            return self.finish(token, Err(os_error::ECANCELED), completions);
        }
        // SAFETY: the descriptor is the operation's for this call.
        let listener = unsafe { BorrowedFd::borrow_raw(operation.fd()) };
        match winsock::accept(listener) {
            Ok((connection, _)) => {
                self.go_on(token, 0, Returned::Connection(connection), completions);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.rest(token, completions);
            }
            Err(error) => match number(&error) {
                WSAECONNRESET | WSAECONNABORTED => self.rest(token, completions),
                error => self.finish(token, Err(error), completions),
            },
        }
    }

    /// There is something to receive.
    fn receive(&mut self, token: Token, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        if operation.cancelled {
            // It stays in the kernel.
            return self.finish(token, Err(os_error::ECANCELED), completions);
        }
        let Some(buffer) = self.buffers.take() else { return self.starved.push(token) };
        let memory = self.buffers.memory(buffer);
        let fd = operation.fd();
        // SAFETY: the memory is valid for writes of that length.
        let received = unsafe { winsock::recv_raw(fd, memory.as_mut_ptr(), memory.len()) };
        match received {
            Ok(len) if len > 0 => {
                let chunk = chunk(buffer, len);
                return self.go_on(token, len, Returned::Chunk(chunk), completions);
            }
            Ok(_) => self.finish(token, Ok(0), completions),
            // Somebody else has received it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.rest(token, completions);
            }
            Err(error) => self.finish(token, Err(number(&error)), completions),
        }
        self.buffers.recycle(buffer);
    }

    /// There is a datagram to receive, or an error of an earlier one.
    fn receive_from(&mut self, token: Token, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        if operation.cancelled {
            return self.finish(token, Err(os_error::ECANCELED), completions);
        }
        let fd = operation.fd();
        let Operation::ReceiveFrom { buffer, .. } = &mut operation.operation else { return };
        let (start, len) = buffer.room();
        // SAFETY: the memory is valid for writes of that length.
        match unsafe { datagram::receive_from_raw(fd, start, len) } {
            Ok((received, sender)) => {
                operation.sender = sender;
                self.finish(token, Ok(received), completions);
            }
            // Somebody else has received it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.resting.push(token);
            }
            Err(error) => self.finish(token, Err(number(&error)), completions),
        }
    }

    /// A pipe was read, or not.
    fn end_reading(
        &mut self,
        token: Token,
        result: Result<usize, i32>,
        completions: &mut Completions<B, M>,
    ) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        let buffer = operation.buffer.take();
        match (result, buffer) {
            (Ok(len), Some(buffer)) if len > 0 => {
                let chunk = chunk(buffer, len);
                return self.go_on(token, len, Returned::Chunk(chunk), completions);
            }
            (Ok(_), _) => self.finish(token, Ok(0), completions),
            (Err(error), _) => self.end_of_what_goes_on(token, error, completions),
        }
        if let Some(buffer) = buffer {
            self.buffers.recycle(buffer);
        }
    }

    fn end_polling(&mut self, token: Token, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        let Operation::Poll { interest, .. } = operation.operation else { return };
        let found = match &operation.packet {
            Some(packet) if matches!(operation.file, File::Socket(_)) => {
                packet.poll.found(interest)
            }
            _ => Found::Ready(interest),
        };
        match found {
            Found::Closed => self.finish(token, Err(os_error::EBADF), completions),
            Found::Ready(readiness) if readiness.is_empty() => self.rest(token, completions),
            Found::Ready(readiness) => {
                self.go_on(token, 0, Returned::Readiness(readiness), completions);
            }
        }
    }

    /// Reports something of an operation that goes on.
    fn go_on(
        &mut self,
        token: Token,
        moved: usize,
        returned: Returned<B, M>,
        completions: &mut Completions<B, M>,
    ) {
        let Some(operation) = self.in_flight.get(token) else { return };
        let owner = operation.owner;
        let completion = Completion { token, owner, result: Ok(moved), returned, more: true };
        let accepts = matches!(operation.operation, Operation::Accept { .. });
        completions.list.push(completion);
        self.rest(token, completions);
        if accepts {
            self.accepting = true;
        }
    }

    /// Lets an operation that is to go on be started again, unless it was cancelled.
    fn rest(&mut self, token: Token, completions: &mut Completions<B, M>) {
        match self.in_flight.get(token) {
            Some(operation) if !operation.cancelled => self.resting.push(token),
            _ => self.finish(token, Err(os_error::ECANCELED), completions),
        }
    }

    /// Reports the last completion of an operation.
    pub(super) fn finish(
        &mut self,
        token: Token,
        result: Result<usize, i32>,
        completions: &mut Completions<B, M>,
    ) {
        let Some(operation) = self.in_flight.remove(token) else { return };
        let owner = operation.owner;
        let result = result.map_err(io::Error::from_raw_os_error);
        let returned = operation.finish(&result);
        completions.list.push(Completion { token, owner, result, returned, more: false });
    }

    /// Reports what was cancelled while it rested.
    #[inline]
    pub(super) fn finish_cancelled(&mut self, completions: &mut Completions<B, M>) {
        if !self.cancelled.is_empty() {
            for token in mem::take(&mut self.cancelled) {
                self.finish(token, Err(os_error::ECANCELED), completions);
            }
        }
    }
}

/// Makes a socket that `AcceptEx` has connected one like any other.
fn adopt(listener: RawFd, connection: &OwnedFd) -> io::Result<()> {
    let listener = socket(listener);
    winsock::set_option(connection.as_raw_fd(), SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, &listener)?;
    winsock::prepare(connection)
}

fn chunk(buffer: u16, len: usize) -> Chunk {
    Chunk { buffer, len: u32::try_from(len).unwrap_or(u32::MAX) }
}
