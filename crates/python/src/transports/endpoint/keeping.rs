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
    /// Whether the loop knows that it is to send at the end of the callback, if there is something then.
    is_listed: bool,
    /// Set once somebody else may write to, or change, what the transport writes to.
    never: bool,
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
    let keeping = &mut state.life_mut().keeping;
    keeping.habit.note(callback)
        && !keeping.never
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
    let (is_kept, was_listed, full) = {
        let mut state = this.state().borrow_mut();
        let full = state.size() > most(state.life()) || state.pieces() >= MANY;
        let keeping = &mut state.life_mut().keeping;
        keeping.is_kept |= keeps;
        let was_listed = keeping.is_listed;
        keeping.is_listed |= keeping.is_kept;
        (keeping.is_kept, was_listed, full)
    };
    if !is_kept {
        return grown(transport);
    }
    if !was_listed {
        this.core().get().push_kept(transport.as_any(), end_callback::<T>)?;
    }
    if full { T::send_kept(transport) } else { Ok(()) }
}

/// The callback is over in which something was written and kept.
fn end_callback<T: Endpoint>(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<T>(transport);
    transport.get().state().borrow_mut().life_mut().keeping.is_listed = false;
    T::send_kept(transport)
}

/// Sends what is kept, and keeps nothing from now on.
pub(in crate::transports) fn keep_nothing<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    transport.get().state().borrow_mut().life_mut().keeping.never = true;
    T::send_kept(transport)
}

/// Whether something was kept, which the caller sends now.
pub(in crate::transports) fn take_kept(life: &mut Life) -> bool {
    mem::take(&mut life.keeping.is_kept)
}
