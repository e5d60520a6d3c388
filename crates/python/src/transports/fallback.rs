//! The protocol that stands in for a transport's own while a file is read and written to it.
//!
//! Meanwhile nothing is read from the transport, and who is told to pause is the one that sends the file. What
//! surprised us: asyncio's may leave the protocol paused, or resume one that it never paused; here the protocol
//! is told what it has missed, so that its calls are paired as they are promised to be.

use pyo3::exceptions::{PyBaseException, PyConnectionError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use crate::cell::LoopCell;
use crate::core::Core;
use crate::coroutine;
use crate::ffi::Ref;

/// What is known of the transport's write buffer.
#[derive(Default)]
struct State {
    paused: bool,
    /// What waits for the transport to resume.
    waiter: Option<Ref>,
    /// Set by `connection_lost`.
    lost: bool,
}

/// A protocol that is told of flow control and of the end.
#[pyclass(frozen, module = "oxloop._native", name = "_SendfileFallback")]
pub(crate) struct SendfileFallback {
    core: Ref<Core>,
    transport: Ref,
    /// Whose place it takes.
    protocol: Ref,
    /// Whether that had been told to pause.
    was_paused: bool,
    state: LoopCell<State>,
}

impl SendfileFallback {
    /// Makes one for a transport, which it is still to be given to.
    pub(crate) fn new<'py>(
        core: &Bound<'py, Core>,
        transport: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        let was_paused = is_paused(transport)?;
        let fallback = Self {
            core: core.into(),
            transport: transport.into(),
            protocol: transport.call_method0(intern!(py, "get_protocol"))?.into(),
            was_paused,
            state: LoopCell::new(State { paused: was_paused, waiter: None, lost: false }),
        };
        Bound::new(py, fallback)
    }

    pub(crate) fn protocol<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.protocol.bind(py).clone()
    }

    /// What to wait for before something is written; `None` if it may be written now.
    ///
    /// # Errors
    /// `ConnectionError` once the transport is closing.
    pub(crate) fn waiter(&self, py: Python<'_>) -> PyResult<Option<Ref>> {
        if self.transport.bind(py).call_method0(intern!(py, "is_closing"))?.is_truthy()? {
            return Err(PyConnectionError::new_err("Connection closed by peer"));
        }
        if !self.state.borrow().paused {
            return Ok(None);
        }
        let waiter = Core::future(self.core.bind(py))?;
        let before = self.state.borrow_mut().waiter.replace((&waiter).into());
        drop(before);
        Ok(Some(waiter.into()))
    }

    /// Tells the protocol, which has its transport back, what it has missed.
    pub(crate) fn leave(&self, py: Python<'_>) -> PyResult<()> {
        let (paused, lost) = {
            let state = self.state.borrow();
            (state.paused, state.lost)
        };
        let name = match (self.was_paused, paused) {
            _ if lost => return Ok(()),
            (false, true) => intern!(py, "pause_writing"),
            (true, false) => intern!(py, "resume_writing"),
            _ => return Ok(()),
        };
        self.protocol.bind(py).call_method0(name).map(drop)
    }
}

/// Whether the transport has told its protocol to pause: it says so itself, as asyncio's do, or its buffer does.
fn is_paused(transport: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = transport.py();
    if let Some(paused) = transport.getattr_opt(intern!(py, "_protocol_paused"))? {
        return paused.is_truthy();
    }
    let size = transport.call_method0(intern!(py, "get_write_buffer_size"))?;
    let limits = transport.call_method0(intern!(py, "get_write_buffer_limits"))?;
    size.gt(limits.get_item(1)?)
}

fn should_be_paused() -> PyErr {
    PyRuntimeError::new_err("Invalid state: reading should be paused")
}

#[pymethods]
impl SendfileFallback {
    fn connection_made(&self, _transport: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyRuntimeError::new_err(
            "Invalid state: connection should have been established already.",
        ))
    }

    /// Fails who waits, and tells the protocol.
    fn connection_lost(&self, py: Python<'_>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        let waiter = {
            let mut state = self.state.borrow_mut();
            state.lost = true;
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            let error = match exc.cast::<PyBaseException>() {
                Ok(error) => error.clone().into_any(),
                Err(_) => PyConnectionError::new_err("Connection is closed by peer")
                    .into_value(py)
                    .into_bound(py)
                    .into_any(),
            };
            let waiter = waiter.bind(py);
            if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
                waiter.call_method1(intern!(py, "set_exception"), (error,))?;
            }
        }
        self.protocol.bind(py).call_method1(intern!(py, "connection_lost"), (exc,)).map(drop)
    }

    fn pause_writing(&self) {
        self.state.borrow_mut().paused = true;
    }

    fn resume_writing(&self, py: Python<'_>) -> PyResult<()> {
        let waiter = {
            let mut state = self.state.borrow_mut();
            state.paused = false;
            state.waiter.take()
        };
        waiter.map_or(Ok(()), |waiter| coroutine::resolve(waiter.bind(py)))
    }

    fn data_received(&self, _data: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(should_be_paused())
    }

    fn eof_received(&self) -> PyResult<()> {
        Err(should_be_paused())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.core)?;
        visit.call(&*self.transport)?;
        visit.call(&*self.protocol)?;
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        state.waiter.as_ref().map_or(Ok(()), |waiter| visit.call(&**waiter))
    }
}
