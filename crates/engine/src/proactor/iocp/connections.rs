//! How connections begin: those that somebody makes, and those that are made to us.
//!
//! What surprised us: `ConnectEx` wants a socket that is bound, `AcceptEx` one that is not, and neither makes what
//! comes of it a connection in the eyes of `getpeername` and `shutdown`: that is an option to be set afterwards.
#![allow(unsafe_code)] // addresses for the kernel

use std::ptr;

use windows_sys::Win32::Foundation::ERROR_PIPE_CONNECTED;
use windows_sys::Win32::Networking::WinSock::{
    SO_TYPE, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, WSA_FLAG_NO_HANDLE_INHERIT, WSA_FLAG_OVERLAPPED,
    WSAEAFNOSUPPORT, WSAEINVAL, WSASocketW, bind, connect,
};
use windows_sys::Win32::System::Pipes::ConnectNamedPipe;

use super::super::{Lent, LentMut, Operation};
use super::begin::{Begun, of_file, of_socket};
use super::in_flight::{ACCEPTED_NAME, InFlight, Told};
use super::kernel::{Kernel, last_error, number};
use crate::Address;
use crate::sys::address::Name;
use crate::sys::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd, handle, owned_socket, socket};
use crate::sys::{numbers, os_error, socket as winsock};

impl<B: Lent, M: LentMut> InFlight<B, M> {
    /// Waits for a client of this instance of a named pipe.
    pub(super) fn accept_of_pipe(&mut self) -> Begun {
        const FASTER: i32 = ERROR_PIPE_CONNECTED.cast_signed();
        let (fd, polls) = (self.fd(), matches!(self.operation, Operation::Poll { .. }));
        let overlapped = self.packet().start();
        // SAFETY: the packet stays.
        let result = unsafe { ConnectNamedPipe(handle(fd), overlapped) };
        match of_file(result) {
            Begun::Ended(Err(FASTER)) => Begun::Ended(Ok(0)),
            // He has gone again; what he has written is there.
            Begun::Ended(Err(os_error::EPIPE)) if polls => Begun::Ended(Ok(0)),
            begun => begun,
        }
    }

    pub(super) fn begin_accepting(
        &mut self,
        kernel: &mut Kernel,
        told: Told,
    ) -> Result<Begun, i32> {
        let fd = self.fd();
        let accept = kernel.accept(fd)?.ok_or(WSAEINVAL)?;
        let packet = self.packet();
        let overlapped = packet.start();
        let message = &mut packet.message;
        if message.accepted.is_none() {
            message.accepted = Some(new_socket(fd)?);
        }
        let accepted = message.accepted.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let names = message.names.get_or_insert_with(|| Box::new([0; 2 * ACCEPTED_NAME]));
        let room = u32::try_from(ACCEPTED_NAME).unwrap_or(0);
        let mut moved = 0;
        // SAFETY: the names, the sockets and the packet stay.
        let result = unsafe {
            let (listener, accepted) = (socket(fd), socket(accepted));
            let names = names.as_mut_ptr().cast();
            accept(listener, accepted, names, 0, room, room, &raw mut moved, overlapped)
        };
        Ok(of_socket(if result == 0 { -1 } else { 0 }, moved, told))
    }

    pub(super) fn connect(
        &mut self,
        kernel: &mut Kernel,
        address: &Address,
        told: Told,
    ) -> Result<Begun, i32> {
        let fd = self.fd();
        let name = Name::new(address).map_err(|error| number(&error))?;
        if winsock::option(fd, SOL_SOCKET, SO_TYPE).map_err(|error| number(&error))? == SOCK_DGRAM {
            // Nothing is sent, so there is nothing to wait for.
            // SAFETY: the name is valid for reads.
            let result = unsafe { connect(socket(fd), name.as_ptr(), name.len()) };
            return if result == 0 { Ok(Begun::Ended(Ok(0))) } else { Err(last_error()) };
        }
        let any = Name::any(address).map_err(|error| number(&error))?;
        // SAFETY: the name is valid for reads.
        if unsafe { bind(socket(fd), any.as_ptr(), any.len()) } != 0 {
            match last_error() {
                // It is bound.
                WSAEINVAL => {}
                error => return Err(error),
            }
        }
        let connect = kernel.connect(fd)?.ok_or(WSAEINVAL)?;
        let packet = self.packet();
        let overlapped = packet.start();
        let name = packet.message.name.insert(Box::new(name));
        let mut moved = 0;
        // SAFETY: the name and the packet stay.
        let result = unsafe {
            let (name, len) = (name.as_ptr(), name.len());
            connect(socket(fd), name, len, ptr::null(), 0, &raw mut moved, overlapped)
        };
        Ok(of_socket(if result == 0 { -1 } else { 0 }, moved, told))
    }
}

/// The family of a listener; `None` if it is one that we know no more of.
pub(super) fn family(fd: RawFd) -> Result<Option<i32>, i32> {
    // SAFETY: the descriptor is the operation's for this call.
    let listener = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(match winsock::local_address(listener).map_err(|error| number(&error))? {
        Address::V4(_) => Some(numbers::AF_INET),
        Address::V6(_) => Some(numbers::AF_INET6),
        Address::Other => None,
        _ => Some(numbers::AF_UNIX),
    })
}

/// A socket for a connection to the listener `fd`.
fn new_socket(fd: RawFd) -> Result<OwnedFd, i32> {
    let family = family(fd)?.ok_or(WSAEAFNOSUPPORT)?;
    let flags = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;
    // SAFETY: no pointers that are not null; the socket is made for us.
    let made = unsafe { owned_socket(WSASocketW(family, SOCK_STREAM, 0, ptr::null(), 0, flags)) };
    made.map_err(|error| number(&error))
}
