//! `Handle` and `TimerHandle`: a callback that the loop will run, and the means to cancel it.
//!
//! They are native classes, not subclasses of asyncio's (whose slots they would carry along unused), and
//! pass `isinstance(handle, asyncio.Handle)` by their `__class__`.

mod call;
mod origin;
mod timer;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyTuple;

use self::call::Call;
use self::origin::{format_callback, source_traceback};
pub(crate) use self::timer::TimerHandle;
use crate::cell::LoopCell;
use crate::core::{Core, Entry};
use crate::ffi::{self, Ref};
use crate::imports::imports;
use crate::report;
use crate::rlock::{Acquired, RLock};

/// What only a loop in debug mode keeps.
#[derive(Default)]
struct Debug {
    source_traceback: Option<Ref>,
    /// The text of the handle from before it was cancelled.
    repr: Option<String>,
}

/// A callback scheduled by `call_soon` and its kin.
///
/// Source: asyncio's documentation, "Callback handles".
#[pyclass(frozen, subclass, weakref, module = "oxloop._native")]
pub(crate) struct Handle {
    core: Ref<Core>,
    context: Ref,
    /// Taken by `cancel`, so that nothing is kept alive until the time that it was scheduled for.
    call: LoopCell<Option<Call>>,
    cancelled: AtomicBool,
    /// Taken while the callback runs, by `cancel` and by `cancelled`, where several threads may have the handle.
    lock: Option<Box<RLock>>,
    /// Set only in debug mode.
    debug: LoopCell<Option<Box<Debug>>>,
}

impl Handle {
    /// A handle that will run `callback(*arguments)` in `context`, or in a copy of the current one.
    pub(crate) fn new(
        core: &Bound<'_, Core>,
        callback: &Bound<'_, PyAny>,
        arguments: &[Bound<'_, PyAny>],
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = core.py();
        let context = match context {
            Some(context) if !context.is_none() => Ref::from(context),
            _ => ffi::copy_context(py)?,
        };
        let debug = if core.get().debug() {
            Some(Box::new(Debug { source_traceback: source_traceback(py)?, repr: None }))
        } else {
            None
        };
        Ok(Self {
            core: core.into(),
            context,
            call: LoopCell::new(Some(Call::new(callback, arguments)?)),
            cancelled: AtomicBool::new(false),
            lock: None,
            debug: LoopCell::new(debug),
        })
    }

    /// The same for any thread. From Python 3.14 on the handle is an `asyncio.events._ThreadSafeHandle`: it
    /// cannot be cancelled while its callback runs in another thread, only before and after.
    pub(crate) fn thread_safe(
        core: &Bound<'_, Core>,
        callback: &Bound<'_, PyAny>,
        arguments: &[Bound<'_, PyAny>],
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut handle = Self::new(core, callback, arguments, context)?;
        handle.lock = imports(core.py()).thread_safe_handle.as_ref().map(|_| Box::default());
        Ok(handle)
    }

    fn acquire(&self, py: Python<'_>) -> Option<Acquired<'_>> {
        self.lock.as_ref().map(|lock| lock.acquire(py))
    }

    /// The handle as a callback to be queued.
    ///
    /// While the loop runs, queued handles are hidden from the garbage collector: there can be very many of them, none
    /// lives long, and a collection that looks at all of them costs more than running them. What only the queue refers
    /// to, the loop shows in its stead ([`visit_contents`](Self::visit_contents)); what somebody else refers to, too, is
    /// shown again when it leaves the queue, or the loop stops ([`Entry::show`]).
    #[inline]
    pub(crate) fn queued(slf: &Bound<'_, Self>) -> Entry {
        if slf.get().core.get().is_running() {
            ffi::hide(slf.as_any());
        }
        Entry::Handle(slf.into())
    }

    pub(crate) fn visit_contents(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.core)?;
        visit.call(&*self.context)?;
        let Some(call) = self.call.try_borrow() else { return Ok(()) };
        call.as_ref().map_or(Ok(()), |call| call.visit(&visit))
    }

    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Runs the callback in its context. Its exceptions go to the exception handler, but for those that
    /// leave the loop.
    #[inline]
    pub(crate) fn run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let _acquired = this.acquire(py);
        let Some(call) = this.call.borrow().as_ref().map(|call| call.clone_ref(py)) else {
            return Ok(());
        };
        match ffi::run_in_context(this.context.bind(py), || call.invoke(py)) {
            Ok(()) => Ok(()),
            Err(error) => Self::report(slf, &call, error),
        }
    }

    #[cold]
    fn report(slf: &Bound<'_, Self>, call: &Call, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.core.bind(py).as_any();
        let source = format_callback(event_loop, call.callback(py), &call.arguments(py)?)?;
        let message = format!("Exception in callback {source}");
        let traceback = this.source_traceback(py);
        let mut details = vec![("handle", slf.as_any())];
        if let Some(traceback) = &traceback {
            details.push(("source_traceback", traceback));
        }
        report::callback_error(event_loop, error, &message, &details)
    }

    pub(crate) fn source_traceback<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let debug = self.debug.borrow();
        debug.as_ref()?.source_traceback.as_ref().map(|traceback| traceback.bind(py).clone())
    }

