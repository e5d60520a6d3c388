//! From the protocol above to the peer.
//!
//! What is written in a turn of the loop is kept until its end, and while the protocol handles what it was given until
//! it returns: many small writes then become one record and one system call. What is large is encrypted at once, as
//! in asyncio, unless the transport below has enough to send: then it waits here, by reference.

use oxloop_engine::flow::FlowEvent;
use oxloop_engine::write_queue::WriteQueue;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::closing;
use super::limits::Level;
use super::protocol::{Phase, State, TlsProtocol};
use super::session::RECORD;
use crate::buffer::Chunk;
use crate::ffi;
use crate::report;
use crate::transports::protocol::tell_flow;

/// From this many writes to a closed connection on, each is logged (`LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOST_WRITES_LOGGED: u32 = 5;

/// How much is encrypted before it is handed to the transport below, and how much is kept for later, in bytes: a
/// memory BIO never gives back what it has grown to.
const BATCH: usize = 4 * RECORD;

/// Buffers below this size are joined with what follows them, in bytes.
const SMALL: usize = RECORD / 4;

const FAILED: &str = "Fatal error on SSL protocol";

/// Encrypts and sends `chunks`, now or later.
pub(super) fn write(
    layer: &Bound<'_, TlsProtocol>,
    chunks: impl IntoIterator<Item = Chunk>,
) -> PyResult<()> {
    let this = layer.get();
    this.core.get().check_selector()?;
    {
        let mut state = this.state.borrow_mut();
        if !matches!(state.phase, Phase::Wrapped | Phase::Handshake) {
            drop(state);
            return drop_write(layer);
        }
        for chunk in chunks {
            state.queue.push(chunk);
        }
        let is_little = state.queue.len_bytes() < BATCH;
        if state.phase == Phase::Handshake || (is_little && state.corked) {
            return Ok(());
        }
        state.corked = is_little && !state.lower_full && this.core.get().is_running();
        if !state.corked {
            drop(state);
            return flush_or_fail(layer);
        }
    }
    let context = ffi::copy_context(layer.py())?;
    let before = this.state.borrow_mut().context.replace(context);
    drop(before);
    this.core.get().push_turn_end(layer.as_any().into(), end_turn);
    Ok(())
}

/// The turn is over in which something was written: sends it.
fn end_turn(layer: &Bound<'_, PyAny>) -> PyResult<()> {
    let layer = ffi::cast_known::<TlsProtocol>(layer);
    let context = layer.get().state.borrow_mut().context.take();
    match context {
        Some(context) => ffi::run_in_context(context.bind(layer.py()), || uncork(layer)),
        None => uncork(layer),
    }
}

fn flush_or_fail(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    match flush(layer) {
        Err(error) if error.is_instance_of::<PyException>(layer.py()) => {
            closing::fatal(layer, &error, FAILED)
        }
        flushed => flushed,
    }
}

/// A write to a connection that is closed is dropped.
#[cold]
fn drop_write(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let lost = {
        let mut state = layer.get().state.borrow_mut();
        state.lost = state.lost.saturating_add(1);
        state.lost
    };
    if lost > LOST_WRITES_LOGGED {
        report::log(layer.py(), "warning", "SSL connection is closed")?;
    }
    Ok(())
}

/// Encrypts what has been written and sends what there is to send, unless the transport below has enough; tells the
/// protocol above if it has to wait.
pub(super) fn flush(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    {
        let state = layer.get().state.borrow();
        if !matches!(state.phase, Phase::Wrapped | Phase::Flushing) {
            return Ok(());
        }
        if state.lower_full {
            drop(state);
            return control(layer);
        }
    }
    encrypt(layer, true)?;
    send_out_now(layer)?;
    control(layer)
}

/// Sends what has been kept to be sent together.
pub(crate) fn uncork(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let corked = std::mem::replace(&mut layer.get().state.borrow_mut().corked, false);
    if corked { flush_or_fail(layer) } else { Ok(()) }
}

/// Encrypts what has been written. With `send`, what that makes is sent whenever it is much.
pub(super) fn encrypt(layer: &Bound<'_, TlsProtocol>, send: bool) -> PyResult<()> {
    let this = layer.get();
    loop {
        let mut queue = {
            let mut state = this.state.borrow_mut();
            if state.queue.is_empty() || state.encrypting {
                return Ok(());
            }
            state.encrypting = true;
            std::mem::take(&mut state.queue)
        };
        let encrypted = encrypt_queue(layer, &mut queue, send);
        let waits = !queue.is_empty();
        let mut state = this.state.borrow_mut();
        state.encrypting = false;
        put_back(&mut state, queue);
        if waits || encrypted.is_err() {
            return encrypted;
        }
    }
}

