//! What a turn of the loop runs.

use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use crate::ffi::{self, Ref};
use crate::handle::Handle;

/// What a turn runs: the engine's payload.
pub(crate) enum Entry {
    /// A callback of the user's.
    Handle(Ref<Handle>),
    /// A step of an asyncio task, for which nobody can see a handle: so there is none.
    TaskStep { callback: Ref, argument: Option<Ref>, context: Ref },
    /// Something native: `run(object)`. It deals with the errors that it expects; any other is reported as an
    /// exception of a callback, or leaves the loop.
    Native { object: Ref, run: Run },
}

/// What a native entry calls, with the object that it was left with.
pub(crate) type Run = for<'py> fn(&Bound<'py, PyAny>) -> PyResult<()>;

impl Entry {
    #[inline]
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Handle(handle) => Self::Handle(handle.clone_ref(py)),
            Self::TaskStep { callback, argument, context } => Self::TaskStep {
                callback: callback.clone_ref(py),
                argument: argument.as_ref().map(|argument| argument.clone_ref(py)),
                context: context.clone_ref(py),
            },
            Self::Native { object, run } => {
                Self::Native { object: object.clone_ref(py), run: *run }
            }
        }
    }

    pub(super) fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Handle(handle) if ffi::is_hidden(handle) => handle.get().visit_contents(visit),
            Self::Handle(handle) => visit.call(&**handle),
            Self::TaskStep { callback, argument, context } => {
                visit.call(&**callback)?;
                visit.call(&**context)?;
                argument.as_ref().map_or(Ok(()), |argument| visit.call(&**argument))
            }
            Self::Native { object, .. } => visit.call(&**object),
        }
    }
}
