//! Making descriptors that are non-blocking and close-on-exec from the start.
//!
//! `accept4` and `pipe2` leave no moment in which another thread's fork could inherit them, and
//! `MSG_NOSIGNAL` keeps SIGPIPE away send by send.

use std::io;

use crate::sys::fd::{BorrowedFd, OwnedFd};

use rustix::io::Result;
use rustix::net::{SendFlags, SocketAddrAny, SocketFlags, acceptfrom_with};
use rustix::pipe::{PipeFlags, pipe_with};
use socket2::{Domain, Protocol, Socket, Type};

/// Sending to a closed peer is EPIPE and not a signal.
pub(super) const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
    acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
}

pub(super) fn socket(
    domain: Domain,
    type_: Type,
    protocol: Option<Protocol>,
) -> io::Result<Socket> {
    Socket::new_raw(domain, type_.nonblocking().cloexec(), protocol)
}

pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
}
