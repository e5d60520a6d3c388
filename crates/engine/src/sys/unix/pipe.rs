//! Pipes, and reading and writing of descriptors that are no sockets.
//!
//! Each function is one system call and retries nothing: EAGAIN is `ErrorKind::WouldBlock`, EINTR
//! `ErrorKind::Interrupted`. What surprised us: there is no `MSG_NOSIGNAL` for pipes; who writes to
//! them in a process that does not ignore SIGPIPE does it under [`sigpipe::shielded`](super::sigpipe).

use std::ffi::OsStr;
use std::io::{self, IoSlice};

use rustix::fs::FileType;

use super::{NAMED_FIFOS_DIFFER, create};
use crate::sys::MAX_SLICES;
use crate::sys::fd::{BorrowedFd, OwnedFd};
pub use crate::sys::kind::Kind;

/// Whether pipes are read and written by operations of a proactor alone, and have no readiness: no.
pub const COMPLETES: bool = false;

/// A new pipe, its reading and its writing end, both non-blocking and close-on-exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(create::pipe()?)
}

/// A server's end of a named pipe: `ErrorKind::Unsupported`, as these are Windows's.
pub fn listen(_name: &OsStr, _first: bool) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A client's end of a named pipe: `ErrorKind::Unsupported`.
pub fn connect(_name: &OsStr) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Succeeds: nothing is asked of pipes by operations alone.
pub fn check_overlapped(_fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// fstat(2): what kind of file `fd` is open on.
pub fn kind(fd: BorrowedFd<'_>) -> io::Result<Kind> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo if NAMED_FIFOS_DIFFER && stat.st_nlink > 0 => Kind::NamedFifo,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharacterDevice,
        _ => Kind::Other,
    })
}

/// Makes the open file behind `fd` non-blocking (FIONBIO), for everybody who shares it.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// read(2): how many bytes came; 0 is the end of the file.
#[inline]
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(fd, buffer)?)
}

/// write(2): how many bytes went.
#[inline]
pub fn write(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(fd, data)?)
}

/// writev(2) of the first [`MAX_SLICES`] slices: how many bytes went.
#[inline]
pub fn write_vectored(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(rustix::io::writev(fd, &slices[..slices.len().min(MAX_SLICES)])?)
}

#[cfg(test)]
mod tests {
    use crate::sys::fd::AsFd;

    use super::*;

    #[test]
    fn both_ways_of_reading_and_writing() -> io::Result<()> {
        let (reader, writer) = pipe()?;
        let mut buffer = [0; 8];
        let empty = read(reader.as_fd(), &mut buffer).expect_err("the pipe is empty");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(write(writer.as_fd(), b"ab")?, 2);
        assert_eq!(write_vectored(writer.as_fd(), &[IoSlice::new(b"cd"), IoSlice::new(b"e")])?, 3);
        assert_eq!(read(reader.as_fd(), &mut buffer[..3])?, 3);
        assert_eq!(&buffer[..3], b"abc");
        assert_eq!(read(reader.as_fd(), &mut buffer)?, 2);
        assert_eq!(&buffer[..2], b"de");
        drop(writer);
        assert_eq!(read(reader.as_fd(), &mut buffer)?, 0);
        Ok(())
    }

    #[test]
    fn kinds() -> io::Result<()> {
        let (reader, _writer) = pipe()?;
        assert_eq!(kind(reader.as_fd())?, Kind::Fifo);
        let (socket, _peer) = std::os::unix::net::UnixStream::pair()?;
        assert_eq!(kind(socket.as_fd())?, Kind::Socket);
        set_nonblocking(socket.as_fd())?;
        let empty = read(socket.as_fd(), &mut [0]).expect_err("nothing was sent");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        let name = std::env::temp_dir().join(format!("oxloop-fifo-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&name).status()?;
        assert!(made.success());
        let fifo = std::fs::File::options().read(true).write(true).open(&name);
        let found = fifo.and_then(|fifo| kind(fifo.as_fd()));
        std::fs::remove_file(&name)?;
        assert_eq!(found?, if NAMED_FIFOS_DIFFER { Kind::NamedFifo } else { Kind::Fifo });
        let device = std::fs::File::open("/dev/null")?;
        assert_eq!(kind(device.as_fd())?, Kind::CharacterDevice);
        assert_eq!(kind(std::fs::File::open("/")?.as_fd())?, Kind::Other);
        Ok(())
    }

    #[test]
    fn more_slices_than_the_kernel_takes() -> io::Result<()> {
        let (_reader, writer) = pipe()?;
        let slices = vec![IoSlice::new(b"x"); MAX_SLICES + 1];
        assert_eq!(write_vectored(writer.as_fd(), &slices)?, MAX_SLICES);
        Ok(())
    }
}
