//! From the kernel's errors to Python's exceptions. Nothing else in the crate makes an `OSError`.

use std::io;

use oxloop_engine::sys;
use pyo3::exceptions::{PyBaseException, PyKeyboardInterrupt, PyOSError, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;

use crate::imports::imports;

/// The exception for an error of the kernel: `OSError(errno, strerror)`, which Python turns into the
/// subclass of that errno (`ConnectionResetError`, `BlockingIOError`, ...). Where errors have numbers of Windows it
/// finds the errno by itself: `OSError(0, text, None, winerror)`.
pub(crate) fn os_error(error: &io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(winerror) if sys::HAS_WINERRORS => {
            PyOSError::new_err((0, strerror(winerror), None::<()>, winerror))
        }
        Some(errno) => PyOSError::new_err((errno, strerror(errno))),
        None => PyOSError::new_err(error.to_string()),
    }
}

/// `strerror(errno)`: the text without the number that `io::Error` appends, and, as the interpreter has it
/// (`PyErr_SetExcFromWindowsErr`), without the full stop at the end of texts of Windows.
fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    if sys::HAS_WINERRORS && text.starts_with("OS Error ") {
        // The system knows no text; the interpreter's words for that.
        return format!("Windows Error {errno:#x}");
    }
    let text = text.rfind(" (os error ").map_or(&*text, |end| &text[..end]);
    let is_end = |char: char| sys::HAS_WINERRORS && (char <= ' ' || char == '.');
    text.trim_end_matches(is_end).to_owned()
}

/// The exception for a connection attempt that was under way.
pub(crate) fn connect_failed(errno: i32, address: &Bound<'_, PyAny>) -> PyErr {
    match address.str() {
        Ok(address) => PyOSError::new_err((errno, format!("Connect call failed {address}"))),
        Err(error) => error,
    }
}

/// An error that the caller may simply wait out: no data, no room, or a signal.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether asyncio lets this exception leave the loop rather than report it: `SystemExit` and
/// `KeyboardInterrupt`.
pub(crate) fn leaves_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// The exception object, with its traceback, which `PyErr::value` leaves out before Python 3.12.
pub(crate) fn exception<'py>(py: Python<'py>, error: &PyErr) -> Bound<'py, PyBaseException> {
    error.clone_ref(py).into_value(py).into_bound(py)
}

/// `error`, as `raise error from None` raises it while `handled` is handled: a traceback leaves that one out, and a
/// debugger finds it.
pub(crate) fn instead_of(py: Python<'_>, handled: &PyErr, error: PyErr) -> PyErr {
    error.set_cause(py, None);
    let context = exception(py, handled);
    match error.value(py).setattr(intern!(py, "__context__"), context) {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// Whether the exception is `asyncio.CancelledError`.
pub(crate) fn is_cancelled(py: Python<'_>, error: &PyErr) -> bool {
    error.matches(py, imports(py).cancelled_error.bind(py)).unwrap_or(false)
}
