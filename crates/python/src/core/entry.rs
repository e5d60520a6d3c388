//! What a turn of the loop runs.

use oxloop_engine::proactor;
use oxloop_engine::sys::fd::OwnedFd;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use crate::buffer::Chunk;
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
    /// Something native that is given what has come: `run(object, arrival)`. Errors are those of `Native`.
    Arrival { object: Ref, run: Receive, arrival: Arrival },
}

/// What a native entry calls, with the object that it was left with.
pub(crate) type Run = for<'py> fn(&Bound<'py, PyAny>) -> PyResult<()>;

/// What a native entry calls that is given what has come.
pub(crate) type Receive = for<'py> fn(&Bound<'py, PyAny>, Arrival) -> PyResult<()>;

/// What has come by a descriptor.
pub(crate) enum Arrival {
    /// Something: the descriptor is readable, and whoever is told reads.
    Readable,
    /// Data in a buffer of the loop's, to be taken out ([`Core::take_data`](super::Core::take_data)). Where it
    /// `is_much` at a time, who reads does better to ask for [`Reader::MuchData`].
    Data { chunk: proactor::Chunk, is_much: bool },
    /// Data from a pipe that has no readiness.
    Filled(Box<Filled>),
    /// What has become of what was to be written to such a pipe.
    Written(Box<Written>),
    /// A connection.
    Connection(OwnedFd),
    /// Nothing any more: the peer sends no more.
    End,
    /// An error of the kernel, by its number. Nothing comes after it.
    Failed(i32),
}

/// Data from a pipe.
pub(crate) struct Filled {
    /// Goes back to the loop: [`Core::give_back`](super::Core::give_back).
    pub(crate) buffer: Box<[u8]>,
    /// How many of its bytes are data.
    pub(crate) count: usize,
}

/// What was to be written to a pipe.
pub(crate) struct Written {
    pub(crate) chunks: Vec<Chunk>,
    /// How many of their bytes have gone.
    pub(crate) count: usize,
}

/// What whoever reads wants to be told.
#[derive(Clone, Copy)]
pub(crate) enum Reader {
    /// That the descriptor is readable.
    Readable(Run),
    /// That there is something to read: it reads all there is, or says that it has not
    /// ([`Core::hurry`](super::Core::hurry)).
    All(Run),
    /// What data has come.
    Data(Receive),
    /// That there is something to read, as it is not known yet how much data comes at a time.
    SomeData(Receive),
    /// That there is something to read, as of `All`, as much is expected; and what data had come before.
    MuchData(Receive),
    /// What connections have come.
    Connections(Receive),
    /// What data has come from a pipe that has no readiness: once, until it asks again.
    Pipe(Receive),
}

impl Reader {
    /// The entry by which `object` is told.
    pub(super) fn entry(self, object: Ref) -> Entry {
        match self {
            Self::Readable(run) | Self::All(run) => Entry::Native { object, run },
            Self::Data(run)
            | Self::SomeData(run)
            | Self::MuchData(run)
            | Self::Connections(run)
            | Self::Pipe(run) => Entry::Arrival { object, run, arrival: Arrival::Readable },
        }
    }
}

impl Entry {
    /// The same for what has come now; the arrival back from an entry that takes none.
    #[inline]
    pub(super) fn arrived(&self, py: Python<'_>, arrival: Arrival) -> Result<Self, Arrival> {
        match self {
            Self::Arrival { object, run, .. } => {
                Ok(Self::Arrival { object: object.clone_ref(py), run: *run, arrival })
            }
            _ => Err(arrival),
        }
    }

    /// The same once more, for what is readable now.
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
            Self::Arrival { object, run, .. } => Self::Arrival {
                object: object.clone_ref(py),
                run: *run,
                arrival: Arrival::Readable,
            },
        }
    }

    /// To be called when the entry leaves a queue, or the loop does not run any longer: the garbage collector is to see
    /// what others refer to, too.
    #[inline]
    pub(crate) fn show(&self) {
        if let Self::Handle(handle) = self {
            ffi::show_if_shared(handle);
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
            Self::Native { object, .. } | Self::Arrival { object, .. } => visit.call(&**object),
        }
    }
}
