//! Callbacks: what may be scheduled. asyncio checks it in debug mode only.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::ffi;
use crate::imports::imports;

/// Whether `callback` is a coroutine, or a function that would only make one.
pub(crate) fn is_coroutine(callback: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = callback.py();
    let coroutines = imports(py).coroutines.bind(py);
    if coroutines.call_method1(intern!(py, "iscoroutine"), (callback,))?.is_truthy()? {
        return Ok(true);
    }
    // The public function is deprecated from 3.14 on, and then there is a private one.
    let function = match coroutines.getattr_opt(intern!(py, "_iscoroutinefunction"))? {
        Some(function) => function,
        None => coroutines.getattr(intern!(py, "iscoroutinefunction"))?,
    };
    function.call1((callback,))?.is_truthy()
}

/// `TypeError` for a coroutine, a coroutine function, and what cannot be called.
pub(crate) fn check(callback: &Bound<'_, PyAny>, method: &str) -> PyResult<()> {
    if is_coroutine(callback)? {
        return Err(PyTypeError::new_err(format!("coroutines cannot be used with {method}()")));
    }
    if !ffi::is_callable(callback) {
        return Err(PyTypeError::new_err(format!(
            "a callable object was expected by {method}(), got {}",
            callback.repr()?
        )));
    }
    Ok(())
}
