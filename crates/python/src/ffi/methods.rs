//! Methods that are called past `PyO3`'s argument parsing, which builds a tuple for every `*args`.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::{Arguments, Ref};

/// What a fast method is in Rust: `self`, the borrowed arguments, a new reference.
pub(crate) type FastFunction =
    for<'py> fn(&Bound<'py, PyAny>, &Arguments<'_, 'py>) -> PyResult<Ref>;

/// A method that is called with `METH_FASTCALL | METH_KEYWORDS`, past `PyO3`'s argument parsing.
pub(crate) struct FastMethod {
    pub(crate) name: &'static CStr,
    pub(crate) doc: &'static CStr,
    /// Made by [`fast_method!`] from a [`FastFunction`].
    pub(crate) entry: ffi::PyCFunctionFastWithKeywords,
}

/// A [`FastMethod`] from its Python name, its documentation and a [`FastFunction`].
macro_rules! fast_method {
    ($name:literal, $function:path, $doc:literal) => {{
        #[allow(unsafe_code)]
        unsafe extern "C" fn entry(
            this: *mut pyo3::ffi::PyObject,
            values: *const *mut pyo3::ffi::PyObject,
            positional: pyo3::ffi::Py_ssize_t,
            keywords: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: the interpreter calls a METH_FASTCALL | METH_KEYWORDS method with exactly these.
            unsafe { $crate::ffi::enter_fast($function, this, values, positional, keywords) }
        }
        $crate::ffi::FastMethod { name: $name, doc: $doc, entry }
    }};
}
pub(crate) use fast_method;

/// Calls `function` with the arguments of a vectorcall; a panic becomes a `RuntimeError`.
///
/// # Safety
/// To be called by the interpreter only, with the arguments of a `METH_FASTCALL | METH_KEYWORDS` method.
#[inline]
pub(crate) unsafe fn enter_fast(
    function: FastFunction,
    this: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter only calls a method from an attached thread.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: by the caller's promise.
    let arguments = unsafe { Arguments::new(py, values, positional, keywords) };
    // SAFETY: `this` is borrowed for the call and `Bound` has the layout of a pointer.
    let this = unsafe { &*ptr::from_ref(&this).cast::<Bound<'_, PyAny>>() };
    match catch_unwind(AssertUnwindSafe(|| function(this, &arguments))) {
        Ok(Ok(value)) => value.into_py().into_ptr(),
        Ok(Err(error)) => {
            error.restore(py);
            ptr::null_mut()
        }
        Err(_) => {
            PyRuntimeError::new_err("oxloop: internal error").restore(py);
            ptr::null_mut()
        }
    }
}

/// Puts `methods` into `class` as method descriptors, which the interpreter calls by vectorcall.
pub(crate) fn add_fast_methods(
    class: &Bound<'_, PyType>,
    methods: impl IntoIterator<Item = FastMethod>,
) -> PyResult<()> {
    for method in methods {
        let definition = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: method.name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: method.entry },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: method.doc.as_ptr(),
        }));
        // SAFETY: the definition lives as long as the process (a class is made once), and the entry point
        // has the signature that the flags say.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(
                class.py(),
                ffi::PyDescr_NewMethod(class.as_type_ptr(), definition),
            )?
        };
        let name = method.name.to_str().unwrap_or_default();
        class.setattr(name, descriptor)?;
    }
    Ok(())
}
