//! The transport that the protocol above is given: a handle on the [`TlsProtocol`], which has the state.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::{PyNotImplementedError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyMemoryView};

use super::protocol::TlsProtocol;
use super::{closing, reading, writing};
use crate::buffer::{Chunk, View};
use crate::cell::Made;
use crate::core::Core;
use crate::ffi::{self, Arguments, FastMethod, Ref, fast_method};
use crate::imports::tls_imports;
use crate::report;
use crate::transports::protocol::limit;
use crate::transports::stream;

/// A connection that carries a stream of bytes inside of TLS.
///
/// Source: asyncio's documentation, "Transports and Protocols".
#[pyclass(frozen, dict, weakref, module = "oxloop._native")]
pub(crate) struct TlsTransport {
    made: Made,
    core: Ref<Core>,
    layer: Ref<TlsProtocol>,
    /// Set by `close` and `abort`, and when the peer or the transport below has ended the connection.
    closed: AtomicBool,
}

impl TlsTransport {
    pub(super) fn new(core: &Bound<'_, Core>, layer: &Bound<'_, TlsProtocol>) -> Self {
        Self {
            made: Made::new(),
            core: core.into(),
            layer: layer.into(),
            closed: AtomicBool::new(false),
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    pub(super) fn set_closed(&self) {
        self.closed.store(true, Relaxed);
    }

    fn end(&self, py: Python<'_>, reason: Option<&PyErr>) -> PyResult<()> {
        self.set_closed();
        let layer = self.layer.bind(py);
        writing::uncork(layer)?;
        closing::abort(layer, reason)
    }
}

/// The methods that are called past `PyO3`.
pub(crate) fn methods() -> [FastMethod; 1] {
    [fast_method!(
        c"write",
        write,
        c"write($self, data)\n--\n\nSend data (bytes, bytearray or memoryview) without waiting; what cannot be sent at once is buffered."
    )]
}

fn write<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    let py = slf.py();
    let data = arguments.single("write", "data")?;
    let layer = ffi::cast_known::<TlsTransport>(slf).get().layer.bind(py);
    let chunk = if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        Chunk::rest(data, bytes.as_bytes(), 0).0
    } else {
        check_data(data)?;
        let view = View::readable(data)?;
        Chunk::rest(data, view.as_slice(), 0).0
    };
    if !chunk.as_ref().is_empty() {
        writing::write(layer, [chunk])?;
    }
    Ok(py.None().into())
}

/// Whether a transport is closing as soon as the one below is, which an error may have ended: from Python 3.12.8 and
/// 3.13.1 on (gh-118950).
fn asks_below(py: Python<'_>) -> bool {
    static ASKS: PyOnceLock<bool> = PyOnceLock::new();
    *ASKS.get_or_init(py, || {
        let version = py.version_info();
        version >= (3, 13, 1) || (version >= (3, 12, 8) && version < (3, 13))
    })
}

fn check_data(data: &Bound<'_, PyAny>) -> PyResult<()> {
    if data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
    {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!(
        "data: expecting a bytes-like instance, got {}",
        data.get_type().name()?
    )))
}

