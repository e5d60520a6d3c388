//! sendfile(2) of FreeBSD, which says how much went in a variable of its own.
//!
//! What went before an error is told together with the error (EAGAIN, EBUSY and EINTR, says the manual), and
//! a length of 0 means everything.
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
    let offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    let mut sent: libc::off_t = 0;
    // SAFETY: the descriptors are open and the variable is valid for writes.
    let result = unsafe {
        libc::sendfile(
            file.as_raw_fd(),
            socket.as_raw_fd(),
            offset,
            count,
            ptr::null_mut(),
            &raw mut sent,
            0,
        )
    };
    match usize::try_from(sent) {
        Ok(sent) if result == 0 || sent > 0 => Ok(sent),
        _ => Err(io::Error::last_os_error()),
    }
}
