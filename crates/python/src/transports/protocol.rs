//! What transports of every kind tell their protocols.

use oxloop_engine::flow::{FlowControl, FlowEvent};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::core::Core;
use crate::ffi;
use crate::handle::format_callback;
use crate::report;

/// Calls `connection_made(transport)`; an error is reported as one of a callback.
pub(super) fn tell_made(
    event_loop: &Bound<'_, Core>,
    context: &Bound<'_, PyAny>,
    transport: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let made = ffi::run_in_context(context, || {
        ffi::call_method(protocol, intern!(py, "connection_made"), &[transport])
    });
    match made {
        Ok(_) => Ok(()),
        Err(error) => report_made(event_loop, transport, protocol, error),
    }
}

#[cold]
fn report_made(
    event_loop: &Bound<'_, Core>,
    transport: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
    error: PyErr,
) -> PyResult<()> {
    let py = transport.py();
    let event_loop = event_loop.as_any();
    let callback = protocol.getattr(intern!(py, "connection_made"))?;
    let arguments = PyTuple::new(py, [transport])?;
    let message =
        format!("Exception in callback {}", format_callback(event_loop, &callback, &arguments)?);
    let details = [("transport", transport), ("protocol", protocol)];
    report::callback_error(event_loop, error, &message, &details)
}

/// Calls `pause_writing()` or `resume_writing()`; an error is reported.
pub(super) fn tell_flow(
    event_loop: &Bound<'_, Core>,
    transport: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
    event: FlowEvent,
) -> PyResult<()> {
    let py = transport.py();
    let (name, message) = match event {
        FlowEvent::Pause => (intern!(py, "pause_writing"), "protocol.pause_writing() failed"),
        FlowEvent::Resume => (intern!(py, "resume_writing"), "protocol.resume_writing() failed"),
    };
    match ffi::call_method(protocol, name, &[]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let details = [("transport", transport), ("protocol", protocol)];
            report::callback_error(event_loop.as_any(), error, message, &details)
        }
    }
}

/// Sets the limits of `flow`; `ValueError` unless high >= low >= 0.
pub(super) fn set_limits(
    flow: &mut FlowControl,
    high: Option<isize>,
    low: Option<isize>,
) -> PyResult<()> {
    let unsigned = |limit: Option<isize>| limit.map(usize::try_from).transpose();
    let (Ok(high_limit), Ok(low_limit)) = (unsigned(high), unsigned(low)) else {
        let high = high.unwrap_or_else(|| low.map_or(64 * 1024, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high / 4);
        return Err(PyValueError::new_err(format!(
            "high ({high}) must be >= low ({low}) must be >= 0"
        )));
    };
    flow.set_limits(high_limit, low_limit).map_err(|error| PyValueError::new_err(error.to_string()))
}
