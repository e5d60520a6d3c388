//! The end of a transport: closed by the user, by the other side, or by an error. Whichever it is, `connection_lost`
//! is called exactly once, and never from inside of `close`.

use pyo3::prelude::*;

use super::writing::stop_writing;
use super::{Endpoint, State, stop_reading};
use crate::error;
use crate::ffi;
use crate::report;
use crate::transports::protocol;

/// Stops reading; the connection is lost once everything that was written has gone.
pub(in crate::transports) fn close<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let this = transport.get();
    this.core().get().check_selector()?;
    T::before_close(transport)?;
    let drained = {
        let mut state = this.state().borrow_mut();
        if state.is_closed() || !state.life_mut().phase.close() {
            return Ok(());
        }
        state.is_drained()
    };
    if drained || !this.reads_until_lost() {
        stop_reading(transport)?;
    }
    if drained { queue_lost(transport, None) } else { Ok(()) }
}

/// Ends the connection at once; what is queued is dropped.
pub(in crate::transports) fn force<T: Endpoint>(
    transport: &Bound<'_, T>,
    reason: Option<PyErr>,
) -> PyResult<()> {
    let this = transport.get();
    this.core().get().check_selector()?;
    T::send_kept(transport)?;
    let queued = {
        let mut state = this.state().borrow_mut();
        if state.life().phase.is_lost() {
            return Ok(());
        }
        state.life_mut().phase.close();
        state.clear()
    };
    drop(queued);
    stop_reading(transport)?;
    queue_lost(transport, reason)
}

/// An error after which the connection cannot go on. Returns one that leaves the loop.
#[cold]
pub(in crate::transports) fn fatal<T: Endpoint>(
    transport: &Bound<'_, T>,
    error: PyErr,
    message: &str,
) -> PyResult<()> {
    let (this, py) = (transport.get(), transport.py());
    if error::leaves_the_loop(py, &error) {
        return Err(error);
    }
    let exception = error::exception(py, &error);
    if !this.is_ordinary(py, &error) {
        let protocol = this.protocol(py).unwrap_or_else(|| py.None().into_bound(py));
        let details = [("transport", transport.as_any()), ("protocol", &protocol)];
        let event_loop = this.core().bind(py).as_any();
        report::caught(event_loop, message, &exception, &details)?;
    } else if this.core().get().debug() {
        let text = format!("{}: {message}", transport.as_any().repr()?);
        report::log_exception(py, "debug", &text, exception.as_any())?;
    }
    force(transport, Some(error))
}

/// Queues `connection_lost(reason)`. Nothing is read any more.
pub(in crate::transports) fn queue_lost<T: Endpoint>(
    transport: &Bound<'_, T>,
    reason: Option<PyErr>,
) -> PyResult<()> {
    let this = transport.get();
    if !this.state().borrow_mut().life_mut().phase.lose() {
        return Ok(());
    }
    stop_writing(transport)?;
    let py = transport.py();
    protocol::queue_lost(this.core().bind(py), transport.as_any(), reason, this.watch().context(py))
}

/// Calls `connection_lost(None)` from an event of the loop, in its context: the last of what a closing transport had
/// to send has gone.
pub(in crate::transports) fn lose_now<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    if !transport.get().state().borrow_mut().life_mut().phase.lose() {
        return Ok(());
    }
    stop_reading(transport)?;
    lost(transport, transport.py().None().bind(transport.py()))
}

/// Tells the protocol that its connection is gone, and closes what the transport owns. The error is the protocol's.
pub(in crate::transports) fn lost<T: Endpoint>(
    transport: &Bound<'_, T>,
    reason: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let this = transport.get();
    let prepared = T::before_lost(transport, reason);
    let told = protocol::tell_lost(this.protocol(transport.py()).as_ref(), reason, || {
        let protocol = this.state().borrow_mut().life_mut().protocol.take();
        drop(protocol);
        T::release(transport)
    });
    told.and(prepared)
}

/// A transport is dropped. One that has not been closed is closed now, with a warning.
pub(in crate::transports) fn dropped<T: Endpoint>(this: &T) {
    if this.state().borrow().is_closed() {
        return;
    }
    Python::attach(|py| {
        ffi::keep_exception(py, || {
            let text = format!("unclosed transport {}", this.text());
            let warned = report::resource_warning(py, &text, py.None().bind(py));
            if let Err(error) = this.abandon(py).and(warned) {
                error.write_unraisable(py, None);
            }
        });
    });
}
