//! Running, stopping and closing: what a turn is.
//!
//! A turn computes how long it may wait, waits, queues what became ready, then the timers that are due, and
//! runs exactly the entries that were queued by then; what they schedule waits for the next turn. Callbacks
//! are called in one place, [`run_entry`].

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use oxloop_engine::Timestamp;
use oxloop_engine::sys::thread_exit::Stay;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::EventLoop;
use crate::core::{Arrival, Core, Entry, KeptWrite};
use crate::error;
use crate::ffi;
use crate::handle::Handle;
use crate::imports::imports;
use crate::poller::Poller;
use crate::report;
use crate::signals;

#[pymethods]
impl EventLoop {
    /// Run until `stop()` is called. Raises `RuntimeError` if the loop is closed or runs already, and what leaves a
    /// callback that is no `Exception` (`SystemExit`, `KeyboardInterrupt`).
    fn run_forever(slf: &Bound<'_, Self>) -> PyResult<()> {
        let event_loop = slf.as_super();
        let core = event_loop.get();
        let _stay = Stay::new();
        core.check_closed()?;
        check_running(event_loop)?;
        let _running = Running::start(event_loop)?;
        // What an exception that left the loop has left undone.
        end_turn(event_loop)?;
        loop {
            turn(event_loop)?;
            if core.stopping.load(Relaxed) {
                return Ok(());
            }
        }
    }

    /// Run until the future (or coroutine, which becomes a task) is done; return its result or raise its
    /// exception. Raises `RuntimeError` if the loop is stopped before that, is closed, or runs already.
    fn run_until_complete<'py>(
        slf: &Bound<'py, Self>,
        future: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = slf.as_super();
        let py = event_loop.py();
        let _stay = Stay::new();
        event_loop.get().check_closed()?;
        check_running(event_loop)?;
        let asyncio = imports(py);
        let is_future = asyncio.is_future.bind(py).call1((future,))?.is_truthy()?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), event_loop)?;
        let future = asyncio.ensure_future.bind(py).call((future,), Some(&keywords))?;
        if !is_future {
            // The exception, if there is one, is raised here: nobody needs to be told that it was not retrieved.
            future.setattr(intern!(py, "_log_destroy_pending"), false)?;
        }
        let stop = stop_callback(py)?;
        ffi::call_method(&future, intern!(py, "add_done_callback"), &[&stop])?;
        let ran = ffi::call_method(event_loop.as_any(), intern!(py, "run_forever"), &[]);
        let done = is_true(&future, "done");
        if ran.is_err() && !is_future && matches!(done, Ok(true)) && !is_true(&future, "cancelled")?
        {
            // Retrieved, so that it is not logged on top of the one that is raised.
            future.call_method0(intern!(py, "exception"))?;
        }
        ffi::call_method(&future, intern!(py, "remove_done_callback"), &[&stop])?;
        ran?;
        if !done? {
            return Err(PyRuntimeError::new_err("Event loop stopped before Future completed."));
        }
        ffi::call_method(&future, intern!(py, "result"), &[])
    }

    /// Stop after the current turn; before `run_forever()` is called, after the first one.
    fn stop(slf: &Bound<'_, Self>) {
        slf.as_super().get().stopping.store(true, Relaxed);
    }

    /// Whether the loop is running.
    fn is_running(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_running()
    }

    /// Whether the loop was closed.
    fn is_closed(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_closed()
    }

    /// Close the loop: queues are emptied, the default executor is shut down without waiting. Idempotent.
    /// Raises `RuntimeError` while the loop runs.
    pub(super) fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let event_loop = slf.as_super();
        let py = event_loop.py();
        let core = event_loop.get();
        let _stay = Stay::new();
        if core.is_running() {
            return Err(PyRuntimeError::new_err("Cannot close a running event loop"));
        }
        if core.closed.load(Relaxed) {
            return Ok(());
        }
        if core.debug() {
            report::log(py, "debug", &format!("Close {}", event_loop.repr()?))?;
        }
        core.closed.store(true, Relaxed);
        core.executor_shutdown.store(true, Relaxed);
        // Its error (a thread other than the main one) is raised when everything else is closed.
        let signals_closed = signals::close(event_loop);
        let left = (core.take_everything(), core.close_inbox());
        drop(left);
        let executor = core.executor.take();
        if let Some(executor) = executor {
            let keywords = PyDict::new(py);
            keywords.set_item("wait", false)?;
            executor.bind(py).call_method("shutdown", (), Some(&keywords))?;
        }
        let poller = core.poller.replace(Poller::Closed);
        if let Poller::Python(selector) = &poller {
            selector.bind(py).call_method0(intern!(py, "close"))?;
        }
        drop(poller);
        let selector = core.selector.take();
        if let Some(selector) = selector {
            selector.bind(py).call_method0(intern!(py, "close"))?;
        }
        signals_closed
    }

    fn _set_coroutine_origin_tracking(
        slf: &Bound<'_, Self>,
        enabled: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        track_origins(slf.as_super(), enabled.is_truthy()?)
    }
}

