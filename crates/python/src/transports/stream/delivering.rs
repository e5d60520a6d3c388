//! Giving what came to the protocol: as `bytes`, into its own buffer, or to TLS; and keeping what comes during a pause.

use std::io;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};

use super::{Kind, StreamTransport};
use crate::buffer::View;
use crate::error::os_error;
use crate::ffi;
use crate::transports::endpoint::{self, Piece};
use crate::transports::tls::{self, TlsProtocol};

/// What is said of an error that came of reading.
pub(super) const FAILED: &str = "Fatal read error on socket transport";

/// Delivers a piece, or keeps it if reading is paused.
pub(super) fn piece(transport: &Bound<'_, StreamTransport>, piece: Piece) -> PyResult<()> {
    match Recipient::of(transport) {
        Some(recipient) if !recipient.waits => recipient.take(transport, piece),
        recipient => {
            let this = transport.get();
            if recipient.is_some() || this.watch.is_told() {
                this.state.borrow_mut().held.push_back(piece);
            }
            Ok(())
        }
    }
}

/// Delivers what was kept, soon.
pub(super) fn later(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    let this = transport.get();
    if this.state.borrow().held.is_empty() {
        return Ok(());
    }
    this.core.get().push_native(transport.as_any().into(), held)
}

fn held(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<StreamTransport>(transport);
    let this = transport.get();
    while this.watch.reads() {
        let piece = this.state.borrow_mut().held.pop_front();
        let Some(piece) = piece else { break };
        let Some(recipient) = Recipient::of(transport) else { break };
        recipient.take(transport, piece).or_else(|error| interrupted(transport, error))?;
    }
    Ok(())
}

/// An exception is about to leave the loop: what is kept is delivered when the loop runs again.
#[cold]
fn interrupted(transport: &Bound<'_, StreamTransport>, error: PyErr) -> PyResult<()> {
    later(transport)?;
    Err(error)
}

/// Keeps a piece, in front of all others, that has not been delivered after all.
fn keep(transport: &Bound<'_, StreamTransport>, piece: Piece) {
    transport.get().state.borrow_mut().held.push_front(piece);
}

/// Delivers data, for as long as the protocol wants it: a pause keeps the rest.
pub(super) fn data(transport: &Bound<'_, StreamTransport>, data: &[u8]) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let mut rest = data;
    while !rest.is_empty() {
        let Some(recipient) = Recipient::of(transport) else {
            if this.watch.is_told() {
                keep(transport, Piece::Data(ffi::bytes(py, rest)?.into()));
            }
            return Ok(());
        };
        match recipient.kind {
            Kind::Plain => return recipient.give(transport, ffi::bytes(py, rest)?),
            Kind::Tls => return recipient.decrypt(transport, rest),
            Kind::Buffered => {}
        }
        let mut given = 0;
        let filled = recipient.fill(transport, |buffer| {
            given = buffer.len().min(rest.len());
            buffer[..given].copy_from_slice(&rest[..given]);
            Ok(Some(given))
        });
        rest = &rest[given..];
        if let Err(error) = filled {
            if !rest.is_empty() {
                keep(transport, Piece::Data(ffi::bytes(py, rest)?.into()));
            }
            return interrupted(transport, error);
        }
    }
    Ok(())
}

/// Who is given what comes, and how. The errors of its methods end the connection.
pub(super) struct Recipient<'py> {
    pub(super) kind: Kind,
    /// Whether something that came before is still to be delivered.
    pub(super) waits: bool,
    protocol: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
}

impl<'py> Recipient<'py> {
    /// `None` while nothing is read.
    pub(super) fn of(transport: &Bound<'py, StreamTransport>) -> Option<Self> {
        let py = transport.py();
        let this = transport.get();
        let state = this.state.borrow();
        if !this.watch.reads() || state.life.phase.is_lost() {
            return None;
        }
        let protocol = state.life.protocol.as_ref()?.bind(py).clone();
        let waits = !state.held.is_empty();
        let context = this.watch.reading(py).into_bound(py);
        Some(Self { kind: state.kind, waits, protocol, context })
    }

