//! The end of a pipe: closed by the user, by the other side, or by an error.

use pyo3::intern;
use pyo3::prelude::*;

use super::PipeTransport;
use crate::error;
use crate::report;
use crate::transports::protocol;

/// Reads no more; the connection is lost once everything that was written has gone.
pub(super) fn close(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    let drained = {
        let mut state = this.state.borrow_mut();
        if state.pipe.is_none() || !state.phase.close() {
            return Ok(());
        }
        state.queue.is_empty()
    };
    // With something in the queue the writing end still has to hear of the loss of its reader.
    if drained { lose(transport, None) } else { Ok(()) }
}

/// Ends the connection at once; what is queued is dropped.
pub(super) fn force(transport: &Bound<'_, PipeTransport>, reason: Option<PyErr>) -> PyResult<()> {
    transport.get().core.get().check_selector()?;
    let queued = {
        let mut state = transport.get().state.borrow_mut();
        if state.phase.is_lost() {
            return Ok(());
        }
        state.phase.close();
        state.queue.clear()
    };
    drop(queued);
    lose(transport, reason)
}

/// An error after which the pipe cannot be used. What the protocol hears of is only logged in debug mode, if
/// `expected`; else it goes to the exception handler. Returns an error that leaves the loop.
#[cold]
pub(super) fn fatal(
    transport: &Bound<'_, PipeTransport>,
    error: PyErr,
    message: &str,
    expected: bool,
) -> PyResult<()> {
    let py = transport.py();
    if error::leaves_the_loop(py, &error) {
        return Err(error);
    }
    let this = transport.get();
    let exception = error::exception(py, &error);
    if expected {
        if this.core.get().debug() {
            let text = format!("{}: {message}", transport.repr()?);
            report::debug_exception(py, &text, exception.as_any())?;
        }
    } else {
        let protocol = this.protocol(py).unwrap_or_else(|| py.None().into_bound(py));
        let details = [("transport", transport.as_any()), ("protocol", &protocol)];
        let event_loop = this.core.bind(py).as_any();
        report::call_exception_handler(event_loop, message, Some(&exception), &details)?;
    }
    force(transport, Some(error))
}

/// Stops watching, and queues `connection_lost(reason)`, in a copy of the current context.
pub(super) fn lose(transport: &Bound<'_, PipeTransport>, reason: Option<PyErr>) -> PyResult<()> {
    let this = transport.get();
    if !this.state.borrow_mut().phase.lose() {
        return Ok(());
    }
    let py = transport.py();
    this.watch.stop_reads(this.core.get(), py)?;
    this.watch.stop_writes(this.core.get(), py)?;
    protocol::queue_lost(this.core.bind(py), transport.as_any(), reason)
}

/// Calls `connection_lost(None)` from an event of the loop, in its context: the last byte of a closing pipe has
/// gone.
pub(super) fn lose_now(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let (this, py) = (transport.get(), transport.py());
    if !this.state.borrow_mut().phase.lose() {
        return Ok(());
    }
    this.watch.stop_reads(this.core.get(), py)?;
    lost(transport, py.None().bind(py))
}

/// Tells the protocol that its pipe is gone, and closes it. The error is the protocol's.
pub(super) fn lost(
    transport: &Bound<'_, PipeTransport>,
    reason: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    protocol::tell_lost(this.protocol(py).as_ref(), reason, || {
        let (protocol, pipe) = {
            let mut state = this.state.borrow_mut();
            (state.protocol.take(), state.pipe.take())
        };
        drop(protocol);
        match pipe {
            Some(pipe) => pipe.bind(py).call_method0(intern!(py, "close")).map(drop),
            None => Ok(()),
        }
    })
}

/// A transport that nobody refers to any more, not even the loop: warns, and closes the pipe.
pub(super) fn abandon(py: Python<'_>, this: &PipeTransport) -> PyResult<()> {
    let text = this.text();
    let pipe = this.state.borrow_mut().pipe.take();
    let warned =
        report::resource_warning(py, &format!("unclosed transport {text}"), py.None().bind(py));
    if let Some(pipe) = pipe {
        // The collector may have emptied a file object already; dropping it closes it.
        drop(pipe.bind(py).call_method0(intern!(py, "close")));
    }
    warned
}
