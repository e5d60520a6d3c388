//! Signals: `add_signal_handler`, and waking a waiting loop so that Python's own handlers run.
//!
//! The interpreter's C signal handler can write the number of each signal into a descriptor. A loop that
//! runs in the main thread gives it one end of a socket pair while it runs (and as long as it has handlers
//! of its own): without that, a signal that arrives between the last look at the interpreter's flags and
//! the system call that waits would be seen only when something else ends the wait.

use std::collections::BTreeMap;

use oxloop_engine::Interest;
use oxloop_engine::sys;
use oxloop_engine::sys::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;

use crate::callback::is_coroutine;
use crate::core::{Core, Entry};
use crate::error::os_error;
use crate::ffi::{self, Ref};
use crate::handle::Handle;
use crate::imports::imports;
use crate::report;

/// What a loop knows of signals.
#[derive(Default)]
pub(crate) struct Signals {
    handlers: BTreeMap<i32, Ref<Handle>>,
    /// The end that the loop reads and the end that the C handler writes; made when first needed.
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl Signals {
    pub(crate) fn has_handlers(&self) -> bool {
        !self.handlers.is_empty()
    }

    pub(crate) fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for handle in self.handlers.values() {
            visit.call(&**handle)?;
        }
        Ok(())
    }
}

/// Takes the interpreter's wake-up descriptor back when the loop stops running and has no handlers by then,
/// whether it had any at the start or not: a descriptor that is set outlives the loop, and its number is the
/// next file's.
pub(crate) struct WakeupGuard<'py> {
    event_loop: Bound<'py, Core>,
    in_main_thread: bool,
}

impl Drop for WakeupGuard<'_> {
    fn drop(&mut self) {
        let py = self.event_loop.py();
        let ours = match &*self.event_loop.get().signals.borrow() {
            Signals { handlers, pipe: Some((_, writer)) } if handlers.is_empty() => {
                writer.as_raw_fd()
            }
            _ => return,
        };
        if !self.in_main_thread {
            return;
        }
        match set_wakeup_fd(py, -1) {
            Ok(current) if current != -1 && current != ours => stay(py, current),
            Ok(_) => {}
            Err(error) => error.write_unraisable(py, Some(self.event_loop.as_any())),
        }
    }
}

/// Lets signals end the waits of this loop while the guard lives. Does nothing outside the main thread,
/// where no Python handler runs, and where somebody else has set a wake-up descriptor.
pub(crate) fn wake_on_signals<'py>(event_loop: &Bound<'py, Core>) -> PyResult<WakeupGuard<'py>> {
    let py = event_loop.py();
    let guard = WakeupGuard { event_loop: event_loop.clone(), in_main_thread: is_main_thread(py)? };
    if event_loop.get().signals.borrow().has_handlers() || !guard.in_main_thread {
        return Ok(guard);
    }
    // Without descriptors to spare, a signal is seen when something else ends the wait.
    let Ok(fd) = pipe(event_loop) else { return Ok(guard) };
    let previous = set_wakeup_fd(py, fd)?;
    if previous != -1 && previous != fd {
        stay(py, previous);
    }
    Ok(guard)
}

/// Sets somebody else's descriptor again. The interpreter refuses one that was closed meanwhile, and one whose
/// number is that of another file by now: these are no loss.
fn stay(py: Python<'_>, fd: RawFd) {
    drop(set_wakeup_fd(py, fd));
}

/// `signal.set_wakeup_fd(fd)`: the descriptor that was set before, -1 for none.
fn set_wakeup_fd(py: Python<'_>, fd: RawFd) -> PyResult<RawFd> {
    imports(py).signal.bind(py).call_method1(intern!(py, "set_wakeup_fd"), (fd,))?.extract()
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let main = imports(py).threading.bind(py).call_method0(intern!(py, "main_thread"))?;
    let ident: Option<u64> = main.getattr(intern!(py, "ident"))?.extract()?;
    Ok(ident == Some(ffi::thread_ident(py)))
}

/// The descriptor for the C handler to write to; the other end is watched by the loop.
fn pipe(event_loop: &Bound<'_, Core>) -> PyResult<RawFd> {
    let core = event_loop.get();
    if let Some((_, writer)) = &core.signals.borrow().pipe {
        return Ok(writer.as_raw_fd());
    }
    let (reader, writer) = sys::socket::pair().map_err(|error| os_error(&error))?;
    let entry = Entry::Native { object: event_loop.as_any().into(), run: on_signals };
    core.watch(event_loop.py(), reader.as_raw_fd(), Interest::READABLE, entry)?;
    core.watches.borrow_mut().internal += 1;
    let fd = writer.as_raw_fd();
    core.signals.borrow_mut().pipe = Some((reader, writer));
    Ok(fd)
}

/// Queues the handlers of the signals whose numbers arrived.
fn on_signals(event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = event_loop.py();
    let event_loop = ffi::cast_known::<Core>(event_loop);
    let core = event_loop.get();
    let mut arrived = [0_u8; 256];
    loop {
        let read = match &core.signals.borrow().pipe {
            Some((reader, _)) => sys::socket::recv(reader.as_fd(), &mut arrived).unwrap_or(0),
            None => 0,
        };
        for number in &arrived[..read] {
            let number = i32::from(*number);
            let handle =
                core.signals.borrow().handlers.get(&number).map(|handle| handle.clone_ref(py));
            match handle {
                Some(handle) if handle.get().is_cancelled() => {
                    remove_handler(event_loop, number)?;
                }
                Some(handle) => core.push(Entry::Handle(handle)),
                None => {}
            }
        }
        if read < arrived.len() {
            return Ok(());
        }
    }
}

