//! `contextvars` contexts.

use pyo3::ffi;
use pyo3::prelude::*;

use super::Ref;

/// A copy of the current context: what `contextvars.copy_context()` returns.
#[inline]
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Ref> {
    // SAFETY: a new reference or NULL with an exception.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()).map(Ref::from) }
}

/// A copy of `context`: `context.copy()`.
#[inline]
pub(crate) fn copy_of_context(context: &Bound<'_, PyAny>) -> PyResult<Ref> {
    // SAFETY: a new reference or NULL with an exception; the argument's class is checked.
    unsafe {
        Bound::from_owned_ptr_or_err(context.py(), ffi::PyContext_Copy(context.as_ptr()))
            .map(Ref::from)
    }
}

/// Runs `body` inside `context`, as `context.run` does.
#[inline]
pub(crate) fn run_in_context<R>(
    context: &Bound<'_, PyAny>,
    body: impl FnOnce() -> PyResult<R>,
) -> PyResult<R> {
    let py = context.py();
    // SAFETY: PyContext_Enter checks that it is given a context.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    let result = body();
    // SAFETY: the context was entered above.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    result
}
