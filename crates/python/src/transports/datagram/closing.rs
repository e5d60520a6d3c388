//! The end of a datagram transport: closed by the user, or by an error that is none of the system's.

use pyo3::prelude::*;

use super::{DatagramTransport, receiving, sending};
use crate::error;
use crate::ffi::{self, Ref};
use crate::report;
use crate::transports::protocol::{report_fatal, tell_lost};
use crate::transports::socket::Socket;

/// Stops receiving; the transport is lost once everything that is queued has gone.
pub(super) fn close(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    transport.get().core.get().check_selector()?;
    let (drained, arrivals) = {
        let mut state = transport.get().state.borrow_mut();
        if std::mem::replace(&mut state.closing, true) {
            return Ok(());
        }
        (state.queue.is_empty(), std::mem::take(&mut state.arrivals))
    };
    drop(arrivals);
    receiving::unwatch(transport)?;
    if drained { queue_lost(transport, None) } else { Ok(()) }
}

/// Ends the transport at once; what is queued is dropped.
pub(super) fn force(
    transport: &Bound<'_, DatagramTransport>,
    reason: Option<PyErr>,
) -> PyResult<()> {
    transport.get().core.get().check_selector()?;
    let queues = {
        let mut state = transport.get().state.borrow_mut();
        if state.lost > 0 {
            return Ok(());
        }
        state.closing = true;
        state.queued = 0;
        (std::mem::take(&mut state.queue), std::mem::take(&mut state.arrivals))
    };
    drop(queues);
    receiving::unwatch(transport)?;
    queue_lost(transport, reason)
}

/// An error after which the transport cannot go on. Returns one that leaves the loop.
#[cold]
pub(super) fn fatal(
    transport: &Bound<'_, DatagramTransport>,
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
fn queue_lost(transport: &Bound<'_, DatagramTransport>, reason: Option<PyErr>) -> PyResult<()> {
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
    sending::unwatch(transport)?;
    this.core.get().push_native(transport.clone().into_any().into(), lost)
}

/// Calls `connection_lost(None)` from an event of the loop: the last datagram of a closing transport has gone.
pub(super) fn lose_now(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
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

/// Tells the protocol that its transport is gone, and closes the socket.
fn lost(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<DatagramTransport>(transport);
    let py = transport.py();
    let context = transport.get().state.borrow().contexts.queued.clone_ref(py);
    ffi::run_in_context(context.bind(py), || call_lost(transport))
}

fn call_lost(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    // A datagram that was sent between `close` and now may have asked for it.
    sending::unwatch(transport)?;
    let reason = this.state.borrow_mut().reason.take();
    let told = this.protocol(py);
    let name = "DatagramTransport._call_connection_lost";
    tell_lost(this.core.bind(py), transport.as_any(), told.as_ref(), reason, name, || {
        let (protocol, socket, fd) = {
            let mut state = this.state.borrow_mut();
            let fd = state.socket.raw_fd();
            let socket = std::mem::replace(&mut state.socket, Socket::Closed);
            (state.protocol.take(), socket, fd)
        };
        drop(protocol);
        this.core.get().disown(fd, transport.as_any());
        socket.close(py)
    })
}

/// A transport that nobody refers to any more, not even the loop: warns, and closes the socket.
pub(super) fn abandon(py: Python<'_>, this: &DatagramTransport) -> PyResult<()> {
    let text = this.text();
    let socket = std::mem::replace(&mut this.state.borrow_mut().socket, Socket::Closed);
    let warned =
        report::resource_warning(py, &format!("unclosed transport {text}"), py.None().bind(py));
    // The collector may have emptied a socket object already; dropping it closes it.
    let closed = socket.close(py);
    drop(closed);
    warned
}
