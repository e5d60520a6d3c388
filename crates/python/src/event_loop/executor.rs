//! Work in threads: `run_in_executor`, the default executor and its shutdown.

use std::ffi::CString;
use std::sync::atomic::Ordering::Relaxed;

use oxloop_engine::Timestamp;
use pyo3::exceptions::{PyDeprecationWarning, PyRuntimeError, PyRuntimeWarning, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

use super::EventLoop;
use crate::callback;
use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::error;
use crate::ffi::{self, Ref};
use crate::imports::imports;

#[pymethods]
impl EventLoop {
    /// Wait for the threads of the default executor to end, for timeout seconds at most (None: without end), and warn
    /// if they have not. A coroutine.
    #[pyo3(signature = (timeout=None))]
    fn shutdown_default_executor<'py>(
        slf: &Bound<'py, Self>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "EventLoop.shutdown_default_executor", move |flow| {
            let this = flow.keep(slf.as_super());
            async move {
                let started = Python::attach(|py| {
                    let core = this.get();
                    core.executor_shutdown.store(true, Relaxed);
                    let executor =
                        core.executor.borrow().as_ref().map(|executor| executor.clone_ref(py));
                    executor
                        .map(|executor| start_shutdown(&flow, this.bind(py), executor))
                        .transpose()
                })?;
                if let Some((executor, thread, future)) = started {
                    let deadline = match timeout {
                        Some(timeout) => Some(Python::attach(|py| {
                            let now = Core::now(this.bind(py))?.as_seconds();
                            Ok::<_, PyErr>(Timestamp::from_seconds(now + timeout))
                        })?),
                        None => None,
                    };
                    flow.wait_until(&this, &future, deadline).await?;
                    Python::attach(|py| {
                        finish_shutdown(&executor, thread.bind(py), future.bind(py), timeout)
                    })?;
                }
                Ok(ffi::none())
            }
        })
    }

    /// Call func(*args) in an executor (None: the default one); return an `asyncio.Future`. Raises `RuntimeError` if
    /// the loop is closed or the default executor was shut down.
    #[pyo3(signature = (executor, func, *args))]
    fn run_in_executor<'py>(
        slf: &Bound<'py, Self>,
        executor: Option<&Bound<'py, PyAny>>,
        func: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = slf.as_super();
        let py = event_loop.py();
        let core = event_loop.get();
        core.check_closed()?;
        if core.debug() {
            callback::check(func, "run_in_executor")?;
        }
        let executor = match executor {
            Some(executor) => executor.clone(),
            None => default(event_loop)?,
        };
        let mut call = vec![func.clone()];
        call.extend(args.iter());
        let submitted = executor.getattr(intern!(py, "submit"))?.call1(PyTuple::new(py, call)?)?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), event_loop)?;
        imports(py).wrap_future.bind(py).call((submitted,), Some(&keywords))
    }

    /// Set the executor that `run_in_executor(None, ...)` uses: a `ThreadPoolExecutor`. Raises `TypeError` for any
    /// other from Python 3.11 on.
    fn set_default_executor(slf: &Bound<'_, Self>, executor: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        if !executor.is_instance(&thread_pool_class(py)?)? {
            // Refused from 3.11 on; before, asyncio only warned.
            if py.version_info() >= (3, 11) {
                return Err(PyTypeError::new_err("executor must be ThreadPoolExecutor instance"));
            }
            PyErr::warn(
                py,
                &py.get_type::<PyDeprecationWarning>(),
                c"Using the default executor that is not an instance of ThreadPoolExecutor is deprecated",
                1,
            )?;
        }
        let before = slf.as_super().get().executor.replace(Some(executor.into()));
        drop(before);
        Ok(())
    }

    #[getter]
    fn _default_executor<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let executor = slf.as_super().get().executor.borrow();
        executor.as_ref().map(|executor| executor.bind(slf.py()).clone())
    }

    #[setter(_default_executor)]
    fn replace_default_executor(slf: &Bound<'_, Self>, executor: Option<&Bound<'_, PyAny>>) {
        let before = slf.as_super().get().executor.replace(executor.map(Ref::from));
        drop(before);
    }
}

