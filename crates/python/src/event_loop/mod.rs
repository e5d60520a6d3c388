//! `EventLoop`: the methods of a loop. Each file has a group of them, this one how a loop begins and what it shows of
//! itself.
//!
//! So the class has several blocks of methods (`PyO3`'s feature `multiple-pymethods`), which find each other when the
//! module is loaded.

mod arguments;
mod connections;
mod exceptions;
mod executor;
mod pipes;
mod processes;
mod run;
mod schedule;
mod sendfile;
mod sock;
mod task;
mod watch;

use std::sync::atomic::Ordering::Relaxed;

use oxloop_engine::Interest;
use oxloop_engine::sys::thread_exit::Stay;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

pub(crate) use self::run::watch_forks;
use crate::core::{Core, Entry};
use crate::error::os_error;
use crate::ffi;
use crate::imports::imports;
use crate::poller::{Poller, Settings};
use crate::report;

/// The native part of every loop class; the Python classes add only their place in asyncio's hierarchy.
#[pyclass(frozen, subclass, extends = Core, module = "oxloop._native")]
pub(crate) struct EventLoop;

/// Adds the methods that are called past `PyO3`.
pub(crate) fn add_fast_methods(py: Python<'_>) -> PyResult<()> {
    ffi::add_fast_methods(&py.get_type::<EventLoop>(), schedule::methods())
}

#[pymethods]
impl EventLoop {
    #[new]
    #[pyo3(signature = (*_args, **_keywords))]
    fn new(
        py: Python<'_>,
        _args: &Bound<'_, PyTuple>,
        _keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Core::new(py)).add_subclass(Self)
    }

    /// Make the loop wait in `selector`: None for the platform's best, a selector of the `selectors` module
    /// for the native one of its kind, or any other `BaseSelector`, which is used through its own methods.
    #[pyo3(signature = (selector=None))]
    fn __init__(slf: &Bound<'_, Self>, selector: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let _stay = Stay::new();
        let this = slf.as_super();
        let poller = Poller::new(selector)?;
        report::log(py, "debug", &format!("Using selector: {}", poller.class_name(py)?))?;
        if matches!(poller, Poller::Native(_))
            && let Some(selector) = selector
        {
            this.get().selector.set(Some(selector.into()));
        }
        begin(this, poller)
    }

    /// Make the loop wait in a proactor. Raises `RuntimeError` with the reason where there is none.
    fn _init_proactor(slf: &Bound<'_, Self>, proactor: Settings<'_>) -> PyResult<()> {
        let _stay = Stay::new();
        let poller = Poller::completing(&proactor)?;
        report::log(slf.py(), "debug", &format!("Using proactor: {}", proactor.name()))?;
        begin(slf.as_super(), poller)
    }

    /// Switch debug mode on or off.
    fn set_debug(slf: &Bound<'_, Self>, enabled: &Bound<'_, PyAny>) -> PyResult<()> {
        let core = slf.as_super().get();
        core.debug.store(enabled.is_truthy()?, Relaxed);
        if core.is_running() {
            // In the loop's own thread, since the interpreter keeps the depth by thread.
            let switch = slf.getattr(intern!(slf.py(), "_set_coroutine_origin_tracking"))?;
            slf.call_method1(intern!(slf.py(), "call_soon_threadsafe"), (switch, enabled))?;
        }
        Ok(())
    }

    /// Seconds after which debug mode reports a callback as slow.
    #[getter]
    fn slow_callback_duration(slf: &Bound<'_, Self>) -> f64 {
        slf.as_super().get().slow_callback_duration.get()
    }

    #[setter]
    fn set_slow_callback_duration(slf: &Bound<'_, Self>, seconds: f64) {
        slf.as_super().get().slow_callback_duration.set(seconds);
    }

    #[getter]
    fn _thread_id(slf: &Bound<'_, Self>) -> Option<u64> {
        let thread = slf.as_super().get().thread.load(Relaxed);
        (thread != 0).then_some(thread)
    }

    #[getter]
    fn _debug(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().debug()
    }

    #[getter]
    fn _closed(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_closed()
    }

    fn _check_closed(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.as_super().get().check_closed()
    }

    #[getter]
    fn _selector<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let py = slf.py();
        let core = slf.as_super().get();
        if let Poller::Python(selector) = &*core.poller.borrow() {
            return Some(selector.bind(py).clone());
        }
        core.selector.borrow().as_ref().map(|selector| selector.bind(py).clone())
    }

    #[setter(_selector)]
    fn set_selector(slf: &Bound<'_, Self>, selector: &Bound<'_, PyAny>) {
        let before = slf.as_super().get().selector.replace(Some(selector.into()));
        drop(before);
    }

    /// A loop that nobody refers to any more and that was not closed: warns, and closes it.
    fn __del__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let core = slf.as_super().get();
        if core.is_closed() || matches!(*core.poller.borrow(), Poller::Closed) {
            return Ok(());
        }
        let message = format!("unclosed event loop {}", slf.repr()?);
        let warned = report::resource_warning(slf.py(), &message, slf.as_any());
        if !core.is_running() {
            Self::close(slf)?;
        }
        warned
    }

    /// The name of the backend: epoll, poll, select, kqueue, `io_uring` or iocp; None for a selector of the user's.
    #[getter]
    fn _backend(slf: &Bound<'_, Self>) -> Option<&'static str> {
        slf.as_super().get().poller.borrow().name()
    }

    fn __setattr__(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        ffi::set_attribute(slf.as_any(), name, Some(value))?;
        Self::attribute_changed(slf, name)
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        ffi::set_attribute(slf.as_any(), name, None)?;
        Self::attribute_changed(slf, name)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let core = slf.as_super().get();
        let flag = |value| if value { "True" } else { "False" };
        Ok(format!(
            "<{} running={} closed={} debug={}>",
            slf.get_type().name()?,
            flag(core.is_running()),
            flag(core.is_closed()),
            flag(core.debug())
        ))
    }
}

impl EventLoop {
    /// Notices what the user put in the place of a method that is otherwise called natively.
    fn attribute_changed(slf: &Bound<'_, Self>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        for method in ["time", "call_soon", "call_at"] {
            if name.eq(method)? {
                return schedule::find_overrides(slf.as_super());
            }
        }
        Ok(())
    }
}

/// Makes the loop wait in `poller`, for a start for what other threads tell it.
fn begin(event_loop: &Bound<'_, Core>, poller: Poller) -> PyResult<()> {
    let py = event_loop.py();
    let core = event_loop.get();
    core.open_inbox(poller.waker().map_err(|error| os_error(&error))?);
    let before = core.poller.replace(poller);
    drop(before);
    core.debug.store(debug_by_default(py)?, Relaxed);
    schedule::find_overrides(event_loop)?;
    if let Some(fd) = core.waker_fd() {
        let entry = Entry::Native { object: event_loop.as_any().into(), run: woken };
        core.watch(py, fd, Interest::READABLE, entry)?;
        core.watches.borrow_mut().internal += 1;
    }
    Ok(())
}

/// The waker's descriptor is readable: what woke the loop is in the inbox.
#[allow(clippy::unnecessary_wraps)] // a native entry may fail
fn woken(event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    ffi::cast_known::<Core>(event_loop).get().drain_waker();
    Ok(())
}

/// `PYTHONASYNCIODEBUG`, `-X dev`.
fn debug_by_default(py: Python<'_>) -> PyResult<bool> {
    imports(py).coroutines.bind(py).call_method0(intern!(py, "_is_debug_mode"))?.is_truthy()
}
