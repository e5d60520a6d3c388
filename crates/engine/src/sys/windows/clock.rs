//! The monotonic clock: the performance counter.
//!
//! Python's `time.monotonic()` is this one from 3.13 on, scaled in the same way. Before it was
//! `GetTickCount64`, which moves every 15.6 ms and begins at about the same time; timers that go by
//! that cannot be accurate to a millisecond, so we do not.
#![allow(unsafe_code)] // QueryPerformanceCounter

use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};

const NANOS_PER_SEC: i64 = 1_000_000_000;

/// Nanoseconds since the system's start. No system call: both numbers are in memory that the kernel
/// shares.
#[inline]
pub(crate) fn monotonic_nanos() -> i64 {
    let (mut ticks, mut frequency) = (0, 0);
    // SAFETY: both are valid for writes. The calls cannot fail since Windows XP, say their pages.
    unsafe {
        QueryPerformanceCounter(&raw mut ticks);
        QueryPerformanceFrequency(&raw mut frequency);
    }
    let frequency = frequency.max(1);
    // In two parts, as the product of all of it does not fit after some minutes at 3 GHz.
    ticks / frequency * NANOS_PER_SEC + ticks % frequency * NANOS_PER_SEC / frequency
}
