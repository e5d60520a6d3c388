//! The arithmetic of one turn of the loop.
//!
//! A turn is asyncio's `_run_once`: ask [`Engine::timeout`], wait that long for events, push what
//! the events mean, [`Engine::expire`] the timers, then run exactly [`Engine::batch_len`] entries:
//! what those push runs in the next turn.

use std::time::Duration;

use crate::{Ready, Timers, Timestamp};

/// The longest wait: `MAXIMUM_SELECT_TIMEOUT` of asyncio's `base_events.py`, 24 hours.
pub const MAXIMUM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What is to be run now and what is to be run later.
#[derive(Debug)]
pub struct Engine<T> {
    /// What runs next, in this order.
    pub ready: Ready<T>,
    /// What runs at its time.
    pub timers: Timers<T>,
}

impl<T> Default for Engine<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Engine<T> {
    /// An engine with nothing to do.
    pub const fn new() -> Self {
        Self { ready: Ready::new(), timers: Timers::new() }
    }

    /// How long the wait of this turn may take: not at all when something is ready or the loop is
    /// `stopping`, without end (`None`) when nothing is scheduled, and otherwise until the next
    /// timer, but no longer than [`MAXIMUM_TIMEOUT`].
    #[inline]
    pub fn timeout(&mut self, now: Timestamp, stopping: bool) -> Option<Duration> {
        if stopping || !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadline = self.timers.next_deadline()?;
        Some(deadline.saturating_duration_since(now).min(MAXIMUM_TIMEOUT))
    }

    /// Moves the timers that are due at `now` to the back of the ready queue, earliest first.
    #[inline]
    pub fn expire(&mut self, now: Timestamp) {
        while let Some(payload) = self.timers.pop_due(now) {
            self.ready.push(payload);
        }
    }

    /// How many entries this turn runs: those that are ready now.
    #[inline]
    pub fn batch_len(&self) -> usize {
        self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let mut engine = Engine::new();
        let now = Timestamp(1_000);
        assert_eq!(engine.timeout(now, false), None);
        assert_eq!(engine.timeout(now, true), Some(Duration::ZERO));
        let token = engine.timers.insert(Timestamp(1_250), 1_u32);
        assert_eq!(engine.timeout(now, false), Some(Duration::from_nanos(250)));
        engine.timers.insert(Timestamp(i64::MAX), 2);
        assert_eq!(engine.timers.cancel(token), Some(1));
        assert_eq!(engine.timeout(now, false), Some(MAXIMUM_TIMEOUT));
        engine.timers.insert(Timestamp(i64::MIN), 3);
        assert_eq!(engine.timeout(now, false), Some(Duration::ZERO));
        engine.expire(now);
        assert_eq!(engine.timeout(now, false), Some(Duration::ZERO));
        assert_eq!((engine.ready.pop(), engine.batch_len()), (Some(3), 0));
    }

    #[test]
    fn due_timers_go_behind_what_was_ready() {
        let mut engine = Engine::new();
        engine.timers.insert(Timestamp(20), 2_u32);
        engine.timers.insert(Timestamp(10), 1);
        engine.timers.insert(Timestamp(21), 3);
        engine.ready.push(0);
        engine.expire(Timestamp(20));
        assert_eq!(engine.batch_len(), 3);
        assert_eq!(engine.ready.drain(), [0, 1, 2]);
    }
}
