//! Both ends of a named pipe in one transport, as Windows has them.

use pyo3::exceptions::PyNotImplementedError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{End, Opening, PipeTransport, WritePipeTransport};
use crate::core::Core;
use crate::transports::endpoint;

/// A connection by a named pipe: a writing end that reads, too.
///
/// Source: asyncio's `_ProactorDuplexPipeTransport` (`proactor_events.py`).
#[pyclass(frozen, extends = WritePipeTransport, module = "oxloop._native")]
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
        let class =
            PyClassInitializer::from(base).add_subclass(WritePipeTransport).add_subclass(Self);
        let transport = Bound::new(core.py(), class)?;
        PipeTransport::begin(core, transport.into_any(), &made)
    }
}

#[pymethods]
impl DuplexPipeTransport {
    /// Whether the transport reads.
    fn is_reading(slf: &Bound<'_, Self>) -> bool {
        endpoint::is_reading(slf.as_super().as_super().get())
    }

    /// Read nothing until `resume_reading()`. Idempotent.
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::pause(slf.as_super().as_super())
    }

    /// Read again. Idempotent.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::resume(slf.as_super().as_super()).map(drop)
    }

    /// Always raises `NotImplementedError`: a named pipe cannot be half-closed.
    fn write_eof(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err(()))
    }

    /// False.
    fn can_write_eof(&self) -> bool {
        false
    }
}
