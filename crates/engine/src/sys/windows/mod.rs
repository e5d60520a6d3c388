//! System calls of Windows.
//!
//! Errors keep the number that the system gave them: that of Winsock for sockets, that of Win32 for the rest.

pub(crate) mod address;
pub(crate) mod clock;
pub mod datagram;
pub mod descriptor;
pub mod errno;
pub mod fd;
pub mod file;
pub mod numbers;
pub mod os_error;
pub mod pipe;
pub(crate) mod port;
pub mod process;
pub mod sigpipe;
pub mod socket;
pub(crate) mod status;
