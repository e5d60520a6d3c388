//! `Handle` and `TimerHandle`: a callback that the loop will run, and the means to cancel it.
//!
//! They are native classes, not subclasses of asyncio's (whose slots they would carry along unused), and
//! pass `isinstance(handle, asyncio.Handle)` by their `__class__`. Up to three arguments stand in the
//! handle itself; more are kept in a tuple.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use oxloop_engine::Token;
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::cell::LoopCell;
use crate::core::{Core, Entry};
use crate::ffi::{self, Ref};
use crate::imports::imports;
use crate::report;
use crate::rlock::{Acquired, RLock};

/// The most arguments that stand in a handle itself.
const INLINE: usize = 3;

/// The arguments of a callback.
enum CallArguments {
    Inline { values: [Option<Ref>; INLINE] },
    Tuple(Ref<PyTuple>),
}

impl CallArguments {
    fn new(values: &[Bound<'_, PyAny>]) -> PyResult<Self> {
        Ok(match values {
            [] => Self::Inline { values: [None, None, None] },
            [first] => Self::Inline { values: [Some(first.into()), None, None] },
            [first, second] => {
                Self::Inline { values: [Some(first.into()), Some(second.into()), None] }
            }
            [first, second, third] => Self::Inline {
                values: [Some(first.into()), Some(second.into()), Some(third.into())],
            },
            [first, ..] => Self::Tuple(PyTuple::new(first.py(), values)?.into()),
        })
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Inline { values } => Self::Inline {
                values: values
                    .each_ref()
                    .map(|value| value.as_ref().map(|value| value.clone_ref(py))),
            },
            Self::Tuple(tuple) => Self::Tuple(tuple.clone_ref(py)),
        }
    }

    fn to_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match self {
            Self::Inline { values } => PyTuple::new(
                py,
                values.iter().flatten().map(|value| value.bind(py).clone()).collect::<Vec<_>>(),
            ),
            Self::Tuple(tuple) => Ok(tuple.bind(py).clone()),
        }
    }
}

impl CallArguments {
    /// Takes the calls out of the handles among the arguments that nobody else refers to.
    fn take_calls(&self, py: Python<'_>, calls: &mut Vec<Call>) {
        let Self::Inline { values } = self else { return };
        for value in values.iter().flatten().filter(|value| ffi::is_unique(value)) {
            if let Ok(handle) = value.bind(py).cast_exact::<Handle>() {
                calls.extend(handle.get().call.take());
            }
        }
    }
}

/// A callback and its arguments, as long as the handle has not been cancelled.
struct Call {
    callback: Ref,
    arguments: CallArguments,
}

impl Call {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { callback: self.callback.clone_ref(py), arguments: self.arguments.clone_ref(py) }
    }

    #[inline]
    fn invoke(&self, py: Python<'_>) -> PyResult<()> {
        let callback = self.callback.bind(py);
        match &self.arguments {
            CallArguments::Inline { values: [None, ..] } => ffi::call(callback, &[]),
            CallArguments::Inline { values: [Some(first), None, _] } => {
                ffi::call(callback, &[first.bind(py)])
            }
            CallArguments::Inline { values: [Some(first), Some(second), None] } => {
                ffi::call(callback, &[first.bind(py), second.bind(py)])
            }
            CallArguments::Inline { values: [Some(first), Some(second), Some(third)] } => {
                ffi::call(callback, &[first.bind(py), second.bind(py), third.bind(py)])
            }
            CallArguments::Tuple(tuple) => callback.call1(tuple.bind(py)),
        }
        .map(drop)
    }
}

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
            call: LoopCell::new(Some(Call {
                callback: callback.into(),
                arguments: CallArguments::new(arguments)?,
            })),
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

    /// Queued handles are hidden from the garbage collector: there can be very many of them, none lives long,
    /// and a collection that looks at all of them costs more than running them. What only the queue refers to,
    /// the loop shows in its stead ([`visit_contents`](Self::visit_contents)); what somebody else refers to, too,
    /// is shown again when it leaves the queue ([`leave_queue`](Self::leave_queue)).
    #[inline]
    pub(crate) fn enter_queue(slf: &Bound<'_, Self>) -> Entry {
        ffi::hide(slf.as_any());
        Entry::Handle(slf.into())
    }

    /// To be called when the entry of [`enter_queue`](Self::enter_queue) has been taken out of the queue.
    #[inline]
    pub(crate) fn leave_queue(handle: &Ref<Self>) {
        ffi::show_if_shared(handle);
    }

    pub(crate) fn visit_contents(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.core)?;
        visit.call(&*self.context)?;
        let Some(call) = self.call.try_borrow() else { return Ok(()) };
        let Some(call) = call.as_ref() else { return Ok(()) };
        visit.call(&*call.callback)?;
        match &call.arguments {
            CallArguments::Inline { values } => {
                values.iter().flatten().try_for_each(|value| visit.call(&**value))
            }
            CallArguments::Tuple(tuple) => visit.call(&**tuple),
        }
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
        let arguments = call.arguments.to_tuple(py)?;
        let event_loop = this.core.bind(py).as_any();
        let source = format_callback(event_loop, call.callback.bind(py), &arguments)?;
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
            parts.push(format_callback(
                event_loop,
                call.callback.bind(py),
                &call.arguments.to_tuple(py)?,
            )?);
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
    /// A handle whose argument is a handle, and so on, is freed link by link: the interpreter would recurse, and
    /// overflow the stack before Python 3.14.
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        let CallArguments::Inline { values: [Some(_), ..] } = &call.arguments else { return };
        Python::attach(|py| {
            let mut calls = vec![];
            call.arguments.take_calls(py, &mut calls);
            drop(call);
            while let Some(call) = calls.pop() {
                call.arguments.take_calls(py, &mut calls);
            }
        });
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
        self.call.borrow().as_ref().map(|call| call.callback.bind(py).clone())
    }

    #[getter]
    fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let call = self.call.borrow().as_ref().map(|call| call.clone_ref(py));
        call.map(|call| call.arguments.to_tuple(py)).transpose()
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

