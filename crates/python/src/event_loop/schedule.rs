//! Scheduling: `call_soon`, `call_soon_threadsafe`, `call_later`, `call_at`, and their checks in debug mode.

use std::sync::atomic::Ordering::Relaxed;

use oxloop_engine::Timestamp;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyDictMethods, PyFloat, PyString, PyTuple};

use super::{EventLoop, task};
use crate::callback;
use crate::core::{Core, Entry};
use crate::ffi::{self, Arguments, FastMethod, Parsed, Ref, fast_method};
use crate::handle::{Handle, TimerHandle};

/// The methods of this file, for the event loop class.
pub(super) fn methods() -> [FastMethod; 8] {
    [
        fast_method!(c"create_task", create_task, c"create_task($self, coro, **kwargs)\n--\n\nSchedule a coroutine; return its task. The keywords are those of the running version's asyncio.Task."),
        fast_method!(c"get_debug", get_debug, c"get_debug($self)\n--\n\nWhether the loop is in debug mode."),
        fast_method!(c"time", time, c"time($self)\n--\n\nThe time in seconds on the loop's monotonic clock."),
        fast_method!(c"call_soon", call_soon, c"call_soon($self, callback, *args, context=None)\n--\n\nRun callback(*args) in the next turn of the loop; return a Handle.\n\nCallbacks run in the order in which they were registered, each once. Raises RuntimeError on a closed loop."),
        fast_method!(c"call_soon_threadsafe", call_soon_threadsafe, c"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nLike call_soon, but may be called from any thread, and wakes the loop."),
        fast_method!(c"call_later", call_later, c"call_later($self, delay, callback, *args, context=None)\n--\n\nRun callback(*args) after delay seconds; return a TimerHandle.\n\nNever early; callbacks due at the same time run in the order of their registration."),
        fast_method!(c"call_at", call_at, c"call_at($self, when, callback, *args, context=None)\n--\n\nRun callback(*args) at the time when, in seconds on the clock of loop.time(); return a TimerHandle."),
        fast_method!(c"create_future", create_future, c"create_future($self)\n--\n\nReturn a new asyncio.Future attached to this loop."),
    ]
}

fn call_soon<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    let py = slf.py();
    let Parsed { required: [callback], rest, context } =
        arguments.parse("call_soon", ["callback"])?;
    let event_loop = ffi::cast_known::<Core>(slf);
    let core = event_loop.get();
    core.check_closed()?;
    if core.debug() {
        check_thread(event_loop)?;
        callback::check(callback, "call_soon")?;
    } else if let (Some(context), [] | [_]) = (context, rest)
        && !overrides(event_loop)?.own_call_soon.load(Relaxed)
        && !context.is_none()
        && ffi::is_task_callback(callback)
    {
        core.push(Entry::TaskStep {
            callback: callback.into(),
            argument: rest.first().map(Ref::from),
            context: context.into(),
        });
        return Ok(py.None().into());
    }
    let handle = Bound::new(py, Handle::new(event_loop, callback, rest, context)?)?;
    core.push(Handle::queued(&handle));
    Ok(Ref::from(handle.into_any()))
}

fn call_soon_threadsafe<'py>(
    slf: &Bound<'py, PyAny>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Ref> {
    let py = slf.py();
    let Parsed { required: [callback], rest, context } =
        arguments.parse("call_soon_threadsafe", ["callback"])?;
    let event_loop = ffi::cast_known::<Core>(slf);
    let core = event_loop.get();
    core.check_closed()?;
    if core.debug() {
        callback::check(callback, "call_soon_threadsafe")?;
    }
    let handle = Bound::new(py, Handle::thread_safe(event_loop, callback, rest, context)?)?;
    match core.push_threadsafe(Handle::queued(&handle)) {
        Ok(()) => Ok(Ref::from(handle.into_any())),
        Err(entry) => {
            drop(entry);
            Err(PyRuntimeError::new_err("Event loop is closed"))
        }
    }
}

fn call_later<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    let py = slf.py();
    let Parsed { required: [delay, callback], rest, context } =
        arguments.parse("call_later", ["delay", "callback"])?;
    let event_loop = ffi::cast_known::<Core>(slf);
    if delay.is_none() {
        return Err(PyTypeError::new_err("delay must not be None"));
    }
    let core = overrides(event_loop)?;
    let when = match delay.cast_exact::<PyFloat>() {
        Ok(delay) if !core.own_clock.load(Relaxed) => core.clock.now().as_seconds() + delay.value(),
        // Whatever can be added to the time, as asyncio has it, with the interpreter's own error.
        _ => event_loop.call_method0(intern!(py, "time"))?.add(delay)?.extract()?,
    };
    if core.own_call_at.load(Relaxed) {
        return call_users_call_at(event_loop, when, callback, rest, context);
    }
    schedule(event_loop, when, None, callback, rest, context)
}

