//! What the body of a coroutine waits by: [`Flow`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use oxloop_engine::sys::fd::RawFd;
use oxloop_engine::{Interest, Timestamp, Token};
use pyo3::exceptions::{PyGeneratorExit, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use crate::cell::{LoopCell, Shared, WeakShared};
use crate::core::{Core, Entry};
use crate::error;
use crate::ffi::{self, Ref, Sent};

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

/// What the coroutine of a flow does with it.
impl Flow {
    /// Leaves what was thrown in for the innermost wait, which is resumed then.
    pub(super) fn throw(&self, error: Option<PyErr>) {
        self.0.borrow_mut().thrown = error;
    }

    /// What the innermost wait has yielded.
    pub(super) fn take_yielded(&self) -> Option<Ref> {
        self.0.borrow_mut().yielded.take()
    }

    /// The iterator of the innermost wait.
    pub(super) fn awaited<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let awaited = self.0.borrow().awaited.as_ref().and_then(WeakShared::upgrade);
        awaited.map(|awaited| awaited.bind(py).clone())
    }

    /// Shows the garbage collector what is kept.
    pub(super) fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(exchange) = self.0.try_borrow() else { return Ok(()) };
        for kept in &exchange.kept {
            if let Some(kept) = kept.upgrade() {
                kept.visit(visit)?;
            }
        }
        Ok(())
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
