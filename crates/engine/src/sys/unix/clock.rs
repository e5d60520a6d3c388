//! The monotonic clock.
#![allow(unsafe_code)] // clock_gettime by number: rustix does not know macOS's clocks.

use std::mem::MaybeUninit;

use super::MONOTONIC_CLOCK;

/// Nanoseconds since the clock's origin. Through the vDSO on Linux: no system call.
#[inline]
pub(crate) fn monotonic_nanos() -> i64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` is valid for writes.
    let result = unsafe { libc::clock_gettime(MONOTONIC_CLOCK, time.as_mut_ptr()) };
    debug_assert_eq!(result, 0, "the monotonic clock exists");
    if result != 0 {
        return 0;
    }
    // SAFETY: the call succeeded and has filled `time` in.
    let time = unsafe { time.assume_init() };
    // Not `i64::from`: both fields are narrower on some targets.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    let (seconds, nanos) = (time.tv_sec as i64, time.tv_nsec as i64);
    seconds * 1_000_000_000 + nanos
}