/// `RuntimeError` when this loop runs, or another one in this thread.
fn check_running(event_loop: &Bound<'_, Core>) -> PyResult<()> {
    let py = event_loop.py();
    if event_loop.get().is_running() {
        return Err(PyRuntimeError::new_err("This event loop is already running"));
    }
    if !running_loop_function(py, "_get_running_loop")?.call0()?.is_none() {
        return Err(PyRuntimeError::new_err(
            "Cannot run the event loop while another loop is running",
        ));
    }
    Ok(())
}

/// A function of `asyncio.events`, looked up at each run, as asyncio does: it may have been replaced.
fn running_loop_function<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    imports(py).events.bind(py).getattr(name)
}

/// A loop that is this thread's to run.
struct Claim<'py>(Bound<'py, Core>);

impl<'py> Claim<'py> {
    /// `RuntimeError` if another thread has come first.
    fn new(event_loop: &Bound<'py, Core>) -> PyResult<Self> {
        let thread = ffi::thread_ident(event_loop.py());
        match event_loop.get().thread.compare_exchange(0, thread, Relaxed, Relaxed) {
            Ok(_) => Ok(Self(event_loop.clone())),
            Err(_) => Err(PyRuntimeError::new_err("This event loop is already running")),
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.get().thread.store(0, Relaxed);
        self.0.get().show_queued();
    }
}

/// What holds while a loop runs, and is undone when it stops, however it does.
struct Running<'py> {
    event_loop: Claim<'py>,
    asyncgen_hooks: Bound<'py, PyAny>,
    _wakeup: signals::WakeupGuard<'py>,
}

impl<'py> Running<'py> {
    fn start(event_loop: &Bound<'py, Core>) -> PyResult<Self> {
        let py = event_loop.py();
        let core = event_loop.get();
        let claim = Claim::new(event_loop)?;
        let sys = imports(py).sys.bind(py);
        let wakeup = signals::wake_on_signals(event_loop)?;
        track_origins(event_loop, core.debug())?;
        let hooks = sys.call_method0(intern!(py, "get_asyncgen_hooks"))?;
        let running = Self { event_loop: claim, asyncgen_hooks: hooks, _wakeup: wakeup };
        sys.call_method1(
            intern!(py, "set_asyncgen_hooks"),
            (
                event_loop.getattr(intern!(py, "_asyncgen_firstiter_hook"))?,
                event_loop.getattr(intern!(py, "_asyncgen_finalizer_hook"))?,
            ),
        )?;
        ffi::call(&running_loop_function(py, "_set_running_loop")?, &[event_loop.as_any()])?;
        Ok(running)
    }

    fn stop(&self) -> PyResult<()> {
        let event_loop = &self.event_loop.0;
        let py = event_loop.py();
        event_loop.get().stopping.store(false, Relaxed);
        let suspended = event_loop.get().suspend(py);
        let sys = imports(py).sys.bind(py);
        ffi::call(&running_loop_function(py, "_set_running_loop")?, &[py.None().bind(py)])?;
        track_origins(event_loop, false)?;
        let hooks = (self.asyncgen_hooks.get_item(0)?, self.asyncgen_hooks.get_item(1)?);
        sys.call_method1(intern!(py, "set_asyncgen_hooks"), hooks)?;
        suspended
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let event_loop = &self.event_loop.0;
        let py = event_loop.py();
        // An exception may be on its way out of the loop: it is not ours to replace.
        if let Err(error) = self.stop() {
            error.write_unraisable(py, Some(event_loop.as_any()));
        }
    }
}

