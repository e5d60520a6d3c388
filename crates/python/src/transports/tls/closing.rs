//! The end of a session: by `close_notify` (RFC 8446, section 6.1), by an error, or because the transport below has
//! gone.

use pyo3::exceptions::{PyException, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::protocol::{Phase, TlsProtocol, Told};
use super::{handshake, reading, writing};
use crate::error;
use crate::ffi;
use crate::imports::{NEVER, is_since, tls_imports};
use crate::report;

/// Closes, once: `SSLProtocol._start_shutdown`. What was written is sent before.
pub(super) fn start(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    match this.phase() {
        Phase::Flushing | Phase::Shutdown | Phase::Unwrapped => return Ok(()),
        Phase::Handshake => {
            mark_closed(this, py);
            return abort(layer, None);
        }
        Phase::Wrapped => {}
    }
    mark_closed(this, py);
    this.set_phase(Phase::Flushing);
    start_timer(layer)?;
    flush(layer)
}

/// Lets the end take so long and no longer.
fn start_timer(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let this = layer.get();
    let delay = Some(&this.shutdown_timeout);
    let timer = TlsProtocol::schedule(layer, "call_later", delay, "_check_shutdown_timeout")?;
    let before = this.state.borrow_mut().timer.replace(timer.into());
    drop(before);
    Ok(())
}

/// The transport for the protocol above is closing, whoever has closed it.
fn mark_closed(layer: &TlsProtocol, py: Python<'_>) {
    if let Some(transport) = layer.transport(py) {
        transport.get().set_closed();
    }
}

/// Delivers what has come, then says goodbye: `SSLProtocol._do_flush`.
pub(super) fn flush(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let this = layer.get();
    reading::step(layer, &[])?;
    if this.phase() != Phase::Flushing {
        return Ok(());
    }
    encrypt_rest(layer)?;
    // Reading may have ended the connection.
    if this.phase() != Phase::Flushing {
        return Ok(());
    }
    this.set_phase(Phase::Shutdown);
    shut_down(layer)
}

/// Encrypts all that was written, also when the transport below has enough to send: goodbye comes after it.
fn encrypt_rest(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let full = layer.get().state.borrow().lower_full;
    match writing::encrypt(layer, !full) {
        Err(error) if error.is_instance_of::<PyException>(layer.py()) => {
            fatal(layer, &error, "Fatal error on SSL protocol")
        }
        encrypted => encrypted,
    }
}

/// Says goodbye, and waits for the peer's: `SSLProtocol._do_shutdown`.
pub(super) fn shut_down(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    let eof_received = this.state.borrow().eof_received;
    let written = this.session.pending_out(py)?;
    let unwrapped = if eof_received { Ok(true) } else { this.session.unwrap(py) };
    match unwrapped {
        Ok(false) => writing::send_out(layer),
        Ok(true) => {
            writing::send_out(layer)?;
            tell_eof(layer)?;
            if !is_since(py, [NEVER, 10, 2]) {
                this.cancel_timer(py)?;
            } else if this.state.borrow().timer.is_none() {
                // What is still queued goes first, which a peer that does not read can delay (gh-160520).
                start_timer(layer)?;
            }
            let Some(lower) = this.lower(py) else { return Ok(()) };
            let close = lower.object(py).getattr(intern!(py, "close"))?;
            this.core.bind(py).call_method1(intern!(py, "call_soon"), (close,)).map(drop)
        }
        Err(error) if error.is_instance(py, tls_imports(py)?.ssl_error.bind(py)) => {
            this.cancel_timer(py)?;
            // Goodbye fails for what has come and nobody reads: what was written leaves without it.
            writing::send_first(layer, written)?;
            fatal(layer, &error, "Fatal error on transport")
        }
        Err(error) => Err(error),
    }
}

/// The peer does not answer.
pub(super) fn timed_out(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    if !matches!(this.phase(), Phase::Flushing | Phase::Shutdown) {
        return Ok(());
    }
    let Some(lower) = this.lower(py) else { return Ok(()) };
    let class = py.import("asyncio.exceptions")?.getattr("TimeoutError")?;
    let error = PyErr::from_value(class.call1(("SSL shutdown timed out",))?);
    lower.force_close(py, Some(&error))
}

/// Ends the connection without goodbye.
pub(super) fn abort(layer: &Bound<'_, TlsProtocol>, reason: Option<&PyErr>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    this.set_phase(Phase::Unwrapped);
    match this.lower(py) {
        Some(lower) => lower.force_close(py, reason),
        None => Ok(()),
    }
}

/// Tells the protocol above, once, that the peer sends no more: `SSLProtocol._call_eof_received`.
pub(super) fn tell_eof(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    let protocol = {
        let mut state = this.state.borrow_mut();
        if state.told != Told::Made {
            return Ok(());
        }
        state.told = Told::Eof;
        let Some(protocol) = &state.protocol else { return Ok(()) };
        protocol.bind(py).clone()
    };
    let keep_open = ffi::call_method(&protocol, intern!(py, "eof_received"), &[])
        .and_then(|answer| answer.is_truthy());
    match keep_open {
        Ok(true) => {
            let text = "returning true from eof_received() has no effect when using ssl";
            report::log(py, "warning", text)
        }
        Ok(false) => Ok(()),
        Err(error) if error::leaves_the_loop(py, &error) => Err(error),
        Err(error) => fatal(layer, &error, "Error calling eof_received()"),
    }
}

/// The transport below has received EOF; true if it is to stay open until what came has been read.
pub(super) fn eof(layer: &Bound<'_, TlsProtocol>) -> PyResult<bool> {
    let this = layer.get();
    this.state.borrow_mut().eof_received = true;
    TlsProtocol::log_debug(layer, "received EOF")?;
    match this.phase() {
        Phase::Handshake => handshake::interrupted(layer)?,
        Phase::Wrapped => {
            this.set_phase(Phase::Flushing);
            if this.state.borrow().reading_paused {
                return Ok(true);
            }
            flush(layer)?;
        }
        Phase::Flushing => {
            encrypt_rest(layer)?;
            this.set_phase(Phase::Shutdown);
            shut_down(layer)?;
        }
        Phase::Shutdown => shut_down(layer)?,
        Phase::Unwrapped => {}
    }
    Ok(false)
}

/// The transport below is gone.
pub(super) fn lost(layer: &Bound<'_, TlsProtocol>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    mark_closed(this, py);
    let (told, protocol, rest) = {
        let mut state = this.state.borrow_mut();
        state.lost = state.lost.saturating_add(1);
        let told = state.phase != Phase::Handshake && matches!(state.told, Told::Made | Told::Eof);
        if told {
            state.told = Told::Lost;
        }
        state.phase = Phase::Unwrapped;
        let rest = (state.lower.take(), state.transport.take(), state.queue.clear());
        (told, state.protocol.take(), rest)
    };
    drop(rest);
    // What is left in it is of no use to anybody, and may be much.
    let left = this.session.take_out(py)?;
    drop(left);
    if let (true, Some(protocol)) = (told, protocol) {
        let callback = protocol.bind(py).getattr(intern!(py, "connection_lost"))?;
        let arguments = PyTuple::new(py, [callback, exc.clone()])?;
        this.core.bind(py).call_method1(intern!(py, "call_soon"), arguments)?;
    }
    this.wake(py, if exc.is_none() { None } else { Some(exc) })?;
    this.cancel_timer(py)
}

/// An error after which the connection cannot go on: `SSLProtocol._fatal_error`.
#[cold]
pub(super) fn fatal(layer: &Bound<'_, TlsProtocol>, error: &PyErr, message: &str) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    let lower = this.lower(py);
    if let Some(lower) = &lower {
        lower.force_close(py, Some(error))?;
    }
    let exception = error::exception(py, error);
    if error.is_instance_of::<PyOSError>(py) {
        if this.core.get().debug() {
            let text = format!("{}: {message}", layer.repr()?);
            report::log_exception(py, "debug", &text, exception.as_any())?;
        }
        return Ok(());
    }
    if error::is_cancelled(py, error) {
        return Ok(());
    }
    let none = py.None().into_bound(py);
    let transport = lower.as_ref().map_or(&none, |lower| lower.object(py));
    let details = [("transport", transport), ("protocol", layer.as_any())];
    report::caught(this.core.bind(py).as_any(), message, &exception, &details)
}