fn default<'py>(event_loop: &Bound<'py, Core>) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let core = event_loop.get();
    if core.executor_shutdown.load(Relaxed) {
        return Err(PyRuntimeError::new_err("Executor shutdown has been called"));
    }
    let executor = core.executor.borrow().as_ref().map(|executor| executor.clone_ref(py));
    if let Some(executor) = executor {
        return Ok(executor.into_bound(py));
    }
    let keywords = PyDict::new(py);
    keywords.set_item("thread_name_prefix", "asyncio")?;
    let executor = thread_pool_class(py)?.call((), Some(&keywords))?;
    core.executor.set(Some((&executor).into()));
    Ok(executor)
}

fn thread_pool_class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("concurrent.futures")?.getattr("ThreadPoolExecutor")
}

/// Starts a thread that waits for the executor's; it resolves the future with `True`.
fn start_shutdown(
    flow: &Flow,
    event_loop: &Bound<'_, Core>,
    executor: Ref,
) -> PyResult<(Ref, Ref, Kept)> {
    let py = event_loop.py();
    let future = Core::future(event_loop)?;
    let waiter = Bound::new(
        py,
        ShutdownThread {
            event_loop: event_loop.clone().into_any().unbind(),
            executor: executor.clone_ref(py).into_py(),
            future: future.clone().unbind(),
        },
    )?;
    let keywords = PyDict::new(py);
    keywords.set_item("target", waiter)?;
    let thread = imports(py).threading.bind(py).getattr("Thread")?.call((), Some(&keywords))?;
    thread.call_method0("start")?;
    Ok((executor, thread.into(), flow.keep(future)))
}

/// What the thread of a shutdown runs.
#[pyclass(frozen, module = "oxloop._native")]
struct ShutdownThread {
    event_loop: Py<PyAny>,
    executor: Py<PyAny>,
    future: Py<PyAny>,
}

#[pymethods]
impl ShutdownThread {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.executor)?;
        visit.call(&self.future)
    }

    fn __call__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let keywords = PyDict::new(py);
        keywords.set_item("wait", true)?;
        let result = this.executor.bind(py).call_method("shutdown", (), Some(&keywords));
        let error = match result {
            Ok(_) => py.None().into_bound(py),
            Err(error) => error::exception(py, &error).into_any(),
        };
        let event_loop = this.event_loop.bind(py);
        if event_loop.call_method0("is_closed")?.is_truthy()? {
            return Ok(());
        }
        event_loop
            .call_method1(intern!(py, "call_soon_threadsafe"), (slf.getattr("_finish")?, error))?;
        Ok(())
    }

    fn _finish(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let future = self.future.bind(py);
        if future.call_method0("done")?.is_truthy()? {
            return Ok(());
        }
        if error.is_none() {
            future.call_method1("set_result", (true,))?;
        } else {
            future.call_method1("set_exception", (error,))?;
        }
        Ok(())
    }
}

/// Joins the thread, or warns when the time was over before the executor's threads had ended.
fn finish_shutdown(
    executor: &Ref,
    thread: &Bound<'_, PyAny>,
    future: &Bound<'_, PyAny>,
    timeout: Option<f64>,
) -> PyResult<()> {
    let py = thread.py();
    if future.call_method0("result")?.is_truthy()? {
        thread.call_method0("join")?;
        return Ok(());
    }
    let message = format!(
        "The executor did not finishing joining its threads within {} seconds.",
        timeout.unwrap_or_default()
    );
    let message = CString::new(message).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 2)?;
    let keywords = PyDict::new(py);
    keywords.set_item("wait", false)?;
    executor.bind(py).call_method("shutdown", (), Some(&keywords))?;
    Ok(())
}
