//! Numbers of errors as C has them, and Python's `errno`: Winsock's own where C has none of that age.

pub use super::os_error::{
    EADDRINUSE, EADDRNOTAVAIL, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINPROGRESS, EMSGSIZE,
    ENOBUFS, ENOTCONN,
};

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
