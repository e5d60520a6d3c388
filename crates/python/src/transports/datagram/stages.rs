//! A datagram transport among the other endpoints: what happens to it when, above all at its end.

use std::collections::VecDeque;

use pyo3::prelude::*;

use super::receiving::{self, Arrival};
use super::{DatagramTransport, Departure, State, sending};
use crate::cell::LoopCell;
use crate::core::{Core, Reader, Run};
use crate::ffi::Ref;
use crate::transports::endpoint::{self, Endpoint, Life, socket_text};
use crate::transports::watch::Watch;

impl Endpoint for DatagramTransport {
    type State = State;

    const WRITABLE: Run = sending::writable;
    const WRITE_FAILED: &'static str = "Fatal write error on datagram transport";

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
        socket_text(self, "DatagramTransport")
    }

    fn reader(&self) -> Option<Reader> {
        Some(Reader::Readable(receiving::readable))
    }

    /// The protocol is told of no further datagram.
    fn before_close(transport: &Bound<'_, Self>) -> PyResult<()> {
        let arrivals = std::mem::take(&mut transport.get().state.borrow_mut().arrivals);
        drop(arrivals);
        sending::send_kept(transport)
    }

    fn send_kept(transport: &Bound<'_, Self>) -> PyResult<()> {
        sending::send_kept(transport)
    }

    /// A datagram that was sent between `close` and now may have asked for room.
    fn before_lost(transport: &Bound<'_, Self>, _reason: &Bound<'_, PyAny>) -> PyResult<()> {
        endpoint::stop_writing(transport)
    }

    fn release(transport: &Bound<'_, Self>) -> PyResult<()> {
        let this = transport.get();
        let socket = this.state.borrow_mut().socket.take();
        this.core.get().disown(socket.raw_fd(), transport.as_any());
        socket.close(transport.py())
    }

    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        let socket = self.state.borrow_mut().socket.take();
        // The collector may have emptied a socket object already; dropping it closes it.
        drop(socket.close(py));
        Ok(())
    }
}

impl endpoint::State for State {
    type Queued = (VecDeque<Departure>, VecDeque<Arrival>);

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
        self.queued
    }

    fn pieces(&self) -> usize {
        self.queue.len()
    }

    fn clear(&mut self) -> Self::Queued {
        self.queued = 0;
        (std::mem::take(&mut self.queue), std::mem::take(&mut self.arrivals))
    }
}
