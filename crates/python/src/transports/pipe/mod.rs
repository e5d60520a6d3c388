//! Pipe transports: one end of a pipe, a FIFO, a socket or a character device.
//!
//! The two classes share their base, as they share their life: *open*, *closing* (nothing is read any more,
//! the write buffer drains), *lost* (`connection_lost` is queued), and *closed* (the file object is). What
//! surprised us: a pipe has nobody to ask whether its reader is still there. So the writing end is watched
//! for reading, which a pipe without a reader always is (`EPOLLERR`), and asyncio takes whatever can be read
//! there, data of a socket included, for the end.

mod closing;
mod reading;
mod writing;

use std::os::fd::{BorrowedFd, RawFd};

use oxloop_engine::flow::FlowControl;
use oxloop_engine::sys;
use oxloop_engine::write_queue::WriteQueue;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;

use crate::buffer::Chunk;
use crate::cell::{LoopCell, Made};
use crate::core::Core;
use crate::coroutine;
use crate::error::os_error;
use crate::ffi::{self, Ref};
use crate::poller::Poller;
use crate::report;
use crate::transports::phase::Phase;
use crate::transports::protocol;
use crate::transports::watch::Watch;

pub(crate) use writing::methods;

/// Which end of the pipe a transport has.
#[derive(Copy, Clone, Eq, PartialEq)]
enum End {
    Reading,
    Writing,
}

/// What changes in the life of a transport.
struct State {
    /// The user's file object; `None` once it is closed.
    pipe: Option<Ref>,
    /// `None` once `connection_lost` has been called.
    protocol: Option<Ref>,
    /// What has been written and not yet sent.
    queue: WriteQueue<Chunk>,
    flow: FlowControl,
    phase: Phase,
    /// How often something was written in vain.
    lost_writes: u32,
    /// Resolved when the connection is made; taken then.
    waiter: Option<Ref>,
    /// What `get_extra_info` knows.
    extra: Ref<PyDict>,
}

/// The base of the two transports; not to be used by itself.
#[pyclass(frozen, dict, weakref, subclass, module = "oxloop._native", name = "_PipeTransport")]
pub(crate) struct PipeTransport {
    made: Made,
    core: Ref<Core>,
    end: End,
    /// What the descriptor is open on.
    kind: sys::pipe::Kind,
    /// Whether writing to a pipe without a reader would end the process.
    sigpipe_kills: bool,
    /// The descriptor's number, kept for the text of the transport when it is closed.
    fd: RawFd,
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
#[pyclass(frozen, extends = PipeTransport, module = "oxloop._native")]
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

impl ReadPipeTransport {
    /// Makes a transport that reads and queues its `connection_made`. `ValueError` for a regular file.
    pub(crate) fn open<'py>(
        core: &Bound<'py, Core>,
        opening: &Opening<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (base, made) = PipeTransport::new(core, opening, End::Reading)?;
        let transport = Bound::new(core.py(), PyClassInitializer::from(base).add_subclass(Self))?;
        protocol::queue_made(core, transport.as_any(), &made, opened)?;
        Ok(transport.into_any())
    }
}

impl WritePipeTransport {
    /// Makes a transport that writes and queues its `connection_made`. `ValueError` for a regular file.
    pub(crate) fn open<'py>(
        core: &Bound<'py, Core>,
        opening: &Opening<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (base, made) = PipeTransport::new(core, opening, End::Writing)?;
        let transport = Bound::new(core.py(), PyClassInitializer::from(base).add_subclass(Self))?;
        protocol::queue_made(core, transport.as_any(), &made, opened)?;
        Ok(transport.into_any())
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
        let kind = prepare(fd, end)?;
        let extra = PyDict::new(py);
        extra.set_item(intern!(py, "pipe"), opening.pipe)?;
        let state = State {
            pipe: Some(opening.pipe.into()),
            protocol: Some(opening.protocol.into()),
            queue: WriteQueue::new(),
            flow: FlowControl::new(),
            phase: Phase::Open,
            lost_writes: 0,
            waiter: opening.waiter.map(Ref::from),
            extra: extra.into(),
        };
        let transport = Self {
            made: Made::new(),
            core: core.into(),
            end,
            kind,
            sigpipe_kills: end == End::Writing && sys::sigpipe::would_kill(),
            fd,
            watch: Watch::new(py, fd)?,
            state: LoopCell::new(state),
        };
        Ok((transport, made))
    }

    /// The protocol, unless the connection has been lost.
    fn protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.borrow().protocol.as_ref().map(|protocol| protocol.bind(py).clone())
    }

    /// The descriptor, unless the pipe was closed.
    fn open_fd<'a>(&self) -> Option<BorrowedFd<'a>> {
        if self.state.borrow().pipe.is_none() { None } else { ffi::borrow_fd(self.fd) }
    }

    /// Whether the loop tells when the descriptor is readable, as it does for what there is to read, and for
    /// the loss of a reader where that can be told.
    fn wants_reads(&self) -> bool {
        let state = self.state.borrow();
        let told = self.end == End::Reading || self.kind != sys::pipe::Kind::CharacterDevice;
        told && !state.phase.is_closing() && !self.watch.is_paused() && state.pipe.is_some()
    }

    fn log(slf: &Bound<'_, Self>, level: &str, what: &str) -> PyResult<()> {
        if slf.get().core.get().debug() {
            report::log(slf.py(), level, &format!("{} {what}", slf.repr()?))?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let state = self.state.borrow();
        let fd = self.fd;
        let name = match self.end {
            End::Reading => "ReadPipeTransport",
            End::Writing => "WritePipeTransport",
        };
        if state.pipe.is_none() {
            return format!("<{name} closed fd={fd} closed>");
        }
        let closing = if state.phase.is_closing() { " closing" } else { "" };
        if matches!(*self.core.get().poller.borrow(), Poller::Closed) {
            return format!("<{name}{closing} fd={fd} open>");
        }
        let polling = |watching| if watching { "polling" } else { "idle" };
        match self.end {
            End::Reading => {
                format!("<{name}{closing} fd={fd} {}>", polling(self.watch.reads()))
            }
            End::Writing => {
                let size = state.queue.len_bytes();
                let polling = polling(self.watch.writes());
                format!("<{name}{closing} fd={fd} {polling} bufsize={size}>")
            }
        }
    }
}

