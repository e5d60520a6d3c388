//! Handles of the kernel under the names of file descriptors.
//!
//! Sockets and handles are one name space: no number is both at a time. What surprised us: a socket
//! must be closed by `closesocket`, as Winsock keeps things of its own for it, and any other handle
//! must not; nothing but Winsock knows which is which (`GetFileType` calls both pipes). So closing
//! asks Winsock first, which refuses what it has not made (WSAENOTSOCK).
//!
//! The standard library's owners of sockets have these traits by way of `std::os::windows::io`.
#![allow(unsafe_code)] // handles by number

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::windows::io::{
    AsRawHandle, AsRawSocket, FromRawSocket, IntoRawHandle, IntoRawSocket, RawSocket,
};

use windows_sys::Win32::Foundation::{CloseHandle, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Networking::WinSock::{SOCKET, closesocket};

/// The number of a socket or handle, as Python's `fileno()` has it; -1 for none.
pub type RawFd = i64;

/// The number as Winsock wants it.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as wide as a handle")]
pub(crate) const fn socket(fd: RawFd) -> SOCKET {
    fd as SOCKET
}

/// The number as the kernel wants it.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "as wide as a handle")]
pub(crate) const fn handle(fd: RawFd) -> HANDLE {
    fd as isize as HANDLE
}

#[expect(clippy::cast_possible_wrap, reason = "INVALID_SOCKET becomes -1")]
const fn of_socket(socket: RawSocket) -> RawFd {
    socket as RawFd
}

/// The number of a socket.
#[expect(clippy::cast_possible_wrap, reason = "as above")]
pub(crate) const fn of_winsock(socket: SOCKET) -> RawFd {
    socket as RawFd
}

/// The number of a handle.
pub(crate) fn of_handle(handle: HANDLE) -> RawFd {
    handle as isize as RawFd
}

/// The handle that a call has made for us, or the error of the call that has made none.
///
/// # Safety
/// The call was the last one of this thread, and nobody else closes what it has made.
pub(crate) unsafe fn owned(handle: HANDLE) -> io::Result<OwnedFd> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    Ok(OwnedFd { fd: of_handle(handle) })
}

/// The same of a socket.
///
/// # Safety
/// As above.
pub(crate) unsafe fn owned_socket(made: SOCKET) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; INVALID_SOCKET is the number of no handle, too.
    unsafe { owned(made as HANDLE) }
}

/// A socket or handle that nobody else closes.
#[derive(Debug)]
pub struct OwnedFd {
    fd: RawFd,
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and nobody uses it from now on.
        unsafe {
            if closesocket(socket(self.fd)) != 0 {
                CloseHandle(handle(self.fd));
            }
        }
    }
}

/// A socket or handle that stays open for `'fd`.
#[derive(Copy, Clone, Debug)]
pub struct BorrowedFd<'fd> {
    fd: RawFd,
    owner: PhantomData<&'fd OwnedFd>,
}

impl BorrowedFd<'_> {
    /// Borrows by number.
    ///
    /// # Safety
    /// The handle is open, and stays so for as long as the result lives.
    #[inline]
    pub const unsafe fn borrow_raw(fd: RawFd) -> Self {
        Self { fd, owner: PhantomData }
    }
}

/// What has a number.
pub trait AsRawFd {
    /// The number.
    fn as_raw_fd(&self) -> RawFd;
}

/// What can be borrowed.
pub trait AsFd {
    /// Borrows the handle.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

/// What can be made of a number.
pub trait FromRawFd {
    /// Takes a handle over.
    ///
    /// # Safety
    /// The handle is open and of the right kind, and nobody else closes it.
    unsafe fn from_raw_fd(fd: RawFd) -> Self;
}

/// What can be given up for its number.
pub trait IntoRawFd {
    /// Gives the handle up; whoever has the number closes it.
    fn into_raw_fd(self) -> RawFd;
}

impl AsRawFd for OwnedFd {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl AsRawFd for BorrowedFd<'_> {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl<T: AsRawSocket> AsRawFd for T {
    fn as_raw_fd(&self) -> RawFd {
        of_socket(self.as_raw_socket())
    }
}

impl AsFd for OwnedFd {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open for as long as its owner is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl AsFd for BorrowedFd<'_> {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        *self
    }
}

impl<T: AsRawSocket> AsFd for T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: as of `OwnedFd`: what has a socket keeps it open.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

/// A file's handle; a function, as the trait is for sockets.
pub fn of_file(file: &File) -> BorrowedFd<'_> {
    // SAFETY: it is open for as long as the file is borrowed.
    unsafe { BorrowedFd::borrow_raw(of_handle(file.as_raw_handle())) }
}

impl FromRawFd for OwnedFd {
    #[inline]
    unsafe fn from_raw_fd(fd: RawFd) -> Self {
        Self { fd }
    }
}

impl<T: FromRawSocket> FromRawFd for T {
    unsafe fn from_raw_fd(fd: RawFd) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::from_raw_socket(socket(fd) as RawSocket) }
    }
}

impl IntoRawFd for OwnedFd {
    #[inline]
    fn into_raw_fd(self) -> RawFd {
        std::mem::ManuallyDrop::new(self).fd
    }
}

impl<T: IntoRawSocket> IntoRawFd for T {
    fn into_raw_fd(self) -> RawFd {
        of_socket(self.into_raw_socket())
    }
}

macro_rules! owned_from_sockets {
    ($($socket:ty)*) => {
        $(impl From<$socket> for OwnedFd {
            fn from(socket: $socket) -> Self {
                Self { fd: socket.into_raw_fd() }
            }
        }

        impl From<OwnedFd> for $socket {
            fn from(fd: OwnedFd) -> Self {
                // SAFETY: whoever says that it is a socket of this kind owns it.
                unsafe { Self::from_raw_fd(fd.into_raw_fd()) }
            }
        })*
    };
}

owned_from_sockets! { TcpListener TcpStream UdpSocket }

impl From<File> for OwnedFd {
    fn from(file: File) -> Self {
        Self { fd: of_handle(file.into_raw_handle()) }
    }
}
