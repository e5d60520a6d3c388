//! Datagrams, with the addresses that they come from and go to.
//!
//! As for streams, a call here retries nothing and never blocks. What surprised us: an error of an
//! earlier send (ECONNREFUSED) is reported by whatever call comes next on the socket, and takes
//! nothing away from what waits to be received.
#![allow(unsafe_code)] // recvfrom, of which the address is read by ourselves

use std::io;
use std::net::SocketAddr;

use rustix::net::sendto;

use super::address::told;
pub use super::batch::{Batch, send_many};
use super::create;
use crate::Address;
use crate::sys::fd::{AsRawFd, BorrowedFd};
pub use crate::sys::outgoing::Outgoing;

/// recvfrom(2): the length of one datagram, cut to the buffer's, and the address of its sender if
/// that has one. macOS and FreeBSD have one for a Unix socket without a name, too: an empty one.
pub fn receive_from(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Address>)> {
    told(|name, len| {
        // SAFETY: the descriptor is open; the buffer, the name and its length are valid for writes.
        let received = unsafe {
            let (start, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            libc::recvfrom(fd.as_raw_fd(), start, room, libc::MSG_DONTWAIT, name, len)
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    })
}

/// sendto(2). A datagram goes as a whole or not at all.
pub fn send_to(fd: BorrowedFd<'_>, data: &[u8], address: &SocketAddr) -> io::Result<()> {
    sendto(fd, data, create::SEND_FLAGS, address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::sys::fd::AsFd;

    fn bound(address: &str) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn received(socket: &UdpSocket) -> io::Result<Vec<(Vec<u8>, Option<Address>)>> {
        let mut batch = Batch::new();
        let count = batch.receive(socket.as_fd())?;
        Ok((0..count).map(|index| (batch.data(index).to_vec(), batch.sender(index))).collect())
    }

    #[test]
    fn there_and_back() -> io::Result<()> {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (left, right) = (bound(host)?, bound(host)?);
            send_to(left.as_fd(), b"ab", &right.local_addr()?)?;
            let mut buffer = [0; 8];
            let (length, sender) = receive_from(right.as_fd(), &mut buffer)?;
            assert_eq!(&buffer[..length], b"ab");
            assert_eq!(sender, Some(left.local_addr()?.into()));
            let nothing = receive_from(right.as_fd(), &mut buffer).expect_err("nothing more");
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
        Ok(())
    }

    #[test]
    fn batches_keep_order_lengths_and_senders() -> io::Result<()> {
        let (left, right) = (bound("127.0.0.1:0")?, bound("127.0.0.1:0")?);
        let senders = [left, bound("127.0.0.1:0")?];
        // As macOS allows unless told otherwise (`net.inet.udp.maxdgram`).
        let largest = vec![b'x'; if cfg!(target_vendor = "apple") { 9_216 } else { 65_507 }];
        let sent: [&[u8]; 4] = [b"one", b"", &largest, b"four"];
        for (index, data) in sent.iter().enumerate() {
            send_to(senders[index % 2].as_fd(), data, &right.local_addr()?)?;
        }
        let mut found = Vec::new();
        while found.len() < sent.len() {
            found.extend(received(&right)?);
        }
        for (index, (data, sender)) in found.into_iter().enumerate() {
            assert_eq!(data, sent[index]);
            assert_eq!(sender, Some(senders[index % 2].local_addr()?.into()));
        }
        let nothing = received(&right).expect_err("nothing more");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        Ok(())
    }

    #[test]
    fn batches_are_bounded() -> io::Result<()> {
        let (left, right) = (bound("127.0.0.1:0")?, bound("127.0.0.1:0")?);
        let address = right.local_addr()?;
        let sent = u8::try_from(Batch::LIMIT + 1).expect("a small number");
        for number in 0..sent {
            send_to(left.as_fd(), &[number], &address)?;
        }
        let first = received(&right)?;
        assert_eq!(first.len(), Batch::LIMIT);
        let all = [first, received(&right)?].concat();
        assert!(
            all.iter().map(|(data, _)| data[0]).take(sent.into()).eq(0..=all[all.len() - 1].0[0])
        );
        Ok(())
    }

    #[test]
    fn many_are_sent_in_their_order() -> io::Result<()> {
        let (left, right) = (bound("127.0.0.1:0")?, bound("127.0.0.1:0")?);
        let target = Some(right.local_addr()?);
        let data: [&[u8]; 3] = [b"one", b"", b"three"];
        let outgoing = data.iter().map(|data| Outgoing { data, target });
        assert_eq!(send_many(left.as_fd(), outgoing)?, 3);
        assert_eq!(send_many(left.as_fd(), std::iter::empty())?, 0);
        left.connect(right.local_addr()?)?;
        let connected = data.iter().map(|data| Outgoing { data, target: None });
        assert_eq!(send_many(left.as_fd(), connected.cycle())?, Batch::LIMIT);
        let mut found = Vec::new();
        while found.len() < 3 + Batch::LIMIT {
            found.extend(received(&right)?.into_iter().map(|(data, _)| data));
        }
        let expected = data.iter().chain(data.iter().cycle().take(Batch::LIMIT));
        assert!(found.iter().map(|data| &data[..]).eq(expected.copied()));
        Ok(())
    }

    #[test]
    fn one_that_cannot_be_sent_ends_a_batch() -> io::Result<()> {
        let (left, right) = (bound("127.0.0.1:0")?, bound("127.0.0.1:0")?);
        let target = Some(right.local_addr()?);
        let too_long = vec![0; 65_508];
        let data: [&[u8]; 4] = [b"one", b"two", &too_long, b"four"];
        let from = |first: usize| data[first..].iter().map(|data| Outgoing { data, target });
        assert_eq!(send_many(left.as_fd(), from(0))?, 2);
        let error = send_many(left.as_fd(), from(2)).expect_err("it is too long");
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(send_many(left.as_fd(), from(3))?, 1);
        Ok(())
    }

    #[test]
    fn a_batch_that_finds_no_room_goes_in_part() -> io::Result<()> {
        let (left, right) = UnixDatagram::pair()?;
        left.set_nonblocking(true)?;
        let all = || std::iter::repeat(Outgoing { data: b"x", target: None });
        let mut sent = 0;
        let error = loop {
            match send_many(left.as_fd(), all()) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        // macOS and FreeBSD have no room for it at the other end (unix(4)), and nobody to tell of that when there is.
        let full =
            [libc::EAGAIN, if cfg!(target_os = "linux") { libc::EAGAIN } else { libc::ENOBUFS }];
        assert!(error.raw_os_error().is_some_and(|errno| full.contains(&errno)), "{error}");
        right.set_nonblocking(true)?;
        let mut received = 0;
        while right.recv(&mut [0; 1]).is_ok() {
            received += 1;
        }
        assert_eq!(sent, received);
        Ok(())
    }

    #[test]
    fn who_has_no_name_sends_without_one() -> io::Result<()> {
        let (left, right) = UnixDatagram::pair()?;
        left.send(b"data")?;
        let mut batch = Batch::new();
        assert_eq!(batch.receive(right.as_fd())?, 1);
        let nobody = (!cfg!(target_os = "linux")).then_some(Address::UnixUnnamed);
        assert_eq!((batch.data(0), batch.sender(0)), (&b"data"[..], nobody.clone()));
        left.send(b"data")?;
        let mut buffer = [0; 2];
        assert_eq!(receive_from(right.as_fd(), &mut buffer)?, (2, nobody));
        assert_eq!(&buffer, b"da");
        Ok(())
    }

    #[test]
    fn a_refusal_is_told_once() -> io::Result<()> {
        let gone = bound("127.0.0.1:0")?.local_addr()?;
        let socket = bound("127.0.0.1:0")?;
        socket.connect(gone)?;
        socket.send(b"x")?;
        // Not every loopback answers at once.
        let wanted = rustix::event::PollFlags::IN;
        rustix::event::poll(&mut [rustix::event::PollFd::new(&socket, wanted)], None)?;
        let refused = received(&socket).expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let nothing = received(&socket).expect_err("the error was taken");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        Ok(())
    }
}
