//! The raw system calls, with the differences between systems evened out.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::*;

/// The clock of Python's `time.monotonic()`: `mach_absolute_time` on macOS, which is this one by
/// its other name (`clock_gettime(3)`), and `CLOCK_MONOTONIC` elsewhere.
#[cfg(target_vendor = "apple")]
pub(crate) const MONOTONIC_CLOCK: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
/// The clock of Python's `time.monotonic()`.
#[cfg(all(unix, not(target_vendor = "apple")))]
pub(crate) const MONOTONIC_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
