//! From the peer to the protocol above.
//!
//! What came is given to the session a piece at a time and decrypted at once, into the loop's buffer for that, so a
//! memory BIO never holds (and never again gives back) more than a piece; the protocol gets all of it in one call.

use pyo3::exceptions::{PyException, PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use super::limits::Level;
use super::protocol::{Phase, TlsProtocol};
use super::session::{RECORD, Session};
use super::{closing, handshake, writing};
use crate::buffer::View;
use crate::error;
use crate::ffi;

/// How much a session is given at a time, in bytes: two records.
const PIECE: usize = 2 * RECORD;

const FAILED: &str = "Fatal error on SSL protocol";

/// `data` has come from the peer.
pub(crate) fn receive(layer: &Bound<'_, TlsProtocol>, data: &[u8]) -> PyResult<()> {
    let this = layer.get();
    match this.phase() {
        Phase::Wrapped => step(layer, data),
        Phase::Handshake => {
            this.session.feed(layer.py(), data)?;
            handshake::step(layer)
        }
        Phase::Flushing => {
            this.session.feed(layer.py(), data)?;
            closing::flush(layer)
        }
        Phase::Shutdown => {
            this.session.feed(layer.py(), data)?;
            closing::shut_down(layer)
        }
        Phase::Unwrapped => Ok(()),
    }
}

/// Delivers what there is, `data` included, and sends what the protocol has written meanwhile: `SSLProtocol._do_read`.
pub(super) fn step(layer: &Bound<'_, TlsProtocol>, data: &[u8]) -> PyResult<()> {
    let this = layer.get();
    if !matches!(this.phase(), Phase::Wrapped | Phase::Flushing) {
        return Ok(());
    }
    let was_corked = std::mem::replace(&mut this.state.borrow_mut().corked, true);
    let delivered = deliver(layer, data);
    this.state.borrow_mut().corked = was_corked;
    // What was written before an error goes out before the connection ends by it.
    let done = delivered.and_then(|()| control(layer));
    let flushed = if was_corked { Ok(()) } else { writing::flush(layer) };
    match done.and(flushed) {
        Err(error) if error.is_instance_of::<PyException>(layer.py()) => {
            closing::fatal(layer, &error, FAILED)
        }
        done => done,
    }
}

/// Whether the protocol above is to be given what comes.
fn wants_data(layer: &TlsProtocol) -> bool {
    let state = layer.state.borrow();
    !state.reading_paused && matches!(state.phase, Phase::Wrapped | Phase::Flushing)
}

/// What has come and is still to be given to the session.
struct Input<'a> {
    session: &'a Session,
    rest: &'a [u8],
}

impl Input<'_> {
    /// Decrypts into `target` until it is full, or there is no more. How much was decrypted, and why it ended.
    fn fill(&mut self, py: Python<'_>, target: &mut [u8]) -> (usize, PyResult<Stop>) {
        let mut length = 0;
        while length < target.len() {
            match self.decrypt(py, &mut target[length..]) {
                Ok(Some(0)) => return (length, Ok(Stop::End)),
                Ok(Some(count)) => length += count,
                Ok(None) => return (length, Ok(Stop::Empty)),
                Err(error) => return (length, Err(error)),
            }
        }
        (length, Ok(Stop::Full))
    }

    /// Decrypts at most a record; 0 at the end of the stream, `None` if nothing is left to decrypt.
    fn decrypt(&mut self, py: Python<'_>, target: &mut [u8]) -> PyResult<Option<usize>> {
        loop {
            if self.session.has_record(py)?
                && let Some(count) = self.session.read(py, target)?
            {
                return Ok(Some(count));
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let (piece, rest) = self.rest.split_at(PIECE.min(self.rest.len()));
            self.rest = rest;
            self.session.feed(py, piece)?;
        }
    }
}

/// Why a buffer is not filled further.
#[derive(PartialEq, Eq)]
enum Stop {
    Full,
    /// There is nothing more to decrypt for now.
    Empty,
    /// The peer has said goodbye.
    End,
}

fn deliver(layer: &Bound<'_, TlsProtocol>, data: &[u8]) -> PyResult<()> {
    let mut input = Input { session: &layer.get().session, rest: data };
    give(layer, &mut input).or_else(|error| interrupted(layer, input.rest, error))
}

/// If an exception is about to leave the loop, `rest` is delivered when the loop runs again.
#[cold]
fn interrupted(layer: &Bound<'_, TlsProtocol>, rest: &[u8], error: PyErr) -> PyResult<()> {
    let py = layer.py();
    if error::leaves_the_loop(py, &error) {
        layer.get().session.feed(py, rest)?;
        TlsProtocol::schedule(layer, "call_soon", None, "_resume")?;
    }
    Err(error)
}

