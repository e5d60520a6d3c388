//! System calls of POSIX systems.

pub(crate) mod address;
pub(crate) mod clock;
pub mod datagram;
pub mod descriptor;
pub mod errno;
pub mod fd;
pub mod file;
pub mod numbers;
pub mod pipe;
pub mod process;
pub mod sigpipe;
pub mod socket;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub mod thread_exit;

// What makes descriptors: in one call where the system can, in several where it cannot.
#[cfg(not(target_vendor = "apple"))]
#[path = "create_with_flags.rs"]
mod create;
#[cfg(target_vendor = "apple")]
#[path = "create_then_flags.rs"]
mod create;

#[cfg(all(any(target_os = "linux", target_os = "android"), not(oxloop_libkqueue)))]
#[path = "pidfd.rs"]
mod pidfd;
#[cfg(any(not(any(target_os = "linux", target_os = "android")), oxloop_libkqueue))]
#[path = "no_pidfd.rs"]
mod pidfd;

#[cfg(not(target_vendor = "apple"))]
#[path = "wait_nanos.rs"]
mod wait;
#[cfg(target_vendor = "apple")]
#[path = "wait_millis.rs"]
mod wait;

// Receiving many datagrams: in one call where the system can.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(oxloop_libkqueue)))]
#[path = "batch_in_one_call.rs"]
mod batch;
#[cfg(any(not(any(target_os = "linux", target_os = "android")), oxloop_libkqueue))]
#[path = "batch_one_by_one.rs"]
mod batch;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(oxloop_libkqueue)))]
mod segments;

// sendfile(2): what it wants, and how it says how much it has sent.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "sendfile_returned.rs"]
mod sendfile;
#[cfg(target_vendor = "apple")]
#[path = "sendfile_in_place.rs"]
mod sendfile;
#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
#[path = "sendfile_apart.rs"]
mod sendfile;

/// Whether Unix sockets may have a name that is no path: one that begins with NUL.
const HAS_ABSTRACT_NAMES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether FIFOs with a name are not what pipes are: `Kind::NamedFifo`.
const NAMED_FIFOS_DIFFER: bool = cfg!(target_vendor = "apple");

/// The clock of Python's `time.monotonic()`: `mach_absolute_time` on macOS, which is this one by
/// its other name (`clock_gettime(3)`), and `CLOCK_MONOTONIC` elsewhere.
#[cfg(target_vendor = "apple")]
const MONOTONIC_CLOCK: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
/// The clock of Python's `time.monotonic()`.
#[cfg(not(target_vendor = "apple"))]
const MONOTONIC_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
