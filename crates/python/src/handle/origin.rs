//! Where a callback comes from: what debug mode and the texts of handles say of it.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::ffi::Ref;
use crate::imports::imports;

/// The stack of the code that schedules, for debug mode: a list of frame summaries.
pub(super) fn source_traceback(py: Python<'_>) -> PyResult<Option<Ref>> {
    let imports = imports(py);
    let frame = match imports.sys.bind(py).call_method1(intern!(py, "_getframe"), (0,)) {
        Ok(frame) => frame,
        // There is no frame when the call comes from outside Python.
        Err(error) if error.is_instance_of::<PyValueError>(py) => return Ok(None),
        Err(error) => return Err(error),
    };
    let helpers = imports.format_helpers.bind(py);
    Ok(Some(helpers.call_method1(intern!(py, "extract_stack"), (frame,))?.into()))
}

/// `callback(*arguments) at file:line`, in the words of the running asyncio.
pub(super) fn format_callback(
    event_loop: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyTuple>,
) -> PyResult<String> {
    let py = event_loop.py();
    let function = imports(py).format_helpers.bind(py).getattr("_format_callback_source")?;
    let keywords = PyDict::new(py);
    // The parameter came with 3.12.4 and 3.13: it hides the arguments outside debug mode.
    if function.getattr("__code__")?.getattr("co_varnames")?.contains("debug")? {
        keywords.set_item("debug", event_loop.call_method0(intern!(py, "get_debug"))?)?;
    }
    let text = function.call((callback, arguments), Some(&keywords))?;
    Ok(text.cast::<PyString>()?.to_string())
}