    /// Delivers a piece.
    fn take(&self, transport: &Bound<'py, StreamTransport>, piece: Piece) -> PyResult<()> {
        let py = transport.py();
        match piece {
            Piece::Data(bytes) if self.kind == Kind::Plain => {
                self.give(transport, bytes.into_bound(py))
            }
            Piece::Data(bytes) => data(transport, bytes.bind(py).cast::<PyBytes>()?.as_bytes()),
            Piece::End => self.end(transport).or_else(|error| {
                keep(transport, Piece::End);
                interrupted(transport, error)
            }),
            Piece::Failed(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                endpoint::fatal(transport, os_error(&error), FAILED)
            }
        }
    }

    /// Calls `data_received`.
    pub(super) fn give(
        &self,
        transport: &Bound<'py, StreamTransport>,
        data: Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let delivered = ffi::run_in_context(&self.context, || {
            let name = intern!(data.py(), "data_received");
            ffi::call_method(&self.protocol, name, &[&data])
        });
        drop(data);
        match delivered {
            Ok(_) => Ok(()),
            Err(error) => {
                let message = "Fatal error: protocol.data_received() call failed.";
                endpoint::fatal(transport, error, message)
            }
        }
    }

    /// Gives ciphertext to TLS.
    pub(super) fn decrypt(
        &self,
        transport: &Bound<'py, StreamTransport>,
        data: &[u8],
    ) -> PyResult<()> {
        let layer = ffi::cast_known::<TlsProtocol>(&self.protocol);
        ffi::run_in_context(&self.context, || tls::receive(layer, data)).or_else(|error| {
            let message = "Fatal error: protocol.buffer_updated() call failed.";
            endpoint::fatal(transport, error, message)
        })
    }

    /// Lets `fill` write into the buffer of a `BufferedProtocol`, and says how much that was. None of it is the end
    /// of the stream, no answer that there is nothing yet.
    pub(super) fn fill(
        &self,
        transport: &Bound<'py, StreamTransport>,
        fill: impl FnOnce(&mut [u8]) -> PyResult<Option<usize>>,
    ) -> PyResult<()> {
        ffi::run_in_context(&self.context, || self.fill_in_context(transport, fill))
    }

    fn fill_in_context(
        &self,
        transport: &Bound<'py, StreamTransport>,
        fill: impl FnOnce(&mut [u8]) -> PyResult<Option<usize>>,
    ) -> PyResult<()> {
        let py = transport.py();
        let buffer = match self.buffer(py) {
            Ok(buffer) => buffer,
            Err(error) => {
                let message = "Fatal error: protocol.get_buffer() call failed.";
                return endpoint::fatal(transport, error, message);
            }
        };
        let filled = writable(&buffer).and_then(|mut view| {
            // `get_buffer` may have closed the transport.
            if transport.get().state.borrow().life.phase.is_lost() {
                return Ok(None);
            }
            fill(view.as_mut_slice())
        });
        drop(buffer);
        let count = match filled {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return endpoint::end(transport, &self.protocol),
            Ok(Some(count)) => PyInt::new(py, count),
            Err(error) => return endpoint::fatal(transport, error, FAILED),
        };
        match ffi::call_method(&self.protocol, intern!(py, "buffer_updated"), &[count.as_any()]) {
            Ok(_) => Ok(()),
            Err(error) => {
                let message = "Fatal error: protocol.buffer_updated() call failed.";
                endpoint::fatal(transport, error, message)
            }
        }
    }

    fn buffer(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let name = intern!(py, "get_buffer");
        let buffer = ffi::call_method(&self.protocol, name, &[&ffi::minus_one(py)])?;
        if buffer.len()? == 0 {
            return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
        }
        Ok(buffer)
    }

    /// Says that the peer sends no more.
    pub(super) fn end(&self, transport: &Bound<'py, StreamTransport>) -> PyResult<()> {
        ffi::run_in_context(&self.context, || endpoint::end(transport, &self.protocol))
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
