//! Tasks: `create_task` with just the keywords that the running version of asyncio passes on, and the hooks
//! that keep track of asynchronous generators.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString};

use super::EventLoop;
use crate::core::Core;
use crate::coroutine::Coroutine;
use crate::ffi::{self, Arguments, Ref};
use crate::imports::imports;
use crate::report;

#[pymethods]
impl EventLoop {
    /// Close all asynchronous generators that are still open. A coroutine.
    fn shutdown_asyncgens<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "EventLoop.shutdown_asyncgens", |flow| {
            let this = flow.keep(slf.as_super());
            async move {
                let closing = Python::attach(|py| {
                    let event_loop = this.bind(py);
                    event_loop.get().asyncgens_shutdown.store(true, Relaxed);
                    let set = asyncgens(event_loop)?;
                    let closing = py
                        .import("builtins")?
                        .getattr("list")?
                        .call1((&set,))?
                        .cast_into::<PyList>()?;
                    if closing.is_empty() {
                        return Ok(None);
                    }
                    set.call_method0("clear")?;
                    let mut closers = Vec::new();
                    for generator in &closing {
                        closers.push(generator.call_method0(intern!(py, "aclose"))?);
                    }
                    let keywords = PyDict::new(py);
                    keywords.set_item("return_exceptions", true)?;
                    let arguments = pyo3::types::PyTuple::new(py, closers)?;
                    let gather = py.import("asyncio")?.getattr("gather")?;
                    let gathered = gather.call(arguments, Some(&keywords))?;
                    Ok::<_, PyErr>(Some((flow.keep::<PyList>(closing), Ref::from(gathered))))
                })?;
                if let Some((closing, gathered)) = closing {
                    let results = flow.wait(gathered).await?;
                    Python::attach(|py| {
                        report_failed(this.bind(py), closing.bind(py), results.bind(py))
                    })?;
                }
                Ok(ffi::none())
            }
        })
    }

    /// Set what `create_task()` calls, as factory(loop, coro, **keywords); None for asyncio.Task.
    /// Raises `TypeError` for what cannot be called.
    fn set_task_factory(slf: &Bound<'_, Self>, factory: &Bound<'_, PyAny>) -> PyResult<()> {
        if !factory.is_none() && !ffi::is_callable(factory) {
            return Err(PyTypeError::new_err("task factory must be a callable or None"));
        }
        let value = if factory.is_none() { None } else { Some(Ref::from(factory)) };
        let before = slf.as_super().get().task_factory.replace(value);
        drop(before);
        Ok(())
    }

    /// What `set_task_factory()` set, or None.
    fn get_task_factory<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let factory = slf.as_super().get().task_factory.borrow();
        factory.as_ref().map(|factory| factory.bind(slf.py()).clone())
    }

    /// An asynchronous generator is iterated for the first time.
    fn _asyncgen_firstiter_hook(slf: &Bound<'_, Self>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
        let event_loop = slf.as_super();
        let py = event_loop.py();
        if event_loop.get().asyncgens_shutdown.load(Relaxed) {
            let message = format!(
                "asynchronous generator {} was scheduled after loop.shutdown_asyncgens() call",
                agen.repr()?
            );
            report::resource_warning(py, &message, event_loop.as_any())?;
        }
        asyncgens(event_loop)?.call_method1(intern!(py, "add"), (agen,))?;
        Ok(())
    }

    /// An asynchronous generator is about to be collected without having been closed.
    fn _asyncgen_finalizer_hook(slf: &Bound<'_, Self>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
        let event_loop = slf.as_super();
        let py = event_loop.py();
        asyncgens(event_loop)?.call_method1(intern!(py, "discard"), (agen,))?;
        if !event_loop.get().is_closed() {
            let close = agen.call_method0(intern!(py, "aclose"))?;
            let create_task = event_loop.getattr(intern!(py, "create_task"))?;
            event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (create_task, close))?;
        }
        Ok(())
    }
}

/// What the running asyncio does with the keywords of `create_task`.
#[derive(Clone, Copy, PartialEq)]
enum Keywords {
    /// Up to 3.10: only a name.
    Name,
    /// From 3.11 on: a name, and a context, which reaches a factory only when it is given.
    NameAndContext,
    /// From 3.13.4 on: these two as before, and whatever else the caller gave goes on (gh-133745).
    NameContextAndOthers,
    /// In 3.13.3, and from 3.14 on: whatever the caller gave goes to the task or to the factory.
    All,
}

impl Keywords {
    fn of(py: Python<'_>) -> Self {
        static RULE: PyOnceLock<Keywords> = PyOnceLock::new();
        *RULE.get_or_init(py, || {
            let version = py.version_info();
            if version >= (3, 14) || version == (3, 13, 3) {
                Self::All
            } else if version > (3, 13, 3) {
                Self::NameContextAndOthers
            } else if version >= (3, 11) {
                Self::NameAndContext
            } else {
                Self::Name
            }
        })
    }

