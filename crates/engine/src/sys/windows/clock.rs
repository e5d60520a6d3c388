//! The monotonic clocks: the performance counter, and the number of ticks.
//!
//! Python's `time.monotonic()` is the first from 3.13 on, scaled in the same way, and before it was the second.
#![allow(unsafe_code)] // QueryPerformanceCounter, GetTickCount64

use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};
use windows_sys::Win32::System::SystemInformation::GetTickCount64;

const NANOS_PER_SEC: i64 = 1_000_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;

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

/// The same by `GetTickCount64`, which moves every 15.6 ms.
#[inline]
pub(crate) fn tick_nanos() -> i64 {
    // SAFETY: it takes nothing.
    let millis = unsafe { GetTickCount64() };
    (millis * NANOS_PER_MILLI).cast_signed()
}
