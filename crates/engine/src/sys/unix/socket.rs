//! Sockets: the calls that transports make.
//!
//! Each function is one system call and retries nothing: EAGAIN is `ErrorKind::WouldBlock`, EINTR
//! `ErrorKind::Interrupted`. No data is copied, no function raises SIGPIPE, and none that sends or
//! receives ever blocks, whatever the mode of the socket: a user may hand us one that he has made
//! blocking. (Sending to that one may block on macOS, which has the flag for receiving alone: XNU,
//! `sosendcheck`.)
#![allow(unsafe_code)] // calls that tell an address

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, SendAncillaryBuffer, Shutdown, sendmsg, shutdown, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::address::told;
use super::create;
use crate::Address;
use crate::sys::MAX_SLICES;
use crate::sys::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Two connected sockets of streams, both non-blocking and close-on-exec: socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (left, right) = UnixStream::pair()?;
    left.set_nonblocking(true)?;
    right.set_nonblocking(true)?;
    Ok((left.into(), right.into()))
}

/// socket(2), non-blocking and close-on-exec.
pub fn create(domain: Domain, type_: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    create::socket(domain, type_, protocol)
}

/// accept(2): a connection, non-blocking and close-on-exec, and the address of its peer.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let (connection, peer) = create::accept(listener)?;
    Ok((connection, peer.unwrap_or(Address::Other)))
}

/// recv(2): how many bytes came; 0 is the end of the stream.
#[inline]
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(fd, buffer, RecvFlags::DONTWAIT)?.1)
}

/// recv(2) into memory that nobody has written to yet; the first bytes, as many as the result
/// says, are initialised then.
#[inline]
pub fn recv_uninit(fd: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    Ok(rustix::net::recv(fd, buffer, RecvFlags::DONTWAIT)?.1)
}

/// send(2): how many bytes the kernel took.
#[inline]
pub fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    create::sent(rustix::net::send(fd, data, create::SEND_FLAGS))
}

/// sendmsg(2) of the first [`MAX_SLICES`] slices: how many bytes the kernel took.
#[inline]
pub fn send_vectored(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let slices = &slices[..slices.len().min(MAX_SLICES)];
    let mut no_control = SendAncillaryBuffer::default();
    create::sent(sendmsg(fd, slices, &mut no_control, create::SEND_FLAGS))
}

/// shutdown(2) of the sending side: the peer reads the end of the stream after what was sent.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(shutdown(fd, Shutdown::Write)?)
}

/// getsockname(2).
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    // SAFETY: the descriptor is open, and the name and its length are valid for writes.
    let ((), name) =
        told(|name, len| done(unsafe { libc::getsockname(fd.as_raw_fd(), name, len) }))?;
    Ok(name.unwrap_or(Address::Other))
}

/// getpeername(2). ENOTCONN when there is no peer; on macOS EINVAL, too, when it has gone.
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    // SAFETY: as above.
    let ((), name) =
        told(|name, len| done(unsafe { libc::getpeername(fd.as_raw_fd(), name, len) }))?;
    Ok(name.unwrap_or(Address::Other))
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets `TCP_NODELAY`: small sends leave at once.
pub fn set_nodelay(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_tcp_nodelay(fd, true)?)
}

/// Takes `SO_ERROR`: what became of a non-blocking connect, `None` when it went well. Reading
/// clears it.
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    Ok(sockopt::socket_error(fd)?.err().map(io::Error::from))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;
    use crate::sys::fd::AsFd;

    #[test]
    fn accepted_connections() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let nobody = accept(listener.as_fd()).expect_err("nobody has connected");
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
        let client = TcpStream::connect(listener.local_addr()?)?;
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)],
            None,
        )?;
        let (server, peer) = accept(listener.as_fd())?;
        assert_eq!(peer, Address::from(client.local_addr()?));
        assert_eq!(peer_address(server.as_fd())?, peer);
        assert_eq!(local_address(server.as_fd())?, Address::from(listener.local_addr()?));
        assert!(fcntl_getfd(&server)?.contains(FdFlags::CLOEXEC));
        let nothing = recv(server.as_fd(), &mut [0]).expect_err("nothing was sent");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        set_nodelay(server.as_fd())?;
        assert!(sockopt::tcp_nodelay(&server)?);
        assert!(take_error(server.as_fd())?.is_none());
        Ok(())
    }

    #[test]
    fn both_ways_of_sending_and_receiving() -> io::Result<()> {
        let (left, right) = pair()?;
        assert_eq!(send(left.as_fd(), b"ab")?, 2);
        assert_eq!(send_vectored(left.as_fd(), &[IoSlice::new(b"cd"), IoSlice::new(b"e")])?, 3);
        let mut buffer = [0; 8];
        assert_eq!(recv(right.as_fd(), &mut buffer[..3])?, 3);
        assert_eq!(&buffer[..3], b"abc");
        let mut rest = [MaybeUninit::uninit(); 8];
        assert_eq!(recv_uninit(right.as_fd(), &mut rest)?, 2);
        shutdown_write(left.as_fd())?;
        assert_eq!(recv(right.as_fd(), &mut buffer)?, 0);
        let slices = vec![IoSlice::new(b"x"); MAX_SLICES + 1];
        assert_eq!(send_vectored(right.as_fd(), &slices)?, MAX_SLICES);
        Ok(())
    }

    #[test]
    fn a_closed_peer_is_an_error_and_not_a_signal() -> io::Result<()> {
        let (left, right) = pair()?;
        drop(right);
        // Rust's runtime ignores SIGPIPE, so that the signal itself would not be seen here.
        let error = send(left.as_fd(), b"x").expect_err("the peer is gone");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        Ok(())
    }

    #[test]
    fn errors_of_connecting_are_taken_once() -> io::Result<()> {
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let client = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )?;
        rustix::io::ioctl_fionbio(&client, true)?;
        match rustix::net::connect(&client, &gone) {
            Err(rustix::io::Errno::INPROGRESS) => {
                rustix::event::poll(
                    &mut [rustix::event::PollFd::new(&client, rustix::event::PollFlags::OUT)],
                    None,
                )?;
                let error = take_error(client.as_fd())?.expect("nobody listens");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                assert!(take_error(client.as_fd())?.is_none());
            }
            result => assert_eq!(result, Err(rustix::io::Errno::CONNREFUSED)),
        }
        Ok(())
    }
}
