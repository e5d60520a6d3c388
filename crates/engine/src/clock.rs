//! Points in time on the clock of `time.monotonic()`.
//!
//! Time is kept in integer nanoseconds, so that adding and comparing are exact, while asyncio's
//! users speak in `float` seconds. What surprised us: after 104 days of uptime a `float` of seconds
//! is coarser than a nanosecond, so "never early" must be said in terms of the `float` that the
//! user sees: `from_seconds(s).as_seconds() >= s`.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use crate::sys;

const NANOS_PER_SEC: i64 = 1_000_000_000;
const NANOS_PER_SEC_F64: f64 = 1e9;
/// An interpreter's clock with steps from here on is not the one that [`Timestamp::now`] reads.
const COARSE: Duration = Duration::from_micros(100);

/// Nanoseconds of the system's monotonic clock, with the origin of Python's `time.monotonic()`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The present time. Nobody inside the engine calls this: `now` is always an argument.
    #[inline]
    pub fn now() -> Self {
        Self(sys::monotonic_nanos())
    }

    /// The first point in time at which [`as_seconds`](Self::as_seconds) is at least `seconds`.
    ///
    /// Saturates at the ends of the range. NaN compares as due at once, as it does in asyncio's
    /// heap, and becomes the earliest time there is.
    #[inline]
    pub fn from_seconds(seconds: f64) -> Self {
        if seconds.is_nan() {
            return Self(i64::MIN);
        }
        #[expect(clippy::cast_possible_truncation, reason = "saturating is what is wanted")]
        let mut time = Self((seconds * NANOS_PER_SEC_F64).ceil() as i64);
        // The product was rounded to the nearest double, which may lie below the exact one.
        while time.as_seconds() < seconds && time.0 < i64::MAX {
            time.0 += 1;
        }
        time
    }

    /// Seconds as Python's `time.monotonic()` would give them for the same instant.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "a float of seconds is what is asked for")]
    pub fn as_seconds(self) -> f64 {
        // Whole seconds divide exactly; pytime.c (PyTime_AsSecondsDouble) makes the same split.
        if self.0 % NANOS_PER_SEC == 0 {
            (self.0 / NANOS_PER_SEC) as f64
        } else {
            self.0 as f64 / NANOS_PER_SEC_F64
        }
    }

    /// The time from `earlier` to `self`; zero when `earlier` is the later one.
    #[inline]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        if self <= earlier {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.0.abs_diff(earlier.0))
    }
}

/// `time.monotonic()` of the interpreter, but for its steps.
///
/// On Windows that is `GetTickCount64` before Python 3.13, which moves every 15.6 ms: too coarse for timers. What
/// fills its steps in is the clock of [`Timestamp::now`]. Neither their origins nor their paces have to be the same,
/// so it never leaves the step: `time.monotonic() <= now() <= time.monotonic() + resolution`. Therefore it never goes
/// back, either.
#[derive(Debug)]
pub struct Clock {
    /// A step in nanoseconds; 0 if there are none to be filled in.
    step: i64,
    /// By how much the interpreter's clock is ahead of the fine one.
    ahead: AtomicI64,
}

impl Clock {
    /// The clock of an interpreter whose `time.get_clock_info("monotonic").resolution` is `resolution` seconds.
    pub fn new(resolution: f64) -> Self {
        let step = Duration::try_from_secs_f64(resolution).unwrap_or_default();
        let step = if step < COARSE { 0 } else { i64::try_from(step.as_nanos()).unwrap_or(0) };
        Self { step, ahead: AtomicI64::new(i64::MIN) }
    }

    /// The present time.
    #[inline]
    pub fn now(&self) -> Timestamp {
        let fine = sys::monotonic_nanos();
        if self.step == 0 {
            return Timestamp(fine);
        }
        Timestamp(self.within(sys::tick_nanos(), fine))
    }

    /// The point in the step that has begun at `tick`.
    fn within(&self, tick: i64, fine: i64) -> i64 {
        let known = fine.saturating_add(self.ahead.load(Relaxed));
        let now = known.clamp(tick, tick + self.step);
        if now != known {
            self.ahead.store(now - fine, Relaxed);
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: i64 = 15_625_000;

    fn coarse() -> Clock {
        Clock::new(0.015_625)
    }

    #[test]
    fn a_fine_clock_is_the_systems() {
        for resolution in [1e-9, 1e-7, 0.0, f64::NAN, -1.0, f64::INFINITY] {
            let before = Timestamp::now();
            let now = Clock::new(resolution).now();
            assert!(before <= now && now <= Timestamp::now());
        }
        assert_eq!(coarse().step, STEP);
    }

    /// Steps are filled in, also by a clock of another origin, and one that is fast or slow.
    #[test]
    fn steps_are_filled_in() {
        for (origin, pace) in [(0, 1000), (-7_000_000_000_000, 1000), (55, 1040), (55, 960)] {
            let clock = coarse();
            let mut last = i64::MIN;
            let mut seen = 0;
            for time in (1_000 * STEP..1_100 * STEP).step_by(100_003) {
                let tick = time / STEP * STEP;
                let now = clock.within(tick, origin + time / 1000 * pace);
                assert!(tick <= now && now <= tick + STEP, "{now} at {tick}");
                assert!(last <= now, "{now} after {last}");
                seen += i32::from(last < now);
                last = now;
            }
            // It hardly ever stands still: where it is fast, at the end of a step.
            assert!(seen > 14_000, "{seen}");
        }
    }

    /// After the first step it is as exact as the fine clock.
    #[test]
    fn it_finds_where_steps_begin() {
        let clock = coarse();
        for time in (STEP / 2..10 * STEP).step_by(1_000) {
            let now = clock.within(time / STEP * STEP, time);
            assert!(now <= time && (time < STEP || now + 1_000 > time), "{now} at {time}");
        }
    }

    #[test]
    fn never_early() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for magnitude in [1e-9, 1e-3, 1.0, 1e4, 1e7, 1e9] {
            for _ in 0..2_000 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                #[expect(clippy::cast_precision_loss)]
                let seconds = (state >> 11) as f64 / (1_u64 << 53) as f64 * magnitude;
                let time = Timestamp::from_seconds(seconds);
                assert!(time.as_seconds() >= seconds, "{seconds} became {time:?}");
                let late = time.as_seconds() - seconds;
                assert!(late <= 1e-9 + seconds * f64::EPSILON, "{seconds} became {time:?}");
            }
        }
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(Timestamp::from_seconds(f64::INFINITY), Timestamp(i64::MAX));
        assert_eq!(Timestamp::from_seconds(f64::NEG_INFINITY), Timestamp(i64::MIN));
        assert_eq!(Timestamp::from_seconds(f64::NAN), Timestamp(i64::MIN));
        assert_eq!(Timestamp::from_seconds(1e300), Timestamp(i64::MAX));
        assert_eq!(Timestamp::from_seconds(0.0), Timestamp(0));
        assert_eq!(Timestamp::from_seconds(-1.5), Timestamp(-1_500_000_000));
    }

    #[test]
    fn differences_saturate() {
        let (early, late) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        assert_eq!(late.saturating_duration_since(early), Duration::from_nanos(u64::MAX));
        assert_eq!(early.saturating_duration_since(late), Duration::ZERO);
        assert_eq!(Timestamp(7).saturating_duration_since(Timestamp(4)), Duration::from_nanos(3));
    }

    #[test]
    fn the_clock_runs() {
        let first = Timestamp::now();
        assert!(first.0 > 0);
        assert!(Timestamp::now() >= first);
    }
}
