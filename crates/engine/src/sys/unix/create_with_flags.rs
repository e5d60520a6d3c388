//! Making descriptors that are non-blocking and close-on-exec from the start.
//!
//! `accept4` and `pipe2` leave no moment in which another thread's fork could inherit them, and
//! `MSG_NOSIGNAL` keeps SIGPIPE away send by send.
#![allow(unsafe_code)] // accept4, of which the address is read by ourselves

use std::io;

use super::address::told;
use crate::Address;
use crate::sys::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Result;
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use socket2::{Domain, Protocol, Socket, Type};

/// Sending to a closed peer is EPIPE and not a signal.
pub(super) const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<Address>)> {
    const FLAGS: libc::c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    told(|name, len| {
        // SAFETY: the listener is open, and the name and its length are valid for writes.
        match unsafe { libc::accept4(listener.as_raw_fd(), name, len, FLAGS) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel has just made it, and it is nobody else's.
            connection => Ok(unsafe { OwnedFd::from_raw_fd(connection) }),
        }
    })
}

/// What became of a send.
#[inline]
pub(super) fn sent(result: Result<usize>) -> io::Result<usize> {
    Ok(result?)
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
