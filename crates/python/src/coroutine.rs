//! Flows that wait: Rust `async fn`s that Python sees as coroutines.
//!
//! `loop.sock_recv`, `create_connection` and their like are written as `async fn`s over a [`Flow`]. The
//! task that awaits one drives it step by step, as it drives a Python coroutine: there is no executor and no
//! waker, because everything a flow waits for is an asyncio future (or another awaitable) that it yields to
//! the task. An exception that the task throws in (a cancellation) comes out of the innermost wait as its
//! error and travels up by `?`; what a flow holds is released by dropping it. So a flow behaves exactly as
//! the Python code would, also when it is driven by hand or closed half way.

use std::ffi::CString;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use oxloop_engine::{Interest, Timestamp, Token};
use pyo3::exceptions::{
    PyBaseException, PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration,
    PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyType;

use crate::cell::{LoopCell, Shared, WeakShared};
use crate::core::{Core, Entry};
use crate::error;
use crate::ffi::{self, Finalize, Ref, Sent};

/// The body of a flow.
type Body = Pin<Box<dyn Future<Output = PyResult<Ref>>>>;

/// A reference that a flow holds and that the garbage collector can see: one that is shared between the flow's
/// body, which nobody can look into, and the list of its coroutine.
pub(crate) type Kept<T = PyAny> = Shared<Ref<T>>;

/// What the collector is shown of a [`Kept`], whatever its class.
trait Visible {
    fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError>;
}

impl<T> Visible for Ref<T> {
    fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&**self)
    }
}

/// What a flow and the one that resumes it tell each other.
#[derive(Default)]
struct Exchange {
    /// What the flow holds, for the garbage collector. Entries die with their last holder.
    kept: Vec<WeakShared<dyn Visible>>,
    /// What was thrown in at the last resumption, for the innermost wait to take.
    thrown: Option<PyErr>,
    /// What the innermost wait yields, for the resumption to return.
    yielded: Option<Ref>,
    /// The iterator of the innermost wait, while there is one.
    awaited: Option<WeakShared<Ref>>,
}

/// A flow's own means to wait.
#[derive(Clone, Default)]
pub(crate) struct Flow(Shared<LoopCell<Exchange>>);

impl Flow {
    /// Holds `object` where the garbage collector sees it.
    pub(crate) fn keep<T: 'static>(&self, object: impl Into<Ref<T>>) -> Kept<T> {
        let kept: Kept<T> = Shared::new(object.into());
        self.show(&kept);
        kept
    }

    /// Shows the garbage collector what was made to be kept before there was a flow.
    pub(crate) fn show<T: 'static>(&self, kept: &Kept<T>) {
        let visible: Shared<dyn Visible> = kept.clone();
        let list = &mut self.0.borrow_mut().kept;
        if list.len() == list.capacity() {
            list.retain(|entry| entry.strong_count() > 0);
        }
        list.push(Shared::downgrade(&visible));
    }

    /// Waits for an awaitable of Python's, as `await` does.
    ///
    /// The awaitable is taken: what is left of it is its iterator, which the garbage collector sees. A caller
    /// that needs it afterwards keeps it ([`keep`](Self::keep)).
    pub(crate) fn wait(&self, awaitable: Ref) -> impl Future<Output = PyResult<Ref>> + use<> {
        let iterator = Python::attach(|py| iterator_of(awaitable.bind(py)));
        drop(awaitable);
        let flow = self.clone();
        async move {
            let iterator: Kept = flow.keep(iterator?);
            flow.0.borrow_mut().awaited = Some(Shared::downgrade(&iterator));
            Wait { flow, iterator }.await
        }
    }

    /// The same for something that is kept.
    pub(crate) fn wait_kept(
        &self,
        awaitable: &Kept,
    ) -> impl Future<Output = PyResult<Ref>> + use<> {
        self.wait(Python::attach(|py| awaitable.clone_ref(py)))
    }

    /// Lets the loop make one turn: `await asyncio.sleep(0)`.
    pub(crate) async fn turn(&self) -> PyResult<()> {
        Turn { flow: self.clone(), yielded: false }.await
    }

    /// Waits until `fd` is ready in `direction`.
    pub(crate) async fn ready(
        &self,
        core: &Kept<Core>,
        fd: RawFd,
        direction: Interest,
    ) -> PyResult<()> {
        let (watching, future) = Python::attach(|py| {
            let future = self.keep(Core::future(core.bind(py))?);
            let entry = Entry::Native { object: future.clone_ref(py), run: resolve };
            let replaced = core.get().watch(py, fd, direction, entry)?;
            drop(replaced);
            let watching = Watching { core: core.clone(), fd, direction, future: future.clone() };
            Ok::<_, PyErr>((watching, future))
        })?;
        let waited = self.wait_kept(&future).await;
        drop(watching);
        waited.map(drop)
    }

    /// Waits for `future`, which something else resolves, until `deadline` at the latest.
    pub(crate) async fn wait_until(
        &self,
        core: &Kept<Core>,
        future: &Kept,
        deadline: Option<Timestamp>,
    ) -> PyResult<()> {
        let timer = deadline.map(|deadline| {
            Python::attach(|py| {
                let object = future.clone_ref(py);
                let token = core.get().push_timer(deadline, object, resolve);
                Timer { core: core.clone(), token }
            })
        });
        let waited = self.wait_kept(future).await;
        drop(timer);
        waited.map(drop)
    }
}

