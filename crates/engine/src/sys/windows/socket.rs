//! Sockets: the calls that transports make.
//!
//! Each function is one call of Winsock and retries nothing: WSAEWOULDBLOCK is
//! `ErrorKind::WouldBlock`. No data is copied. Winsock is started by whoever has made the socket.
//!
//! What surprised us: there is no `MSG_DONTWAIT`. A socket that was made blocking blocks, whoever
//! calls; those that are made here are non-blocking.
#![allow(unsafe_code)] // Winsock

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ptr;

use socket2::{Domain, Protocol, Socket, Type};
use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::Networking::WinSock::{
    FIONBIO, IPPROTO_TCP, SD_SEND, SO_ERROR, SOCKET_ERROR, SOL_SOCKET, TCP_NODELAY, WSABUF,
    WSASend, accept as winsock_accept, getpeername, getsockname, getsockopt, ioctlsocket,
    recv as winsock_recv, send as winsock_send, setsockopt, shutdown,
};

use super::address::Name;
use super::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd, handle, owned_socket, socket};
use crate::Address;
use crate::sys::MAX_SLICES;

/// 0, or the error of the call.
pub(crate) fn check(result: i32) -> io::Result<()> {
    if result == SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many bytes, or the error of the call.
fn count(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// How much one call moves at most.
pub(crate) fn length(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// Two connected sockets of streams, both non-blocking and not inherited.
///
/// There is no socketpair: it is a TCP connection over the loopback. Whoever else connects
/// meanwhile is turned away.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let left = TcpStream::connect(listener.local_addr()?)?;
    let ours = left.local_addr()?;
    let right = loop {
        let (right, peer) = listener.accept()?;
        if peer == ours {
            break right;
        }
    };
    let ends = (OwnedFd::from(left), OwnedFd::from(right));
    for end in [&ends.0, &ends.1] {
        // The standard library lets children have what it accepts.
        prepare(end)?;
        set_nodelay(end.as_fd())?;
    }
    Ok(ends)
}

/// `WSASocketW`, non-blocking and not inherited.
pub fn create(domain: Domain, type_: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    let socket = Socket::new(domain, type_, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `accept`: a connection, non-blocking and not inherited, and the address of its peer.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let mut peer = Name::empty();
    let (name, len) = peer.room();
    // SAFETY: name and length are valid for writes, and the socket is made for us.
    let connection =
        unsafe { owned_socket(winsock_accept(socket(listener.as_raw_fd()), name, len))? };
    prepare(&connection)?;
    Ok((connection, peer.address().unwrap_or(Address::UnixUnnamed)))
}

/// Makes a connection that was accepted non-blocking and not inherited.
pub(crate) fn prepare(connection: &OwnedFd) -> io::Result<()> {
    let fd = connection.as_raw_fd();
    // SAFETY: the handle is open. Sockets of layered providers refuse; Python does not mind either.
    unsafe { SetHandleInformation(handle(fd), HANDLE_FLAG_INHERIT, 0) };
    set_nonblocking(fd)
}

pub(crate) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    let mut nonblocking = 1;
    // SAFETY: the argument is valid for reads and writes.
    check(unsafe { ioctlsocket(socket(fd), FIONBIO, &raw mut nonblocking) })
}

/// `recv`: how many bytes came; 0 is the end of the stream.
#[inline]
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the memory is valid for writes of that length.
    unsafe { recv_raw(fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) }
}

/// `recv` into memory that nobody has written to yet; the first bytes, as many as the result
/// says, are initialised then.
#[inline]
pub fn recv_uninit(fd: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    // SAFETY: as above.
    unsafe { recv_raw(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }
}

/// # Safety
/// The memory is valid for writes of `len` bytes.
#[inline]
pub(crate) unsafe fn recv_raw(fd: RawFd, start: *mut u8, len: usize) -> io::Result<usize> {
    // SAFETY: the caller's promise; Winsock checks the socket.
    count(unsafe { winsock_recv(socket(fd), start, length(len), 0) })
}

/// `send`: how many bytes the kernel took.
#[inline]
pub fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the memory is valid for reads of that length.
    count(unsafe { winsock_send(socket(fd.as_raw_fd()), data.as_ptr(), length(data.len()), 0) })
}

/// `WSASend` of the first [`MAX_SLICES`] slices: how many bytes the kernel took.
#[inline]
pub fn send_vectored(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let count = slices.len().min(MAX_SLICES).try_into().unwrap_or(u32::MAX);
    let mut sent = 0;
    // SAFETY: an `IoSlice` is a `WSABUF`, as its documentation has it, and what it points to is
    // borrowed; the count is valid for writes.
    check(unsafe {
        WSASend(
            socket(fd.as_raw_fd()),
            slices.as_ptr().cast::<WSABUF>(),
            count,
            &raw mut sent,
            0,
            ptr::null_mut(),
            None,
        )
    })?;
    Ok(sent as usize)
}

/// `shutdown` of the sending side: the peer reads the end of the stream after what was sent.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { shutdown(socket(fd.as_raw_fd()), SD_SEND) })
}

