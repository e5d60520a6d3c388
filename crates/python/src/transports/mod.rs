//! Transports.

use pyo3::prelude::*;

use crate::ffi::Ref;

/// A new registry of a loop's open transports: descriptor to transport, weakly.
pub(crate) fn registry(py: Python<'_>) -> PyResult<Ref> {
    Ok(py.import("weakref")?.getattr("WeakValueDictionary")?.call0()?.into())
}
