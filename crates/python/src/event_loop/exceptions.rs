//! Exception handlers: the user's, and the default one that writes to asyncio's log.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::EventLoop;
use crate::core::Core;
use crate::error;
use crate::ffi::{self, Ref};
use crate::report;

#[pymethods]
impl EventLoop {
    /// Set what is called with (loop, context) for errors that nobody else handles; None for the default.
    /// Raises `TypeError` for what cannot be called.
    fn set_exception_handler(slf: &Bound<'_, Self>, handler: &Bound<'_, PyAny>) -> PyResult<()> {
        if !handler.is_none() && !ffi::is_callable(handler) {
            return Err(PyTypeError::new_err(format!(
                "A callable object or None is expected, got {}",
                handler.repr()?
            )));
        }
        let value = if handler.is_none() { None } else { Some(Ref::from(handler)) };
        let before = slf.as_super().get().exception_handler.replace(value);
        drop(before);
        Ok(())
    }

    /// What `set_exception_handler()` set, or None.
    fn get_exception_handler<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let handler = slf.as_super().get().exception_handler.borrow();
        handler.as_ref().map(|handler| handler.bind(slf.py()).clone())
    }

    /// Log the error of context to the logger "asyncio".
    fn default_exception_handler(
        slf: &Bound<'_, Self>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = context.py();
        let core = slf.as_super().get();
        let handle = core.current_handle.borrow().as_ref().map(|handle| handle.clone_ref(py));
        if let Some(handle) = handle
            && let Some(traceback) = handle.get().source_traceback(py)
            && traceback.is_truthy()?
            && !context.contains("source_traceback")?
        {
            context.set_item("handle_traceback", traceback)?;
        }
        let message = context.call_method1("get", ("message",))?;
        let message = if message.is_truthy()? {
            message.str()?.to_string()
        } else {
            "Unhandled exception in event loop".to_owned()
        };
        let mut lines = vec![message];
        let mut keys: Vec<String> =
            context.try_iter()?.map(|key| key?.extract()).collect::<PyResult<_>>()?;
        keys.sort();
        for key in keys {
            if key == "message" || key == "exception" {
                continue;
            }
            let value = context.get_item(&key)?;
            let text = match key.as_str() {
                "source_traceback" => traceback_text(&value, "Object created at")?,
                "handle_traceback" => traceback_text(&value, "Handle created at")?,
                _ => value.repr()?.to_string(),
            };
            lines.push(format!("{key}: {text}"));
        }
        let exception = context.call_method1("get", ("exception",))?;
        let keywords = PyDict::new(py);
        if exception.is_none() {
            keywords.set_item("exc_info", false)?;
        } else {
            let traceback = exception.getattr("__traceback__")?;
            keywords.set_item("exc_info", (exception.get_type(), &exception, traceback))?;
        }
        report::logger(py)?.call_method("error", (lines.join("\n"),), Some(&keywords))?;
        Ok(())
    }

    /// Hand context to the exception handler.
    fn call_exception_handler(slf: &Bound<'_, Self>, context: &Bound<'_, PyAny>) -> PyResult<()> {
        let event_loop = slf.as_super();
        let py = event_loop.py();
        let set = &event_loop.get().exception_handler;
        let handler = set.borrow().as_ref().map(|handler| handler.clone_ref(py));
        let Some(handler) = handler else {
            return guard_default(
                py,
                call_default(event_loop, context),
                "Exception in default exception handler",
            );
        };
        let Err(error) = call_users(event_loop, handler.bind(py), context) else { return Ok(()) };
        if error::leaves_the_loop(py, &error) {
            return Err(error);
        }
        let nested = PyDict::new(py);
        nested.set_item("message", "Unhandled error in exception handler")?;
        let exception = error::exception(py, &error);
        nested.set_item("exception", &exception)?;
        nested.set_item("context", context)?;
        guard_default(
            py,
            ffi::while_handling(&exception, || call_default(event_loop, nested.as_any())),
            "Exception in default exception handler while handling an unexpected error in custom \
             exception handler",
        )
    }
}

/// Calls the user's handler, in the context of the task, future or handle that failed.
fn call_users(
    event_loop: &Bound<'_, Core>,
    handler: &Bound<'_, PyAny>,
    context: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    if py.version_info() < (3, 12) {
        // asyncio has run it in that context since 3.12.
        return handler.call1((event_loop, context)).map(drop);
    }
    let mut thing = py.None().into_bound(py);
    for key in ["task", "future", "handle"] {
        thing = context.call_method1(intern!(py, "get"), (key,))?;
        if !thing.is_none() {
            break;
        }
    }
    if !thing.is_none()
        && let Some(get_context) = thing.getattr_opt(intern!(py, "get_context"))?
    {
        let run_in = get_context.call0()?;
        if !run_in.is_none() && run_in.hasattr(intern!(py, "run"))? {
            run_in.call_method1(intern!(py, "run"), (handler, event_loop, context))?;
            return Ok(());
        }
    }
    handler.call1((event_loop, context)).map(drop)
}

fn call_default(event_loop: &Bound<'_, Core>, context: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = event_loop.py();
    event_loop.call_method1(intern!(py, "default_exception_handler"), (context,)).map(drop)
}

/// Logs an error of the default handler itself, which a subclass may have overridden.
fn guard_default(py: Python<'_>, result: PyResult<()>, message: &str) -> PyResult<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error::leaves_the_loop(py, &error) => Err(error),
        Err(error) => {
            report::log_exception(py, "error", message, error::exception(py, &error).as_any())
        }
    }
}

fn traceback_text(value: &Bound<'_, PyAny>, title: &str) -> PyResult<String> {
    let lines = value.py().import("traceback")?.call_method1("format_list", (value,))?;
    let mut text = format!("{title} (most recent call last):\n");
    for line in lines.try_iter()? {
        text.push_str(&line?.str()?.to_string_lossy());
    }
    Ok(text.trim_end().to_owned())
}
