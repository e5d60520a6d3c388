//! The end of a connection: closed by the user, by the peer, or by an error.

use pyo3::intern;
use pyo3::prelude::*;

use super::{StreamTransport, reading, writing};
use crate::error;
use crate::ffi::{self, Ref};
use crate::report;
use crate::transports::protocol::{report_fatal, tell_lost};
use crate::transports::socket::Socket;

/// Stops reading; the connection is lost once everything that was written has gone.
pub(super) fn close(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    transport.get().core.get().check_selector()?;
    let drained = {
        let mut state = transport.get().state.borrow_mut();
        if std::mem::replace(&mut state.closing, true) {
            return Ok(());
        }
        state.queue.is_empty()
    };
    reading::unwatch(transport)?;
    if drained { queue_lost(transport, None) } else { Ok(()) }
}

/// Ends the connection at once; what is queued is dropped.
pub(super) fn force(transport: &Bound<'_, StreamTransport>, reason: Option<PyErr>) -> PyResult<()> {
    transport.get().core.get().check_selector()?;
    let queued = {
        let mut state = transport.get().state.borrow_mut();
        if state.lost > 0 {
            return Ok(());
        }
        state.closing = true;
        state.queue.clear()
    };
    drop(queued);
    reading::unwatch(transport)?;
    queue_lost(transport, reason)
}

/// An error after which the connection cannot go on. Returns one that leaves the loop.
#[cold]
pub(super) fn fatal(
    transport: &Bound<'_, StreamTransport>,
    error: PyErr,
    message: &str,
) -> PyResult<()> {
    let py = transport.py();
    if error::leaves_the_loop(py, &error) {
        return Err(error);
    }
    let this = transport.get();
    let protocol = this.protocol(py);
    report_fatal(this.core.bind(py), transport.as_any(), protocol, &error, message)?;
    force(transport, Some(error))
}

/// Queues `connection_lost(reason)`.
fn queue_lost(transport: &Bound<'_, StreamTransport>, reason: Option<PyErr>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let context = ffi::copy_context(py)?;
    let reason = reason.map(|reason| Ref::from(error::exception(py, &reason)));
    let before = {
        let mut state = this.state.borrow_mut();
        if state.lost > 0 {
            return Ok(());
        }
        state.lost = 1;
        state.reason = reason;
        std::mem::replace(&mut state.contexts.queued, context)
    };
    drop(before);
    writing::unwatch(transport)?;
    this.core.get().push_native(transport.clone().into_any().into(), lost)
}

/// Calls `connection_lost(None)` from an event of the loop: the last byte of a closing connection has gone.
pub(super) fn lose_now(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    {
        let mut state = transport.get().state.borrow_mut();
        if state.lost > 0 {
            return Ok(());
        }
        state.lost = 1;
    }
    // In the context of the event, as asyncio does.
    call_lost(transport)
}

/// Tells the protocol that its connection is gone, and closes the socket.
fn lost(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<StreamTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    let context = this.state.borrow().contexts.queued.clone_ref(py);
    ffi::run_in_context(context.bind(py), || call_lost(transport))
}

fn call_lost(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let reason = this.state.borrow_mut().reason.take();
    let told = this.protocol(py);
    let name = "StreamTransport._call_connection_lost";
    tell_lost(this.core.bind(py), transport.as_any(), told.as_ref(), reason, name, || {
        let protocol = this.state.borrow_mut().protocol.take();
        drop(protocol);
        release(py, this, transport.as_any())
    })
}

/// Closes the socket and takes leave of the server and the loop.
fn release(py: Python<'_>, this: &StreamTransport, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let (socket, server, fd) = {
        let mut state = this.state.borrow_mut();
        let fd = state.socket.raw_fd();
        let socket = std::mem::replace(&mut state.socket, Socket::Closed);
        (socket, state.server.take(), fd)
    };
    this.core.get().disown(fd, transport);
    let closed = socket.close(py);
    if let Some(server) = server {
        ffi::call_method(server.bind(py), intern!(py, "_detach"), &[transport])?;
    }
    closed
}

/// A transport that nobody refers to any more, not even the loop: warns, and closes the socket.
pub(super) fn abandon(py: Python<'_>, this: &StreamTransport) -> PyResult<()> {
    let text = this.text();
    let (socket, server) = {
        let mut state = this.state.borrow_mut();
        (std::mem::replace(&mut state.socket, Socket::Closed), state.server.take())
    };
    let warned =
        report::resource_warning(py, &format!("unclosed transport {text}"), py.None().bind(py));
    // The collector may have emptied a socket object already; dropping it closes it.
    let closed = socket.close(py);
    drop(closed);
    if let Some(server) = server {
        ffi::call_method(server.bind(py), intern!(py, "_forget"), &[])?;
    }
    warned
}
