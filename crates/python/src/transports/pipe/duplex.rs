//! Both ends of a named pipe in one transport, as Windows has them.

use pyo3::exceptions::PyNotImplementedError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::{End, Opening, PipeTransport};
use crate::core::Core;
use crate::ffi;
use crate::imports::imports;
use crate::transports::endpoint::{self, State};
use crate::transports::protocol;

/// A connection by a named pipe.
///
/// Source: asyncio's `_ProactorDuplexPipeTransport` (`proactor_events.py`).
#[pyclass(frozen, extends = PipeTransport, module = "oxloop._native")]
pub(crate) struct DuplexPipeTransport;

impl DuplexPipeTransport {
    /// Makes a transport that reads and writes, and queues its `connection_made`. What `extra` says, `get_extra_info`
    /// knows.
    pub(crate) fn open<'py>(
        core: &Bound<'py, Core>,
        opening: &Opening<'_, 'py>,
        extra: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (base, made) = PipeTransport::new(core, opening, End::Both)?;
        if let Some(extra) = extra {
            base.state.borrow().life.extra.bind(core.py()).update(extra.as_mapping())?;
        }
        let transport = Bound::new(core.py(), PyClassInitializer::from(base).add_subclass(Self))?;
        protocol::queue_made(core, transport.as_any(), &made, endpoint::opened::<PipeTransport>)?;
        Ok(transport.into_any())
    }
}

#[pymethods]
impl DuplexPipeTransport {
    /// Close: what was written is sent, then `connection_lost(None)` is called. Nothing is read any more.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::close(slf.as_super())
    }

    /// Close without sending what is buffered.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::force(slf.as_super(), None)
    }

    /// Whether the transport reads.
    fn is_reading(slf: &Bound<'_, Self>) -> bool {
        endpoint::is_reading(slf.as_super().get())
    }

    /// Read nothing until `resume_reading()`. Idempotent.
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::pause(slf.as_super())
    }

    /// Read again. Idempotent.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::resume(slf.as_super()).map(drop)
    }

    /// Always raises `NotImplementedError`: a named pipe cannot be half-closed.
    fn write_eof(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err(()))
    }

    /// False.
    fn can_write_eof(&self) -> bool {
        false
    }

    /// Write the concatenation of the items of `list_of_data`.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let data = PyBytes::new(py, b"").call_method1(intern!(py, "join"), (list_of_data,))?;
        ffi::call_method(slf.as_any(), intern!(py, "write"), &[&data]).map(drop)
    }

    /// Set the buffer sizes in bytes above which the protocol is told to pause writing, and at or below which
    /// to resume. Raises `ValueError` unless high >= low >= 0.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<isize>,
        low: Option<isize>,
    ) -> PyResult<()> {
        endpoint::set_limits(slf.as_super(), high, low)
    }

    /// The limits in bytes: (low, high).
    fn get_write_buffer_limits(slf: &Bound<'_, Self>) -> (usize, usize) {
        slf.as_super().get().state.borrow().life.flow.limits()
    }

    /// The number of bytes that have been written and not yet sent.
    fn get_write_buffer_size(slf: &Bound<'_, Self>) -> usize {
        slf.as_super().get().state.borrow().size()
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).transport.bind(py).clone()
    }
}
