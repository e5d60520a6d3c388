//! The write buffer's limits: when a protocol is to stop writing and when it may go on.
//!
//! The rules are those of `_FlowControlMixin` in asyncio's `transports.py`. What surprised us: in
//! asyncio a buffer that grows only ever pauses and one that shrinks only ever resumes, so raising
//! the limits of a paused protocol resumes nothing until something has been sent. Hence
//! [`on_growth`](FlowControl::on_growth) and [`on_shrink`](FlowControl::on_shrink).

use std::fmt;

const DEFAULT_HIGH: usize = 64 * 1024;

/// What the protocol is to be told.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum FlowEvent {
    /// `pause_writing()`
    Pause,
    /// `resume_writing()`
    Resume,
}

/// Limits that contradict each other. Shown as asyncio's `ValueError` words it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct LimitsError {
    /// The high-water limit that was asked for or followed from the low one.
    pub high: usize,
    /// The low-water limit that was asked for or followed from the high one.
    pub low: usize,
}

impl fmt::Display for LimitsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "high ({}) must be >= low ({}) must be >= 0", self.high, self.low)
    }
}

impl std::error::Error for LimitsError {}

/// Limits and state of the flow control of one transport.
#[derive(Clone, Debug)]
pub struct FlowControl {
    high: usize,
    low: usize,
    /// The protocol was told to pause and not yet to resume.
    paused: bool,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self::new()
    }
}

impl FlowControl {
    /// asyncio's defaults: 64 KiB and a quarter of it.
    pub const fn new() -> Self {
        Self { high: DEFAULT_HIGH, low: DEFAULT_HIGH / 4, paused: false }
    }

    /// Sets the limits in bytes. `high` is 4 times `low` by default, or 64 KiB; `low` a quarter of
    /// `high`. The caller reports the size with [`on_growth`](Self::on_growth) after it.
    ///
    /// # Errors
    /// `high` is less than `low`; nothing has changed then.
    pub fn set_limits(
        &mut self,
        high: Option<usize>,
        low: Option<usize>,
    ) -> Result<(), LimitsError> {
        let high = high.unwrap_or_else(|| low.map_or(DEFAULT_HIGH, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high / 4);
        if high < low {
            return Err(LimitsError { high, low });
        }
        self.high = high;
        self.low = low;
        Ok(())
    }

    /// The limits in bytes, low first, as `get_write_buffer_limits()` gives them.
    pub const fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    /// Whether the protocol has been told to pause.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// The buffer has grown to `size` bytes, or the limits have changed.
    #[inline]
    pub const fn on_growth(&mut self, size: usize) -> Option<FlowEvent> {
        if self.paused || size <= self.high {
            return None;
        }
        self.paused = true;
        Some(FlowEvent::Pause)
    }

    /// The buffer has shrunk to `size` bytes.
    #[inline]
    pub const fn on_shrink(&mut self, size: usize) -> Option<FlowEvent> {
        if !self.paused || size > self.low {
            return None;
        }
        self.paused = false;
        Some(FlowEvent::Resume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_from_each_other() {
        let mut flow = FlowControl::new();
        assert_eq!(flow.limits(), (16 * 1024, 64 * 1024));
        assert_eq!(flow.set_limits(None, Some(100)), Ok(()));
        assert_eq!(flow.limits(), (100, 400));
        assert_eq!(flow.set_limits(Some(7), None), Ok(()));
        assert_eq!(flow.limits(), (1, 7));
        assert_eq!(flow.set_limits(Some(0), None), Ok(()));
        assert_eq!(flow.limits(), (0, 0));
        let error = flow.set_limits(Some(1), Some(2)).expect_err("high below low");
        assert_eq!(error.to_string(), "high (1) must be >= low (2) must be >= 0");
        assert_eq!(flow.limits(), (0, 0));
        assert_eq!(flow.set_limits(None, None), Ok(()));
        assert_eq!(flow.limits(), (16 * 1024, 64 * 1024));
        assert_eq!(flow.set_limits(None, Some(usize::MAX)), Ok(()));
    }

    #[test]
    fn pauses_above_and_resumes_at() {
        let mut flow = FlowControl::new();
        assert_eq!(flow.set_limits(Some(10), Some(4)), Ok(()));
        assert_eq!(flow.on_growth(10), None);
        assert_eq!(flow.on_growth(11), Some(FlowEvent::Pause));
        assert_eq!(flow.on_growth(12), None);
        assert_eq!(flow.on_shrink(5), None);
        assert!(flow.is_paused());
        assert_eq!(flow.on_shrink(4), Some(FlowEvent::Resume));
        assert_eq!(flow.on_shrink(4), None);
    }

    #[test]
    fn raised_limits_resume_nothing_until_the_buffer_shrinks() {
        let mut flow = FlowControl::new();
        assert_eq!(flow.on_growth(100_000), Some(FlowEvent::Pause));
        assert_eq!(flow.set_limits(Some(1_000_000), None), Ok(()));
        assert_eq!(flow.on_growth(100_001), None);
        assert_eq!(flow.on_shrink(100_000), Some(FlowEvent::Resume));
    }
}