/// Makes coroutines remember where they were made, or no longer; what was set before is kept for then.
pub(super) fn track_origins(event_loop: &Bound<'_, Core>, enabled: bool) -> PyResult<()> {
    let py = event_loop.py();
    let sys = imports(py).sys.bind(py);
    let saved = event_loop.get().origin_depth.take();
    let depth = match (enabled, saved) {
        (true, None) => {
            let before = sys.call_method0(intern!(py, "get_coroutine_origin_tracking_depth"))?;
            event_loop.get().origin_depth.set(Some(before.into()));
            py.import("asyncio.constants")?.getattr("DEBUG_STACK_DEPTH")?
        }
        (true, saved) => {
            event_loop.get().origin_depth.set(saved);
            return Ok(());
        }
        (false, Some(before)) => before.into_bound(py),
        (false, None) => return Ok(()),
    };
    sys.call_method1(intern!(py, "set_coroutine_origin_tracking_depth"), (depth,))?;
    Ok(())
}

/// One turn of the loop.
pub(super) fn turn(event_loop: &Bound<'_, Core>) -> PyResult<()> {
    let py = event_loop.py();
    let core = event_loop.get();
    let has_timers = !core.engine.borrow().timers.is_empty();
    let now = if has_timers { Core::now(event_loop)? } else { Timestamp::default() };
    let stopping = core.stopping.load(Relaxed);
    let timeout = core.engine.borrow_mut().timeout(now, stopping);
    if timeout != Some(Duration::ZERO) || core.has_watches() {
        core.poll(py, timeout)?;
    } else {
        core.receive();
    }
    py.check_signals()?;
    if has_timers {
        let now = Core::now(event_loop)?;
        core.engine.borrow_mut().expire(now);
    }
    let batch = core.engine.borrow().batch_len();
    for _ in 0..batch {
        let Some(mut entry) = core.engine.borrow_mut().ready.pop() else { break };
        core.begin_callback();
        let ran = if core.debug() {
            run_measured(event_loop, &mut entry)
        } else {
            run_entry(event_loop, &mut entry)
        };
        let sent = if core.end_callback() { send_kept(event_loop) } else { Ok(()) };
        ran.and(sent)?;
    }
    end_turn(event_loop)
}

/// Sends what a callback has written and kept. The error is the first one that leaves the loop.
#[cold]
fn send_kept(event_loop: &Bound<'_, Core>) -> PyResult<()> {
    let py = event_loop.py();
    let mut result = Ok(());
    while let Some(KeptWrite { transport, context, send }) = event_loop.get().pop_kept() {
        let transport = transport.bind(py);
        let sent = ffi::run_in_context(context.bind(py), || send(transport))
            .or_else(|error| report_callback(event_loop, transport, error));
        result = result.and(sent);
    }
    result
}

/// Before fork(2): what a callback has kept so far leaves once, and not again from the child's copy.
#[pyfunction]
fn _before_fork(py: Python<'_>) -> PyResult<()> {
    let running = running_loop_function(py, "_get_running_loop")?.call0()?;
    running.cast::<Core>().map_or(Ok(()), send_kept)
}

/// Lets the interpreter call [`_before_fork`], where processes can fork.
pub(crate) fn watch_forks(py: Python<'_>) -> PyResult<()> {
    let Some(register) = py.import("os")?.getattr_opt("register_at_fork")? else { return Ok(()) };
    let keywords = PyDict::new(py);
    keywords.set_item("before", wrap_pyfunction!(_before_fork, py)?)?;
    register.call((), Some(&keywords)).map(drop)
}

/// Sends what was written in this turn.
#[inline]
fn end_turn(event_loop: &Bound<'_, Core>) -> PyResult<()> {
    while let Some(mut entry) = event_loop.get().pop_turn_end() {
        run_entry(event_loop, &mut entry)?;
    }
    Ok(())
}

