//! What a callback writes in several pieces is kept, and leaves together when the callback ends.

use std::mem;

use oxloop_engine::Habit;
use pyo3::prelude::*;

use super::{Endpoint, Life, State, grown};
use crate::ffi;

/// How much is kept at most, in bytes.
const MOST: usize = 64 * 1024;
/// How many pieces are kept at most.
const MANY: usize = 64;

/// What a transport knows of the callbacks that write to it.
#[derive(Default)]
pub(super) struct Keeping {
    /// How often they do.
    habit: Habit,
    /// Whether the queue is kept for the end of the callback that runs.
    is_kept: bool,
}

/// Notes a write of `count` bytes; whether it is to be kept for the end of the callback, as others have been.
#[inline]
pub(in crate::transports) fn keeps<T: Endpoint>(
    transport: &Bound<'_, T>,
    state: &mut T::State,
    count: usize,
) -> bool {
    let core = transport.get().core().get();
    let Some(callback) = core.callback() else { return false };
    state.life_mut().keeping.habit.note(callback)
        && state.is_drained()
        && count <= most(state.life())
        && core.is_own_thread(transport.py())
}

/// How many bytes are kept at most. A protocol is never told to pause for what is kept.
fn most(life: &Life) -> usize {
    MOST.min(life.flow.limits().1)
}

/// Something has been queued, to be kept or because there is no room.
pub(in crate::transports) fn queued<T: Endpoint>(
    transport: &Bound<'_, T>,
    keeps: bool,
) -> PyResult<()> {
    let this = transport.get();
    let (was_kept, full) = {
        let mut state = this.state().borrow_mut();
        let full = state.size() > most(state.life()) || state.pieces() >= MANY;
        let is_kept = &mut state.life_mut().keeping.is_kept;
        (mem::replace(is_kept, *is_kept || keeps), full)
    };
    match (was_kept, keeps) {
        (false, false) => grown(transport),
        (true, _) if full => T::send_kept(transport),
        (true, _) => Ok(()),
        (false, true) => this.core().get().push_kept(transport.as_any(), end_callback::<T>),
    }
}

/// The callback is over in which something was written and kept.
fn end_callback<T: Endpoint>(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    T::send_kept(ffi::cast_known::<T>(transport))
}

/// Whether something was kept, which the caller sends now.
pub(in crate::transports) fn take_kept(life: &mut Life) -> bool {
    mem::take(&mut life.keeping.is_kept)
}