#[pymethods]
impl TlsTransport {
    /// Information about the connection: the names that asyncio gives for TLS, and what the transport below knows.
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        &self,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.layer.get().extra_info(name, default)
    }

    /// Change the protocol.
    fn set_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        self.layer.get().set_protocol(protocol)
    }

    /// The current protocol.
    fn get_protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.layer.get().protocol(py)
    }

    /// Whether the transport is closing or closed.
    fn is_closing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if !self.is_closed()
            && asks_below(py)
            && let Some(lower) = self.layer.get().lower(py)
        {
            return lower.object(py).call_method0(intern!(py, "is_closing"));
        }
        Ok(PyBool::new(py, self.is_closed()).to_owned().into_any())
    }

    /// Close: what was written is sent, the peer is told and its answer waited for, then `connection_lost(None)` is
    /// called.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.closed.swap(true, Relaxed) {
            return Ok(());
        }
        closing::start(self.layer.bind(py))
    }

    /// Close at once: what is buffered is not sent, and the peer not told.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        self.end(py, None)
    }

    /// Whether the protocol is given what comes.
    fn is_reading(&self) -> bool {
        !self.layer.get().state.borrow().reading_paused
    }

    /// Give the protocol nothing until `resume_reading()`. Idempotent.
    fn pause_reading(&self) {
        reading::pause(self.layer.get());
    }

    /// Give the protocol what comes again. Idempotent.
    fn resume_reading(&self, py: Python<'_>) -> PyResult<()> {
        reading::resume(self.layer.bind(py))
    }

    /// Set the buffer sizes in bytes at or above which the protocol is told to pause writing, and at or below which
    /// to resume. Raises `ValueError` unless high >= low >= 0.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = limit)] high: Option<isize>,
        #[pyo3(from_py_with = limit)] low: Option<isize>,
    ) -> PyResult<()> {
        self.layer.get().state.borrow_mut().write_limits.set(high, low)?;
        writing::control(self.layer.bind(py))
    }

    /// The limits in bytes: (low, high).
    fn get_write_buffer_limits(&self) -> (usize, usize) {
        let limits = self.layer.get().state.borrow().write_limits;
        (limits.low, limits.high)
    }

    /// The number of bytes that have been written and not been handed to the transport below.
    fn get_write_buffer_size(&self, py: Python<'_>) -> PyResult<usize> {
        writing::size(self.layer.get(), py)
    }

    /// Set the buffer sizes in bytes at or above which the transport below stops to receive while reading is paused,
    /// and at or below which it goes on. Raises `ValueError` unless high >= low >= 0.
    #[pyo3(signature = (high=None, low=None))]
    fn set_read_buffer_limits(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = limit)] high: Option<isize>,
        #[pyo3(from_py_with = limit)] low: Option<isize>,
    ) -> PyResult<()> {
        self.layer.get().state.borrow_mut().read_limits.set(high, low)?;
        reading::control(self.layer.bind(py))
    }

    /// The limits in bytes: (low, high).
    fn get_read_buffer_limits(&self) -> (usize, usize) {
        let limits = self.layer.get().state.borrow().read_limits;
        (limits.low, limits.high)
    }

    /// The number of bytes that have come and were not decrypted yet.
    fn get_read_buffer_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.layer.get().session.pending_in(py)
    }

    /// Write the concatenation of the items of `list_of_data`, without joining them first.
    fn writelines(&self, py: Python<'_>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let chunks = stream::chunks(list_of_data, false)?;
        if chunks.is_empty() { Ok(()) } else { writing::write(self.layer.bind(py), chunks) }
    }

    /// Not possible with TLS: raises `NotImplementedError`.
    fn write_eof(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err(()))
    }

    /// False: TLS has no half-close here, as in asyncio.
    fn can_write_eof(&self) -> bool {
        false
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(tls_imports(py)?.transport.bind(py).clone())
    }

    /// What TLS inside of this one calls for an error that ends the connection.
    fn _force_close(&self, py: Python<'_>, exc: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        self.end(py, exc.map(PyErr::from_value).as_ref())
    }

    /// What `start_tls` asks.
    #[getter]
    fn _start_tls_compatible(&self) -> bool {
        true
    }

    /// What `sendfile` asks: data has to pass through us.
    #[getter]
    fn _sendfile_compatible<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mode = py.import("asyncio.constants")?.getattr(intern!(py, "_SendfileMode"))?;
        mode.getattr(intern!(py, "FALLBACK"))
    }

    /// What the fallback of `sendfile` looks at.
    #[getter]
    fn _protocol_paused(&self) -> bool {
        self.layer.get().state.borrow().writing_paused
    }

    #[getter]
    fn _ssl_protocol<'py>(&self, py: Python<'py>) -> Bound<'py, TlsProtocol> {
        self.layer.bind(py).clone()
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, Core> {
        self.core.bind(py).clone()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let closing = if self.is_closed() { " closing" } else { "" };
        Ok(match self.layer.get().lower(py) {
            Some(lower) => format!("<TlsTransport{closing} over {}>", lower.object(py).repr()?),
            None if self.is_closed() => "<TlsTransport closed>".to_owned(),
            None => "<TlsTransport>".to_owned(),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        visit.call(&*self.layer)
    }
}

impl Drop for TlsTransport {
    /// A transport that was dropped without having been closed.
    fn drop(&mut self) {
        if self.is_closed() {
            return;
        }
        Python::attach(|py| {
            ffi::keep_exception(py, || {
                let none = py.None();
                let text = "unclosed transport <TlsTransport>";
                if let Err(error) = report::resource_warning(py, text, none.bind(py)) {
                    error.write_unraisable(py, None);
                }
            });
        });
    }
}
