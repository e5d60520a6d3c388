//! [`Ref`], a strong reference that is cheap to drop.
//!
//! What surprised us: `Py<T>` asks a thread-local on each drop whether the thread is attached, and a loop drops
//! several references per callback.

use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use pyo3::ffi;
use pyo3::prelude::*;

/// A strong reference that is dropped with a plain decrement.
///
/// Invariant: a `Ref` is only dropped by a thread that is attached to the interpreter. All of them live in
/// Python objects (dropped by their deallocators), in queues that such objects own, or on the stack of a
/// function that was handed a `Python` token; the inbox, whose values other threads push, is emptied by
/// the loop's own thread or by the loop's deallocator.
pub(crate) struct Ref<T = PyAny>(ManuallyDrop<Py<T>>);

impl<T> Ref<T> {
    /// Borrows the object for as long as the interpreter is held.
    #[inline]
    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, T> {
        self.0.bind(py)
    }

    #[inline]
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(ManuallyDrop::new(self.0.clone_ref(py)))
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// Hands the reference over to `PyO3`.
    #[inline]
    pub(crate) fn into_py(self) -> Py<T> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used or dropped again.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }

    #[inline]
    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, T> {
        self.into_py().into_bound(py)
    }
}

impl<T> From<Py<T>> for Ref<T> {
    #[inline]
    fn from(object: Py<T>) -> Self {
        Self(ManuallyDrop::new(object))
    }
}

impl<T> From<Bound<'_, T>> for Ref<T> {
    #[inline]
    fn from(object: Bound<'_, T>) -> Self {
        Self(ManuallyDrop::new(object.unbind()))
    }
}

impl<T> From<&Bound<'_, T>> for Ref<T> {
    #[inline]
    fn from(object: &Bound<'_, T>) -> Self {
        Self(ManuallyDrop::new(object.clone().unbind()))
    }
}

impl FromPyObject<'_, '_> for Ref {
    type Error = Infallible;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> Result<Self, Infallible> {
        Ok(object.to_owned().into())
    }
}

impl<T> Deref for Ref<T> {
    type Target = Py<T>;

    #[inline]
    fn deref(&self) -> &Py<T> {
        &self.0
    }
}

impl<T> Drop for Ref<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the reference is owned, and by the type's invariant this thread is attached.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}
