//! The end of a connection: closed by the user, by the peer, or by an error.

use pyo3::intern;
use pyo3::prelude::*;

use super::{StreamTransport, file, writing};
use crate::error;
use crate::ffi;
use crate::report;
use crate::transports::protocol;
use crate::transports::socket::Socket;

/// Stops reading; the connection is lost once everything that was written has gone.
pub(super) fn close(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    writing::uncork(transport)?;
    let drained = {
        let mut state = this.state.borrow_mut();
        if !state.phase.close() {
            return Ok(());
        }
        state.queue.is_empty()
    };
    this.watch.stop_reads(this.core.get(), transport.py())?;
    if drained { queue_lost(transport, None) } else { Ok(()) }
}

/// Ends the connection at once; what is queued is dropped.
pub(super) fn force(transport: &Bound<'_, StreamTransport>, reason: Option<PyErr>) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    let queued = {
        let mut state = this.state.borrow_mut();
        if state.phase.is_lost() {
            return Ok(());
        }
        state.phase.close();
        state.queue.clear()
    };
    drop(queued);
    this.watch.stop_reads(this.core.get(), transport.py())?;
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
    protocol::report_fatal(this.core.bind(py), transport.as_any(), protocol, &error, message)?;
    force(transport, Some(error))
}

/// Queues `connection_lost(reason)`, in a copy of the current context.
fn queue_lost(transport: &Bound<'_, StreamTransport>, reason: Option<PyErr>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    {
        let mut state = this.state.borrow_mut();
        if !state.phase.lose() {
            return Ok(());
        }
    }
    this.watch.stop_writes(this.core.get(), py)?;
    protocol::queue_lost(this.core.bind(py), transport.as_any(), reason)
}

/// Calls `connection_lost(None)` from an event of the loop, in its context: the last byte of a closing connection
/// has gone.
pub(super) fn lose_now(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    {
        let mut state = transport.get().state.borrow_mut();
        if !state.phase.lose() {
            return Ok(());
        }
    }
    tell_lost(transport, transport.py().None().bind(transport.py()))
}

/// Tells the protocol that its connection is gone, and closes the socket. The error is the protocol's.
pub(super) fn tell_lost(
    transport: &Bound<'_, StreamTransport>,
    reason: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let stopped = file::stop(transport, reason);
    let told = protocol::tell_lost(this.protocol(py).as_ref(), reason, || {
        let protocol = this.state.borrow_mut().protocol.take();
        drop(protocol);
        release(py, this, transport.as_any())
    });
    told.and(stopped)
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
