//! What a handle runs: a callback and its arguments.

use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyTuple;

use super::Handle;
use crate::ffi::{self, Ref};

/// The most arguments that stand in a handle itself.
const INLINE: usize = 3;

/// The arguments of a callback.
enum Arguments {
    Inline { values: [Option<Ref>; INLINE] },
    Tuple(Ref<PyTuple>),
}

impl Arguments {
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

/// A callback and its arguments. Up to three of these stand in it, more are kept in a tuple.
pub(super) struct Call {
    callback: Ref,
    arguments: Arguments,
}

impl Call {
    pub(super) fn new(
        callback: &Bound<'_, PyAny>,
        arguments: &[Bound<'_, PyAny>],
    ) -> PyResult<Self> {
        Ok(Self { callback: callback.into(), arguments: Arguments::new(arguments)? })
    }

    #[inline]
    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { callback: self.callback.clone_ref(py), arguments: self.arguments.clone_ref(py) }
    }

    #[inline]
    pub(super) fn invoke(&self, py: Python<'_>) -> PyResult<()> {
        let callback = self.callback.bind(py);
        match &self.arguments {
            Arguments::Inline { values: [None, ..] } => ffi::call(callback, &[]),
            Arguments::Inline { values: [Some(first), None, _] } => {
                ffi::call(callback, &[first.bind(py)])
            }
            Arguments::Inline { values: [Some(first), Some(second), None] } => {
                ffi::call(callback, &[first.bind(py), second.bind(py)])
            }
            Arguments::Inline { values: [Some(first), Some(second), Some(third)] } => {
                ffi::call(callback, &[first.bind(py), second.bind(py), third.bind(py)])
            }
            Arguments::Tuple(tuple) => callback.call1(tuple.bind(py)),
        }
        .map(drop)
    }

    pub(super) fn callback<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.callback.bind(py)
    }

    pub(super) fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.arguments.to_tuple(py)
    }

    /// For the garbage collector.
    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.callback)?;
        match &self.arguments {
            Arguments::Inline { values } => {
                values.iter().flatten().try_for_each(|value| visit.call(&**value))
            }
            Arguments::Tuple(tuple) => visit.call(&**tuple),
        }
    }

    /// Drops it. A handle whose argument is a handle, and so on, is freed link by link: the interpreter would recurse,
    /// and overflow the stack before Python 3.14.
    #[inline]
    pub(super) fn free(self) {
        let Arguments::Inline { values: [Some(_), ..] } = &self.arguments else { return };
        Python::attach(|py| {
            let mut calls = vec![];
            self.arguments.take_calls(py, &mut calls);
            drop(self);
            while let Some(call) = calls.pop() {
                call.arguments.take_calls(py, &mut calls);
            }
        });
    }
}
