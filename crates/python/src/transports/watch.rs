//! What a transport has asked the loop to tell it, and in which contexts it is told.
//!
//! Whoever asks decides first whether there is something to be told; here is only what is the same for every
//! transport. Errors of the selector come back, and then nothing is watched.

use oxloop_engine::Interest;
use oxloop_engine::sys::fd::RawFd;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use crate::buffer::Chunk;
use crate::cell::LoopCell;
use crate::core::{Core, Entry, Reader, Receive, Run};
use crate::ffi::{self, Ref};

/// The descriptor of a transport, as the loop watches it.
pub(super) struct Watch {
    fd: RawFd,
    /// The one context in which the protocol is told of everything, if there is one: see [`Opening::context`].
    ///
    /// [`Opening::context`]: super::stream::Opening::context
    context: Option<Ref>,
    state: LoopCell<State>,
}

/// Without one context for everything, these are copies of what was current when the loop was told to watch, as
/// asyncio makes them.
struct State {
    /// Set and cleared by `pause_reading` and `resume_reading`.
    paused: bool,
    reads: Reads,
    /// How long the loop still tells of what had come before a pause.
    lease: Lease,
    /// From when the transport was made, or reading resumed.
    reading: Ref,
    /// From the write that was not sent at once; `None` while the loop does not tell when there is room.
    writing: Option<Ref>,
}

/// What the loop tells of what there is to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Nothing,
    /// What has come, or that the descriptor is readable.
    News,
    /// During a pause: what had come before it.
    Past,
}

/// How long the loop refers to a transport that pauses, for what had come before: not for ever, as nobody else may.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// There is none to be ended.
    None,
    /// It was asked for since the last look.
    New,
    /// It ends with the next look.
    Old,
}

impl Watch {
    pub(super) fn new(py: Python<'_>, fd: RawFd, context: Option<Ref>) -> PyResult<Self> {
        let reading = match &context {
            Some(context) => context.clone_ref(py),
            None => ffi::copy_context(py)?,
        };
        let state = State {
            paused: false,
            reads: Reads::Nothing,
            lease: Lease::None,
            reading,
            writing: None,
        };
        Ok(Self { fd, context, state: LoopCell::new(state) })
    }

    /// The one context in which the protocol is told of everything, if there is one.
    pub(super) fn context<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyAny>> {
        self.context.as_ref().map(|context| context.bind(py))
    }

    /// What the loop is to tell, it tells in this context.
    fn context_to_tell_in(&self, py: Python<'_>) -> PyResult<Ref> {
        match &self.context {
            Some(context) => Ok(context.clone_ref(py)),
            None => ffi::copy_context(py),
        }
    }

    /// The descriptor's number, also once it is closed.
    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(super) fn is_paused(&self) -> bool {
        self.state.borrow().paused
    }

    /// Whether the loop tells when the descriptor is readable.
    pub(super) fn reads(&self) -> bool {
        self.state.borrow().reads == Reads::News
    }

    /// Whether the loop tells of what has come, be it of what came before a pause.
    pub(super) fn is_told(&self) -> bool {
        self.state.borrow().reads != Reads::Nothing
    }

    /// Whether the loop tells when there is room.
    pub(super) fn writes(&self) -> bool {
        self.state.borrow().writing.is_some()
    }

    /// Notes that nothing is to be read; whether that is new.
    pub(super) fn pause(&self) -> bool {
        !std::mem::replace(&mut self.state.borrow_mut().paused, true)
    }

    /// Notes that reading goes on, in a copy of the current context; whether that is new.
    pub(super) fn resume(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.is_paused() {
            return Ok(false);
        }
        let context = self.context_to_tell_in(py)?;
        let before = {
            let mut state = self.state.borrow_mut();
            state.paused = false;
            std::mem::replace(&mut state.reading, context)
        };
        drop(before);
        Ok(true)
    }

    /// The context in which the protocol is told of what was read.
    pub(super) fn reading(&self, py: Python<'_>) -> Ref {
        self.state.borrow().reading.clone_ref(py)
    }

    /// The context in which what waits is written; `None` if nothing does.
    pub(super) fn writing(&self, py: Python<'_>) -> Option<Ref> {
        self.state.borrow().writing.as_ref().map(|context| context.clone_ref(py))
    }

