//! The end of a datagram transport: closed by the user, or by an error that is none of the system's.

use pyo3::prelude::*;

use super::DatagramTransport;
use crate::error;
use crate::report;
use crate::transports::protocol::{self, report_fatal};
use crate::transports::socket::Socket;

/// Stops receiving; the transport is lost once everything that is queued has gone.
pub(super) fn close(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    let (drained, arrivals) = {
        let mut state = this.state.borrow_mut();
        if !state.phase.close() {
            return Ok(());
        }
        (state.queue.is_empty(), std::mem::take(&mut state.arrivals))
    };
    drop(arrivals);
    this.watch.stop_reads(this.core.get(), transport.py())?;
    if drained { queue_lost(transport, None) } else { Ok(()) }
}

/// Ends the transport at once; what is queued is dropped.
pub(super) fn force(
    transport: &Bound<'_, DatagramTransport>,
    reason: Option<PyErr>,
) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    let queues = {
        let mut state = this.state.borrow_mut();
        if state.phase.is_lost() {
            return Ok(());
        }
        state.phase.close();
        state.queued = 0;
        (std::mem::take(&mut state.queue), std::mem::take(&mut state.arrivals))
    };
    drop(queues);
    this.watch.stop_reads(this.core.get(), transport.py())?;
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

/// Queues `connection_lost(reason)`, in a copy of the current context.
fn queue_lost(transport: &Bound<'_, DatagramTransport>, reason: Option<PyErr>) -> PyResult<()> {
    let this = transport.get();
    {
        let mut state = this.state.borrow_mut();
        if !state.phase.lose() {
            return Ok(());
        }
    }
    this.watch.stop_writes(this.core.get(), transport.py())?;
    protocol::queue_lost(this.core.bind(transport.py()), transport.as_any(), reason)
}

/// Calls `connection_lost(None)` from an event of the loop, in its context: the last datagram of a closing
/// transport has gone.
pub(super) fn lose_now(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    {
        let mut state = transport.get().state.borrow_mut();
        if !state.phase.lose() {
            return Ok(());
        }
    }
    lost(transport, transport.py().None().bind(transport.py()))
}

/// Tells the protocol that its transport is gone, and closes the socket. The error is the protocol's.
pub(super) fn lost(
    transport: &Bound<'_, DatagramTransport>,
    reason: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    // A datagram that was sent between `close` and now may have asked for it.
    this.watch.stop_writes(this.core.get(), py)?;
    protocol::tell_lost(this.protocol(py).as_ref(), reason, || {
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
