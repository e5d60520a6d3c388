//! Named pipes, and what else has a handle.
//!
//! What surprised us: Windows tells nobody whether a pipe is readable or writable, and its
//! non-blocking mode is a relic that overlapped handles do badly with. What waits for a pipe is an
//! operation of the proactor alone; so reading and writing here say `WouldBlock`, and whoever is
//! told so submits one. Anonymous pipes cannot be overlapped at all: `pipe` makes named ones, of names that
//! nobody guesses.
#![allow(unsafe_code)] // pipes by handle

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSlice};
use std::os::windows::ffi::OsStrExt;
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, GENERIC_READ, GENERIC_WRITE};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING,
    PIPE_ACCESS_DUPLEX, PIPE_ACCESS_INBOUND,
};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, PIPE_READMODE_BYTE, PIPE_READMODE_MESSAGE, PIPE_REJECT_REMOTE_CLIENTS,
    PIPE_TYPE_BYTE, PIPE_TYPE_MESSAGE, PIPE_UNLIMITED_INSTANCES, PIPE_WAIT,
};

use super::descriptor::{Object, is_overlapped, object};
use super::fd::{AsRawFd, BorrowedFd, OwnedFd, owned};
use super::socket;
pub use crate::sys::kind::Kind;

/// How much the kernel keeps for a reader that is late: that of asyncio's `windows_utils`.
const BUFFER_SIZE: u32 = 64 * 1024;

/// Whether pipes are read and written by operations of a proactor alone, and have no readiness: yes.
pub const COMPLETES: bool = true;

/// A new pipe, its reading and its writing end, both overlapped and not inherited.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mode = PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT;
    ends(PIPE_ACCESS_INBOUND, mode, GENERIC_WRITE)
}

/// The server's and the client's end of a new pipe.
pub(crate) fn ends(access: u32, mode: u32, client: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let name = unguessable();
    let mode = mode | PIPE_REJECT_REMOTE_CLIENTS;
    let server = create(&name, access | FILE_FLAG_FIRST_PIPE_INSTANCE, mode, 1)?;
    let client = open(&name, client)?;
    Ok((server, client))
}

/// `CreateNamedPipe`: one more server's end of the pipe `name`, overlapped, of messages that are read as
/// bytes, as asyncio's `PipeServer` makes it. `first`: whether it must be the first one of that name.
///
/// # Errors
/// `ERROR_ACCESS_DENIED` when it is to be the first and is not.
pub fn listen(name: &OsStr, first: bool) -> io::Result<OwnedFd> {
    let first = if first { FILE_FLAG_FIRST_PIPE_INSTANCE } else { 0 };
    let mode = PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT;
    create(&wide(name), PIPE_ACCESS_DUPLEX | first, mode, PIPE_UNLIMITED_INSTANCES)
}

/// `CreateFile`: a client's end of the pipe `name`, overlapped.
///
/// # Errors
/// `ERROR_PIPE_BUSY` when all server's ends have clients, `ERROR_FILE_NOT_FOUND` when there is none.
pub fn connect(name: &OsStr) -> io::Result<OwnedFd> {
    open(&wide(name), GENERIC_READ | GENERIC_WRITE)
}

fn create(name: &[u16], access: u32, mode: u32, instances: u32) -> io::Result<OwnedFd> {
    let access = access | FILE_FLAG_OVERLAPPED;
    // SAFETY: the name ends with a zero, and the handle is made for us; without security attributes it is
    // not inherited.
    unsafe {
        let (name, none) = (name.as_ptr(), ptr::null());
        owned(CreateNamedPipeW(name, access, mode, instances, BUFFER_SIZE, BUFFER_SIZE, 0, none))
    }
}

fn open(name: &[u16], access: u32) -> io::Result<OwnedFd> {
    // SAFETY: as above.
    unsafe {
        let (name, none) = (name.as_ptr(), ptr::null());
        let flags = FILE_FLAG_OVERLAPPED;
        owned(CreateFileW(name, access, 0, none, OPEN_EXISTING, flags, ptr::null_mut()))
    }
}

