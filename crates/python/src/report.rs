//! Where errors of the user's code go: the loop's exception handler, and asyncio's log.

use pyo3::exceptions::PyBaseException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error;
use crate::ffi;
use crate::imports::imports;

/// Calls `loop.call_exception_handler` (the user's, if it was replaced) with `message`, the exception and
/// `details`. `KeyboardInterrupt` and `SystemExit`, from whatever side, come back as the error.
pub(crate) fn call_exception_handler(
    event_loop: &Bound<'_, PyAny>,
    message: &str,
    exception: &Bound<'_, PyBaseException>,
    details: &[(&str, &Bound<'_, PyAny>)],
) -> PyResult<()> {
    let py = event_loop.py();
    let context = PyDict::new(py);
    context.set_item(intern!(py, "message"), message)?;
    context.set_item(intern!(py, "exception"), exception)?;
    for (key, value) in details {
        context.set_item(*key, value)?;
    }
    ffi::call_method(event_loop, intern!(py, "call_exception_handler"), &[context.as_any()])?;
    Ok(())
}

/// The same for what asyncio reports in an `except` block, where a handler finds the exception in `sys.exc_info()`,
/// as `logging.exception()` does.
pub(crate) fn caught(
    event_loop: &Bound<'_, PyAny>,
    message: &str,
    exception: &Bound<'_, PyBaseException>,
    details: &[(&str, &Bound<'_, PyAny>)],
) -> PyResult<()> {
    ffi::while_handling(exception, || {
        call_exception_handler(event_loop, message, exception, details)
    })
}

/// Reports an exception that a callback raised. Only an exception that leaves the loop is returned.
pub(crate) fn callback_error(
    event_loop: &Bound<'_, PyAny>,
    error: PyErr,
    message: &str,
    details: &[(&str, &Bound<'_, PyAny>)],
) -> PyResult<()> {
    let py = event_loop.py();
    if error::leaves_the_loop(py, &error) {
        return Err(error);
    }
    caught(event_loop, message, &error::exception(py, &error), details)
}

/// asyncio's logger, looked up where asyncio's own loops look it up.
pub(crate) fn logger(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    imports(py).base_events.bind(py).getattr(intern!(py, "logger"))
}

/// Writes `message` to asyncio's log at `level` (a method of the logger).
pub(crate) fn log(py: Python<'_>, level: &str, message: &str) -> PyResult<()> {
    logger(py)?.call_method1(level, (message,))?;
    Ok(())
}

/// The same with a traceback, as by `exc_info=exception`.
pub(crate) fn log_exception(
    py: Python<'_>,
    level: &str,
    message: &str,
    exception: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "exc_info"), exception)?;
    logger(py)?.call_method(level, (message,), Some(&keywords))?;
    Ok(())
}

/// `warnings.warn(message, ResourceWarning, source=source)`.
pub(crate) fn resource_warning(
    py: Python<'_>,
    message: &str,
    source: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "source"), source)?;
    imports(py).warnings.bind(py).call_method(
        intern!(py, "warn"),
        (message, py.get_type::<pyo3::exceptions::PyResourceWarning>()),
        Some(&keywords),
    )?;
    Ok(())
}
