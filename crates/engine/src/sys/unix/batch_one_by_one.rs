//! Many datagrams in as many system calls, where there is no recvmmsg(2) and no sendmmsg(2).

use std::io;

use super::datagram::receive_from;
use crate::Address;
use crate::sys::fd::BorrowedFd;
pub use crate::sys::send_one_by_one::send_many;

/// How many datagrams one batch has at most.
const LIMIT: usize = 32;

/// Room for the largest datagram of the internet protocols.
const SIZE: usize = 64 * 1024;

/// Where datagrams land. Of its memory, only what they have filled is ever touched.
#[derive(Debug)]
pub struct Batch {
    memory: Box<[u8]>,
    received: Vec<(usize, Option<Address>)>,
    error: Option<io::Error>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// How many datagrams one batch has at most.
    pub const LIMIT: usize = LIMIT;

    /// An empty batch.
    pub fn new() -> Self {
        let memory = vec![0; LIMIT * SIZE].into_boxed_slice();
        Self { memory, received: Vec::with_capacity(LIMIT), error: None }
    }

    /// Receives what waits, at least one datagram; how many there are. What was received before is
    /// gone then.
    pub fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        self.error = None;
        for memory in self.memory.chunks_exact_mut(SIZE) {
            match receive_from(fd, memory) {
                Ok(datagram) => self.received.push(datagram),
                Err(error) if self.received.is_empty() => return Err(error),
                Err(error) => {
                    let nothing = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
                    self.error = Some(error).filter(|error| !nothing.contains(&error.kind()));
                    break;
                }
            }
        }
        Ok(self.received.len())
    }

    /// What the socket had to say after these: macOS and FreeBSD tell of an earlier send (ECONNREFUSED) once
    /// everything was received (`soreceive`), and do it only once.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// The datagram `index` of those that the last call received.
    pub fn data(&self, index: usize) -> &[u8] {
        &self.memory[index * SIZE..][..self.received[index].0]
    }

    /// Who has sent it; `None` for a socket without a name.
    pub fn sender(&self, index: usize) -> Option<Address> {
        self.received[index].1.clone()
    }
}
