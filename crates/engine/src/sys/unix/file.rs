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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::fd::AsFd;
    use crate::sys::pipe::pipe;

    /// A file that nobody else can open, of `count` bytes.
    fn file(count: usize) -> io::Result<File> {
        let path = std::env::temp_dir().join(format!(
            "oxloop-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(path)?;
        let data: Vec<u8> = (0..count).map(|index| index.to_le_bytes()[0]).collect();
        file.write_all(&data)?;
        Ok(file)
    }

    #[test]
    fn parts_of_a_file() -> io::Result<()> {
        let mut file = file(300)?;
        assert_eq!(size(file.as_fd())?, 300);
        let (left, mut right) = UnixStream::pair()?;
        left.set_nonblocking(true)?;
        assert_eq!(send(left.as_fd(), file.as_fd(), 250, 10)?, 10);
        assert_eq!(send(left.as_fd(), file.as_fd(), 295, 10)?, 5);
        assert_eq!(send(left.as_fd(), file.as_fd(), 300, 10)?, 0);
        assert_eq!(send(left.as_fd(), file.as_fd(), 1000, 10)?, 0);
        assert_eq!(file.stream_position()?, 300, "sending leaves it alone");
        set_position(file.as_fd(), 7)?;
        assert_eq!(file.stream_position()?, 7);
        drop(left);
        let mut received = Vec::new();
        right.read_to_end(&mut received)?;
        assert_eq!(received, [250, 251, 252, 253, 254, 255, 0, 1, 2, 3, 39, 40, 41, 42, 43]);
        Ok(())
    }

    #[test]
    fn a_socket_without_room() -> io::Result<()> {
        let file = file(1 << 20)?;
        let (left, _right) = UnixStream::pair()?;
        left.set_nonblocking(true)?;
        let mut offset = 0;
        let error = loop {
            match send(left.as_fd(), file.as_fd(), offset, 1 << 20) {
                Ok(0) => panic!("the socket took a whole megabyte"),
                Ok(sent) => offset += sent as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        Ok(())
    }

    #[test]
    fn what_is_no_regular_file() -> io::Result<()> {
        let (reader, _writer) = pipe()?;
        assert_eq!(size(reader.as_fd())?, 0);
        assert!(set_position(reader.as_fd(), 0).is_err());
        let (left, _right) = UnixStream::pair()?;
        left.set_nonblocking(true)?;
        assert!(send(left.as_fd(), reader.as_fd(), 0, 10).is_err());
        Ok(())
    }
}