/// Resolves a future that nobody has resolved or cancelled yet.
pub(crate) fn resolve(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if !ffi::call_method(future, intern!(py, "done"), &[])?.is_truthy()? {
        ffi::call_method(future, intern!(py, "set_result"), &[py.None().bind(py)])?;
    }
    Ok(())
}

/// What `await` iterates over: the coroutine itself, a generator that was marked as one, or what `__await__`
/// gives (PEP 492).
fn iterator_of(awaitable: &Bound<'_, PyAny>) -> PyResult<Ref> {
    const CO_ITERABLE_COROUTINE: u32 = 0x100;
    let py = awaitable.py();
    if let Some(await_method) = awaitable.get_type().getattr_opt(intern!(py, "__await__"))? {
        return ffi::call(&await_method, &[awaitable]).map(Ref::from);
    }
    if let Some(code) = awaitable.getattr_opt(intern!(py, "gi_code"))?
        && code.getattr(intern!(py, "co_flags"))?.extract::<u32>()? & CO_ITERABLE_COROUTINE != 0
    {
        return Ok(awaitable.into());
    }
    let class = awaitable.get_type().name()?;
    Err(PyTypeError::new_err(if py.version_info() >= (3, 14) {
        format!("'{class}' object can't be awaited")
    } else {
        format!("object {class} can't be used in 'await' expression")
    }))
}

/// A timer of a flow, cancelled when the flow no longer waits for it.
struct Timer {
    core: Kept<Core>,
    token: Token,
}

impl Drop for Timer {
    fn drop(&mut self) {
        let entry = self.core.get().cancel_timer(self.token);
        drop(entry);
    }
}

/// A descriptor that a flow waits for; watched until the flow no longer does.
struct Watching {
    core: Kept<Core>,
    fd: RawFd,
    direction: Interest,
    future: Kept,
}

impl Drop for Watching {
    fn drop(&mut self) {
        Python::attach(|py| {
            // Not if somebody else watches the descriptor by now.
            let ours = self.future.as_ptr();
            ffi::keep_exception(py, || {
                match self.core.get().unwatch_object(py, self.fd, self.direction, ours) {
                    Ok(entry) => drop(entry),
                    Err(error) => error.write_unraisable(py, None),
                }
            });
        });
    }
}

/// A bare yield, after which the task comes back in the next turn.
struct Turn {
    flow: Flow,
    yielded: bool,
}

impl Future for Turn {
    type Output = PyResult<()>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let mut exchange = self.flow.0.borrow_mut();
        if let Some(error) = exchange.thrown.take() {
            return Poll::Ready(Err(error));
        }
        if self.yielded {
            return Poll::Ready(Ok(()));
        }
        exchange.yielded = Some(Python::attach(|py| py.None().into()));
        drop(exchange);
        self.yielded = true;
        Poll::Pending
    }
}

/// A wait for an awaitable's iterator.
struct Wait {
    flow: Flow,
    iterator: Kept,
}

impl Future for Wait {
    type Output = PyResult<Ref>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Python::attach(|py| {
            let iterator = self.iterator.bind(py);
            let thrown = self.flow.0.borrow_mut().thrown.take();
            let sent = match thrown {
                None => ffi::send_none(iterator),
                Some(error) => throw_into(iterator, error),
            };
            match sent {
                Ok(Sent::Yielded(value)) => {
                    let before = self.flow.0.borrow_mut().yielded.replace(value.into());
                    drop(before);
                    Poll::Pending
                }
                Ok(Sent::Returned(value)) => Poll::Ready(Ok(value.into())),
                Err(error) => Poll::Ready(Err(error)),
            }
        })
    }
}