/// Calls what is in `entry`. The error is one that leaves the loop.
#[inline]
fn run_entry(event_loop: &Bound<'_, Core>, entry: &mut Entry) -> PyResult<()> {
    let py = event_loop.py();
    match entry {
        Entry::Handle(handle) => {
            ffi::show_if_shared(handle);
            let ran = Handle::run(handle.bind(py));
            // Somebody may have got hold of it meanwhile.
            ffi::show_if_shared(handle);
            ran
        }
        Entry::TaskStep { callback, argument, context } => {
            let callback = callback.bind(py);
            let stepped = ffi::run_in_context(context.bind(py), || match argument {
                None => ffi::call(callback, &[]),
                Some(argument) => ffi::call(callback, &[argument.bind(py)]),
            });
            match stepped {
                Ok(_) => Ok(()),
                Err(error) => report_callback(event_loop, callback, error),
            }
        }
        Entry::Native { object, run } => {
            let object = object.bind(py);
            run(object).or_else(|error| report_callback(event_loop, object, error))
        }
        Entry::Arrival { object, run, arrival } => {
            let object = object.bind(py);
            let arrival = std::mem::replace(arrival, Arrival::Readable);
            run(object, arrival).or_else(|error| report_callback(event_loop, object, error))
        }
    }
}

/// Reports an error that nobody else has dealt with, or lets it leave the loop.
#[cold]
fn report_callback(
    event_loop: &Bound<'_, Core>,
    callback: &Bound<'_, PyAny>,
    error: PyErr,
) -> PyResult<()> {
    if error::leaves_the_loop(event_loop.py(), &error) {
        return Err(error);
    }
    let message = format!("Exception in callback {}", callback.repr()?);
    report::callback_error(event_loop.as_any(), error, &message, &[])
}

/// Debug mode: calls what is in `entry`, and logs if it took long.
fn run_measured(event_loop: &Bound<'_, Core>, entry: &mut Entry) -> PyResult<()> {
    let py = event_loop.py();
    let core = event_loop.get();
    if let Entry::Handle(handle) = entry {
        core.current_handle.set(Some(handle.clone_ref(py)));
    }
    let start = Timestamp::now();
    let ran = run_entry(event_loop, entry);
    let handle = core.current_handle.take();
    drop(handle);
    ran?;
    let took = Timestamp::now().saturating_duration_since(start).as_secs_f64();
    if took < event_loop.get().slow_callback_duration.get() {
        return Ok(());
    }
    let what = match entry {
        Entry::Handle(handle) => imports(py)
            .base_events
            .bind(py)
            .call_method1(intern!(py, "_format_handle"), (handle.bind(py),))?,
        Entry::TaskStep { callback: object, .. }
        | Entry::Native { object, .. }
        | Entry::Arrival { object, .. } => object.bind(py).repr()?.into_any(),
    };
    let logger = report::logger(py)?;
    logger.call_method1("warning", ("Executing %s took %.3f seconds", what, took))?;
    Ok(())
}

fn is_true(future: &Bound<'_, PyAny>, method: &str) -> PyResult<bool> {
    future.call_method0(method)?.is_truthy()
}

/// Stops the loop of a future that is done; not for one that ended by an exception that leaves the loop,
/// since then the loop has stopped already.
#[pyfunction]
fn _run_until_complete_cb(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if !is_true(future, "cancelled")? {
        let exception = future.call_method0(intern!(py, "exception"))?;
        if !exception.is_none() && error::leaves_the_loop(py, &PyErr::from_value(exception)) {
            return Ok(());
        }
    }
    let event_loop = future.call_method0(intern!(py, "get_loop"))?;
    ffi::call_method(&event_loop, intern!(py, "stop"), &[])?;
    Ok(())
}

fn stop_callback(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let function = FUNCTION.get_or_try_init(py, || {
        Ok::<_, PyErr>(wrap_pyfunction!(_run_until_complete_cb, py)?.into_any().unbind())
    })?;
    Ok(function.bind(py).clone())
}
