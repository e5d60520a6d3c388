//! When the loop tells that the descriptor is readable: from the making of the connection until it closes, but for
//! the pauses.

use pyo3::intern;
use pyo3::prelude::*;

use super::{Endpoint, State, closing};
use crate::ffi::{self, Ref};

/// What the loop has received for us.
pub(in crate::transports) enum Piece {
    /// A `bytes` object.
    Data(Ref),
    End,
    /// An error of the kernel, by its number.
    Failed(i32),
}

/// Lets the loop tell us when there is something to read, unless reading is paused or over.
pub(in crate::transports) fn start_reading<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let this = transport.get();
    this.core().get().check_closed()?;
    let Some(reader) = this.reader() else { return Ok(()) };
    {
        let state = this.state().borrow();
        if state.life().phase.is_closing() || this.watch().is_paused() || state.is_closed() {
            return Ok(());
        }
    }
    // A selector says so itself.
    let checked = if this.core().get().completes() { T::check_open(transport) } else { Ok(()) };
    checked
        .and_then(|()| this.watch().start_reads(this.core().get(), transport.as_any(), reader))
        .or_else(|error| T::unwatchable(transport, error))
}

/// Goes on to read as [`Endpoint::reader`] says now.
pub(in crate::transports) fn change_reading<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let this = transport.get();
    let Some(reader) = this.reader() else { return Ok(()) };
    T::check_open(transport)
        .and_then(|()| this.watch().change_reads(this.core().get(), transport.as_any(), reader))
        .or_else(|error| T::unwatchable(transport, error))
}

/// Lets the loop read once more, as it does but once for whoever asks for that, unless nothing is to be read now.
pub(in crate::transports) fn read_again<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let this = transport.get();
    if !this.watch().reads() {
        return Ok(());
    }
    let Some(reader) = this.reader() else { return Ok(()) };
    let core = this.core().get();
    core.read(this.watch().fd(), transport.as_any(), reader)
        .or_else(|error| T::unwatchable(transport, error))
}

/// Stops the loop from telling us when there is something to read.
pub(in crate::transports) fn stop_reading<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let this = transport.get();
    this.watch().stop_reads(this.core().get(), transport.py())
}

/// Whether the transport reads, or will once its protocol knows of it.
pub(in crate::transports) fn is_reading<T: Endpoint>(this: &T) -> bool {
    !this.state().borrow().life().phase.is_closing() && !this.watch().is_paused()
}

pub(in crate::transports) fn pause<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<()> {
    let this = transport.get();
    this.core().get().check_selector()?;
    if this.state().borrow().life().phase.is_closing() || !this.watch().pause() {
        return Ok(());
    }
    this.watch().pause_reads(this.core().get(), transport.py())?;
    T::paused(transport)?;
    T::log(transport, "debug", "pauses reading")
}

/// Goes on reading; whether that is new.
pub(in crate::transports) fn resume<T: Endpoint>(transport: &Bound<'_, T>) -> PyResult<bool> {
    let this = transport.get();
    this.core().get().check_selector()?;
    if this.state().borrow().life().phase.is_closing() || !this.watch().resume(transport.py())? {
        return Ok(false);
    }
    start_reading(transport)?;
    T::resumed(transport)?;
    T::log(transport, "debug", "resumes reading")?;
    Ok(true)
}

/// The peer sends no more: the protocol says whether the transport stays open.
pub(in crate::transports) fn end<T: Endpoint>(
    transport: &Bound<'_, T>,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    T::log(transport, "debug", "received EOF")?;
    let keep_open = ffi::call_method(protocol, intern!(transport.py(), "eof_received"), &[])
        .and_then(|answer| answer.is_truthy());
    match keep_open {
        Ok(true) => stop_reading(transport),
        Ok(false) => closing::close(transport),
        Err(error) => {
            let message = "Fatal error: protocol.eof_received() call failed.";
            closing::fatal(transport, error, message)
        }
    }
}
