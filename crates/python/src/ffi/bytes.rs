//! `bytes` objects that are filled in place, and paths that are made of bytes.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

unsafe extern "C" {
    /// `int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size)` of `bytesobject.h`, which the bindings hide.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// A `bytes` object of at most `capacity` bytes into which `fill` has written as many as it returns.
pub(crate) fn bytes_filled(
    py: Python<'_>,
    capacity: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> PyResult<io::Result<Bound<'_, PyAny>>> {
    // SAFETY: with NULL the contents are left uninitialised; NULL means MemoryError.
    let object = unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyBytes_FromStringAndSize(ptr::null(), capacity.cast_signed()),
        )?
    };
    // SAFETY: the object has that much memory, and nobody else has seen it yet.
    let memory = unsafe {
        std::slice::from_raw_parts_mut(ffi::PyBytes_AsString(object.as_ptr()).cast(), capacity)
    };
    let filled = match fill(memory) {
        Ok(filled) => filled.min(capacity),
        Err(error) => return Ok(Err(error)),
    };
    let mut resized = object.into_ptr();
    // SAFETY: the object is ours alone; on failure it is released and the pointer set to NULL.
    unsafe {
        _PyBytes_Resize(&raw mut resized, filled.cast_signed());
        Bound::from_owned_ptr_or_err(py, resized).map(Ok)
    }
}

/// A `bytes` object with a copy of `data`.
#[inline]
pub(crate) fn bytes<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the interpreter copies `data`; NULL means MemoryError.
    unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyBytes_FromStringAndSize(data.as_ptr().cast(), data.len().cast_signed()),
        )
    }
}

/// The bytes of a path as a `str`, as `os.fsdecode` makes it.
pub(crate) fn path<'py>(py: Python<'py>, path: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the interpreter reads `path`; NULL means an exception.
    unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyUnicode_DecodeFSDefaultAndSize(path.as_ptr().cast(), path.len().cast_signed()),
        )
    }
}