    /// Whether `create_task` takes the keyword.
    fn takes(self, keyword: &str) -> bool {
        match self {
            Self::All | Self::NameContextAndOthers => true,
            Self::NameAndContext => keyword == "name" || keyword == "context",
            Self::Name => keyword == "name",
        }
    }
}

/// `loop.create_task(coro, **keywords)`, as it is called.
pub(super) fn create_fast<'py>(
    event_loop: &Bound<'py, Core>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let core = event_loop.get();
    let rule = Keywords::of(py);
    let names = arguments.keyword_names()?;
    if core.task_factory.borrow().is_none()
        && arguments.len() == 1
        && names.iter().all(|name| rule.takes(name))
    {
        core.check_closed()?;
        let imports = imports(py);
        let task = imports.task(py)?;
        return arguments.forward(&task, imports.loop_keyword.bind(py), event_loop.as_any());
    }
    let keywords = arguments.keywords()?;
    let coroutine = match &keywords {
        Some(keywords) if arguments.len() == 0 => keywords.get_item("coro")?,
        _ => None,
    };
    match (coroutine, &keywords) {
        (Some(coroutine), Some(keywords)) => {
            keywords.del_item("coro")?;
            create(event_loop, &coroutine, Some(keywords))
        }
        _ => create(event_loop, arguments.only("create_task", "coro")?, keywords.as_ref()),
    }
}

/// `loop.create_task(coro, **keywords)`.
pub(super) fn create<'py>(
    event_loop: &Bound<'py, Core>,
    coroutine: &Bound<'py, PyAny>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let core = event_loop.get();
    core.check_closed()?;
    let rule = Keywords::of(py);
    check_keywords(keywords, rule)?;
    let factory = core.task_factory.borrow().as_ref().map(|factory| factory.clone_ref(py));
    let given = match keywords {
        Some(keywords) => keywords.copy()?,
        None => PyDict::new(py),
    };
    let Some(factory) = factory else {
        given.set_item(intern!(py, "loop"), event_loop)?;
        return imports(py).task(py)?.call((coroutine,), Some(&given));
    };
    let factory = factory.bind(py);
    if rule == Keywords::All {
        return factory.call((event_loop, coroutine), Some(&given));
    }
    let name = take(&given, intern!(py, "name"))?;
    if let Some(context) = take(&given, intern!(py, "context"))? {
        given.set_item(intern!(py, "context"), context)?;
    }
    let task = if given.is_empty() {
        factory.call1((event_loop, coroutine))?
    } else {
        factory.call((event_loop, coroutine), Some(&given))?
    };
    if py.version_info() >= (3, 13) {
        // It names the task whatever was given, "None" included.
        task.call_method1(intern!(py, "set_name"), (name,))?;
    } else if let (Some(name), Some(set_name)) = (name, task.getattr_opt(intern!(py, "set_name"))?)
    {
        set_name.call1((name,))?;
    }
    Ok(task)
}

/// Take a keyword out of `given`; its value, but for None.
fn take<'py>(
    given: &Bound<'py, PyDict>,
    name: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let value = given.get_item(name)?;
    if value.is_some() {
        given.del_item(name)?;
    }
    Ok(value.filter(|value| !value.is_none()))
}

fn check_keywords(keywords: Option<&Bound<'_, PyDict>>, rule: Keywords) -> PyResult<()> {
    for key in keywords.iter().flat_map(|keywords| keywords.keys()) {
        let key: String = key.extract()?;
        if !rule.takes(&key) {
            return Err(PyTypeError::new_err(format!(
                "create_task() got an unexpected keyword argument '{key}'"
            )));
        }
    }
    Ok(())
}

/// The weak set of the generators that have been started and not finished.
pub(super) fn asyncgens<'py>(event_loop: &Bound<'py, Core>) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let set = event_loop.get().asyncgens.borrow().as_ref().map(|set| set.clone_ref(py));
    if let Some(set) = set {
        return Ok(set.into_bound(py));
    }
    let set = py.import("weakref")?.getattr("WeakSet")?.call0()?;
    event_loop.get().asyncgens.set(Some((&set).into()));
    Ok(set)
}

/// Tells the exception handler of each generator that could not be closed.
fn report_failed(
    event_loop: &Bound<'_, Core>,
    generators: &Bound<'_, PyList>,
    results: &Bound<'_, PyAny>,
) -> PyResult<()> {
    for (generator, result) in generators.iter().zip(results.try_iter()?) {
        let result = result?;
        if let Ok(exception) = result.cast::<pyo3::exceptions::PyException>() {
            let message = format!(
                "an error occurred during closing of asynchronous generator {}",
                generator.repr()?
            );
            let details = [("asyncgen", &generator)];
            report::call_exception_handler(
                event_loop.as_any(),
                &message,
                exception.as_any().cast()?,
                &details,
            )?;
        }
    }
    Ok(())
}
