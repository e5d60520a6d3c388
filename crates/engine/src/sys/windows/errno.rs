//! Numbers of errors as C has them, and Python's `errno`: Winsock's own where C has none of that age.

use windows_sys::Win32::Networking::WinSock as winsock;

/// No such process.
pub const ESRCH: i32 = 3;
/// Interrupted.
pub const EINTR: i32 = 4;
/// An error of the device.
pub const EIO: i32 = 5;
/// Not an open descriptor.
pub const EBADF: i32 = 9;
/// Not enough memory.
pub const ENOMEM: i32 = 12;
/// An argument that makes no sense.
pub const EINVAL: i32 = 22;
/// Too many files in the system.
pub const ENFILE: i32 = 23;
/// Too many files in the process.
pub const EMFILE: i32 = 24;
/// Nobody reads.
pub const EPIPE: i32 = 32;
/// Cancelled.
pub const ECANCELED: i32 = 105;
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
