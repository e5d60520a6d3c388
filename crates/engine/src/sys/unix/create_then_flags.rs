//! Making descriptors non-blocking and close-on-exec on macOS, which has neither `accept4` nor
//! `pipe2`: a fork in between inherits them, as it does in Python.
//!
//! SIGPIPE is kept away by the socket option `SO_NOSIGPIPE`, as `MSG_NOSIGNAL` is not there before
//! macOS 15. A socket that the user has made has it if he has set it: Python ignores the signal.
#![allow(unsafe_code)] // accept, of which the address is read by ourselves

use std::io;

use super::address::told;
use crate::Address;
use crate::sys::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, FdFlags, Result, fcntl_setfd, ioctl_fionbio};
use rustix::net::SendFlags;
use rustix::net::sockopt::set_socket_nosigpipe;
use socket2::{Domain, Protocol, Socket, Type};

pub(super) const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;

pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<Address>)> {
    let (connection, peer) = told(|name, len| {
        // SAFETY: the listener is open, and the name and its length are valid for writes.
        match unsafe { libc::accept(listener.as_raw_fd(), name, len) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel has just made it, and it is nobody else's.
            connection => Ok(unsafe { OwnedFd::from_raw_fd(connection) }),
        }
    })?;
    set_flags(connection.as_fd())?;
    match set_socket_nosigpipe(&connection, true) {
        // The peer has reset it already, and no option can be set any more (setsockopt(2) of macOS): a
        // connection nevertheless, which reading finds out about.
        Ok(()) | Err(Errno::INVAL) => Ok((connection, peer)),
        Err(error) => Err(error.into()),
    }
}

/// What became of a send: EPROTOTYPE is that of a connection which has been reset meanwhile, or which a VPN
/// took over (XNU, `tcp_usr_send`; libuv's #3413), and says so of it, but means ECONNRESET.
#[inline]
pub(super) fn sent(result: Result<usize>) -> io::Result<usize> {
    match result {
        Err(Errno::PROTOTYPE) => Err(Errno::CONNRESET.into()),
        result => Ok(result?),
    }
}

pub(super) fn socket(
    domain: Domain,
    type_: Type,
    protocol: Option<Protocol>,
) -> io::Result<Socket> {
    // Close-on-exec and without SIGPIPE already.
    let socket = Socket::new(domain, type_, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe()?;
    set_flags(reader.as_fd())?;
    set_flags(writer.as_fd())?;
    Ok((reader, writer))
}

fn set_flags(fd: BorrowedFd<'_>) -> Result<()> {
    fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    ioctl_fionbio(fd, true)
}
