//! The raw system calls, with the differences between systems evened out.
//!
//! A descriptor is what Python's `fileno()` of a socket gives: a file descriptor, or the handle of
//! Windows. Three sets of numbers come with it: [`numbers`] of families, types and signals;
//! [`os_error`], what `io::Error::raw_os_error` says; and [`errno`], what C and Python's `errno` say.
//! The last two differ on Windows alone.

mod kind;
mod outgoing;
#[cfg(any(windows, not(any(target_os = "linux", target_os = "android")), oxloop_libkqueue))]
mod send_one_by_one;

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
#[path = "no_thread_exit.rs"]
pub mod thread_exit;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use unix::thread_exit;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
#[allow(unused_imports)] // the proactor's alone, which not every system has
pub(crate) use unix::address;
#[cfg(unix)]
pub(crate) use unix::clock::{monotonic_nanos, monotonic_nanos as tick_nanos};
#[cfg(unix)]
pub use unix::{
    datagram, descriptor, errno, errno as os_error, fd, file, numbers, pipe, process, sigpipe,
    socket,
};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::clock::{monotonic_nanos, tick_nanos};
#[cfg(windows)]
pub(crate) use windows::{address, port, status};
#[cfg(windows)]
pub use windows::{
    datagram, descriptor, errno, fd, file, numbers, os_error, pipe, process, sigpipe, socket,
};

/// How many slices one call takes: `IOV_MAX` of all POSIX systems here (`UIO_MAXIOV` on Linux). Winsock has no limit.
pub const MAX_SLICES: usize = 1024;

/// Whether the numbers of [`os_error`] are those of Windows, and not an errno.
pub const HAS_WINERRORS: bool = cfg!(windows);

/// Whether a call of [`socket`] waits where the socket is a blocking one.
pub const CALLS_MAY_BLOCK: bool = cfg!(windows);

/// Whether a server sets `SO_REUSEADDR` unless it is told not to. On Windows others could take its port then.
pub const REUSES_ADDRESSES: bool = cfg!(unix);
