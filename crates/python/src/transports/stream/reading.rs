//! Receiving: into the loop's buffer and out of it as `bytes`, or into the protocol's own buffer.

use oxloop_engine::sys;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;

use super::{Kind, StreamTransport};
use crate::buffer::View;
use crate::core::READ_SIZE;
use crate::error::{self, os_error};
use crate::ffi;
use crate::transports::endpoint::{self, Endpoint};
use crate::transports::tls::{self, TlsProtocol};

/// What came of one call of recv(2).
enum Received<'py> {
    Data(Bound<'py, PyAny>),
    End,
    Nothing,
}

/// The descriptor is readable.
pub(super) fn readable(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<StreamTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    let (kind, protocol, context) = {
        let state = this.state.borrow();
        // The event was queued before reading was paused or ended.
        if !this.watch.reads() || state.life.phase.is_lost() {
            return Ok(());
        }
        let Some(protocol) = &state.life.protocol else { return Ok(()) };
        let context = this.watch.reading(py);
        (state.kind, protocol.bind(py).clone(), context)
    };
    let context = context.bind(py);
    match kind {
        Kind::Plain => {}
        Kind::Buffered => {
            return ffi::run_in_context(context, || receive_into(transport, &protocol));
        }
        Kind::Tls => return ffi::run_in_context(context, || receive_tls(transport, &protocol)),
    }
    let received = match receive(transport) {
        Ok(received) => received,
        Err(error) => {
            return endpoint::fatal(transport, error, "Fatal read error on socket transport");
        }
    };
    match received {
        Received::Nothing => Ok(()),
        Received::End => ffi::run_in_context(context, || end(transport, &protocol)),
        Received::Data(data) => {
            let delivered = ffi::run_in_context(context, || {
                ffi::call_method(&protocol, intern!(py, "data_received"), &[&data])
            });
            drop(data);
            match delivered {
                Ok(_) => Ok(()),
                Err(error) => endpoint::fatal(
                    transport,
                    error,
                    "Fatal error: protocol.data_received() call failed.",
                ),
            }
        }
    }
}

/// From this many bytes at a time on, the next call receives into an object of its own: less is cheaper to copy
/// than to allocate for (and a small message must not cost an allocation of the largest size).
const LARGE: usize = 64 * 1024;

/// Receives as `bytes`.
fn receive<'py>(transport: &Bound<'py, StreamTransport>) -> PyResult<Received<'py>> {
    let py = transport.py();
    let this = transport.get();
    let Some(fd) = this.open_fd(py)? else { return Ok(Received::Nothing) };
    let expects_much = this.state.borrow().received_much;
    let received = if expects_much {
        ffi::bytes_filled(py, READ_SIZE, |memory| sys::socket::recv_uninit(fd, memory))?
    } else {
        this.core.get().with_read_buffer(|buffer| match sys::socket::recv(fd, buffer) {
            Ok(count) => ffi::bytes(py, &buffer[..count]).map(Ok),
            Err(error) => Ok(Err(error)),
        })?
    };
    match received {
        Ok(data) => {
            let count = data.len()?;
            if expects_much != (count >= LARGE) {
                this.state.borrow_mut().received_much = count >= LARGE;
            }
            Ok(if count == 0 { Received::End } else { Received::Data(data) })
        }
        Err(error) if error::is_transient(&error) => Ok(Received::Nothing),
        Err(error) => Err(os_error(&error)),
    }
}

/// Receives into the loop's buffer, for TLS to take it from there.
fn receive_tls(
    transport: &Bound<'_, StreamTransport>,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let this = transport.get();
    let layer = ffi::cast_known::<TlsProtocol>(protocol);
    let failed = |error, message| endpoint::fatal(transport, error, message);
    let fd = match this.open_fd(transport.py()) {
        Ok(Some(fd)) => fd,
        Ok(None) => return Ok(()),
        Err(error) => return failed(error, "Fatal read error on socket transport"),
    };
    this.core.get().with_read_buffer(|buffer| match sys::socket::recv(fd, buffer) {
        Ok(0) => end(transport, protocol),
        Ok(count) => tls::receive(layer, &buffer[..count])
            .or_else(|error| failed(error, "Fatal error: protocol.buffer_updated() call failed.")),
        Err(error) if error::is_transient(&error) => Ok(()),
        Err(error) => failed(os_error(&error), "Fatal read error on socket transport"),
    })
}

/// Receives into the buffer of a `BufferedProtocol`.
fn receive_into(
    transport: &Bound<'_, StreamTransport>,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let view = ffi::call_method(protocol, intern!(py, "get_buffer"), &[&ffi::minus_one(py)])
        .and_then(|buffer| {
            if buffer.len()? == 0 {
                return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
            }
            Ok(buffer)
        });
    let buffer = match view {
        Ok(buffer) => buffer,
        Err(error) => {
            let message = "Fatal error: protocol.get_buffer() call failed.";
            return endpoint::fatal(transport, error, message);
        }
    };
    let received = writable(&buffer).and_then(|mut view| {
        // `get_buffer` may have closed the transport.
        Ok(match this.open_fd(py)? {
            Some(fd) if !this.state.borrow().life.phase.is_lost() => {
                Some(sys::socket::recv(fd, view.as_mut_slice()))
            }
            _ => None,
        })
    });
    let count = match received {
        Ok(None) => return Ok(()),
        Ok(Some(Ok(count))) => count,
        Ok(Some(Err(error))) if error::is_transient(&error) => return Ok(()),
        Ok(Some(Err(error))) => {
            let message = "Fatal read error on socket transport";
            return endpoint::fatal(transport, os_error(&error), message);
        }
        Err(error) => {
            return endpoint::fatal(transport, error, "Fatal read error on socket transport");
        }
    };
    drop(buffer);
    if count == 0 {
        return end(transport, protocol);
    }
    let count = pyo3::types::PyInt::new(py, count);
    match ffi::call_method(protocol, intern!(py, "buffer_updated"), &[count.as_any()]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = "Fatal error: protocol.buffer_updated() call failed.";
            endpoint::fatal(transport, error, message)
        }
    }
}

/// The protocol's buffer for writing; otherwise the error of `socket.recv_into`.
fn writable(buffer: &Bound<'_, PyAny>) -> PyResult<View> {
    View::writable(buffer).or_else(|_| {
        let name = buffer.get_type().name()?;
        let message =
            format!("recv_into() argument 1 must be read-write bytes-like object, not {name}");
        Err(PyTypeError::new_err(message))
    })
}

/// The peer sends no more: the protocol says whether the connection stays open for writing.
fn end(transport: &Bound<'_, StreamTransport>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = transport.py();
    StreamTransport::log(transport, "debug", "received EOF")?;
    let keep_open = ffi::call_method(protocol, intern!(py, "eof_received"), &[])
        .and_then(|answer| answer.is_truthy());
    match keep_open {
        Ok(true) => endpoint::stop_reading(transport),
        Ok(false) => endpoint::close(transport),
        Err(error) => {
            let message = "Fatal error: protocol.eof_received() call failed.";
            endpoint::fatal(transport, error, message)
        }
    }
}