/// Gives the protocol what there is, for as long as it wants it.
fn give(layer: &Bound<'_, TlsProtocol>, input: &mut Input<'_>) -> PyResult<()> {
    let this = layer.get();
    while wants_data(this) {
        let buffered = this.state.borrow().buffered;
        let stop = if buffered { fill_buffer(layer, input)? } else { hand_over(layer, input)? };
        match stop {
            Stop::Full => {}
            Stop::Empty => return Ok(()),
            Stop::End => {
                closing::tell_eof(layer)?;
                return closing::start(layer);
            }
        }
    }
    // It wants no more for now: what has come waits where it is counted.
    this.session.feed(layer.py(), input.rest)
}

/// Gives a `Protocol` what can be decrypted, as `bytes`.
fn hand_over(layer: &Bound<'_, TlsProtocol>, input: &mut Input<'_>) -> PyResult<Stop> {
    let py = layer.py();
    let this = layer.get();
    let (data, stop) = this.core.get().with_plain_buffer(|buffer| {
        let (length, stop) = input.fill(py, buffer);
        let data = if length == 0 { None } else { Some(ffi::bytes(py, &buffer[..length])) };
        (data.transpose(), stop)
    });
    // What came before an error was sent all the same.
    if let (Some(data), Some(protocol)) = (data?, this.protocol(py)) {
        ffi::call_method(&protocol, intern!(py, "data_received"), &[&data])?;
    }
    stop
}

/// Decrypts into the buffer of a `BufferedProtocol`.
fn fill_buffer(layer: &Bound<'_, TlsProtocol>, input: &mut Input<'_>) -> PyResult<Stop> {
    let py = layer.py();
    let this = layer.get();
    if !this.session.has_record(py)? && input.rest.is_empty() {
        return Ok(Stop::Empty);
    }
    let Some(protocol) = this.protocol(py) else { return Ok(Stop::Empty) };
    let hint = PyInt::new(py, this.session.pending_in(py)? + input.rest.len());
    let buffer = ffi::call_method(&protocol, intern!(py, "get_buffer"), &[hint.as_any()])?;
    if buffer.len()? == 0 {
        return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
    }
    let (length, stop) = {
        let mut view = View::writable(&buffer).or_else(|_| {
            let name = buffer.get_type().name()?;
            let message =
                format!("read() argument 2 must be read-write bytes-like object, not {name}");
            Err(PyTypeError::new_err(message))
        })?;
        input.fill(py, view.as_mut_slice())
    };
    drop(buffer);
    if length > 0 {
        let length = PyInt::new(py, length);
        ffi::call_method(&protocol, intern!(py, "buffer_updated"), &[length.as_any()])?;
    }
    stop
}

/// Lets the transport below pause or go on, by how much waits to be decrypted: `SSLProtocol._control_ssl_reading`.
pub(super) fn control(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    {
        let state = this.state.borrow();
        if !state.reading_paused && !state.lower_paused && state.read_limits.high > 0 {
            // Everything has been decrypted but for an incomplete record.
            return Ok(());
        }
    }
    let size = this.session.pending_in(py)?;
    let (level, lower) = {
        let mut state = this.state.borrow_mut();
        let level = state.read_limits.level(size, state.lower_paused);
        if let Some(level) = level {
            state.lower_paused = level == Level::Full;
        }
        (level, state.lower.as_ref().map(|lower| lower.clone_ref(py)))
    };
    match (level, lower) {
        (Some(Level::Full), Some(lower)) => lower.pause_reading(py),
        (Some(Level::Drained), Some(lower)) => lower.resume_reading(py),
        _ => Ok(()),
    }
}

pub(super) fn pause(layer: &TlsProtocol) {
    layer.state.borrow_mut().reading_paused = true;
}

/// Reads again, in the next turn.
pub(super) fn resume(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    if !std::mem::replace(&mut layer.get().state.borrow_mut().reading_paused, false) {
        return Ok(());
    }
    TlsProtocol::schedule(layer, "call_soon", None, "_resume").map(drop)
}

/// That turn has come.
pub(super) fn resumed(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    match layer.get().phase() {
        Phase::Wrapped => step(layer, &[]),
        Phase::Flushing => closing::flush(layer),
        Phase::Shutdown => closing::shut_down(layer),
        Phase::Unwrapped | Phase::Handshake => Ok(()),
    }
}
