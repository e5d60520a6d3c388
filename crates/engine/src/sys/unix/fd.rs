//! File descriptors: the standard library's own types.

use std::fs::File;

pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A file's descriptor; a function, as [`AsFd`] is of sockets alone on Windows.
pub fn of_file(file: &File) -> BorrowedFd<'_> {
    file.as_fd()
}
