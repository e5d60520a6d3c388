//! Calls into Python by vectorcall, and resuming what is awaited.

use std::ptr;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

/// The most positional arguments that [`call`] and [`call_method`] take.
const MAX_ARGUMENTS: usize = 6;

/// Calls `callable` by vectorcall.
#[inline]
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[&Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let mut stack = [ptr::null_mut(); MAX_ARGUMENTS + 1];
    for (slot, argument) in stack[1..].iter_mut().zip(arguments) {
        *slot = argument.as_ptr();
    }
    debug_assert!(arguments.len() <= MAX_ARGUMENTS);
    // SAFETY: the slots hold borrowed references for the duration of the call, slot 0 may be used by the
    // callee (PY_VECTORCALL_ARGUMENTS_OFFSET), and the result is a new reference or NULL with an exception.
    unsafe {
        let result = ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            stack.as_ptr().add(1),
            arguments.len() | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// Calls the method `name` of `object` by vectorcall, without a bound method in between.
#[inline]
pub(crate) fn call_method<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: &[&Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let mut stack = [ptr::null_mut(); MAX_ARGUMENTS + 2];
    stack[1] = object.as_ptr();
    for (slot, argument) in stack[2..].iter_mut().zip(arguments) {
        *slot = argument.as_ptr();
    }
    debug_assert!(arguments.len() <= MAX_ARGUMENTS);
    // SAFETY: as in `call`.
    unsafe {
        let result = ffi::PyObject_VectorcallMethod(
            name.as_ptr(),
            stack.as_ptr().add(1),
            (arguments.len() + 1) | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// Calls `callable` with at most one positional argument and one that is passed by keyword.
#[inline]
pub(crate) fn call_keyword<'py>(
    callable: &Bound<'py, PyAny>,
    positional: Option<&Bound<'py, PyAny>>,
    names: &Bound<'py, PyTuple>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut stack = [ptr::null_mut(); 3];
    let given = usize::from(positional.is_some());
    if let Some(positional) = positional {
        stack[1] = positional.as_ptr();
    }
    stack[1 + given] = value.as_ptr();
    // SAFETY: as in `call`; `names` is a tuple of one string.
    unsafe {
        let result = ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            stack.as_ptr().add(1),
            given | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            names.as_ptr(),
        );
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// `send(None)` for an iterator: what it yielded, or what it returned.
pub(crate) enum Sent<'py> {
    Yielded(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
}

/// Resumes an awaitable's iterator with `None`.
#[cfg(Py_3_10)]
pub(crate) fn send_none<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
    let py = iterator.py();
    let mut value = ptr::null_mut();
    // SAFETY: the result is a new reference unless there is an exception.
    unsafe {
        match ffi::PyIter_Send(iterator.as_ptr(), ffi::Py_None(), &raw mut value) {
            ffi::PySendResult::PYGEN_NEXT => Ok(Sent::Yielded(Bound::from_owned_ptr(py, value))),
            ffi::PySendResult::PYGEN_RETURN => Ok(Sent::Returned(Bound::from_owned_ptr(py, value))),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

/// The same for Python 3.9, where what is returned is always a `StopIteration`.
#[cfg(not(Py_3_10))]
pub(crate) fn send_none<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
    let py = iterator.py();
    // SAFETY: an iterator has the slot or the check below fails; the result is a new reference, NULL with an
    // exception, or NULL without one (a StopIteration that carries nothing).
    let yielded = unsafe {
        match (*ffi::Py_TYPE(iterator.as_ptr())).tp_iternext {
            Some(next) => next(iterator.as_ptr()),
            None => {
                return call_method(iterator, intern!(py, "send"), &[py.None().bind(py)])
                    .map(Sent::Yielded)
                    .or_else(|error| returned(py, error));
            }
        }
    };
    if !yielded.is_null() {
        // SAFETY: a new reference.
        return Ok(Sent::Yielded(unsafe { Bound::from_owned_ptr(py, yielded) }));
    }
    match PyErr::take(py) {
        None => Ok(Sent::Returned(py.None().into_bound(py))),
        Some(error) => returned(py, error),
    }
}

/// Reads the value out of a `StopIteration`; any other exception stays one.
pub(crate) fn returned(py: Python<'_>, error: PyErr) -> PyResult<Sent<'_>> {
    if error.is_instance_of::<pyo3::exceptions::PyStopIteration>(py) {
        return error.value(py).getattr(intern!(py, "value")).map(Sent::Returned);
    }
    Err(error)
}