fn wide(name: &OsStr) -> Vec<u16> {
    name.encode_wide().chain([0]).collect()
}

/// A name of 128 random bits: a new `RandomState` has other keys each time.
fn unguessable() -> Vec<u16> {
    let random = || RandomState::new().build_hasher().finish();
    let name =
        format!(r"\\.\pipe\oxloop-{}-{:016x}{:016x}", std::process::id(), random(), random());
    wide(OsStr::new(&name))
}

/// What kind of file `fd` is open on. The numbers of C's files, which are no handles, are of another kind.
pub fn kind(fd: BorrowedFd<'_>) -> io::Result<Kind> {
    match object(fd.as_raw_fd()) {
        Some(Object::Socket) => Ok(Kind::Socket),
        Some(Object::Pipe) => Ok(Kind::Fifo),
        Some(Object::CharacterDevice) => Ok(Kind::CharacterDevice),
        Some(Object::File | Object::Waitable) | None => Ok(Kind::Other),
    }
}

/// Succeeds if operations can be asked of a pipe, as asyncio finds out when a transport that writes is made; one that
/// reads is told by its first read.
///
/// # Errors
/// `ERROR_INVALID_PARAMETER` for what was opened without `FILE_FLAG_OVERLAPPED` (such as the files of C), and whatever
/// the kernel says of what is no file.
pub fn check_overlapped(fd: BorrowedFd<'_>) -> io::Result<()> {
    if is_overlapped(fd.as_raw_fd())? {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(ERROR_INVALID_PARAMETER.cast_signed()))
}

/// Makes a socket non-blocking. Overlapped pipes are as they are.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    match kind(fd)? {
        Kind::Socket => socket::set_nonblocking(fd.as_raw_fd()),
        _ => Ok(()),
    }
}

/// `recv` for a socket: how many bytes came; 0 is the end. `WouldBlock` for a pipe.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    only_sockets(fd)?;
    socket::recv(fd, buffer)
}

/// `send` for a socket: how many bytes went. `WouldBlock` for a pipe.
pub fn write(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    only_sockets(fd)?;
    socket::send(fd, data)
}

/// The same of the first [`MAX_SLICES`](crate::sys::MAX_SLICES) slices.
pub fn write_vectored(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    only_sockets(fd)?;
    socket::send_vectored(fd, slices)
}

fn only_sockets(fd: BorrowedFd<'_>) -> io::Result<()> {
    match kind(fd)? {
        Kind::Socket => Ok(()),
        _ => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fd::{AsFd, of_file};
    use super::*;

    #[test]
    fn kinds() -> io::Result<()> {
        let (reader, writer) = pipe()?;
        assert_eq!(kind(reader.as_fd())?, Kind::Fifo);
        assert_eq!(kind(writer.as_fd())?, Kind::Fifo);
        let empty = read(reader.as_fd(), &mut [0]).expect_err("that is the proactor's");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        let (left, _right) = socket::pair()?;
        assert_eq!(kind(left.as_fd())?, Kind::Socket);
        set_nonblocking(left.as_fd())?;
        let empty = read(left.as_fd(), &mut [0]).expect_err("nothing was sent");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        let file = std::fs::File::open(std::env::current_exe()?)?;
        assert_eq!(kind(of_file(&file))?, Kind::Other);
        Ok(())
    }

    #[test]
    fn two_ends_of_a_name() -> io::Result<()> {
        let name = format!(r"\\.\pipe\oxloop-first-{}", std::process::id());
        let name = OsStr::new(&name);
        assert!(connect(name).is_err());
        let _first = listen(name, true)?;
        // Wine does not refuse another first one.
        let _second = listen(name, false)?;
        let _client = connect(name)?;
        Ok(())
    }
}