/// Checks what `fd` is open on, and makes it non-blocking.
fn prepare(fd: RawFd, end: End) -> PyResult<sys::pipe::Kind> {
    let Some(descriptor) = ffi::borrow_fd(fd) else {
        return Err(os_error(&std::io::Error::from_raw_os_error(libc::EBADF)));
    };
    let kind = sys::pipe::kind(descriptor).map_err(|error| os_error(&error))?;
    if kind == sys::pipe::Kind::Other {
        return Err(PyValueError::new_err(match end {
            End::Reading => "Pipe transport is for pipes/sockets only.",
            End::Writing => "Pipe transport is only for pipes, sockets and character devices",
        }));
    }
    sys::pipe::set_nonblocking(descriptor).map_err(|error| os_error(&error))?;
    Ok(kind)
}

/// The protocol has been told of its pipe: starts to watch it, and resolves the waiter, two callbacks with asyncio.
fn opened(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let watched = reading::watch(transport);
    let waiter = transport.get().state.borrow_mut().waiter.take();
    if let Some(waiter) = waiter {
        coroutine::resolve(waiter.bind(transport.py()))?;
    }
    watched
}

#[pymethods]
impl PipeTransport {
    /// Information about the transport: "pipe".
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let extra = slf.get().state.borrow().extra.clone_ref(slf.py());
        Ok(extra.bind(slf.py()).get_item(name)?.or(default))
    }

    /// Whether the transport is closing or closed.
    fn is_closing(&self) -> bool {
        self.state.borrow().phase.is_closing()
    }

    /// Change the protocol.
    fn set_protocol(&self, protocol: &Bound<'_, PyAny>) {
        let before = self.state.borrow_mut().protocol.replace(protocol.into());
        drop(before);
    }

    /// The current protocol.
    fn get_protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.protocol(py)
    }

    /// What `close` and `abort` queue.
    fn _call_connection_lost(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        closing::lost(slf, exc)
    }

    #[getter]
    fn _extra<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.state.borrow().extra.bind(py).clone()
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, Core> {
        self.core.bind(py).clone()
    }

    #[getter]
    fn _protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.protocol(py)
    }

    #[getter]
    fn _fileno(&self) -> RawFd {
        self.fd
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

    #[allow(clippy::needless_pass_by_value)] // the visitor's signature is PyO3's
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        self.watch.visit(&visit)?;
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        let objects = [&state.pipe, &state.protocol, &state.waiter];
        for object in objects.into_iter().flatten() {
            visit.call(&**object)?;
        }
        visit.call(&*state.extra)
    }

    fn __clear__(&self) {
        let taken = {
            let mut state = self.state.borrow_mut();
            (state.protocol.take(), state.waiter.take())
        };
        drop(taken);
    }
}

impl Drop for PipeTransport {
    /// A transport that was dropped without having been closed: its pipe is closed here, with a warning.
    fn drop(&mut self) {
        if self.state.borrow().pipe.is_none() {
            return;
        }
        Python::attach(|py| {
            ffi::keep_exception(py, || {
                if let Err(error) = closing::abandon(py, self) {
                    error.write_unraisable(py, None);
                }
            });
        });
    }
}
