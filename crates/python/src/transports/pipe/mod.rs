//! Pipe transports: one end of a pipe, a FIFO, a socket or a character device.
//!
//! The two classes share their base, as they share their life: *open*, *closing* (nothing is read any more,
//! the write buffer drains), *lost* (`connection_lost` is queued), and *closed* (the file object is). What
//! surprised us: a pipe has nobody to ask whether its reader is still there. So the writing end is watched
//! for reading, which a pipe without a reader always is (`EPOLLERR`), and asyncio takes whatever can be read
//! there, data of a socket included, for the end.

mod duplex;
mod operated;
mod reading;
mod stages;
mod writing;

use std::collections::VecDeque;

use oxloop_engine::sys;
use oxloop_engine::sys::fd::{BorrowedFd, RawFd};
use oxloop_engine::write_queue::WriteQueue;
use pyo3::exceptions::{PyNotImplementedError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;

use crate::buffer::Chunk;
use crate::cell::{LoopCell, Made};
use crate::core::Core;
use crate::error::os_error;
use crate::ffi::{self, Ref};
use crate::poller::Poller;
use crate::transports::endpoint::{self, Endpoint, Life, Piece, endpoint_methods, polling};
use crate::transports::protocol;
use crate::transports::watch::Watch;

pub(crate) use duplex::DuplexPipeTransport;
pub(crate) use writing::methods;

/// Which end of the pipe a transport has.
#[derive(Copy, Clone, Eq, PartialEq)]
enum End {
    Reading,
    Writing,
    /// A pipe that goes both ways.
    Both,
}

/// What changes in the life of a transport.
pub(super) struct State {
    /// The user's file object; `None` once it is closed.
    pipe: Option<Ref>,
    life: Life,
    /// What has been written and not yet sent.
    queue: WriteQueue<Chunk>,
    /// How many bytes are being written; always 0 of a pipe that has readiness.
    in_flight: usize,
    /// What was read after reading was paused, of a pipe that has no readiness.
    held: VecDeque<Piece>,
}

/// The base of the two transports; not to be used by itself.
#[pyclass(frozen, dict, weakref, subclass, module = "oxloop._native", name = "_PipeTransport")]
pub(crate) struct PipeTransport {
    made: Made,
    core: Ref<Core>,
    end: End,
    /// What the descriptor is open on.
    kind: sys::pipe::Kind,
    /// Whether it has no readiness, and is read from and written to by operations.
    operated: bool,
    /// Whether writing to a pipe without a reader would end the process.
    sigpipe_kills: bool,
    watch: Watch,
    state: LoopCell<State>,
}

/// The reading end of a pipe.
///
/// Source: asyncio's documentation, "Transports and Protocols".
#[pyclass(frozen, extends = PipeTransport, module = "oxloop._native")]
pub(crate) struct ReadPipeTransport;

/// The writing end of a pipe.
///
/// Source: asyncio's documentation, "Transports and Protocols".
#[pyclass(frozen, subclass, extends = PipeTransport, module = "oxloop._native")]
pub(crate) struct WritePipeTransport;

/// What a transport is made of.
pub(crate) struct Opening<'a, 'py> {
    pub(crate) pipe: &'a Bound<'py, PyAny>,
    pub(crate) protocol: &'a Bound<'py, PyAny>,
    pub(crate) waiter: Option<&'a Bound<'py, PyAny>>,
}

/// What makes a transport: [`ReadPipeTransport::open`] or [`WritePipeTransport::open`].
pub(crate) type Open =
    for<'py> fn(&Bound<'py, Core>, &Opening<'_, 'py>) -> PyResult<Bound<'py, PyAny>>;

impl PipeTransport {
    /// Queues the `connection_made` of a transport of any kind.
    fn begin<'py>(
        core: &Bound<'py, Core>,
        transport: Bound<'py, PyAny>,
        made: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        protocol::queue_made(core, &transport, made, endpoint::opened::<Self>, None)?;
        Ok(transport)
    }
}

impl ReadPipeTransport {
    /// Makes a transport that reads and queues its `connection_made`. `ValueError` for a regular file; on Windows its
    /// first read fails.
    pub(crate) fn open<'py>(
        core: &Bound<'py, Core>,
        opening: &Opening<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (base, made) = PipeTransport::new(core, opening, End::Reading)?;
        let transport = Bound::new(core.py(), PyClassInitializer::from(base).add_subclass(Self))?;
        PipeTransport::begin(core, transport.into_any(), &made)
    }
}

impl WritePipeTransport {
    /// Makes a transport that writes and queues its `connection_made`. `ValueError` for a regular file, on Windows
    /// `OSError` for whatever is not overlapped.
    pub(crate) fn open<'py>(
        core: &Bound<'py, Core>,
        opening: &Opening<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (base, made) = PipeTransport::new(core, opening, End::Writing)?;
        let transport = Bound::new(core.py(), PyClassInitializer::from(base).add_subclass(Self))?;
        PipeTransport::begin(core, transport.into_any(), &made)
    }
}

