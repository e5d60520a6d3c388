//! The transport below: our own stream transport, which is called natively, or any other.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use crate::error;
use crate::ffi::{self, Ref};
use crate::transports::stream::StreamTransport;

/// What TLS sends to and closes.
pub(super) enum Lower {
    Stream(Ref<StreamTransport>),
    Other(Ref),
}

impl Lower {
    pub(super) fn new(transport: &Bound<'_, PyAny>) -> Self {
        // By its real class: what it says it is, is asyncio's.
        if transport.is_exact_instance_of::<StreamTransport>() {
            Self::Stream(ffi::cast_known::<StreamTransport>(transport).into())
        } else {
            Self::Other(transport.into())
        }
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Stream(transport) => Self::Stream(transport.clone_ref(py)),
            Self::Other(transport) => Self::Other(transport.clone_ref(py)),
        }
    }

    pub(super) fn object<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyAny> {
        match self {
            Self::Stream(transport) => transport.bind(py).as_any(),
            Self::Other(transport) => transport.bind(py),
        }
    }

    /// Sends `data`, a `bytes` object.
    pub(super) fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        match self {
            Self::Stream(transport) if !ffi::has_own_attributes(transport.bind(py)) => {
                StreamTransport::send(transport.bind(py), data)
            }
            // Not ours, or `write` may have been replaced.
            lower => ffi::call_method(lower.object(py), intern!(py, "write"), &[data]).map(drop),
        }
    }

    pub(super) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.object(py).call_method0(intern!(py, "close")).map(drop)
    }

    /// Ends the connection at once, because of `reason` if there is one.
    pub(super) fn force_close(&self, py: Python<'_>, reason: Option<&PyErr>) -> PyResult<()> {
        let object = self.object(py);
        let reason = reason.map(|reason| error::exception(py, reason));
        // Every transport of asyncio has it; one of a user's need not.
        match object.getattr_opt(intern!(py, "_force_close"))? {
            Some(force_close) => force_close.call1((reason,)),
            None => object.call_method0(intern!(py, "abort")),
        }
        .map(drop)
    }

    pub(super) fn pause_reading(&self, py: Python<'_>) -> PyResult<()> {
        self.object(py).call_method0(intern!(py, "pause_reading")).map(drop)
    }

    pub(super) fn resume_reading(&self, py: Python<'_>) -> PyResult<()> {
        self.object(py).call_method0(intern!(py, "resume_reading")).map(drop)
    }

    pub(super) fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Stream(transport) => visit.call(&**transport),
            Self::Other(transport) => visit.call(&**transport),
        }
    }
}