/// `loop.add_signal_handler`.
pub(crate) fn add_handler(
    event_loop: &Bound<'_, Core>,
    signal: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    arguments: &[Bound<'_, PyAny>],
) -> PyResult<()> {
    let py = event_loop.py();
    let core = event_loop.get();
    if is_coroutine(callback)? {
        return Err(PyTypeError::new_err("coroutines cannot be used with add_signal_handler()"));
    }
    let number = check_signal(signal)?;
    core.check_closed()?;
    let module = imports(py).signal.bind(py);
    let fd = pipe(event_loop)?;
    if let Err(error) = set_wakeup_fd(py, fd) {
        return Err(
            if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOSError>(py) {
                PyRuntimeError::new_err(error.value(py).str()?.to_string())
            } else {
                error
            },
        );
    }
    let handle = Bound::new(py, Handle::new(event_loop, callback, arguments, None)?)?;
    let replaced = core.signals.borrow_mut().handlers.insert(number, handle.into());
    drop(replaced);
    let installed = module
        .call_method1(intern!(py, "signal"), (signal, ignore(py)?))
        .and_then(|_| restart_calls(module, signal));
    if let Err(error) = installed {
        let removed = core.signals.borrow_mut().handlers.remove(&number);
        drop(removed);
        release_wakeup(core, py)?;
        return Err(cannot_be_caught(py, number, error)?);
    }
    Ok(())
}

/// `loop.remove_signal_handler`: whether there was one.
pub(crate) fn remove_signal_handler(
    event_loop: &Bound<'_, Core>,
    signal: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    let number = check_signal(signal)?;
    remove_handler(event_loop, number)
}

fn remove_handler(event_loop: &Bound<'_, Core>, number: i32) -> PyResult<bool> {
    let py = event_loop.py();
    let core = event_loop.get();
    let removed = core.signals.borrow_mut().handlers.remove(&number);
    if removed.is_none() {
        return Ok(false);
    }
    drop(removed);
    let module = imports(py).signal.bind(py);
    let sigint: i32 = module.getattr(intern!(py, "SIGINT"))?.extract()?;
    let default = if number == sigint { "default_int_handler" } else { "SIG_DFL" };
    if let Err(error) =
        module.call_method1(intern!(py, "signal"), (number, module.getattr(default)?))
    {
        return Err(cannot_be_caught(py, number, error)?);
    }
    release_wakeup(core, py)?;
    Ok(true)
}

/// Removes every handler: the loop closes.
pub(crate) fn close(event_loop: &Bound<'_, Core>) -> PyResult<()> {
    let py = event_loop.py();
    let handled: Vec<i32> = event_loop.get().signals.borrow().handlers.keys().copied().collect();
    let mut removed = Ok(());
    if !handled.is_empty()
        && imports(py).sys.bind(py).call_method0(intern!(py, "is_finalizing"))?.is_truthy()?
    {
        let text = format!(
            "Closing the loop {} on interpreter shutdown stage, skipping signal handlers removal",
            event_loop.repr()?
        );
        removed = report::resource_warning(py, &text, event_loop.as_any());
    } else {
        for number in handled {
            removed = removed.and(remove_handler(event_loop, number).map(drop));
        }
    }
    let signals = event_loop.get().signals.take();
    drop(signals);
    removed
}

/// Takes the wake-up descriptor back once no handler needs it; a running loop keeps it until it stops.
fn release_wakeup(core: &Core, py: Python<'_>) -> PyResult<()> {
    if core.signals.borrow().has_handlers() || core.is_running() {
        return Ok(());
    }
    if let Err(error) = set_wakeup_fd(py, -1) {
        report::log(py, "info", &format!("set_wakeup_fd(-1) failed: {}", error.value(py)))?;
    }
    Ok(())
}

/// Lets system calls go on that the signal interrupts; where none are, there is nothing to be done.
fn restart_calls(module: &Bound<'_, PyModule>, signal: &Bound<'_, PyAny>) -> PyResult<()> {
    match module.getattr_opt(intern!(module.py(), "siginterrupt"))? {
        Some(siginterrupt) => siginterrupt.call1((signal, false)).map(drop),
        None => Ok(()),
    }
}

fn cannot_be_caught(py: Python<'_>, number: i32, error: PyErr) -> PyResult<PyErr> {
    let errno: Option<i32> = match error.value(py).getattr("errno") {
        Ok(errno) => errno.extract()?,
        Err(_) => None,
    };
    if errno == Some(sys::errno::EINVAL) {
        return Ok(PyRuntimeError::new_err(format!("sig {number} cannot be caught")));
    }
    Ok(error)
}

/// The number of a valid signal; `TypeError` or `ValueError` otherwise.
fn check_signal(signal: &Bound<'_, PyAny>) -> PyResult<i32> {
    let py = signal.py();
    if !signal.is_instance_of::<pyo3::types::PyInt>() {
        return Err(PyTypeError::new_err(format!("sig must be an int, not {}", signal.repr()?)));
    }
    let valid = imports(py).signal.bind(py).call_method0(intern!(py, "valid_signals"))?;
    if !valid.contains(signal)? {
        return Err(PyValueError::new_err(format!("invalid signal number {}", signal.str()?)));
    }
    signal.extract()
}

/// The Python-level handler of a signal that the loop handles: it does nothing, the C handler has written
/// the number into the socket pair.
#[pyfunction]
fn _signal_handler_noop(_number: &Bound<'_, PyAny>, _frame: &Bound<'_, PyAny>) {}

fn ignore(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let function = FUNCTION.get_or_try_init(py, || {
        Ok::<_, PyErr>(wrap_pyfunction!(_signal_handler_noop, py)?.into_any().unbind())
    })?;
    Ok(function.bind(py).clone())
}
