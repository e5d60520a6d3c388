//! Handles as numbers: those that a selector watches and that somebody else owns.
#![allow(unsafe_code)] // questions about handles that may be closed

use std::collections::BTreeMap;
use std::{io, ptr};

use windows_sys::Wdk::Storage::FileSystem::{
    FILE_SYNCHRONOUS_IO_ALERT, FILE_SYNCHRONOUS_IO_NONALERT, FileModeInformation,
    NtQueryInformationFile,
};
use windows_sys::Win32::Foundation::GetHandleInformation;
use windows_sys::Win32::Networking::WinSock::{SO_TYPE, SOL_SOCKET};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_TYPE_CHAR, FILE_TYPE_PIPE, FILE_TYPE_UNKNOWN, GetFileType,
};
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
use windows_sys::Win32::System::Pipes::{GetNamedPipeInfo, PIPE_SERVER_END};

use super::fd::{RawFd, handle};
use super::socket::option;
use super::status;

/// WSAENOTSOCK when `fd` is no open socket.
pub(crate) fn check_open(fd: RawFd) -> io::Result<()> {
    option(fd, SOL_SOCKET, SO_TYPE).map(drop)
}

/// All files are alike here, as what is watched by a handle is watched no longer once that is closed.
pub type FileId = ();

/// Succeeds if `fd` can be polled: a socket, a handle of something to wait for (a process say), or the server's end of
/// a named pipe, which is ready when a client has come.
///
/// # Errors
/// WSAENOTSOCK for any other, and for what is not open, as `select` has it.
pub fn check_pollable(fd: RawFd) -> io::Result<FileId> {
    check_open(fd)
        .or_else(|error| if is_waitable(fd) || is_served(fd) { Ok(()) } else { Err(error) })
}

/// Whether `fd` is an open handle of something that is no file.
fn is_waitable(fd: RawFd) -> bool {
    object(fd) == Some(Object::Waitable)
}

/// Whether `fd` is the server's end of a named pipe.
fn is_served(fd: RawFd) -> bool {
    let mut flags = 0;
    let (sizes, instances) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the flags are valid for writes, and the kernel checks the handle.
    let result =
        unsafe { GetNamedPipeInfo(handle(fd), &raw mut flags, sizes, ptr::null_mut(), instances) };
    result != 0 && flags & PIPE_SERVER_END != 0
}

/// Whether `fd` is an open handle. -1 stands for this process where it is none.
pub(crate) fn is_open(fd: RawFd) -> bool {
    let mut flags = 0;
    // SAFETY: the flags are valid for writes, and the kernel checks the handle.
    fd != -1 && unsafe { GetHandleInformation(handle(fd), &raw mut flags) } != 0
}

/// What a handle is open on.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Object {
    Socket,
    Pipe,
    /// A console, or another character device.
    CharacterDevice,
    /// A regular file, a directory.
    File,
    /// Nothing that is read or written: a process, an event.
    Waitable,
}

/// What `fd` is open on; `None` if it is not open. Winsock is asked first, as its sockets are pipes to everybody
/// else.
pub(crate) fn object(fd: RawFd) -> Option<Object> {
    if check_open(fd).is_ok() {
        return Some(Object::Socket);
    }
    // SAFETY: the kernel checks the handle.
    is_open(fd).then(|| match unsafe { GetFileType(handle(fd)) } {
        FILE_TYPE_PIPE => Object::Pipe,
        FILE_TYPE_CHAR => Object::CharacterDevice,
        FILE_TYPE_UNKNOWN => Object::Waitable,
        _ => Object::File,
    })
}

/// Whether operations of a file may go on after the call that starts them: whether it was opened with
/// `FILE_FLAG_OVERLAPPED`.
pub(crate) fn is_overlapped(fd: RawFd) -> io::Result<bool> {
    const SYNCHRONOUS: u32 = FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT;
    let mut mode = 0_u32;
    let mut block = IO_STATUS_BLOCK::default();
    // SAFETY: the mode and the block are valid for writes, and the kernel checks the handle.
    let result = unsafe {
        let size = size_of_val(&mode).try_into().unwrap_or(0);
        let mode = (&raw mut mode).cast();
        NtQueryInformationFile(handle(fd), &raw mut block, mode, size, FileModeInformation)
    };
    if !status::is_success(result) {
        return Err(io::Error::from_raw_os_error(status::win32(result)));
    }
    Ok(mode & SYNCHRONOUS == 0)
}

/// Which file `fd` is open for; `None` if it is not open.
pub fn file_of(fd: RawFd) -> Option<FileId> {
    is_open(fd).then_some(())
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
