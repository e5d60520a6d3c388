//! The methods of a subprocess transport.

use oxloop_engine::sys::numbers;
use pyo3::exceptions::{PyPermissionError, PyProcessLookupError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

use super::{Stream, SubprocessTransport, exit};
use crate::core::Core;
use crate::coroutine::Coroutine;
use crate::ffi;
use crate::imports::imports;
use crate::report;

#[pymethods]
impl SubprocessTransport {
    /// Information about the transport: "subprocess" is the `subprocess.Popen`.
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let extra = slf.get().state.borrow().extra.clone_ref(slf.py());
        Ok(extra.bind(slf.py()).get_item(name)?.or(default))
    }

    /// Whether the transport was closed.
    fn is_closing(&self) -> bool {
        self.state.borrow().closed
    }

    /// Close the pipes, and kill the process if it still runs. Idempotent.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().core.get().check_selector()?;
        if std::mem::replace(&mut slf.get().state.borrow_mut().closed, true) {
            return Ok(());
        }
        slf.get().shut(slf.py(), || Ok(slf.repr()?.to_string()))
    }

    /// Change the protocol.
    fn set_protocol(&self, protocol: &Bound<'_, PyAny>) {
        let before = self.state.borrow_mut().protocol.replace(protocol.into());
        drop(before);
    }

    /// The current protocol.
    fn get_protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.protocol(py)
    }

    /// The number of the process.
    fn get_pid(&self) -> Option<i32> {
        self.pid.get()
    }

    /// The exit code, negative for a signal; None while the process runs.
    fn get_returncode<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.borrow().returncode.as_ref().map(|code| code.bind(py).clone())
    }

    /// The transport of the process's standard input (0), output (1) or error (2); None if it is no pipe.
    fn get_pipe_transport<'py>(
        &self,
        py: Python<'py>,
        fd: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Ok(index) = fd.extract::<usize>() else { return Ok(None) };
        let protocol = match self.state.borrow().streams.get(index) {
            Some(Stream::Connected(protocol)) => protocol.clone_ref(py),
            _ => return Ok(None),
        };
        protocol.bind(py).getattr(intern!(py, "pipe")).map(Some)
    }

    /// Send a signal. Raises `ProcessLookupError` when the process has ended and its pipes are closed.
    fn send_signal(slf: &Bound<'_, Self>, signal: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if this.process(py).is_none() {
            return Err(PyProcessLookupError::new_err(()));
        }
        let (reaped, pid) = {
            let state = this.state.borrow();
            (state.returncode.is_some() || state.reaped.is_some(), this.pid.get())
        };
        if reaped {
            // The number may be another process's by now.
            return Ok(());
        }
        if imports(py).windows_utils.is_some()
            && let Some(process) = this.process(py)
        {
            // There are no signals there; `Popen` knows what can be done instead.
            return process.call_method1(intern!(py, "send_signal"), (signal,)).map(drop);
        }
        match py.import("os")?.call_method1(intern!(py, "kill"), (pid, signal)) {
            Err(error) if !error.is_instance_of::<PyProcessLookupError>(py) => Err(error),
            _ => Ok(()),
        }
    }

    /// Send SIGTERM. On Windows: end the process.
    fn terminate(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.call_method1(intern!(slf.py(), "send_signal"), (numbers::SIGTERM,)).map(drop)
    }

    /// Send SIGKILL. On Windows: end the process.
    fn kill(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.call_method1(intern!(slf.py(), "send_signal"), (numbers::SIGKILL,)).map(drop)
    }

    /// Wait for the end of the process; return its exit code. A coroutine.
    fn _wait<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "_wait", |flow| {
            let transport = flow.keep(slf);
            async move {
                if transport.get().state.borrow().returncode.is_none() {
                    let waiter = Python::attach(|py| {
                        let this = transport.get();
                        let waiter = Core::future(this.core.bind(py))?;
                        this.state.borrow_mut().exit_waiters.push((&waiter).into());
                        Ok::<_, PyErr>(flow.keep::<PyAny>(waiter))
                    })?;
                    flow.wait_kept(&waiter).await?;
                }
                Python::attach(|py| {
                    let code = transport.get().get_returncode(py);
                    Ok(code.unwrap_or_else(|| py.None().into_bound(py)).into())
                })
            }
        })
    }

    fn _pipe_data_received(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let arguments = PyTuple::new(slf.py(), [fd, data])?;
        Self::call_protocol(slf, "pipe_data_received", &arguments)
    }

    fn _pipe_connection_lost(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let arguments = PyTuple::new(slf.py(), [fd, exc])?;
        Self::call_protocol(slf, "pipe_connection_lost", &arguments)?;
        exit::try_finish(slf)
    }

    fn _process_exited(slf: &Bound<'_, Self>, returncode: &Bound<'_, PyAny>) -> PyResult<()> {
        exit::process_exited(slf, returncode)
    }

    fn _call_connection_lost(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        exit::tell_lost(slf, exc)
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).subprocess_transport.bind(py).clone()
    }

    #[getter]
    fn _extra<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.state.borrow().extra.bind(py).clone()
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, Core> {
        self.core.bind(py).clone()
    }

    /// What asyncio's protocols of the pipes pass `pause_writing` and `resume_writing` on to.
    #[getter]
    fn _protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.protocol(py)
    }

    #[getter]
    fn _proc<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.process(py)
    }

    #[getter]
    fn _pid(&self) -> Option<i32> {
        self.pid.get()
    }

    #[getter]
    fn _returncode<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.get_returncode(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.text(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.visit(visit)
    }

    /// Keeps the `Popen`, which the end of an abandoned process still needs.
    fn __clear__(&self) {
        let taken = {
            let mut state = self.state.borrow_mut();
            (
                state.protocol.take(),
                state.waiter.take(),
                state.pending.take(),
                std::mem::take(&mut state.exit_waiters),
            )
        };
        drop(taken);
    }
}

