//! Receiving: as many datagrams as wait, up to a bound, then one call of the protocol for each.

use std::io;
use std::net::SocketAddr;

use oxloop_engine::sys::numbers;
use oxloop_engine::{Address, sys};
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyTuple;

use super::DatagramTransport;
use crate::address::{self, Known};
use crate::core::READ_SIZE;
use crate::error::os_error;
use crate::ffi::{self, Ref};
use crate::report;
use crate::transports::endpoint;
use crate::transports::socket::Kind;

const READ_FAILED: &str = "Fatal read error on datagram transport";

/// A datagram that has come.
pub(in crate::transports) struct Arrival {
    data: Ref,
    sender: Ref,
}

impl Arrival {
    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.data)?;
        visit.call(&*self.sender)
    }
}

/// How a socket is received from.
#[derive(Clone, Copy)]
pub(super) enum Method {
    /// Many at a time: UDP, whose datagrams have a largest size.
    Batch,
    /// One by one, as Unix datagrams may be larger.
    Single,
    /// By the socket object, which knows the addresses of every other family.
    Object,
}

impl Method {
    pub(super) fn of(kind: Kind) -> Self {
        match (kind.family, kind.type_) {
            (numbers::AF_INET | numbers::AF_INET6, numbers::SOCK_DGRAM) => Self::Batch,
            (numbers::AF_INET | numbers::AF_INET6 | numbers::AF_UNIX, _) => Self::Single,
            _ => Self::Object,
        }
    }
}

/// Goes on receiving, with what has been received already before anything else.
pub(super) fn resume(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    if endpoint::resume(transport)? { queue_rest(transport) } else { Ok(()) }
}

/// Queues the delivery of what has been received already.
fn queue_rest(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    if transport.get().state.borrow().arrivals.is_empty() {
        return Ok(());
    }
    transport.get().core.get().push_native(transport.clone().into_any().into(), deliver_rest)
}

/// Delivers what has been received before reading was paused.
fn deliver_rest(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    deliver(ffi::cast_known::<DatagramTransport>(transport))
}

/// The descriptor is readable.
pub(super) fn readable(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<DatagramTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    // The event was queued before reading was paused or ended.
    if !this.watch.reads() || this.state.borrow().life.phase.is_lost() {
        return Ok(());
    }
    let context = this.watch.reading(py);
    // What waits for its delivery goes first.
    let received =
        if this.state.borrow().arrivals.is_empty() { receive(transport) } else { Ok(None) };
    let error = match received {
        Ok(None) => return deliver(transport),
        Ok(Some(error)) => {
            deliver(transport)?;
            if this.state.borrow().life.phase.is_closing() {
                return Ok(());
            }
            os_error(&error)
        }
        Err(error) if !error.is_instance_of::<PyOSError>(py) => {
            return endpoint::fatal(transport, error, READ_FAILED);
        }
        Err(error) if is_transient(py, &error) => return Ok(()),
        Err(error) => error,
    };
    ffi::run_in_context(context.bind(py), || this.tell_error(py, &error))
}

/// Whether the error is `BlockingIOError` or `InterruptedError`. Its value is asked: before Python 3.12 the type of
/// an `OSError` that was made from an errno is not yet the subclass.
pub(super) fn is_transient(py: Python<'_>, error: &PyErr) -> bool {
    let value = error.value(py);
    value.is_instance_of::<PyBlockingIOError>() || value.is_instance_of::<PyInterruptedError>()
}

/// Calls `datagram_received` for what was received, until there is no more or the protocol wants no more.
fn deliver(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    loop {
        let context = this.watch.reading(py);
        let delivered = ffi::run_in_context(context.bind(py), || deliver_all(transport));
        let Err(error) = delivered else { return Ok(()) };
        let message = "Exception in callback DatagramTransport._read_ready()";
        let details = [("transport", transport.as_any())];
        let event_loop = this.core.bind(py).as_any();
        if let Err(error) = report::callback_error(event_loop, error, message, &details) {
            queue_rest(transport)?;
            return Err(error);
        }
    }
}

fn deliver_all(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    loop {
        let (arrival, protocol) = {
            let mut state = this.state.borrow_mut();
            if state.life.phase.is_closing() || this.watch.is_paused() {
                return Ok(());
            }
            // Anew for each: it may have been changed by the one before.
            let Some(protocol) = &state.life.protocol else { return Ok(()) };
            let protocol = protocol.bind(py).clone();
            let Some(arrival) = state.arrivals.pop_front() else { return Ok(()) };
            (arrival, protocol)
        };
        let arguments = [arrival.data.bind(py), arrival.sender.bind(py)];
        ffi::call_method(&protocol, intern!(py, "datagram_received"), &arguments)?;
    }
}

/// Receives what waits, as much as one system call gives. What the socket has said after that it will not say again.
fn receive(transport: &Bound<'_, DatagramTransport>) -> PyResult<Option<io::Error>> {
    let py = transport.py();
    let this = transport.get();
    let Some(fd) = this.open_fd(py)? else { return Ok(None) };
    match this.method {
        Method::Batch => this.core.get().with_batch(|batch| {
            let count = batch.receive(fd).map_err(|error| os_error(&error))?;
            for index in 0..count {
                let data = ffi::bytes(py, batch.data(index))?;
                keep(transport, data, batch.sender(index).as_ref())?;
            }
            Ok(batch.take_error())
        }),
        Method::Single => {
            let (data, sender) = this.core.get().with_read_buffer(|buffer| {
                let (length, sender) =
                    sys::datagram::receive_from(fd, buffer).map_err(|error| os_error(&error))?;
                Ok::<_, PyErr>((ffi::bytes(py, &buffer[..length])?, sender))
            })?;
            keep(transport, data, sender.as_ref()).map(|()| None)
        }
        Method::Object => {
            let Some(socket) = this.socket_object(py) else { return Ok(None) };
            let received = socket.call_method1(intern!(py, "recvfrom"), (READ_SIZE,))?;
            let arrival = Arrival {
                data: received.get_item(0)?.into(),
                sender: received.get_item(1)?.into(),
            };
            this.state.borrow_mut().arrivals.push_back(arrival);
            Ok(None)
        }
    }
}

/// Keeps a datagram for its delivery.
fn keep<'py>(
    transport: &Bound<'py, DatagramTransport>,
    data: Bound<'py, PyAny>,
    sender: Option<&Address>,
) -> PyResult<()> {
    let sender = sender_object(transport, sender)?.into();
    let arrival = Arrival { data: data.into(), sender };
    transport.get().state.borrow_mut().arrivals.push_back(arrival);
    Ok(())
}

/// The address of a sender as Python gives it: the object of the last datagram if that came from there too.
fn sender_object<'py>(
    transport: &Bound<'py, DatagramTransport>,
    sender: Option<&Address>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = transport.py();
    let this = transport.get();
    let Some(sender) = sender else { return Ok(py.None().into_bound(py)) };
    let address: SocketAddr = match sender {
        Address::V4(address) => (*address).into(),
        Address::V6(address) => (*address).into(),
        _ => return address::object(py, sender),
    };
    if let Some(known) = &this.state.borrow().sender
        && known.address == address
    {
        return Ok(known.object.bind(py).clone().into_any());
    }
    let object = address::object(py, sender)?;
    let known = Known { object: object.cast::<PyTuple>()?.into(), address };
    let before = this.state.borrow_mut().sender.replace(known);
    drop(before);
    Ok(object)
}