/// `getsockname`. WSAEINVAL for a socket that is not bound.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    let mut name = Name::empty();
    let (start, len) = name.room();
    // SAFETY: name and length are valid for writes.
    check(unsafe { getsockname(socket(fd.as_raw_fd()), start, len) })?;
    Ok(name.address().unwrap_or(Address::UnixUnnamed))
}

/// `getpeername`. WSAENOTCONN when there is no peer.
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    let mut name = Name::empty();
    let (start, len) = name.room();
    // SAFETY: name and length are valid for writes.
    check(unsafe { getpeername(socket(fd.as_raw_fd()), start, len) })?;
    Ok(name.address().unwrap_or(Address::UnixUnnamed))
}

/// Sets an option that is a number or a handle, or nothing.
pub(crate) fn set_option<V>(fd: RawFd, level: i32, option: i32, value: &V) -> io::Result<()> {
    let start = ptr::from_ref(value).cast();
    // SAFETY: the value is valid for reads of its size.
    check(unsafe { setsockopt(socket(fd), level, option, start, length(size_of::<V>())) })
}

/// Sets `TCP_NODELAY`: small sends leave at once.
pub fn set_nodelay(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd.as_raw_fd(), IPPROTO_TCP, TCP_NODELAY, &1_i32)
}

/// An option that is a number.
pub(crate) fn option(fd: RawFd, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut len = length(size_of_val(&value));
    let start = (&raw mut value).cast();
    // SAFETY: value and length are valid for writes.
    check(unsafe { getsockopt(socket(fd), level, option, start, &raw mut len) })?;
    Ok(value)
}

/// Takes `SO_ERROR`: what became of a non-blocking connect, `None` when it went well. Reading does
/// not clear it here.
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    let error = option(fd.as_raw_fd(), SOL_SOCKET, SO_ERROR)?;
    Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::Foundation::GetHandleInformation;

    use super::*;

    #[test]
    fn children_have_no_end_of_a_pair() -> io::Result<()> {
        let (left, right) = pair()?;
        for end in [left, right] {
            let mut flags = HANDLE_FLAG_INHERIT;
            // SAFETY: the flags are valid for writes.
            assert_ne!(unsafe { GetHandleInformation(handle(end.as_raw_fd()), &raw mut flags) }, 0);
            assert_eq!(flags & HANDLE_FLAG_INHERIT, 0);
        }
        Ok(())
    }

    #[test]
    fn accepted_connections() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        // The listener blocks, the connection does not.
        let (server, peer) = accept(listener.as_fd())?;
        assert_eq!(peer, Address::from(client.local_addr()?));
        assert_eq!(peer_address(server.as_fd())?, peer);
        assert_eq!(local_address(server.as_fd())?, Address::from(listener.local_addr()?));
        let nothing = recv(server.as_fd(), &mut [0]).expect_err("nothing was sent");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        set_nodelay(server.as_fd())?;
        assert_ne!(option(server.as_raw_fd(), IPPROTO_TCP, TCP_NODELAY)?, 0);
        assert!(take_error(server.as_fd())?.is_none());
        listener.set_nonblocking(true)?;
        let nobody = accept(listener.as_fd()).expect_err("nobody has connected");
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
        Ok(())
    }

    /// Receives until `count` bytes are there.
    fn receive(fd: BorrowedFd<'_>, count: usize) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        while received.len() < count {
            let mut buffer = [MaybeUninit::new(0); 8];
            match recv_uninit(fd, &mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    // SAFETY: all of it is initialised.
                    let bytes = buffer[..len].iter().map(|byte| unsafe { byte.assume_init() });
                    received.extend(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(received)
    }

    #[test]
    fn both_ways_of_sending_and_receiving() -> io::Result<()> {
        let (left, right) = pair()?;
        assert_eq!(send(left.as_fd(), b"ab")?, 2);
        assert_eq!(send_vectored(left.as_fd(), &[IoSlice::new(b"cd"), IoSlice::new(b"e")])?, 3);
        assert_eq!(receive(right.as_fd(), 5)?, b"abcde");
        shutdown_write(left.as_fd())?;
        assert_eq!(receive(right.as_fd(), 1)?, b"");
        let slices = vec![IoSlice::new(b"x"); MAX_SLICES + 1];
        assert_eq!(send_vectored(right.as_fd(), &slices)?, MAX_SLICES);
        Ok(())
    }
}
