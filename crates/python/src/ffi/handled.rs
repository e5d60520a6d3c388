//! The exception that is being handled: what `sys.exc_info()` tells.

use std::ptr;

use pyo3::exceptions::PyBaseException;
use pyo3::ffi;
use pyo3::prelude::*;

/// Runs `body` as an `except` block that has caught `exception`.
pub(crate) fn while_handling<R>(
    exception: &Bound<'_, PyBaseException>,
    body: impl FnOnce() -> R,
) -> R {
    let object = exception.as_any();
    let class = object.get_type();
    let traceback = PyErr::from_value(object.clone()).traceback(object.py());
    let traceback = traceback.map_or(ptr::null_mut(), Bound::into_ptr);
    let mut before = [ptr::null_mut(); 3];
    let [kind, value, frames] = &mut before;
    // SAFETY: the first call gives three references, or NULLs, which the last one takes back; the second one takes
    // references, too, of which the traceback may be NULL. The thread stays attached, and what `body` has come to
    // handle itself is over when it returns.
    unsafe {
        ffi::PyErr_GetExcInfo(kind, value, frames);
        ffi::PyErr_SetExcInfo(class.into_ptr(), object.clone().into_ptr(), traceback);
        let result = body();
        ffi::PyErr_SetExcInfo(*kind, *value, *frames);
        result
    }
}
