//! When the loop tells that there is room, and what the protocol is told of the queue.

use oxloop_engine::flow::FlowEvent;
use pyo3::prelude::*;

use super::{Endpoint, State, closing};
use crate::transports::protocol;

/// Lets the loop tell us when there is room for what is queued.
pub(in crate::transports) fn start_writing<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let this = transport.get();
    this.core().get().check_closed()?;
    this.watch()
        .start_writes(this.core().get(), transport.as_any(), T::WRITABLE)
        .or_else(|error| closing::fatal(transport, error, T::WRITE_FAILED))
}

/// Stops the loop from telling us when there is room.
pub(in crate::transports) fn stop_writing<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let this = transport.get();
    this.watch().stop_writes(this.core().get(), transport.py())
}

/// If the queue is empty, which a closing transport has waited for: then it is lost. Whether the queue is empty and
/// the transport goes on.
pub(in crate::transports) fn drained<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<bool> {
    let closing = {
        let state = transport.get().state().borrow();
        if !state.is_drained() || state.life().phase.is_lost() {
            return Ok(false);
        }
        state.life().phase.is_closing()
    };
    stop_writing(transport)?;
    if closing {
        closing::lose_now(transport)?;
    }
    Ok(!closing)
}

/// Sets the limits of the write buffer; `ValueError` unless high >= low >= 0.
pub(in crate::transports) fn set_limits<T: Endpoint>(
    transport: &Bound<'_, T>,
    high: Option<isize>,
    low: Option<isize>,
) -> PyResult<()> {
    T::send_kept(transport)?;
    {
        let mut state = transport.get().state().borrow_mut();
        protocol::set_limits(&mut state.life_mut().flow, high, low)?;
    }
    grown(transport)
}

/// Tells the protocol to pause if the queue is above the high-water mark.
pub(in crate::transports) fn grown<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let event = {
        let mut state = transport.get().state().borrow_mut();
        let size = state.size();
        state.life_mut().flow.on_growth(size)
    };
    tell_flow(transport, event)
}

/// Tells the protocol to resume if the queue is at or below the low-water mark.
pub(in crate::transports) fn shrunk<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let event = {
        let mut state = transport.get().state().borrow_mut();
        let size = state.size();
        state.life_mut().flow.on_shrink(size)
    };
    tell_flow(transport, event)
}

/// Tells the protocol, if there is still one, what flow control says.
pub(in crate::transports) fn tell_flow<T: Endpoint>(
    transport: &Bound<'_, T>,
    event: Option<FlowEvent>,
) -> PyResult<()> {
    let Some(event) = event else { return Ok(()) };
    let (this, py) = (transport.get(), transport.py());
    let Some(protocol) = this.protocol(py) else { return Ok(()) };
    protocol::tell_flow(this.core().bind(py), transport.as_any(), &protocol, event)
}
