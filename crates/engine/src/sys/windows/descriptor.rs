//! Handles as numbers: those that a selector watches and that somebody else owns.
#![allow(unsafe_code)] // questions about handles that may be closed

use std::collections::BTreeMap;
use std::io;

use windows_sys::Win32::Foundation::GetHandleInformation;
use windows_sys::Win32::Networking::WinSock::{SO_TYPE, SOL_SOCKET, getsockopt};

use super::fd::{RawFd, handle, socket};
use super::os_error;

/// WSAENOTSOCK when `fd` is no open socket.
pub(crate) fn check_open(fd: RawFd) -> io::Result<()> {
    let mut kind = 0_i32;
    let mut len = size_of_val(&kind).try_into().unwrap_or(0);
    // SAFETY: the option is a number, there is room for it, and Winsock checks the socket.
    let result = unsafe {
        getsockopt(socket(fd), SOL_SOCKET, SO_TYPE, (&raw mut kind).cast(), &raw mut len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a handle can be polled: ERROR_INVALID_HANDLE when it is not open. What is neither a socket nor something
/// to wait for is an error of the operation.
pub fn check_pollable(fd: RawFd) -> io::Result<()> {
    let mut flags = 0;
    // SAFETY: the kernel checks the number.
    if unsafe { GetHandleInformation(handle(fd), &raw mut flags) } == 0 {
        return Err(io::Error::from_raw_os_error(os_error::EBADF));
    }
    Ok(())
}

/// Values by descriptor. Handles are multiples of 4, and not dense.
#[derive(Debug)]
pub(crate) struct DescriptorMap<V> {
    values: BTreeMap<RawFd, V>,
}

impl<V> Default for DescriptorMap<V> {
    fn default() -> Self {
        Self { values: BTreeMap::new() }
    }
}

impl<V> DescriptorMap<V> {
    #[inline]
    pub(crate) fn get(&self, fd: RawFd) -> Option<&V> {
        self.values.get(&fd)
    }

    /// Keeps `value` and gives back the one before it.
    pub(crate) fn insert(&mut self, fd: RawFd, value: V) -> Option<V> {
        self.values.insert(fd, value)
    }

    pub(crate) fn remove(&mut self, fd: RawFd) -> Option<V> {
        self.values.remove(&fd)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RawFd, &V)> {
        self.values.iter().map(|(fd, value)| (*fd, value))
    }
}
