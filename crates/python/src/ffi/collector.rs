//! Who refers to an object, and hiding objects from the garbage collector while they are in a queue.
//!
//! Without a GIL nothing is hidden: there the collector finds objects in the heap itself, and other threads may
//! take references at any time.

use pyo3::ffi;
use pyo3::prelude::*;

use super::Ref;

/// Hides a new object from the garbage collector, until [`show_if_shared`].
///
/// The caller owns the only reference that counts, or shows what the object refers to in its stead.
#[inline]
pub(crate) fn hide(object: &Bound<'_, PyAny>) {
    if cfg!(Py_GIL_DISABLED) {
        return;
    }
    // SAFETY: an object whose class takes part in garbage collection, tracked or not.
    unsafe { ffi::PyObject_GC_UnTrack(object.as_ptr().cast()) }
}

/// Shows a hidden object to the garbage collector again, if somebody beside the caller refers to it: then it
/// may be part of a cycle.
#[inline]
pub(crate) fn show_if_shared<T>(object: &Ref<T>) {
    if cfg!(Py_GIL_DISABLED) {
        return;
    }
    // SAFETY: as above; only a hidden object is tracked again.
    unsafe {
        if ffi::Py_REFCNT(object.as_ptr()) > 1 && ffi::PyObject_GC_IsTracked(object.as_ptr()) == 0 {
            ffi::PyObject_GC_Track(object.as_ptr().cast());
        }
    }
}

/// Whether nobody else refers to the object. Without a GIL: never known.
#[inline]
pub(crate) fn is_unique<T>(object: &Ref<T>) -> bool {
    // SAFETY: reads the count of a live object.
    !cfg!(Py_GIL_DISABLED) && unsafe { ffi::Py_REFCNT(object.as_ptr()) == 1 }
}

/// Whether the object is hidden and the caller's reference is the only one, so that the caller may show to the
/// garbage collector what the object refers to.
#[inline]
pub(crate) fn is_hidden<T>(object: &Ref<T>) -> bool {
    // SAFETY: reads the state of a live object whose class takes part in garbage collection.
    is_unique(object) && unsafe { ffi::PyObject_GC_IsTracked(object.as_ptr()) == 0 }
}