fn call_at<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    let Parsed { required: [when, callback], rest, context } =
        arguments.parse("call_at", ["when", "callback"])?;
    let event_loop = ffi::cast_known::<Core>(slf);
    if when.is_none() {
        return Err(PyTypeError::new_err("when cannot be None"));
    }
    let given = if when.is_exact_instance_of::<PyFloat>() { None } else { Some(Ref::from(when)) };
    let seconds = when.extract()?;
    schedule(event_loop, seconds, given, callback, rest, context)
}

/// `self.call_at(when, callback, *args, context=context)`, which a user has put in the place of ours.
#[cold]
fn call_users_call_at(
    event_loop: &Bound<'_, Core>,
    when: f64,
    callback: &Bound<'_, PyAny>,
    arguments: &[Bound<'_, PyAny>],
    context: Option<&Bound<'_, PyAny>>,
) -> PyResult<Ref> {
    let py = event_loop.py();
    let mut call = vec![PyFloat::new(py, when).into_any(), callback.clone()];
    call.extend(arguments.iter().cloned());
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "context"), context)?;
    let method = event_loop.getattr(intern!(py, "call_at"))?;
    method.call(PyTuple::new(py, call)?, Some(&keywords)).map(Ref::from)
}

/// The core, with the flags of overridden methods as they are now: they are looked at again when the class, or
/// one of its bases, has been changed (instrumentation does that).
#[inline]
fn overrides<'a>(event_loop: &'a Bound<'_, Core>) -> PyResult<&'a Core> {
    let core = event_loop.get();
    let version = ffi::class_version(event_loop.as_any());
    if version == 0 || version != core.class_version.load(Relaxed) {
        find_overrides(event_loop)?;
    }
    Ok(core)
}

/// Finds out which of `time`, `call_soon` and `call_at` are the user's.
#[cold]
pub(super) fn find_overrides(event_loop: &Bound<'_, Core>) -> PyResult<()> {
    let (py, core) = (event_loop.py(), event_loop.get());
    core.own_clock.store(is_overridden(event_loop, intern!(py, "time"))?, Relaxed);
    core.own_call_soon.store(is_overridden(event_loop, intern!(py, "call_soon"))?, Relaxed);
    core.own_call_at.store(is_overridden(event_loop, intern!(py, "call_at"))?, Relaxed);
    // After the look-ups above, by which the interpreter gives a changed class its new version.
    core.class_version.store(ffi::class_version(event_loop.as_any()), Relaxed);
    Ok(())
}

/// Whether the method `name` is not ours: a subclass's, or one that was set on the class or the loop.
pub(super) fn is_overridden<'py>(
    event_loop: &Bound<'py, Core>,
    name: &Bound<'py, PyString>,
) -> PyResult<bool> {
    let py = event_loop.py();
    let native = py.get_type::<EventLoop>().getattr(name)?;
    if !event_loop.get_type().getattr(name)?.is(&native) {
        return Ok(true);
    }
    match event_loop.getattr_opt(intern!(py, "__dict__"))? {
        Some(attributes) => attributes.contains(name),
        None => Ok(false),
    }
}

fn schedule(
    event_loop: &Bound<'_, Core>,
    when: f64,
    given: Option<Ref>,
    callback: &Bound<'_, PyAny>,
    arguments: &[Bound<'_, PyAny>],
    context: Option<&Bound<'_, PyAny>>,
) -> PyResult<Ref> {
    let py = event_loop.py();
    let core = event_loop.get();
    core.check_closed()?;
    if core.debug() {
        check_thread(event_loop)?;
        callback::check(callback, "call_at")?;
    }
    let base = Handle::new(event_loop, callback, arguments, context)?;
    let timer = TimerHandle::new(when, given);
    let handle = Bound::new(py, PyClassInitializer::from(base).add_subclass(timer))?;
    let entry = Entry::Handle(handle.as_super().into());
    let token = core.engine.borrow_mut().timers.insert(Timestamp::from_seconds(when), entry);
    handle.get().set_token(token);
    Ok(Ref::from(handle.into_any()))
}

fn create_task<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    task::create_fast(ffi::cast_known::<Core>(slf), arguments).map(Ref::from)
}

fn get_debug<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    arguments.none("get_debug")?;
    let debug = ffi::cast_known::<Core>(slf).get().debug();
    Ok(PyBool::new(slf.py(), debug).to_owned().into_any().into())
}

fn time<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    arguments.none("time")?;
    let now = ffi::cast_known::<Core>(slf).get().clock.now();
    Ok(PyFloat::new(slf.py(), now.as_seconds()).into_any().into())
}

fn create_future<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    arguments.none("create_future")?;
    Core::future(ffi::cast_known::<Core>(slf)).map(Ref::from)
}

/// Debug mode: `RuntimeError` when the loop runs in another thread.
pub(super) fn check_thread(event_loop: &Bound<'_, Core>) -> PyResult<()> {
    let thread = event_loop.get().thread.load(Relaxed);
    if thread == 0 || thread == ffi::thread_ident(event_loop.py()) {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(
        "Non-thread-safe operation invoked on an event loop other than the current one",
    ))
}
