//! Reading from a pipe, and noticing at its writing end that nobody reads.

use oxloop_engine::sys;
use pyo3::exceptions::PyBrokenPipeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::{End, PipeTransport, ReadPipeTransport, closing};
use crate::error::{self, os_error};
use crate::ffi;
use crate::imports::imports;

#[pymethods]
impl ReadPipeTransport {
    /// Close: `connection_lost(None)` is called. Nothing is read any more.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        closing::close(slf.as_super())
    }

    /// Whether the transport reads.
    fn is_reading(slf: &Bound<'_, Self>) -> bool {
        let this = slf.as_super().get();
        !this.state.borrow().phase.is_closing() && !this.watch.is_paused()
    }

    /// Read nothing until `resume_reading()`. Idempotent.
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        pause(slf.as_super())
    }

    /// Read again. Idempotent.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        resume(slf.as_super())
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).read_transport.bind(py).clone()
    }
}

/// Lets the loop tell us when the descriptor is readable, unless reading is paused or over.
///
/// # Errors
/// `PermissionError` for a character device that cannot be waited for, such as /dev/null: reported, as asyncio
/// does, and nothing is read from it.
pub(super) fn watch(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let this = transport.get();
    if !this.wants_reads() {
        return Ok(());
    }
    let run = match this.end {
        End::Reading => readable,
        End::Writing => left,
    };
    this.watch.start_reads(this.core.get(), transport.as_any(), run)
}

fn pause(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    if this.state.borrow().phase.is_closing() || !this.watch.pause() {
        return Ok(());
    }
    this.watch.stop_reads(this.core.get(), transport.py())?;
    PipeTransport::log(transport, "debug", "pauses reading")
}

fn resume(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    if this.state.borrow().phase.is_closing() || !this.watch.resume(transport.py())? {
        return Ok(());
    }
    watch(transport)?;
    PipeTransport::log(transport, "debug", "resumes reading")
}

/// The reading end is readable. What the protocol raises is an error of a callback; reading goes on.
fn readable(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    // The event was queued before reading was paused or ended.
    if !this.watch.reads() || this.state.borrow().phase.is_lost() {
        return Ok(());
    }
    let Some(protocol) = this.protocol(py) else { return Ok(()) };
    let context = this.watch.reading(py);
    let Some(fd) = this.open_fd() else { return Ok(()) };
    let data = this.core.get().with_read_buffer(|buffer| match sys::pipe::read(fd, buffer) {
        Ok(count) => ffi::bytes(py, &buffer[..count]).map(Ok),
        Err(error) => Ok(Err(error)),
    })?;
    let context = context.bind(py);
    match data {
        Ok(data) if data.len()? == 0 => ffi::run_in_context(context, || end(transport, &protocol)),
        Ok(data) => ffi::run_in_context(context, || {
            ffi::call_method(&protocol, intern!(py, "data_received"), &[&data]).map(drop)
        }),
        Err(error) if error::is_transient(&error) => Ok(()),
        // The master of a pseudo-terminal whose other side was closed answers EIO.
        Err(error) => closing::fatal(
            transport,
            os_error(&error),
            "Fatal read error on pipe transport",
            error.raw_os_error() == Some(libc::EIO),
        ),
    }
}

/// The end of the file: the protocol hears of it, and then of the loss of its connection.
fn end(transport: &Bound<'_, PipeTransport>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = transport.py();
    PipeTransport::log(transport, "info", "was closed by peer")?;
    let this = transport.get();
    this.state.borrow_mut().phase.close();
    this.watch.stop_reads(this.core.get(), py)?;
    let told = protocol.getattr(intern!(py, "eof_received"))?;
    let event_loop = this.core.bind(py);
    ffi::call_method(event_loop.as_any(), intern!(py, "call_soon"), &[&told])?;
    closing::lose(transport, None)
}

/// The writing end is readable: nobody reads any more.
fn left(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    if !this.watch.reads() || this.state.borrow().phase.is_lost() {
        return Ok(());
    }
    let context = this.watch.reading(py);
    let drained = this.state.borrow().queue.is_empty();
    ffi::run_in_context(context.bind(py), || {
        PipeTransport::log(transport, "info", "was closed by peer")?;
        let reason = if drained { None } else { Some(PyBrokenPipeError::new_err(())) };
        closing::force(transport, reason)
    })
}
