//! Reading from a pipe, and noticing at its writing end that nobody reads.

use oxloop_engine::sys;
use pyo3::exceptions::PyBrokenPipeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::{PipeTransport, ReadPipeTransport};
use crate::error::{self, os_error};
use crate::ffi;
use crate::imports::imports;
use crate::transports::endpoint::{self, Endpoint};

#[pymethods]
impl ReadPipeTransport {
    /// Close: `connection_lost(None)` is called. Nothing is read any more.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::close(slf.as_super())
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

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).read_transport.bind(py).clone()
    }
}

/// The reading end is readable. What the protocol raises is an error of a callback; reading goes on.
pub(super) fn readable(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    // The event was queued before reading was paused or ended.
    if !this.watch.reads() || this.state.borrow().life.phase.is_lost() {
        return Ok(());
    }
    let Some(protocol) = this.protocol(py) else { return Ok(()) };
    let context = this.watch.reading(py);
    let Some(fd) = this.open_fd() else { return Ok(()) };
    let core = this.core.get();
    let data = core.with_read_buffer(|buffer| match sys::pipe::read(fd, buffer) {
        Ok(count) => {
            if count == buffer.len() {
                core.hurry();
            }
            ffi::bytes(py, &buffer[..count]).map(Ok)
        }
        Err(error) => Ok(Err(error)),
    })?;
    let context = context.bind(py);
    match data {
        Ok(data) if data.len()? == 0 => ffi::run_in_context(context, || end(transport, &protocol)),
        Ok(data) => ffi::run_in_context(context, || {
            ffi::call_method(&protocol, intern!(py, "data_received"), &[&data]).map(drop)
        }),
        Err(error) if error::is_transient(&error) => Ok(()),
        Err(error) => {
            endpoint::fatal(transport, os_error(&error), "Fatal read error on pipe transport")
        }
    }
}

/// The end of the file: the protocol hears of it, and then of the loss of its connection.
fn end(transport: &Bound<'_, PipeTransport>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = transport.py();
    PipeTransport::log(transport, "info", "was closed by peer")?;
    let this = transport.get();
    this.state.borrow_mut().life.phase.close();
    endpoint::stop_reading(transport)?;
    let told = protocol.getattr(intern!(py, "eof_received"))?;
    let event_loop = this.core.bind(py);
    ffi::call_method(event_loop.as_any(), intern!(py, "call_soon"), &[&told])?;
    endpoint::queue_lost(transport, None)
}

/// The writing end is readable: nobody reads any more.
pub(super) fn left(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    if !this.watch.reads() || this.state.borrow().life.phase.is_lost() {
        return Ok(());
    }
    let context = this.watch.reading(py);
    let drained = this.state.borrow().queue.is_empty();
    ffi::run_in_context(context.bind(py), || {
        PipeTransport::log(transport, "info", "was closed by peer")?;
        let reason = if drained { None } else { Some(PyBrokenPipeError::new_err(())) };
        endpoint::force(transport, reason)
    })
}