/// Raises `error` in what is awaited. `GeneratorExit` closes it instead (PEP 380), since the collector may have
/// ended it already.
fn throw_into<'py>(iterator: &Bound<'py, PyAny>, error: PyErr) -> PyResult<Sent<'py>> {
    let py = iterator.py();
    if error.is_instance_of::<PyGeneratorExit>(py) {
        if let Some(close) = iterator.getattr_opt(intern!(py, "close"))? {
            close.call0()?;
        }
        return Err(error);
    }
    let Some(throw) = iterator.getattr_opt(intern!(py, "throw"))? else { return Err(error) };
    match throw.call1((error::exception(py, &error),)) {
        Ok(value) => Ok(Sent::Yielded(value)),
        Err(error) => ffi::returned(py, error),
    }
}

/// How far a flow has come.
enum State {
    Created(Body),
    Running,
    Suspended(Body),
    Finished,
}

/// A coroutine that is written in Rust; what the waiting methods of a loop return.
#[pyclass(frozen, weakref, module = "oxloop._native", name = "Coroutine")]
pub(crate) struct Coroutine {
    name: &'static str,
    state: LoopCell<State>,
    flow: LoopCell<Flow>,
}

impl Coroutine {
    /// A coroutine with the qualified name `name` whose body is what `start` makes of its flow.
    pub(crate) fn spawn<'py, F>(
        py: Python<'py>,
        name: &'static str,
        start: impl FnOnce(Flow) -> F,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        F: Future<Output = PyResult<Ref>> + 'static,
    {
        let flow = Flow::default();
        let body: Body = Box::pin(start(flow.clone()));
        let coroutine =
            Self { name, state: LoopCell::new(State::Created(body)), flow: LoopCell::new(flow) };
        Ok(Bound::new(py, coroutine)?.into_any())
    }

    /// Runs until the next wait, or to the end.
    fn resume<'py>(&self, py: Python<'py>, thrown: Option<PyErr>) -> PyResult<Sent<'py>> {
        let state = self.state.replace(State::Running);
        let mut body = match (state, thrown) {
            (State::Finished, _) => {
                self.state.set(State::Finished);
                return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
            }
            (State::Running, _) => {
                return Err(PyValueError::new_err("coroutine already executing"));
            }
            (State::Created(body), Some(error)) => {
                self.state.set(State::Finished);
                drop(body);
                return Err(error);
            }
            (State::Created(body), None) => body,
            (State::Suspended(body), thrown) => {
                self.flow.borrow().0.borrow_mut().thrown = thrown;
                body
            }
        };
        let poll = body.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match poll {
            Poll::Ready(result) => {
                self.state.set(State::Finished);
                drop(body);
                result.map(|value| Sent::Returned(value.into_bound(py)))
            }
            Poll::Pending => {
                self.state.set(State::Suspended(body));
                let yielded = self.flow.borrow().0.borrow_mut().yielded.take();
                yielded
                    .map(|value| Sent::Yielded(value.into_bound(py)))
                    .ok_or_else(|| PyRuntimeError::new_err("coroutine waits for nothing"))
            }
        }
    }

    /// The same in the form of a method: a result is a `StopIteration`.
    fn step<'py>(&self, py: Python<'py>, thrown: Option<PyErr>) -> PyResult<Bound<'py, PyAny>> {
        match self.resume(py, thrown)? {
            Sent::Yielded(value) => Ok(value),
            Sent::Returned(value) => Err(PyStopIteration::new_err((value.unbind(),))),
        }
    }
}

