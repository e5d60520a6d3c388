//! Many datagrams in as many system calls, where there is no sendmmsg(2).

use std::io;

use super::datagram::{Batch, Outgoing, send_to};
use super::fd::BorrowedFd;
use super::socket::send;

/// Sends the first [`Batch::LIMIT`] datagrams: how many went, in their order. An error is that of the
/// first one; that of another ends the call before it, and is what the next call says.
pub fn send_many<'a>(
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = Outgoing<'a>> + Clone,
) -> io::Result<usize> {
    let mut sent = 0;
    for datagram in datagrams.take(Batch::LIMIT) {
        let result = match &datagram.target {
            Some(target) => send_to(fd, datagram.data, target),
            None => send(fd, datagram.data).map(drop),
        };
        match result {
            Ok(()) => sent += 1,
            Err(error) if sent == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(sent)
}
