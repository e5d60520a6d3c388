//! Flows that wait: Rust `async fn`s that Python sees as coroutines.
//!
//! `loop.sock_recv`, `create_connection` and their like are written as `async fn`s over a [`Flow`]. The
//! task that awaits one drives it step by step, as it drives a Python coroutine: there is no executor and no
//! waker, because everything a flow waits for is an asyncio future (or another awaitable) that it yields to
//! the task. An exception that the task throws in (a cancellation) comes out of the innermost wait as its
//! error and travels up by `?`; what a flow holds is released by dropping it. So a flow behaves exactly as
//! the Python code would, also when it is driven by hand or closed half way.

mod flow;

use std::ffi::CString;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::{
    PyBaseException, PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration,
    PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyType;

use crate::cell::LoopCell;
use crate::ffi::{self, Finalize, Ref, Sent};

pub(crate) use flow::{Flow, Kept, resolve};

/// The body of a flow.
type Body = Pin<Box<dyn Future<Output = PyResult<Ref>>>>;

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
                self.flow.borrow().throw(thrown);
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
                let yielded = self.flow.borrow().take_yielded();
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
        self.flow.borrow().awaited(py)
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.flow.try_borrow().map_or(Ok(()), |flow| flow.visit(visit))
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