    /// Lets the loop tell the transport, as `reader` says, when the descriptor is readable.
    pub(super) fn start_reads(
        &self,
        core: &Core,
        transport: &Bound<'_, PyAny>,
        reader: Reader,
    ) -> PyResult<()> {
        if std::mem::replace(&mut self.state.borrow_mut().reads, Reads::News) == Reads::News {
            return Ok(());
        }
        core.read(self.fd, transport, reader)
            .inspect_err(|_| self.state.borrow_mut().reads = Reads::Nothing)
    }

    /// Lets a loop that has more than one way to do so tell the transport in another one, if it tells it at all.
    pub(super) fn change_reads(
        &self,
        core: &Core,
        transport: &Bound<'_, PyAny>,
        reader: Reader,
    ) -> PyResult<()> {
        if self.reads() && core.completes() {
            core.read(self.fd, transport, reader)
        } else {
            Ok(())
        }
    }

    /// Stops the loop for a while; where it has received something already, it still tells of that.
    pub(super) fn pause_reads(&self, core: &Core, py: Python<'_>) -> PyResult<()> {
        if !self.reads() {
            return Ok(());
        }
        if !core.rest(py, self.fd)? {
            return self.stop_reads(core, py);
        }
        self.state.borrow_mut().reads = Reads::Past;
        Ok(())
    }

    /// Notes that the loop tells of what had come before a pause; whether somebody has to look after that later.
    pub(super) fn take_lease(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.reads == Reads::Past && std::mem::replace(&mut state.lease, Lease::New) == Lease::None
    }

    /// Ends what the loop tells during a pause, unless that is new. Whether somebody has to look again.
    pub(super) fn look_after_lease(&self, core: &Core, py: Python<'_>) -> PyResult<bool> {
        let lease = {
            let mut state = self.state.borrow_mut();
            state.lease = match state.lease {
                Lease::New if state.reads == Reads::Past => Lease::Old,
                _ => Lease::None,
            };
            (state.lease, state.reads)
        };
        match lease {
            (Lease::None, Reads::Past) => self.stop_reads(core, py).map(|()| false),
            (lease, _) => Ok(lease != Lease::None),
        }
    }

    /// Stops the loop from telling when the descriptor is readable.
    pub(super) fn stop_reads(&self, core: &Core, py: Python<'_>) -> PyResult<()> {
        let before = std::mem::replace(&mut self.state.borrow_mut().reads, Reads::Nothing);
        if before == Reads::Nothing {
            return Ok(());
        }
        let entry = core.unwatch(py, self.fd, Interest::READABLE)?;
        drop(entry);
        Ok(())
    }

    /// Lets the loop call `run(transport)` when there is room.
    pub(super) fn start_writes(
        &self,
        core: &Core,
        transport: &Bound<'_, PyAny>,
        run: Run,
    ) -> PyResult<()> {
        let context = self.context_to_tell_in(transport.py())?;
        let before = self.state.borrow_mut().writing.replace(context);
        if before.is_some() {
            drop(before);
            return Ok(());
        }
        let entry = Entry::Native { object: transport.into(), run };
        match core.watch(transport.py(), self.fd, Interest::WRITABLE, entry) {
            Ok(replaced) => {
                drop(replaced);
                Ok(())
            }
            Err(error) => {
                let context = self.state.borrow_mut().writing.take();
                drop(context);
                Err(error)
            }
        }
    }

    /// Writes `chunks` to a pipe that has no readiness; the loop calls `run(transport, ...)` when they have gone.
    pub(super) fn write(
        &self,
        core: &Core,
        transport: &Bound<'_, PyAny>,
        run: Receive,
        chunks: Vec<Chunk>,
    ) -> PyResult<()> {
        let context = self.context_to_tell_in(transport.py())?;
        let before = self.state.borrow_mut().writing.replace(context);
        drop(before);
        core.write(self.fd, transport, run, chunks).inspect_err(|_| {
            let context = self.state.borrow_mut().writing.take();
            drop(context);
        })
    }

    /// Stops the loop from telling when there is room.
    pub(super) fn stop_writes(&self, core: &Core, py: Python<'_>) -> PyResult<()> {
        let context = self.state.borrow_mut().writing.take();
        if context.is_none() {
            return Ok(());
        }
        drop(context);
        let entry = core.unwatch(py, self.fd, Interest::WRITABLE)?;
        drop(entry);
        Ok(())
    }

    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        if let Some(context) = &self.context {
            visit.call(&**context)?;
        }
        visit.call(&*state.reading)?;
        state.writing.as_ref().map_or(Ok(()), |writing| visit.call(&**writing))
    }
}
