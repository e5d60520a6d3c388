//! What calls back when something happens outside: `add_reader`, `add_writer`, `add_signal_handler` and their removal.

use oxloop_engine::Interest;
use oxloop_engine::sys;
use oxloop_engine::sys::fd::RawFd;
use pyo3::exceptions::{PyAttributeError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::EventLoop;
use crate::core::{Core, Entry};
use crate::error::os_error;
use crate::ffi;
use crate::handle::Handle;
use crate::signals;

#[pymethods]
impl EventLoop {
    /// `add_reader()` as asyncio's own child watchers call it.
    #[pyo3(signature = (fd, callback, *args))]
    fn _add_reader<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        Self::add_reader(slf, fd, callback, args)
    }

    /// `remove_reader()` as asyncio's own child watchers call it.
    fn _remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        Self::remove_reader(slf, fd)
    }

    /// Call `callback()` whenever handle is signalled, which `remove_reader` ends: on Windows, for what is no socket.
    fn _add_signalled<'py>(
        slf: &Bound<'py, Self>,
        handle: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let fd = descriptor(handle)?;
        add_any(slf.as_super(), handle, fd, Interest::READABLE, callback, &[])
    }

    /// Call callback(*args) whenever fd (a number, or an object with `fileno()`) can be read from, in place of what was
    /// called before. Raises `ValueError` for what has no number, `OSError` for what cannot be watched (a regular file;
    /// on Windows all but sockets), `RuntimeError` if it is a transport's or the loop is closed.
    #[pyo3(signature = (fd, callback, *args))]
    fn add_reader<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        let arguments: Vec<_> = args.iter().collect();
        add(slf.as_super(), fd, Interest::READABLE, callback, &arguments)
    }

    /// Stop watching fd for reading; return whether it was watched. Raises `ValueError` for what has no number,
    /// `RuntimeError` if it is a transport's.
    fn remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        remove(slf.as_super(), fd, Interest::READABLE)
    }

    /// Call callback(*args) whenever fd (a number, or an object with `fileno()`) can be written to. Errors are those of
    /// `add_reader()`.
    #[pyo3(signature = (fd, callback, *args))]
    fn add_writer<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        let arguments: Vec<_> = args.iter().collect();
        add(slf.as_super(), fd, Interest::WRITABLE, callback, &arguments)
    }

    /// Stop watching fd for writing; return whether it was watched. Errors are those of `remove_reader()`.
    fn remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        remove(slf.as_super(), fd, Interest::WRITABLE)
    }

    /// Call callback(*args) in the loop when the signal sig arrives. Raises `ValueError` for what is no signal,
    /// `RuntimeError` for one that cannot be caught and outside of the main thread, `TypeError` for coroutines.
    #[pyo3(signature = (sig, callback, *args))]
    fn add_signal_handler<'py>(
        slf: &Bound<'py, Self>,
        sig: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        let arguments: Vec<_> = args.iter().collect();
        signals::add_handler(slf.as_super(), sig, callback, &arguments)
    }

    /// Remove the handler of the signal sig; return whether there was one. Raises `ValueError` for what is no signal.
    fn remove_signal_handler(slf: &Bound<'_, Self>, sig: &Bound<'_, PyAny>) -> PyResult<bool> {
        signals::remove_signal_handler(slf.as_super(), sig)
    }
}

/// The descriptor of `file`: an integer, or an object with `fileno()`. `ValueError` for anything else, as
/// the `selectors` module has it.
pub(crate) fn descriptor(file: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = file.py();
    let number = if file.is_instance_of::<pyo3::types::PyInt>() {
        file.extract::<RawFd>()
    } else {
        file.call_method0(intern!(py, "fileno")).and_then(|number| number.extract::<RawFd>())
    };
    match number {
        Ok(fd) if fd >= 0 => Ok(fd),
        Ok(fd) => Err(PyValueError::new_err(format!("Invalid file descriptor: {fd}"))),
        Err(cause) if is_no_file(&cause, py) => {
            let error = PyValueError::new_err(format!("Invalid file object: {}", file.repr()?));
            error.set_cause(py, Some(cause));
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Whether the error of `fileno()` says that an object is no file; what else it raises is its own.
fn is_no_file(error: &PyErr, py: Python<'_>) -> bool {
    error.is_instance_of::<PyAttributeError>(py)
        || error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyOverflowError>(py)
}

/// Calls `callback(*arguments)` whenever `file` is ready in `direction`, in place of what was called before.
pub(super) fn add(
    event_loop: &Bound<'_, Core>,
    file: &Bound<'_, PyAny>,
    direction: Interest,
    callback: &Bound<'_, PyAny>,
    arguments: &[Bound<'_, PyAny>],
) -> PyResult<()> {
    let fd = descriptor(file)?;
    event_loop.get().check_no_transport_of(file, fd)?;
    event_loop.get().check_closed()?;
    check_socket(fd)?;
    add_any(event_loop, file, fd, direction, callback, arguments)
}

/// `OSError` where only sockets can be watched by the user and this is none: a number of C's may be that of a handle.
fn check_socket(fd: RawFd) -> PyResult<()> {
    use sys::pipe::{COMPLETES, Kind, kind};
    let is_socket =
        || ffi::borrow_fd(fd).is_some_and(|fd| kind(fd).is_ok_and(|it| it == Kind::Socket));
    if COMPLETES && !is_socket() {
        return Err(os_error(&std::io::Error::from_raw_os_error(sys::os_error::EBADF)));
    }
    Ok(())
}

fn add_any(
    event_loop: &Bound<'_, Core>,
    file: &Bound<'_, PyAny>,
    fd: RawFd,
    direction: Interest,
    callback: &Bound<'_, PyAny>,
    arguments: &[Bound<'_, PyAny>],
) -> PyResult<()> {
    let py = event_loop.py();
    let core = event_loop.get();
    core.check_closed()?;
    let handle = Bound::new(py, Handle::new(event_loop, callback, arguments, None)?)?;
    let replaced = core.watch(py, fd, direction, Entry::Handle(handle.into()))?;
    core.name_watched(fd, file);
    if let Some(replaced) = replaced {
        cancel(py, &replaced)?;
    }
    Ok(())
}

/// Stops watching; whether something was watched.
pub(super) fn remove(
    event_loop: &Bound<'_, Core>,
    file: &Bound<'_, PyAny>,
    direction: Interest,
) -> PyResult<bool> {
    let py = event_loop.py();
    let core = event_loop.get();
    if core.is_closed() {
        return Ok(false);
    }
    let fd = match descriptor(file) {
        Ok(fd) => fd,
        // A file object that was closed meanwhile is known by itself.
        Err(error) => core.watched_as(file).ok_or(error)?,
    };
    core.check_no_transport_of(file, fd)?;
    match core.unwatch(py, fd, direction)? {
        None => Ok(false),
        Some(entry) => {
            cancel(py, &entry)?;
            Ok(true)
        }
    }
}

/// A callback that is no longer told must not run either if it is queued already.
fn cancel(py: Python<'_>, entry: &Entry) -> PyResult<()> {
    match entry {
        Entry::Handle(handle) => handle.bind(py).call_method0(intern!(py, "cancel")).map(drop),
        Entry::TaskStep { .. } | Entry::Native { .. } | Entry::Arrival { .. } => Ok(()),
    }
}