impl SubprocessTransport {
    /// Closes the pipes, and kills the process if it runs. `text` is what the log calls the transport.
    fn shut(&self, py: Python<'_>, text: impl FnOnce() -> PyResult<String>) -> PyResult<()> {
        // On a closed loop there is nobody left to tell (from 3.14 on asyncio looks at that too).
        if !self.core.get().is_closed() {
            for protocol in self.pipes(py) {
                let pipe = protocol.getattr(intern!(py, "pipe"))?;
                pipe.call_method0(intern!(py, "close"))?;
            }
        }
        let Some(process) = self.process(py) else { return Ok(()) };
        let ended = {
            let state = self.state.borrow();
            state.returncode.is_some() || state.reaped.is_some()
        };
        // It may have ended without our having been told.
        if ended || !process.call_method0(intern!(py, "poll"))?.is_none() {
            return Ok(());
        }
        if self.core.get().debug() {
            report::log(py, "warning", &format!("Close running child process: kill {}", text()?))?;
        }
        match process.call_method0(intern!(py, "kill")) {
            // It ended just now, or it runs as another user.
            Err(error)
                if error.is_instance_of::<PyProcessLookupError>(py)
                    || error.is_instance_of::<PyPermissionError>(py) =>
            {
                Ok(())
            }
            killed => killed.map(drop),
        }
    }
}

/// A transport that nobody refers to any more, not even the loop: warns, and kills the process.
pub(super) fn abandon(py: Python<'_>, this: &SubprocessTransport) -> PyResult<()> {
    let text = this.text(py)?;
    this.state.borrow_mut().closed = true;
    let warned =
        report::resource_warning(py, &format!("unclosed transport {text}"), py.None().bind(py));
    // An error here is that of a `Popen` which the collector has emptied; it does so only to one whose process
    // has ended.
    drop(this.shut(py, || Ok(text)));
    warned
}

/// What a child watcher calls, in whatever thread: `loop._child_watcher_callback(pid, returncode, transport)`.
pub(crate) fn told_by_watcher(
    event_loop: &Bound<'_, Core>,
    returncode: &Bound<'_, PyAny>,
    transport: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let exited = transport.getattr(intern!(py, "_process_exited"))?;
    let event_loop = event_loop.as_any();
    let name = intern!(py, "call_soon_threadsafe");
    if matches!(py.version_info().minor, 10 | 11) {
        // asyncio lets a turn pass there, for what was queued before.
        let soon = event_loop.getattr(intern!(py, "call_soon"))?;
        return ffi::call_method(event_loop, name, &[&soon, &exited, returncode]).map(drop);
    }
    ffi::call_method(event_loop, name, &[&exited, returncode]).map(drop)
}