/// A callback scheduled by `call_later` or `call_at`.
///
/// Source: asyncio's documentation, "Callback handles".
#[pyclass(frozen, extends = Handle, module = "oxloop._native")]
pub(crate) struct TimerHandle {
    /// Seconds on the loop's clock.
    when: f64,
    /// What the caller of `call_at` gave, if that was no `float`: `when()` returns it.
    given: Option<Ref>,
    /// The place in the loop's timers; set once it has been scheduled, stale after it has fired.
    token: LoopCell<Option<Token>>,
}

impl TimerHandle {
    pub(crate) fn new(when: f64, given: Option<Ref>) -> Self {
        Self { when, given, token: LoopCell::new(None) }
    }

    pub(crate) fn set_token(&self, token: Token) {
        self.token.set(Some(token));
    }
}

#[pymethods]
impl TimerHandle {
    /// Cancel the callback. It and its arguments are released at once.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        let base = slf.as_super();
        if let Some(token) = slf.get().token.get() {
            let entry = base.get().core.get().cancel_timer(token);
            slf.get().token.set(None);
            let result = Handle::do_cancel(base);
            drop(entry);
            return result;
        }
        Handle::do_cancel(base)
    }

    /// The time at which the callback is due, in seconds on the loop's clock (`loop.time()`).
    fn when<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &self.given {
            Some(given) => given.bind(py).clone(),
            None => pyo3::types::PyFloat::new(py, self.when).into_any(),
        }
    }

    #[getter]
    fn _when<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.when(py)
    }

    #[getter]
    fn _scheduled(slf: &Bound<'_, Self>) -> bool {
        let token = slf.get().token.get();
        token.is_some_and(|token| slf.as_super().get().core.get().is_timer(token))
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).timer_handle.bind(py).clone()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let when = format!("when={}", slf.get().when(slf.py()).str()?);
        slf.as_super().get().repr_text(slf.py(), "TimerHandle", Some(when))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.when(py).hash()
    }

    fn __richcmp__<'py>(
        slf: &Bound<'py, Self>,
        other: &Bound<'py, PyAny>,
        operation: CompareOp,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if !other.is_instance(imports(py).timer_handle.bind(py))? {
            return Ok(py.NotImplemented().into_bound(py));
        }
        let mine = slf.get().when(py);
        let theirs = other.call_method0(intern!(py, "when"))?;
        let result = match operation {
            CompareOp::Lt => mine.lt(&theirs)?,
            CompareOp::Gt => mine.gt(&theirs)?,
            CompareOp::Le => mine.lt(&theirs)? || Self::same(slf, other)?,
            CompareOp::Ge => mine.gt(&theirs)? || Self::same(slf, other)?,
            CompareOp::Eq => Self::same(slf, other)?,
            CompareOp::Ne => !Self::same(slf, other)?,
        };
        Ok(pyo3::types::PyBool::new(py, result).to_owned().into_any())
    }
}

impl TimerHandle {
    /// Equality as asyncio defines it: time, callback, arguments and cancellation.
    fn same(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        for name in ["_when", "_callback", "_args", "_cancelled"] {
            if !slf.as_any().getattr(name)?.eq(other.getattr(name)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The stack of the code that schedules, for debug mode: a list of frame summaries.
pub(crate) fn source_traceback(py: Python<'_>) -> PyResult<Option<Ref>> {
    let imports = imports(py);
    let frame = match imports.sys.bind(py).call_method1(intern!(py, "_getframe"), (0,)) {
        Ok(frame) => frame,
        // There is no frame when the call comes from outside Python.
        Err(error) if error.is_instance_of::<PyValueError>(py) => return Ok(None),
        Err(error) => return Err(error),
    };
    let helpers = imports.format_helpers.bind(py);
    Ok(Some(helpers.call_method1(intern!(py, "extract_stack"), (frame,))?.into()))
}

/// `callback(*arguments) at file:line`, in the words of the running asyncio.
pub(crate) fn format_callback(
    event_loop: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyTuple>,
) -> PyResult<String> {
    let py = event_loop.py();
    let function = imports(py).format_helpers.bind(py).getattr("_format_callback_source")?;
    let keywords = PyDict::new(py);
    // The parameter came with 3.12.4 and 3.13: it hides the arguments outside debug mode.
    if function.getattr("__code__")?.getattr("co_varnames")?.contains("debug")? {
        keywords.set_item("debug", event_loop.call_method0(intern!(py, "get_debug"))?)?;
    }
    let text = function.call((callback, arguments), Some(&keywords))?;
    Ok(text.cast::<PyString>()?.to_string())
}
