//! Numbers of errors as `io::Error::raw_os_error` has them: Winsock's for sockets, Win32's for the
//! rest.
//!
//! Where the two have different numbers for one thing the one stands here that our own calls give.

use windows_sys::Win32::Foundation as win32;
use windows_sys::Win32::Networking::WinSock as winsock;

const fn number(error: win32::WIN32_ERROR) -> i32 {
    error.cast_signed()
}

/// No process has this number (`OpenProcess`).
pub const ESRCH: i32 = number(win32::ERROR_INVALID_PARAMETER);
/// Interrupted.
pub const EINTR: i32 = winsock::WSAEINTR;
/// An error of the device.
pub const EIO: i32 = number(win32::ERROR_IO_DEVICE);
/// Not an open socket, as Winsock calls it.
pub const EBADF: i32 = winsock::WSAENOTSOCK;
/// Not enough memory.
pub const ENOMEM: i32 = number(win32::ERROR_NOT_ENOUGH_MEMORY);
/// An argument that makes no sense.
pub const EINVAL: i32 = winsock::WSAEINVAL;
/// Too many files in the system.
pub const ENFILE: i32 = number(win32::ERROR_NO_SYSTEM_RESOURCES);
/// Too many sockets in the process.
pub const EMFILE: i32 = winsock::WSAEMFILE;
/// Nobody reads.
pub const EPIPE: i32 = number(win32::ERROR_NO_DATA);
/// What the last completion of a cancelled operation says.
pub const ECANCELED: i32 = number(win32::ERROR_OPERATION_ABORTED);
/// The address is in use.
pub const EADDRINUSE: i32 = winsock::WSAEADDRINUSE;
/// The address is none of ours.
pub const EADDRNOTAVAIL: i32 = winsock::WSAEADDRNOTAVAIL;
/// The connection was given up on this side.
pub const ECONNABORTED: i32 = winsock::WSAECONNABORTED;
/// Nobody listens.
pub const ECONNREFUSED: i32 = winsock::WSAECONNREFUSED;
/// The peer has given up.
pub const ECONNRESET: i32 = winsock::WSAECONNRESET;
/// A datagram that is too long.
pub const EMSGSIZE: i32 = winsock::WSAEMSGSIZE;
/// No room in the kernel.
pub const ENOBUFS: i32 = winsock::WSAENOBUFS;
/// No peer.
pub const ENOTCONN: i32 = winsock::WSAENOTCONN;
/// A connect that has only begun is WSAEWOULDBLOCK; this one is of Winsock 1.
pub const EINPROGRESS: i32 = winsock::WSAEINPROGRESS;