#[pymethods]
impl Coroutine {
    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        if matches!(&*slf.get().state.borrow(), State::Suspended(_) | State::Running) {
            return Err(PyRuntimeError::new_err("coroutine is being awaited already"));
        }
        Ok(slf)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.step(py, None)
    }

    /// Resume with a value, of which only None has a meaning.
    fn send<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if !value.is_none() && matches!(&*self.state.borrow(), State::Created(_)) {
            let message = "can't send non-None value to a just-started coroutine";
            return Err(PyTypeError::new_err(message));
        }
        self.step(py, None)
    }

    /// Raise an exception where the coroutine waits.
    #[pyo3(signature = (exception, value=None, traceback=None))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        exception: &Bound<'py, PyAny>,
        value: Option<&Bound<'py, PyAny>>,
        traceback: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let exception = match (exception.cast::<PyType>(), value) {
            (Ok(class), None) => class.call0()?,
            (Ok(class), Some(value)) if value.is_instance(class)? => value.clone(),
            (Ok(class), Some(value)) => class.call1((value,))?,
            (Err(_), _) if !exception.is_instance_of::<PyBaseException>() => {
                return Err(PyTypeError::new_err(format!(
                    "exceptions must be classes or instances deriving from BaseException, not {}",
                    exception.get_type().name()?
                )));
            }
            (Err(_), _) => exception.clone(),
        };
        if let Some(traceback) = traceback
            && !traceback.is_none()
        {
            exception.setattr(intern!(py, "__traceback__"), traceback)?;
        }
        self.step(py, Some(PyErr::from_value(exception)))
    }

    /// Give up where the coroutine waits, and release what it holds.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if matches!(&*self.state.borrow(), State::Created(_) | State::Finished) {
            let state = self.state.replace(State::Finished);
            drop(state);
            return Ok(());
        }
        match self.resume(py, Some(PyGeneratorExit::new_err(()))) {
            Ok(Sent::Yielded(_)) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
            Ok(Sent::Returned(_)) => Ok(()),
            Err(error) if error.is_instance_of::<PyGeneratorExit>(py) => Ok(()),
            Err(error) => Err(error),
        }
    }

    #[getter]
    fn __name__(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, name)| name)
    }

    #[getter]
    fn __qualname__(&self) -> &'static str {
        self.name
    }

    #[getter]
    fn cr_running(&self) -> bool {
        matches!(&*self.state.borrow(), State::Running)
    }

    #[getter]
    fn cr_suspended(&self) -> bool {
        matches!(&*self.state.borrow(), State::Suspended(_))
    }

    #[getter]
    fn cr_await<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if !matches!(&*self.state.borrow(), State::Suspended(_)) {
            return None;
        }
        let awaited = self.flow.borrow().0.borrow().awaited.as_ref().and_then(WeakShared::upgrade);
        awaited.map(|awaited| awaited.bind(py).clone())
    }

    #[getter]
    fn cr_code(&self) -> Option<Py<PyAny>> {
        None
    }

    #[getter]
    fn cr_origin(&self) -> Option<Py<PyAny>> {
        None
    }

    #[getter]
    fn cr_frame(&self) -> Option<Py<PyAny>> {
        None
    }

    #[allow(clippy::needless_pass_by_value)] // the visitor's signature is PyO3's
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(flow) = self.flow.try_borrow() else { return Ok(()) };
        let Some(exchange) = flow.0.try_borrow() else { return Ok(()) };
        for kept in &exchange.kept {
            if let Some(kept) = kept.upgrade() {
                kept.visit(visit)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        if !matches!(&*self.state.borrow(), State::Running) {
            self.abandon();
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        format!("<coroutine object {} at {:p}>", slf.get().name, slf.as_ptr())
    }
}

impl Coroutine {
    /// Ends a coroutine that nobody will resume: one that waits gets `GeneratorExit`, so that it can put back
    /// what it took; one that was never started is reported, as the interpreter reports its own.
    fn abandon(&self) {
        Python::attach(|py| {
            ffi::keep_exception(py, || {
                let never_awaited = match &*self.state.borrow() {
                    State::Created(_) => true,
                    State::Suspended(_) => false,
                    State::Running | State::Finished => return,
                };
                let result = if never_awaited {
                    let state = self.state.replace(State::Finished);
                    drop(state);
                    self.warn_never_awaited(py)
                } else {
                    self.close(py)
                };
                if let Err(error) = result {
                    error.write_unraisable(py, None);
                }
            });
        });
    }

    fn warn_never_awaited(&self, py: Python<'_>) -> PyResult<()> {
        let message = CString::new(format!("coroutine '{}' was never awaited", self.name));
        let category = py.get_type::<PyRuntimeWarning>();
        PyErr::warn(py, &category, &message.unwrap_or_default(), 1)
    }
}

impl Finalize for Coroutine {
    fn finalize(slf: &Bound<'_, Self>) {
        slf.get().abandon();
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        self.abandon();
    }
}
