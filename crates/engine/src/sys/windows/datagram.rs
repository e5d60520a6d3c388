//! Datagrams, with the addresses that they come from and go to.
//!
//! As for streams, a call here retries nothing. What surprised us: a datagram that is longer than
//! the buffer is an error (WSAEMSGSIZE), although what fits is in the buffer; and that nobody has
//! received an earlier one is told by the next call as WSAECONNRESET, connected or not.
#![allow(unsafe_code)] // Winsock

use std::io;
use std::net::SocketAddr;

use windows_sys::Win32::Networking::WinSock::{WSAEMSGSIZE, recvfrom, sendto};

use super::address::Name;
use super::fd::{AsRawFd, BorrowedFd, RawFd, socket};
use super::socket::{check, length};
use crate::Address;
pub use crate::sys::outgoing::Outgoing;
pub use crate::sys::send_one_by_one::send_many;

/// Room for the largest datagram of the internet protocols.
const SIZE: usize = 64 * 1024;

/// `recvfrom`: the length of one datagram, cut to the buffer's, and the address of its sender if
/// that has one.
pub fn receive_from(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Address>)> {
    // SAFETY: the buffer is valid for writes of its length.
    unsafe { receive_from_raw(fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) }
}

/// # Safety
/// The memory is valid for writes of `len` bytes.
pub(crate) unsafe fn receive_from_raw(
    fd: RawFd,
    start: *mut u8,
    len: usize,
) -> io::Result<(usize, Option<Address>)> {
    let mut sender = Name::empty();
    let (name, name_len) = sender.room();
    // SAFETY: the caller's promise; the name and its length are valid for writes.
    let received = unsafe { recvfrom(socket(fd), start, length(len), 0, name, name_len) };
    let received = match usize::try_from(received) {
        Ok(received) => received,
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(WSAEMSGSIZE) => len,
            error => return Err(error),
        },
    };
    Ok((received, sender.address()))
}

/// `sendto`. A datagram goes as a whole or not at all.
pub fn send_to(fd: BorrowedFd<'_>, data: &[u8], address: &SocketAddr) -> io::Result<()> {
    let name = Name::new(&(*address).into())?;
    // SAFETY: the data and the name are valid for reads.
    check(unsafe {
        sendto(
            socket(fd.as_raw_fd()),
            data.as_ptr(),
            length(data.len()),
            0,
            name.as_ptr(),
            name.len(),
        )
    })
}

/// Where a datagram lands.
#[derive(Debug)]
pub struct Batch {
    memory: Box<[u8]>,
    received: Option<(usize, Option<Address>)>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// How many datagrams one batch has at most. Only one is received, as a second call could take
    /// an error that nobody would be told of.
    pub const LIMIT: usize = 32;

    /// An empty batch.
    pub fn new() -> Self {
        Self { memory: vec![0; SIZE].into_boxed_slice(), received: None }
    }

    /// Receives what waits, at least one datagram; how many there are. What was received before is
    /// gone then.
    pub fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.received = None;
        self.received = Some(receive_from(fd, &mut self.memory)?);
        Ok(1)
    }

    /// What the socket had to say after these: nothing, as the next call says it.
    #[allow(clippy::unused_self)] // elsewhere there is something
    pub const fn take_error(&mut self) -> Option<io::Error> {
        None
    }

    /// The datagram `index` of those that the last call received.
    pub fn data(&self, index: usize) -> &[u8] {
        match &self.received {
            Some((len, _)) if index == 0 => &self.memory[..*len],
            _ => &[],
        }
    }

    /// Who has sent it; `None` for a socket without a name.
    pub fn sender(&self, index: usize) -> Option<Address> {
        self.received.as_ref().filter(|_| index == 0)?.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::fd::AsFd;
    use super::*;

    #[test]
    fn there_and_back() -> io::Result<()> {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (left, right) = (UdpSocket::bind(host)?, UdpSocket::bind(host)?);
            let target = right.local_addr()?;
            send_to(left.as_fd(), b"ab", &target)?;
            send_to(left.as_fd(), b"too long", &target)?;
            let outgoing = [&b"one"[..], b"", b"three"];
            let all = outgoing.map(|data| Outgoing { data, target: Some(target) });
            assert_eq!(send_many(left.as_fd(), all.into_iter())?, 3);
            let mut buffer = [0; 4];
            // The socket blocks.
            assert_eq!(receive_from(right.as_fd(), &mut buffer)?.0, 2);
            let (len, sender) = receive_from(right.as_fd(), &mut buffer)?;
            assert_eq!((&buffer[..len], sender), (&b"too "[..], Some(left.local_addr()?.into())));
            let mut batch = Batch::new();
            for data in outgoing {
                assert_eq!(batch.receive(right.as_fd())?, 1);
                assert_eq!(
                    (batch.data(0), batch.sender(0)),
                    (data, Some(left.local_addr()?.into()))
                );
            }
            right.set_nonblocking(true)?;
            let nothing = batch.receive(right.as_fd()).expect_err("nothing more");
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
        Ok(())
    }
}
