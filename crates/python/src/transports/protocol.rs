//! What transports of every kind tell a protocol, and what becomes of its errors.

use oxloop_engine::flow::{FlowControl, FlowEvent};
use pyo3::exceptions::{PyBaseException, PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyTuple};

use crate::core::Core;
use crate::error;
use crate::ffi::{self, Ref};
use crate::handle::format_callback;
use crate::report;

/// From this many writes to a lost connection on, each is logged (`LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOST_WRITES_LOGGED: u32 = 5;

/// Counts a write after the connection was lost, which is dropped; the fifth and later ones say so in the log.
#[cold]
pub(super) fn count_lost_write(py: Python<'_>, lost: u32) -> PyResult<()> {
    if lost > LOST_WRITES_LOGGED {
        report::log(py, "warning", "socket.send() raised exception.")?;
    }
    Ok(())
}

/// `TypeError` for what cannot be sent.
pub(super) fn check_data(data: &Bound<'_, PyAny>) -> PyResult<()> {
    if data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
    {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!(
        "data argument must be a bytes-like object, not '{}'",
        data.get_type().name()?
    )))
}

/// Sets the limits of the write buffer; `ValueError` unless high >= low >= 0.
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

/// Tells the protocol to stop or to go on writing.
pub(super) fn tell_flow(
    core: &Bound<'_, Core>,
    transport: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
    event: FlowEvent,
) -> PyResult<()> {
    let py = core.py();
    let (name, message) = match event {
        FlowEvent::Pause => (intern!(py, "pause_writing"), "protocol.pause_writing() failed"),
        FlowEvent::Resume => (intern!(py, "resume_writing"), "protocol.resume_writing() failed"),
    };
    match ffi::call_method(protocol, name, &[]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let details = [("transport", transport), ("protocol", protocol)];
            report::callback_error(core.as_any(), error, message, &details)
        }
    }
}

/// Tells the protocol of its connection, in `context`; its error is the result.
pub(super) fn tell_made(
    core: &Bound<'_, Core>,
    context: &Bound<'_, PyAny>,
    transport: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = core.py();
    let made = ffi::run_in_context(context, || {
        ffi::call_method(protocol, intern!(py, "connection_made"), &[transport])
    });
    match made {
        Ok(_) => Ok(()),
        Err(error) => report_made(core, transport, protocol, error),
    }
}

#[cold]
fn report_made(
    core: &Bound<'_, Core>,
    transport: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
    error: PyErr,
) -> PyResult<()> {
    let py = core.py();
    let callback = protocol.getattr(intern!(py, "connection_made"))?;
    let arguments = PyTuple::new(py, [transport])?;
    let callback = format_callback(core.as_any(), &callback, &arguments)?;
    let message = format!("Exception in callback {callback}");
    let details = [("transport", transport), ("protocol", protocol)];
    report::callback_error(core.as_any(), error, &message, &details)
}

/// Tells the protocol, if there is one, that its connection is gone, then calls `release`. An error of the
/// protocol's is reported as one of the callback `name`.
pub(super) fn tell_lost(
    core: &Bound<'_, Core>,
    transport: &Bound<'_, PyAny>,
    protocol: Option<&Bound<'_, PyAny>>,
    reason: Option<Ref<PyBaseException>>,
    name: &str,
    release: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    let py = core.py();
    let reason =
        reason.map_or_else(|| py.None().into_bound(py), |reason| reason.into_bound(py).into_any());
    let told = protocol
        .map(|protocol| ffi::call_method(protocol, intern!(py, "connection_lost"), &[&reason]));
    let released = release();
    let reported = match told {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => {
            let message = format!("Exception in callback {name}({})", reason.repr()?);
            report::callback_error(core.as_any(), error, &message, &[("transport", transport)])
        }
    };
    reported.and(released)
}

/// Reports an error after which the connection cannot go on. One of the system is only logged in debug mode,
/// since the protocol hears of it; any other goes to the exception handler.
#[cold]
pub(super) fn report_fatal(
    core: &Bound<'_, Core>,
    transport: &Bound<'_, PyAny>,
    protocol: Option<Bound<'_, PyAny>>,
    error: &PyErr,
    message: &str,
) -> PyResult<()> {
    let py = core.py();
    let exception = error::exception(py, error);
    if error.is_instance_of::<PyOSError>(py) {
        if core.get().debug() {
            let text = format!("{}: {message}", transport.repr()?);
            report::debug_exception(py, &text, exception.as_any())?;
        }
        return Ok(());
    }
    let protocol = protocol.unwrap_or_else(|| py.None().into_bound(py));
    let details = [("transport", transport), ("protocol", &protocol)];
    report::call_exception_handler(core.as_any(), message, Some(&exception), &details)
}
