//! What transports of every kind tell a protocol, and what becomes of its errors.

use oxloop_engine::flow::{FlowControl, FlowEvent};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyFloat, PyMemoryView};

use crate::core::{Core, Run};
use crate::error;
use crate::ffi;
use crate::handle::Handle;
use crate::report;

/// From this many writes to a lost connection on, each is logged (`LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOST_WRITES_LOGGED: u32 = 5;

/// A write after the connection was lost is dropped; from the fifth on, they say so in the log.
#[cold]
pub(super) fn log_lost_write(py: Python<'_>, lost: u32, message: &str) -> PyResult<()> {
    if lost >= LOST_WRITES_LOGGED {
        report::log(py, "warning", message)?;
    }
    Ok(())
}

/// `TypeError` for what cannot be sent; `wanted` is what its text says can be.
pub(super) fn check_data(data: &Bound<'_, PyAny>, wanted: &str) -> PyResult<()> {
    if data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
    {
        return Ok(());
    }
    let class = data.get_type();
    let name = class.name()?;
    Err(PyTypeError::new_err(format!("data argument must be a {wanted} object, not '{name}'")))
}

/// A limit of a buffer, for which asyncio takes any number: a fraction of a byte and what is beyond all sizes, as
/// `math.inf` is, say no more than the next integer.
pub(super) fn limit(number: &Bound<'_, PyAny>) -> PyResult<Option<isize>> {
    if number.is_none() {
        return Ok(None);
    }
    if let Ok(float) = number.cast::<PyFloat>() {
        let float = float.value();
        #[allow(clippy::cast_possible_truncation, reason = "the nearest integer there is")]
        return Ok(Some(if float.is_nan() { -1 } else { float.floor() as isize }));
    }
    match number.extract::<isize>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(number.py()) => {
            Ok(Some(if number.lt(0)? { isize::MIN } else { isize::MAX }))
        }
        limit => limit.map(Some),
    }
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
        let low = low.unwrap_or(high.div_euclid(4));
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

/// Queues `made`, the protocol's `connection_made`, and `opened` behind it, which starts to read and resolves the
/// waiter: what asyncio queues as three callbacks. `None` for the context is a copy of the current one.
pub(super) fn queue_made(
    core: &Bound<'_, Core>,
    transport: &Bound<'_, PyAny>,
    made: &Bound<'_, PyAny>,
    opened: Run,
    context: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    core.get().check_closed()?;
    let made = Handle::new(core, made, std::slice::from_ref(transport), context)?;
    core.get().push(Handle::queued(&Bound::new(core.py(), made)?));
    core.get().push_native(transport.into(), opened)
}

/// Queues the transport's `_call_connection_lost(reason)`. `None` for the context is a copy of the current one.
pub(super) fn queue_lost(
    core: &Bound<'_, Core>,
    transport: &Bound<'_, PyAny>,
    reason: Option<PyErr>,
    context: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = core.py();
    core.get().check_closed()?;
    let callback = transport.getattr(intern!(py, "_call_connection_lost"))?;
    let reason = reason.map_or_else(
        || py.None().into_bound(py),
        |reason| error::exception(py, &reason).into_any(),
    );
    let handle = Bound::new(py, Handle::new(core, &callback, &[reason], context)?)?;
    core.get().push(Handle::queued(&handle));
    Ok(())
}

/// Tells the protocol, if there is one, that its connection is gone, then calls `release`. The error is the
/// protocol's, or that of the release.
pub(super) fn tell_lost(
    protocol: Option<&Bound<'_, PyAny>>,
    reason: &Bound<'_, PyAny>,
    release: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    let name = intern!(reason.py(), "connection_lost");
    let told = protocol.map(|protocol| ffi::call_method(protocol, name, &[reason]).map(drop));
    let released = release();
    told.unwrap_or(Ok(())).and(released)
}
