//! Regular files, and sending them to a socket.
//!
//! What surprised us: `TransmitFile`, which is the kernel's own way, waits for the peer as long as
//! it takes, non-blocking socket or not, unless it is overlapped; two of them at a time are all that
//! Windows for workstations carries out, says its page. So a piece is read, from the system's cache
//! mostly, and sent by a call that does not wait.
#![allow(unsafe_code)] // files by handle

use std::io;

use windows_sys::Win32::Foundation::{ERROR_HANDLE_EOF, ERROR_INVALID_FUNCTION, ERROR_IO_PENDING};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_BEGIN, FILE_CURRENT, FILE_TYPE_DISK, GetFileSizeEx, GetFileType, ReadFile,
    SetFilePointerEx,
};
use windows_sys::Win32::System::IO::{GetOverlappedResult, OVERLAPPED};

use super::fd::{AsRawFd, BorrowedFd, handle};
use super::socket;

/// How much is read at a time: what a socket takes at once as a rule.
const PIECE: usize = 64 * 1024;

/// The size in bytes; 0 for a pipe and its kin.
pub fn size(file: BorrowedFd<'_>) -> io::Result<u64> {
    if !is_regular(file) {
        return Ok(0);
    }
    let mut size = 0;
    // SAFETY: the size is valid for writes.
    check(unsafe { GetFileSizeEx(handle(file.as_raw_fd()), &raw mut size) })?;
    Ok(u64::try_from(size).unwrap_or(0))
}

/// Where whoever reads or writes next begins, in bytes from the start.
pub fn set_position(file: BorrowedFd<'_>, position: u64) -> io::Result<()> {
    if !is_regular(file) {
        return Err(invalid());
    }
    let position = i64::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
    move_to(file, position, FILE_BEGIN)?;
    Ok(())
}

/// Sends a piece: how many of `count` bytes from `offset` on the socket took; 0 is the end of the
/// file. The file's own position stays.
///
/// # Errors
/// `ERROR_INVALID_FUNCTION` for what is no regular file; WSAEWOULDBLOCK when nothing could be sent.
pub fn send(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    if !is_regular(file) {
        return Err(invalid());
    }
    let mut piece = vec![0; count.min(PIECE)];
    let position = move_to(file, 0, FILE_CURRENT)?;
    let read = read_at(file, offset, &mut piece);
    // A file that was not opened for overlapped operations has moved on.
    move_to(file, position, FILE_BEGIN)?;
    match read? {
        0 => Ok(0),
        read => socket::send(socket, &piece[..read]),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of an offset; a piece is small")]
fn read_at(file: BorrowedFd<'_>, offset: u64, piece: &mut [u8]) -> io::Result<usize> {
    // SAFETY: zeros are a value.
    let mut place: OVERLAPPED = unsafe { std::mem::zeroed() };
    place.Anonymous.Anonymous.Offset = offset as u32;
    place.Anonymous.Anonymous.OffsetHigh = (offset >> 32) as u32;
    let mut read = 0;
    let file = handle(file.as_raw_fd());
    // SAFETY: the memory, the count and the place are valid until the kernel has read: when the call returns, as
    // a rule, and when the next one does of a file that was opened for overlapped operations.
    let result = unsafe {
        let (start, len) = (piece.as_mut_ptr(), piece.len() as u32);
        match check(ReadFile(file, start, len, &raw mut read, &raw mut place)) {
            Err(error) if error.raw_os_error() == Some(ERROR_IO_PENDING.cast_signed()) => {
                check(GetOverlappedResult(file, &raw const place, &raw mut read, 1))
            }
            result => result,
        }
    };
    match result {
        Err(error) if error.raw_os_error() == Some(ERROR_HANDLE_EOF.cast_signed()) => Ok(0),
        result => result.map(|()| read as usize),
    }
}

/// Where the file was moved to.
fn move_to(file: BorrowedFd<'_>, distance: i64, from: u32) -> io::Result<i64> {
    let mut position = 0;
    let file = handle(file.as_raw_fd());
    // SAFETY: the position is valid for writes.
    check(unsafe { SetFilePointerEx(file, distance, &raw mut position, from) })?;
    Ok(position)
}

fn is_regular(file: BorrowedFd<'_>) -> bool {
    // SAFETY: the kernel checks the handle.
    unsafe { GetFileType(handle(file.as_raw_fd())) == FILE_TYPE_DISK }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(ERROR_INVALID_FUNCTION.cast_signed())
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::net::TcpStream;
    use std::os::windows::fs::OpenOptionsExt;

    use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_OVERLAPPED;

    use super::super::fd::{AsFd, of_file};
    use super::*;

    #[test]
    fn files_that_do_not_wait() -> io::Result<()> {
        let this = std::env::current_exe()?;
        let file = File::options().read(true).custom_flags(FILE_FLAG_OVERLAPPED).open(&this)?;
        let (left, right) = socket::pair()?;
        let sent = send(left.as_fd(), of_file(&file), 0, 1000)?;
        drop(left);
        let mut received = Vec::new();
        let mut right = TcpStream::from(right);
        right.set_nonblocking(false)?;
        right.read_to_end(&mut received)?;
        let mut start = vec![0; sent];
        File::open(this)?.read_exact(&mut start)?;
        assert_eq!(received, start);
        Ok(())
    }
}
