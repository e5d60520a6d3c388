//! Making descriptors non-blocking and close-on-exec on macOS, which has neither `accept4` nor
//! `pipe2`: a fork in between inherits them, as it does in Python.
//!
//! SIGPIPE is kept away by the socket option `SO_NOSIGPIPE`, as `MSG_NOSIGNAL` is not there before
//! macOS 15.

use std::io;

use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{FdFlags, Result, fcntl_setfd, ioctl_fionbio};
use rustix::net::sockopt::set_socket_nosigpipe;
use rustix::net::{SendFlags, SocketAddrAny, acceptfrom};
use socket2::{Domain, Protocol, Socket, Type};

pub(super) const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;

pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (connection, peer) = acceptfrom(listener)?;
    set_flags(connection.as_fd())?;
    set_socket_nosigpipe(&connection, true)?;
    Ok((connection, peer))
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
