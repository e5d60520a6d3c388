//! The end of a pipe: closed by the user, by the other side, or by an error.

use pyo3::intern;
use pyo3::prelude::*;

use super::{PipeTransport, reading, writing};
use crate::error;
use crate::ffi::{self, Ref};
use crate::report;

/// Reads no more; the connection is lost once everything that was written has gone.
pub(super) fn close(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    let drained = {
        let mut state = this.state.borrow_mut();
        if state.pipe.is_none() || std::mem::replace(&mut state.closing, true) {
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
        if state.lost {
            return Ok(());
        }
        state.closing = true;
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

/// Stops watching, and queues `connection_lost(reason)`.
pub(super) fn lose(transport: &Bound<'_, PipeTransport>, reason: Option<PyErr>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let context = ffi::copy_context(py)?;
    let reason = reason.map(|reason| Ref::from(error::exception(py, &reason)));
    let before = {
        let mut state = this.state.borrow_mut();
        if std::mem::replace(&mut state.lost, true) {
            return Ok(());
        }
        state.reason = reason;
        std::mem::replace(&mut state.contexts.queued, context)
    };
    drop(before);
    reading::unwatch(transport)?;
    writing::unwatch(transport)?;
    this.core.get().push_native(transport.as_any().into(), lost)
}

/// Calls `connection_lost(None)` from an event of the loop: the last byte of a closing pipe has gone.
pub(super) fn lose_now(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    if std::mem::replace(&mut transport.get().state.borrow_mut().lost, true) {
        return Ok(());
    }
    reading::unwatch(transport)?;
    // In the context of the event, as asyncio does.
    tell_lost(transport)
}

/// Tells the protocol that its pipe is gone, and closes it.
fn lost(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let py = transport.py();
    let context = transport.get().state.borrow().contexts.queued.clone_ref(py);
    ffi::run_in_context(context.bind(py), || tell_lost(transport))
}

fn tell_lost(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let reason = this.state.borrow_mut().reason.take();
    let reason =
        reason.map_or_else(|| py.None().into_bound(py), |reason| reason.into_bound(py).into_any());
    let told = match this.protocol(py) {
        Some(protocol) => ffi::call_method(&protocol, intern!(py, "connection_lost"), &[&reason]),
        None => Ok(py.None().into_bound(py)),
    };
    let (protocol, pipe) = {
        let mut state = this.state.borrow_mut();
        (state.protocol.take(), state.pipe.take())
    };
    drop(protocol);
    let closed = match pipe {
        Some(pipe) => pipe.bind(py).call_method0(intern!(py, "close")).map(drop),
        None => Ok(()),
    };
    let reported = match told {
        Ok(_) => Ok(()),
        Err(error) => {
            let event_loop = this.core.bind(py).as_any();
            let class = transport.get_type().name()?;
            let message =
                format!("Exception in callback {class}._call_connection_lost({})", reason.repr()?);
            let details = [("transport", transport.as_any())];
            report::callback_error(event_loop, error, &message, &details)
        }
    };
    reported.and(closed)
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
