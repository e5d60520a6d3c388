//! Regular files, and sending them from the kernel's cache to a socket.
//!
//! As for sockets, a call here retries nothing. What surprised us: sendfile(2) takes no flags, so that
//! a peer that is gone raises SIGPIPE where `send` would not, and whether it waits for room is the
//! socket's mode alone.

use std::io;

use rustix::fs::{SeekFrom, fstat, seek};

use super::{sendfile, sigpipe};
use crate::sys::fd::BorrowedFd;

/// fstat(2): the size in bytes; 0 for a pipe and its kin.
pub fn size(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(fstat(file)?.st_size).unwrap_or(0))
}

/// lseek(2): where whoever reads or writes next begins, in bytes from the start.
pub fn set_position(file: BorrowedFd<'_>, position: u64) -> io::Result<()> {
    seek(file, SeekFrom::Start(position))?;
    Ok(())
}

/// sendfile(2): how many of `count` bytes from `offset` on the socket took; 0 is the end of the
/// file. The file's own position stays. Never a SIGPIPE; waits if the socket is a blocking one.
///
/// # Errors
/// EINVAL and its kin for a file that is no regular one; EAGAIN when nothing could be sent.
pub fn send(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    if sigpipe::would_kill() {
        sigpipe::shielded(|| sendfile::sendfile(socket, file, offset, count))
    } else {
        sendfile::sendfile(socket, file, offset, count)
    }
}
