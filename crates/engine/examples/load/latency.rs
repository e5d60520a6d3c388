//! Latencies of messages, and their percentiles.

use std::time::Duration;

/// The steps between one power of two and the next: an error of less than 1 %.
const STEPS: usize = 128;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// A histogram with steps that grow with the value: its memory stays in the cache.
pub(crate) struct Latencies {
    /// How many latencies fell into each step, in nanoseconds.
    counts: Vec<u64>,
    total: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; STEPS * (65 - STEP_BITS as usize)], total: 0 }
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[step(nanos)] += 1;
        self.total += 1;
    }

    /// In microseconds: what `part` (0 to 1) of the latencies did not exceed.
    pub(crate) fn percentile(&self, part: f64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss)]
        let wanted = self.total as f64 * part;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            #[expect(clippy::cast_precision_loss)]
            if seen > 0 && seen as f64 >= wanted {
                return Some(middle(index) / 1e3);
            }
        }
        None
    }
}

/// The number of the step that `nanos` falls into: exact below `STEPS`, then by the leading bits.
fn step(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let leading = usize::try_from(nanos >> shift).unwrap_or(0);
    shift as usize * STEPS + leading
}

/// The middle of a step, in nanoseconds.
#[expect(clippy::cast_precision_loss)]
fn middle(index: usize) -> f64 {
    let shift = (index / STEPS).saturating_sub(1);
    let leading = index - shift * STEPS;
    let width = (1_u64 << shift) as f64;
    (leading as f64) * width + (width - 1.0) / 2.0
}
