//! What the loop's methods take that is not simply an object.

use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::ffi::Ref;

/// A keyword that was given, `None` included.
#[derive(Default)]
pub(super) struct Given(pub(super) Option<Ref>);

impl FromPyObject<'_, '_> for Given {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        Ok(Self(Some(object.extract()?)))
    }
}

/// A keyword that asyncio takes for true or false, whatever it is.
#[derive(Clone, Copy)]
pub(super) struct Truth(pub(super) bool);

impl FromPyObject<'_, '_> for Truth {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        value.is_truthy().map(Self)
    }
}

/// A keyword, or the number that it is by default.
pub(super) fn or_number(py: Python<'_>, value: Given, otherwise: i32) -> Ref {
    value.0.unwrap_or_else(|| PyInt::new(py, otherwise).into_any().into())
}