fn encrypt_queue(
    layer: &Bound<'_, TlsProtocol>,
    queue: &mut WriteQueue<Chunk>,
    send: bool,
) -> PyResult<()> {
    let py = layer.py();
    let session = &layer.get().session;
    let mut batch = 0;
    let mut joined = Vec::new();
    while let Some(first) = queue.first_slice() {
        let written = if queue.len() > 1 && first.len() < SMALL {
            join(queue, &mut joined);
            session.write(py, &joined)?
        } else {
            session.write(py, first)?
        };
        // The session needs something from the peer first; asked again when that has come.
        let Some(count) = written else { break };
        // Buffers are exactly `bytes` or ours: dropping them calls nothing.
        queue.advance(count, drop);
        batch += count;
        if send && batch >= BATCH {
            send_out_now(layer)?;
            batch = 0;
        }
    }
    Ok(())
}

/// Copies what fits into a record from the front of `queue`.
fn join(queue: &WriteQueue<Chunk>, joined: &mut Vec<u8>) {
    joined.clear();
    for part in queue.parts() {
        let room = RECORD - joined.len();
        if room == 0 {
            break;
        }
        joined.extend_from_slice(&part[..part.len().min(room)]);
    }
}

/// Puts what is left of `queue` back in front of what was written meanwhile.
fn put_back(state: &mut State, mut queue: WriteQueue<Chunk>) {
    for chunk in state.queue.clear() {
        queue.push(chunk);
    }
    state.queue = queue;
}

/// Sends what the session has for the peer, unless the transport below has enough: `SSLProtocol._process_outgoing`.
pub(super) fn send_out(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let full = layer.get().state.borrow().lower_full;
    if !full {
        send_out_now(layer)?;
    }
    control(layer)
}

/// Sends the first `count` bytes of what the session has for the peer, unless the transport below has enough.
#[cold]
pub(super) fn send_first(layer: &Bound<'_, TlsProtocol>, count: usize) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    match this.lower(py) {
        Some(lower) if count > 0 && !this.state.borrow().lower_full => {
            lower.write(py, &this.session.take_first(py, count)?)
        }
        _ => Ok(()),
    }
}

fn send_out_now(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    let Some(data) = this.session.take_out(py)? else { return Ok(()) };
    match this.lower(py) {
        Some(lower) => lower.write(py, &data),
        None => Ok(()),
    }
}

/// The transport below can send more.
pub(super) fn resume(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    if layer.get().phase() == Phase::Wrapped {
        flush_or_fail(layer)
    } else {
        // During a handshake nothing is encrypted yet, and for the end everything has been.
        send_out(layer)
    }
}

/// How much was written and has not reached the transport below.
pub(super) fn size(layer: &TlsProtocol, py: Python<'_>) -> PyResult<usize> {
    let outgoing = layer.session.pending_out(py)?;
    Ok(outgoing + layer.state.borrow().queue.len_bytes())
}

/// Tells the protocol above to pause or to go on: `SSLProtocol._control_app_writing`.
pub(super) fn control(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    {
        let state = this.state.borrow();
        if !state.lower_full
            && !state.writing_paused
            && state.queue.len_bytes() < state.write_limits.high
        {
            // What has been encrypted has left.
            return Ok(());
        }
    }
    let size = size(this, py)?;
    let (level, protocol, transport) = {
        let mut state = this.state.borrow_mut();
        let level = state.write_limits.level(size, state.writing_paused);
        if let Some(level) = level {
            state.writing_paused = level == Level::Full;
        }
        let protocol = state.protocol.as_ref().map(|protocol| protocol.bind(py).clone());
        (level, protocol, state.transport.as_ref().map(|transport| transport.bind(py).clone()))
    };
    let (Some(level), Some(protocol), Some(transport)) = (level, protocol, transport) else {
        return Ok(());
    };
    let event = if level == Level::Full { FlowEvent::Pause } else { FlowEvent::Resume };
    tell_flow(this.core.bind(py), transport.as_any(), &protocol, event)
}
