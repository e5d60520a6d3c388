//! sendfile(2) of macOS, where one variable says how much is to go and then how much went.
//!
//! What went before an error is told together with the error (EAGAIN and EINTR, says the manual), and a
//! length of 0 means everything.
#![allow(unsafe_code)] // rustix has it for Linux alone

use std::io;
use std::ptr;

use crate::sys::fd::{AsRawFd, BorrowedFd};

pub(super) fn sendfile(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    if count == 0 {
        return Ok(0);
    }
    let too_large = |_| io::Error::from_raw_os_error(libc::EOVERFLOW);
    let offset = libc::off_t::try_from(offset).map_err(too_large)?;
    let mut length = libc::off_t::try_from(count).map_err(too_large)?;
    // SAFETY: the descriptors are open and the length is valid for reads and writes.
    let result = unsafe {
        libc::sendfile(
            file.as_raw_fd(),
            socket.as_raw_fd(),
            offset,
            &raw mut length,
            ptr::null_mut(),
            0,
        )
    };
    match usize::try_from(length) {
        Ok(sent) if result == 0 || sent > 0 => Ok(sent),
        _ => Err(io::Error::last_os_error()),
    }
}
