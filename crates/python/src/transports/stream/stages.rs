//! A stream among the other endpoints: what happens to it when, and whom it takes leave of at its end.

use std::collections::VecDeque;

use oxloop_engine::volume::Expected;
use pyo3::intern;
use pyo3::prelude::*;

use super::{Piece, State, StreamTransport, delivering, file, reading, writing};
use crate::buffer::Chunk;
use crate::cell::LoopCell;
use crate::core::{Core, Reader, Run};
use crate::ffi::{self, Ref};
use crate::transports::endpoint::{self, Endpoint, Life, socket_text};
use crate::transports::watch::Watch;

impl Endpoint for StreamTransport {
    type State = State;

    const WRITABLE: Run = writing::writable;
    const WRITE_FAILED: &'static str = "Fatal write error on socket transport";

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
        socket_text(self, "StreamTransport")
    }

    fn reader(&self) -> Option<Reader> {
        let reader = match self.state.borrow().volume.expected() {
            Expected::Unknown => Reader::SomeData,
            Expected::Little => Reader::Data,
            Expected::Much => Reader::MuchData,
        };
        Some(reader(reading::arrived))
    }

    fn check_open(transport: &Bound<'_, Self>) -> PyResult<()> {
        transport.get().open_fd(transport.py()).map(drop)
    }

    fn paused(transport: &Bound<'_, Self>) -> PyResult<()> {
        reading::paused(transport)
    }

    fn resumed(transport: &Bound<'_, Self>) -> PyResult<()> {
        delivering::later(transport)
    }

    fn before_close(transport: &Bound<'_, Self>) -> PyResult<()> {
        writing::uncork(transport)
    }

    fn send_kept(transport: &Bound<'_, Self>) -> PyResult<()> {
        writing::send_kept(transport)
    }

    /// The descriptor is about to be closed.
    fn before_lost(transport: &Bound<'_, Self>, reason: &Bound<'_, PyAny>) -> PyResult<()> {
        file::stop(transport, reason)
    }

    fn release(transport: &Bound<'_, Self>) -> PyResult<()> {
        let (this, py) = (transport.get(), transport.py());
        let (socket, server) = {
            let mut state = this.state.borrow_mut();
            (state.socket.take(), state.server.take())
        };
        this.core.get().disown(socket.raw_fd(), transport.as_any());
        let closed = socket.close(py);
        if let Some(server) = server {
            ffi::call_method(server.bind(py), intern!(py, "_detach"), &[transport.as_any()])?;
        }
        closed
    }

    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        let (socket, server) = {
            let mut state = self.state.borrow_mut();
            (state.socket.take(), state.server.take())
        };
        // The collector may have emptied a socket object already; dropping it closes it.
        drop(socket.close(py));
        match server {
            Some(server) => {
                ffi::call_method(server.bind(py), intern!(py, "_forget"), &[]).map(drop)
            }
            None => Ok(()),
        }
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
        self.socket.is_closed()
    }

    fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    fn size(&self) -> usize {
        self.queue.len_bytes()
    }

    fn pieces(&self) -> usize {
        self.queue.len()
    }

    fn clear(&mut self) -> Self::Queued {
        (self.queue.clear(), std::mem::take(&mut self.held))
    }
}
