//! The raw system calls, with the differences between systems evened out.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
#[allow(unused_imports)] // the proactor's alone, which not every system has
pub(crate) use unix::address;
#[cfg(unix)]
pub(crate) use unix::clock::monotonic_nanos;
#[cfg(unix)]
pub use unix::descriptor;
#[cfg(unix)]
pub use unix::{datagram, fd, file, numbers, pipe, process, sigpipe, socket};
