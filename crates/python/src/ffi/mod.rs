//! Safe wrappers round the few interpreter calls that `PyO3` has no (fast enough) form for.
//!
//! Two things here cost a loop most of its time when they are done the general way, and are therefore
//! done by hand: dropping a reference ([`Ref`]) and receiving a call ([`FastMethod`]).

#![allow(unsafe_code)] // the interpreter's C API

mod arguments;
mod bytes;
mod calls;
mod collector;
mod contexts;
mod handled;
mod methods;
mod reference;
mod tasks;

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use oxloop_engine::sys::fd::{BorrowedFd, RawFd};
use pyo3::ffi;
use pyo3::prelude::*;

pub(crate) use arguments::{Arguments, Parsed};
pub(crate) use bytes::{bytes, bytes_filled, path};
pub(crate) use calls::{Sent, call, call_keyword, call_method, returned, send_none};
pub(crate) use collector::{Finalize, hide, is_hidden, is_unique, set_finalizer, show_if_shared};
pub(crate) use contexts::{copy_context, copy_of_context, run_in_context};
pub(crate) use handled::while_handling;
pub(crate) use methods::{FastMethod, add_fast_methods, enter_fast, fast_method};
pub(crate) use reference::Ref;
pub(crate) use tasks::is_task_callback;

/// A number that changes whenever an attribute of the object's class, or of one of its bases, is set; 0 while the
/// interpreter has given none.
#[inline]
pub(crate) fn class_version(object: &Bound<'_, PyAny>) -> u32 {
    // SAFETY: every object has a class; without a GIL, another thread may be writing the number.
    unsafe {
        let class = ffi::Py_TYPE(object.as_ptr());
        AtomicU32::from_ptr(&raw mut (*class).tp_version_tag).load(Relaxed)
    }
}

/// Whether `object` may be called.
#[inline]
pub(crate) fn is_callable(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: always succeeds.
    unsafe { ffi::PyCallable_Check(object.as_ptr()) != 0 }
}

/// A descriptor that somebody else owns; `None` for a negative number, which a closed file object reports.
///
/// Nothing says that it is still open, or the file that it was: the kernel then answers `EBADF`, or acts on
/// the other file, as it does for Python's own `os` functions.
pub(crate) fn borrow_fd<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: it is not -1; the callers use it for system calls at once.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Runs `body` with no exception set, and sets the one that was again: for destructors, which the interpreter
/// calls in the middle of anything.
pub(crate) fn keep_exception<R>(py: Python<'_>, body: impl FnOnce() -> R) -> R {
    let pending = PyErr::take(py);
    let result = body();
    if let Some(pending) = pending {
        pending.restore(py);
    }
    result
}

/// `threading.get_ident()`.
pub(crate) fn thread_ident(_py: Python<'_>) -> u64 {
    // SAFETY: has no preconditions.
    let ident = unsafe { PyThread_get_thread_ident() };
    #[allow(clippy::cast_lossless, clippy::unnecessary_cast)] // `c_ulong` has 32 bits on Windows
    let ident = ident as u64;
    ident
}

unsafe extern "C" {
    /// `unsigned long PyThread_get_thread_ident(void)` of `pythread.h`.
    fn PyThread_get_thread_ident() -> std::ffi::c_ulong;
}

/// `object.__setattr__` and `object.__delattr__` (for `None`).
pub(crate) fn set_attribute(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyAny>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let value = value.map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: borrowed references; NULL deletes.
    if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } < 0 {
        return Err(PyErr::fetch(object.py()));
    }
    Ok(())
}

/// Whether any attribute has been set on the object itself, or may have been: a method of its class may have been
/// replaced then.
#[inline]
pub(crate) fn has_own_attributes(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a positive offset is that of the object's dictionary, which can be NULL as long as it is empty
    // (`_PyObject_GetDictPtr` of `cpython/object.h`). Classes of ours have one.
    unsafe {
        let offset = (*ffi::Py_TYPE(object.as_ptr())).tp_dictoffset;
        let Ok(offset) = usize::try_from(offset) else { return true };
        if offset == 0 {
            return true;
        }
        let dict = *object.as_ptr().byte_add(offset).cast::<*mut ffi::PyObject>();
        !dict.is_null() && ffi::PyDict_Size(dict) > 0
    }
}

/// -1 as an object: what `get_buffer` is called with.
pub(crate) fn minus_one(py: Python<'_>) -> Bound<'_, PyAny> {
    pyo3::types::PyInt::new(py, -1).into_any()
}

/// Casts without a check in release builds.
#[inline]
pub(crate) fn cast_known<'a, 'py, T: pyo3::PyTypeInfo>(
    object: &'a Bound<'py, PyAny>,
) -> &'a Bound<'py, T> {
    debug_assert!(object.is_instance_of::<T>());
    // SAFETY: only called where the class of `object` was fixed when it was stored beside the function
    // that calls this, or by a method descriptor, which checks `self`.
    unsafe { object.cast_unchecked::<T>() }
}

/// `None`, for the end of a flow.
pub(crate) fn none() -> Ref {
    Python::attach(|py| py.None().into())
}