    /// Cancels: the callback and its arguments are released at once.
    fn do_cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let _acquired = this.acquire(slf.py());
        if this.cancelled.swap(true, Relaxed) {
            return Ok(());
        }
        if this.core.get().debug() {
            let text = slf.as_any().repr()?.to_string();
            this.debug.borrow_mut().get_or_insert_default().repr = Some(text);
        }
        let call = this.call.take();
        drop(call);
        Ok(())
    }

    /// The parts of the text between the angle brackets, as asyncio has them.
    fn repr_parts(
        &self,
        py: Python<'_>,
        name: &str,
        when: Option<String>,
    ) -> PyResult<Vec<String>> {
        let mut parts = vec![name.to_owned()];
        if self.is_cancelled() {
            parts.push("cancelled".to_owned());
        }
        parts.extend(when);
        let call = self.call.borrow().as_ref().map(|call| call.clone_ref(py));
        if let Some(call) = call {
            let event_loop = self.core.bind(py).as_any();
            parts.push(format_callback(event_loop, call.callback(py), &call.arguments(py)?)?);
        }
        if let Some(traceback) = self.source_traceback(py)
            && traceback.is_truthy()?
        {
            let frame = traceback.get_item(-1)?;
            parts.push(format!(
                "created at {}:{}",
                frame.get_item(0)?.str()?,
                frame.get_item(1)?.str()?
            ));
        }
        Ok(parts)
    }

    fn repr_text(&self, py: Python<'_>, name: &str, when: Option<String>) -> PyResult<String> {
        if let Some(debug) = self.debug.borrow().as_ref()
            && let Some(text) = &debug.repr
        {
            return Ok(text.clone());
        }
        Ok(format!("<{}>", self.repr_parts(py, name, when)?.join(" ")))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.free();
        }
    }
}

#[pymethods]
impl Handle {
    /// Cancel the callback. If it has been cancelled or run already, nothing happens.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::do_cancel(slf)
    }

    /// Whether the callback was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        let _acquired = self.acquire(py);
        self.is_cancelled()
    }

    /// The context in which the callback runs.
    fn get_context<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.context.bind(py).clone()
    }

    fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::run(slf)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.repr_text(py, "Handle", None)
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &imports(py).thread_safe_handle {
            Some(class) if self.lock.is_some() => class.bind(py).clone(),
            _ => imports(py).handle.bind(py).clone(),
        }
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, Core> {
        self.core.bind(py).clone()
    }

    #[getter]
    fn _cancelled(&self) -> bool {
        self.is_cancelled()
    }

    #[getter]
    fn _context<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.context.bind(py).clone()
    }

    #[getter]
    fn _callback<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.call.borrow().as_ref().map(|call| call.callback(py).clone())
    }

    #[getter]
    fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let call = self.call.borrow().as_ref().map(|call| call.clone_ref(py));
        call.map(|call| call.arguments(py)).transpose()
    }

    #[getter]
    fn _source_traceback<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.source_traceback(py)
    }

    #[getter]
    fn _repr(&self) -> Option<String> {
        self.debug.borrow().as_ref().and_then(|debug| debug.repr.clone())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.visit_contents(visit)
    }

    fn __clear__(&self) {
        let call = self.call.take();
        drop(call);
    }
}
