//! A pipe among the other endpoints: what happens to it when, above all at its end.

use std::collections::VecDeque;

use oxloop_engine::sys;
use oxloop_engine::sys::pipe::Kind;
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;

use super::{End, Piece, PipeTransport, State, operated, reading, writing};
use crate::buffer::Chunk;
use crate::cell::LoopCell;
use crate::core::{Core, Reader, Run};
use crate::ffi::Ref;
use crate::transports::endpoint::{self, Endpoint, Life};
use crate::transports::watch::Watch;

impl Endpoint for PipeTransport {
    type State = State;

    const WRITABLE: Run = writing::writable;
    const WRITE_FAILED: &'static str = "Fatal write error on pipe transport";

    fn core(&self) -> &Ref<Core> {
        &self.core
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }

    fn state(&self) -> &LoopCell<State> {
        &self.state
    }

    fn text(&self) -> String {
        self.own_text()
    }

    /// What there is to read; at the writing end the loss of the reader, where that can be told.
    fn reader(&self) -> Option<Reader> {
        if self.is_operated() {
            return Some(Reader::Pipe(match self.end {
                End::Reading | End::Both => operated::arrived,
                End::Writing => operated::left,
            }));
        }
        match (self.end, self.kind) {
            (End::Reading | End::Both, _) => Some(Reader::All(reading::readable)),
            (End::Writing, Kind::CharacterDevice | Kind::NamedFifo) => None,
            (End::Writing, _) => Some(Reader::Readable(reading::left)),
        }
    }

    fn resumed(transport: &Bound<'_, Self>) -> PyResult<()> {
        operated::resumed(transport)
    }

    /// `PermissionError` for a character device that cannot be waited for, such as /dev/null: reported, as asyncio
    /// does, and nothing is read from it.
    fn unwatchable(_transport: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        Err(error)
    }

    /// With something in the queue the writing end still has to hear of the loss of its reader.
    fn reads_until_lost(&self) -> bool {
        true
    }

    /// Where it reads, only what the master of a pseudo-terminal answers whose other side was closed.
    fn is_ordinary(&self, py: Python<'_>, error: &PyErr) -> bool {
        let errno = || error.value(py).getattr(intern!(py, "errno"))?.extract::<i32>();
        error.is_instance_of::<PyOSError>(py)
            && (self.is_operated()
                || self.end == End::Writing
                || errno().is_ok_and(|errno| errno == sys::errno::EIO))
    }

    fn release(transport: &Bound<'_, Self>) -> PyResult<()> {
        let py = transport.py();
        let pipe = transport.get().state.borrow_mut().pipe.take();
        match pipe {
            Some(pipe) => pipe.bind(py).call_method0(intern!(py, "close")).map(drop),
            None => Ok(()),
        }
    }

    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        let pipe = self.state.borrow_mut().pipe.take();
        if let Some(pipe) = pipe {
            // The collector may have emptied a file object already; dropping it closes it.
            drop(pipe.bind(py).call_method0(intern!(py, "close")));
        }
        Ok(())
    }
}

impl endpoint::State for State {
    type Queued = (VecDeque<Chunk>, VecDeque<Piece>);

    #[inline]
    fn life(&self) -> &Life {
        &self.life
    }

    #[inline]
    fn life_mut(&mut self) -> &mut Life {
        &mut self.life
    }

    fn is_closed(&self) -> bool {
        self.pipe.is_none()
    }

    fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0
    }

    fn size(&self) -> usize {
        self.queue.len_bytes() + self.in_flight
    }

    fn pieces(&self) -> usize {
        self.queue.len()
    }

    fn clear(&mut self) -> Self::Queued {
        self.in_flight = 0;
        (self.queue.clear(), std::mem::take(&mut self.held))
    }
}
