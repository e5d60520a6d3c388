//! The beginning of a session, and its errors.

use pyo3::exceptions::{PyConnectionAbortedError, PyConnectionResetError, PyException};
use pyo3::intern;
use pyo3::prelude::*;

use super::protocol::{Phase, TlsProtocol, Told};
use super::{closing, reading, writing};
use crate::error;
use crate::imports::tls_imports;
use crate::report;

/// Begins: `SSLProtocol._start_handshake`.
pub(super) fn start(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    TlsProtocol::log_debug(layer, "starts SSL handshake")?;
    if this.core.get().debug() {
        let now = this.core.bind(py).call_method0(intern!(py, "time"))?;
        let before = this.state.borrow_mut().started.replace(now.into());
        drop(before);
    }
    this.set_phase(Phase::Handshake);
    let delay = Some(&this.handshake_timeout);
    let timer = TlsProtocol::schedule(layer, "call_later", delay, "_check_handshake_timeout")?;
    let before = this.state.borrow_mut().timer.replace(timer.into());
    drop(before);
    step(layer)
}

/// Goes on with what has come.
pub(super) fn step(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    match layer.get().session.shake_hands(py) {
        Ok(true) => complete(layer),
        Ok(false) => writing::send_out(layer),
        Err(error) if error.is_instance(py, tls_imports(py)?.ssl_error.bind(py)) => {
            // The alert, which tells the peer why. That it cannot be sent is not the news.
            let _ = writing::send_out(layer);
            failed(layer, &error)
        }
        Err(error) => Err(error),
    }
}

/// The peer has gone in the middle of it.
pub(super) fn interrupted(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    failed(layer, &PyConnectionResetError::new_err(()))
}

/// The handshake is over, for better: the protocol above is told of its connection, and what it writes goes out
/// together with the last of the handshake.
fn complete(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    this.cancel_timer(py)?;
    this.set_phase(Phase::Wrapped);
    if let Err(error) = note_extra(layer) {
        if error.is_instance_of::<PyException>(py) {
            return failed(layer, &error);
        }
        return Err(error);
    }
    log_duration(layer)?;
    let protocol = {
        let mut state = this.state.borrow_mut();
        state.corked = true;
        let first = state.told == Told::Nothing;
        if first {
            state.told = Told::Made;
        }
        let protocol = state.protocol.as_ref().filter(|_| first);
        protocol.map(|protocol| protocol.bind(py).clone())
    };
    let told = match (protocol, this.transport(py)) {
        (Some(protocol), Some(transport)) => {
            protocol.call_method1(intern!(py, "connection_made"), (transport,)).map(drop)
        }
        _ => Ok(()),
    };
    this.state.borrow_mut().corked = false;
    if let Err(error) = told {
        writing::flush(layer)?;
        return Err(error);
    }
    this.wake(py, None)?;
    reading::step(layer, &[])
}

/// What becomes available with the end of the handshake.
fn note_extra(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let object = layer.get().session.object(py);
    let extra = layer.get().extra.bind(py);
    extra.set_item(intern!(py, "peercert"), object.call_method0(intern!(py, "getpeercert"))?)?;
    extra.set_item(intern!(py, "cipher"), object.call_method0(intern!(py, "cipher"))?)?;
    extra.set_item(intern!(py, "compression"), object.call_method0(intern!(py, "compression"))?)?;
    extra.set_item(intern!(py, "ssl_object"), object)
}

fn log_duration(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    let started = this.state.borrow_mut().started.take();
    let (Some(started), true) = (started, this.core.get().debug()) else { return Ok(()) };
    let now = this.core.bind(py).call_method0(intern!(py, "time"))?;
    let took: f64 = now.sub(started.bind(py))?.extract()?;
    let text = format!("{}: SSL handshake took {:.1} ms", layer.repr()?, took * 1e3);
    report::log(py, "debug", &text)
}

/// The handshake is over, for worse.
fn failed(layer: &Bound<'_, TlsProtocol>, error: &PyErr) -> PyResult<()> {
    let py = layer.py();
    let this = layer.get();
    this.cancel_timer(py)?;
    this.set_phase(Phase::Unwrapped);
    let message = if error.is_instance(py, tls_imports(py)?.certificate_error.bind(py)) {
        "SSL handshake failed on verifying the certificate"
    } else {
        "SSL handshake failed"
    };
    let exception = error::exception(py, error);
    closing::fatal(layer, error, message)?;
    this.wake(py, Some(exception.as_any()))
}

/// It has taken too long.
pub(super) fn timed_out(layer: &Bound<'_, TlsProtocol>) -> PyResult<()> {
    let this = layer.get();
    if this.phase() != Phase::Handshake {
        return Ok(());
    }
    let message = format!(
        "SSL handshake is taking longer than {} seconds: aborting the connection",
        this.handshake_timeout.bind(layer.py()).str()?
    );
    let error = PyConnectionAbortedError::new_err(message);
    closing::fatal(layer, &error, "Fatal error on transport")
}
