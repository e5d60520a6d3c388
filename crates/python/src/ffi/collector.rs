//! Who refers to an object, what ends it, and hiding objects from the garbage collector while they are in a queue.
//!
//! Without a GIL nothing is hidden: there the collector finds objects in the heap itself, and other threads may
//! take references at any time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::{PyClass, ffi};

use super::Ref;

/// What ends an object of the class before the collector takes it apart.
pub(crate) trait Finalize: PyClass {
    /// Called once, while everything that the object refers to is still whole.
    fn finalize(slf: &Bound<'_, Self>);
}

/// Has the collector finalize the objects of a class (PEP 442).
///
/// To be called before there is one. Objects that are freed by their reference count are not finalized.
pub(crate) fn set_finalizer<T: Finalize>(py: Python<'_>) {
    /// # Safety
    /// To be called by the interpreter only, as a `tp_finalize`.
    unsafe extern "C" fn finalize<T: Finalize>(object: *mut ffi::PyObject) {
        // SAFETY: the interpreter calls it from an attached thread, with an object of the class.
        let object = unsafe {
            Bound::from_borrowed_ptr(Python::assume_attached(), object).cast_into_unchecked::<T>()
        };
        // A panic has been printed by now; the interpreter is in the middle of a collection.
        let _ = catch_unwind(AssertUnwindSafe(|| T::finalize(&object)));
    }
    // SAFETY: the class is made by its first use, which this is, and nobody else reads it yet.
    unsafe { (*T::type_object_raw(py)).tp_finalize = Some(finalize::<T>) };
}

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