impl PipeTransport {
    /// A transport, and its protocol's `connection_made`.
    fn new<'py>(
        core: &Bound<'py, Core>,
        opening: &Opening<'_, 'py>,
        end: End,
    ) -> PyResult<(Self, Bound<'py, PyAny>)> {
        let py = core.py();
        core.get().check_closed()?;
        // What is no protocol is found out before anything is made.
        let made = opening.protocol.getattr(intern!(py, "connection_made"))?;
        let fd: RawFd = opening.pipe.call_method0(intern!(py, "fileno"))?.extract()?;
        let kind = prepare(core.get(), fd, end)?;
        let extra = PyDict::new(py);
        extra.set_item(intern!(py, "pipe"), opening.pipe)?;
        let state = State {
            pipe: Some(opening.pipe.into()),
            life: Life::new(opening.protocol, opening.waiter, extra),
            queue: WriteQueue::new(),
            in_flight: 0,
            held: VecDeque::new(),
        };
        let transport = Self {
            made: Made::new(),
            core: core.into(),
            end,
            kind,
            operated: is_operated(kind),
            sigpipe_kills: end == End::Writing && sys::sigpipe::would_kill(),
            watch: Watch::new(py, fd, None)?,
            state: LoopCell::new(state),
        };
        Ok((transport, made))
    }

    /// Whether it is read from and written to by operations; known to the compiler where no pipe is.
    #[inline]
    fn is_operated(&self) -> bool {
        sys::pipe::COMPLETES && self.operated
    }

    /// The descriptor, unless the pipe was closed.
    fn open_fd<'a>(&self) -> Option<BorrowedFd<'a>> {
        if self.state.borrow().pipe.is_none() { None } else { ffi::borrow_fd(self.watch.fd()) }
    }

    fn own_text(&self) -> String {
        let state = self.state.borrow();
        let fd = self.watch.fd();
        let name = match self.end {
            End::Reading => "ReadPipeTransport",
            End::Writing => "WritePipeTransport",
            End::Both => "DuplexPipeTransport",
        };
        if state.pipe.is_none() {
            return format!("<{name} closed fd={fd} closed>");
        }
        let closing = if state.life.phase.is_closing() { " closing" } else { "" };
        if matches!(*self.core.get().poller.borrow(), Poller::Closed) {
            return format!("<{name}{closing} fd={fd} open>");
        }
        match self.end {
            End::Reading => {
                format!("<{name}{closing} fd={fd} {}>", polling(self.watch.reads()))
            }
            End::Writing | End::Both => {
                let size = endpoint::State::size(&*state);
                let polling = polling(self.watch.writes());
                format!("<{name}{closing} fd={fd} {polling} bufsize={size}>")
            }
        }
    }
}

/// Whether it is read from and written to by operations: what cannot be is told so by the first one.
const fn is_operated(kind: sys::pipe::Kind) -> bool {
    sys::pipe::COMPLETES && matches!(kind, sys::pipe::Kind::Fifo | sys::pipe::Kind::Other)
}

/// Checks what `fd` is open on, and makes it non-blocking.
fn prepare(core: &Core, fd: RawFd, end: End) -> PyResult<sys::pipe::Kind> {
    let Some(descriptor) = ffi::borrow_fd(fd) else {
        return Err(os_error(&std::io::Error::from_raw_os_error(sys::os_error::EBADF)));
    };
    let kind = sys::pipe::kind(descriptor).map_err(|error| os_error(&error))?;
    if is_operated(kind) {
        check_operations(core, "pipes")?;
        if end != End::Reading {
            sys::pipe::check_overlapped(descriptor).map_err(|error| os_error(&error))?;
        }
        return Ok(kind);
    }
    if kind == sys::pipe::Kind::Other {
        return Err(PyValueError::new_err(match end {
            End::Reading => "Pipe transport is for pipes/sockets only.",
            End::Writing | End::Both => {
                "Pipe transport is only for pipes, sockets and character devices"
            }
        }));
    }
    sys::pipe::set_nonblocking(descriptor).map_err(|error| os_error(&error))?;
    Ok(kind)
}

/// `NotImplementedError`, as asyncio has it, on a loop that waits in a selector where `what` has no readiness.
pub(crate) fn check_operations(core: &Core, what: &str) -> PyResult<()> {
    if !sys::pipe::COMPLETES || core.has_proactor() {
        return Ok(());
    }
    let message = format!("this event loop waits in a selector, which knows no {what} on Windows");
    Err(PyNotImplementedError::new_err(message))
}

endpoint_methods!(PipeTransport);

#[pymethods]
impl PipeTransport {
    /// Information about the transport: "pipe".
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let extra = slf.get().state.borrow().life.extra.clone_ref(slf.py());
        Ok(extra.bind(slf.py()).get_item(name)?.or(default))
    }

    /// Whether the transport is closing or closed.
    fn is_closing(&self) -> bool {
        self.state.borrow().life.phase.is_closing()
    }

    /// Change the protocol.
    fn set_protocol(&self, protocol: &Bound<'_, PyAny>) {
        let before = self.state.borrow_mut().life.protocol.replace(protocol.into());
        drop(before);
    }

    #[getter]
    fn _fileno(&self) -> RawFd {
        self.watch.fd()
    }

    #[getter]
    fn _pipe<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.borrow().pipe.as_ref().map(|pipe| pipe.bind(py).clone())
    }

    /// None makes the transport forget a pipe that was closed behind its back.
    #[setter(_pipe)]
    fn set_pipe(&self, pipe: Option<&Bound<'_, PyAny>>) {
        let pipe = pipe.map(Ref::from);
        let before = std::mem::replace(&mut self.state.borrow_mut().pipe, pipe);
        drop(before);
    }

    fn __repr__(&self) -> String {
        self.text()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        self.watch.visit(&visit)?;
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        state.life.visit(&visit)?;
        state.pipe.as_ref().map_or(Ok(()), |pipe| visit.call(&**pipe))
    }

    fn __clear__(&self) {
        let taken = self.state.borrow_mut().life.clear();
        drop(taken);
    }
}

impl Drop for PipeTransport {
    /// A transport that was dropped without having been closed: its pipe is closed here, with a warning.
    fn drop(&mut self) {
        endpoint::dropped(self);
    }
}
