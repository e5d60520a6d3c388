//! A pipe that has no readiness: what comes is read, and what goes is written, by one operation of the loop's proactor
//! at a time.
//!
//! What the protocol hears, and when, is what asyncio's transports of such pipes tell (`proactor_events.py`): what is
//! being read when reading pauses is kept, and the end of the file is told by `eof_received` alone, whose answer
//! decides whether the pipe stays open.

use std::io;

use oxloop_engine::write_queue::WriteQueue;
use pyo3::exceptions::PyBrokenPipeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::{PipeTransport, writing};
use crate::buffer::Chunk;
use crate::core::{Arrival, Written};
use crate::error::os_error;
use crate::ffi;
use crate::imports::imports;
use crate::transports::endpoint::{self, Endpoint, Piece};

/// What is said of an error that came of reading.
const READ_FAILED: &str = "Fatal read error on pipe transport";

/// Something has been read: it is delivered, or kept if reading is paused.
pub(super) fn arrived(transport: &Bound<'_, PyAny>, arrival: Arrival) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let this = transport.get();
    let piece = match arrival {
        Arrival::Filled(filled) => {
            let data = ffi::bytes(transport.py(), &filled.buffer[..filled.count]);
            this.core.get().give_back(filled.buffer);
            Piece::Data(data?.into())
        }
        Arrival::End => Piece::End,
        Arrival::Failed(errno) => Piece::Failed(errno),
        _ => return Ok(()),
    };
    if !this.watch.is_told() {
        return Ok(());
    }
    if !this.watch.reads() || !this.state.borrow().held.is_empty() {
        this.state.borrow_mut().held.push_back(piece);
        return Ok(());
    }
    deliver(transport, piece)
}

/// Reading goes on: delivers what was kept, soon.
pub(super) fn resumed(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let this = transport.get();
    if this.state.borrow().held.is_empty() {
        return Ok(());
    }
    this.core.get().push_native(transport.as_any().into(), held)
}

fn held(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let this = transport.get();
    while this.watch.reads() {
        let piece = this.state.borrow_mut().held.pop_front();
        let Some(piece) = piece else { break };
        if let Err(error) = deliver(transport, piece) {
            resumed(transport)?;
            return Err(error);
        }
    }
    Ok(())
}

/// Tells the protocol. What it raises of data is an error of a callback; reading goes on.
fn deliver(transport: &Bound<'_, PipeTransport>, piece: Piece) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    if this.state.borrow().life.phase.is_closing() {
        return Ok(());
    }
    let Some(protocol) = this.protocol(py) else { return Ok(()) };
    let context = this.watch.reading(py);
    match piece {
        Piece::Data(data) => {
            let told =
                ffi::run_in_context(context.bind(py), || give(transport, &protocol, data.bind(py)));
            let next = endpoint::read_again(transport);
            told.and(next)
        }
        Piece::End => ffi::run_in_context(context.bind(py), || endpoint::end(transport, &protocol)),
        Piece::Failed(errno) => {
            let error = io::Error::from_raw_os_error(errno);
            endpoint::fatal(transport, os_error(&error), READ_FAILED)
        }
    }
}

fn give(
    transport: &Bound<'_, PipeTransport>,
    protocol: &Bound<'_, PyAny>,
    data: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    if !protocol.is_instance(imports(py).buffered_protocol.bind(py))? {
        return ffi::call_method(protocol, intern!(py, "data_received"), &[data]).map(drop);
    }
    imports(py).feed_buffered.bind(py).call1((protocol, data)).map(drop).or_else(|error| {
        let message = "Fatal error: protocol.buffer_updated() call failed.";
        endpoint::fatal(transport, error, message)
    })
}

/// The writing end has read something: its end, as nobody writes there. So nobody reads any more, either.
pub(super) fn left(transport: &Bound<'_, PyAny>, arrival: Arrival) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let this = transport.get();
    if !this.watch.reads() || this.state.borrow().life.phase.is_lost() {
        this.core.get().drop_data(arrival);
        return Ok(());
    }
    if let Arrival::Failed(errno) = arrival
        && io::Error::from_raw_os_error(errno).kind() == io::ErrorKind::PermissionDenied
    {
        return Ok(()); // an end that can only be written to
    }
    if matches!(arrival, Arrival::Filled(_)) {
        this.core.get().drop_data(arrival);
        return endpoint::read_again(transport);
    }
    let context = this.watch.reading(transport.py());
    let is_drained = endpoint::State::is_drained(&*this.state.borrow());
    ffi::run_in_context(context.bind(transport.py()), || {
        if is_drained {
            endpoint::close(transport)
        } else {
            endpoint::force(transport, Some(PyBrokenPipeError::new_err(())))
        }
    })
}

/// Writes `chunk`, or queues it behind what is being written.
pub(super) fn write(transport: &Bound<'_, PipeTransport>, chunk: Chunk) -> PyResult<()> {
    let is_idle = {
        let mut state = transport.get().state.borrow_mut();
        state.queue.push(chunk);
        state.in_flight == 0
    };
    if is_idle {
        write_queued(transport)?;
    }
    endpoint::grown(transport)
}

/// Puts a write of all that is queued under way.
fn write_queued(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let this = transport.get();
    let chunks = {
        let mut state = this.state.borrow_mut();
        state.in_flight = state.queue.len_bytes();
        Vec::from(state.queue.clear())
    };
    let begun = this.watch.write(this.core.get(), transport.as_any(), written, chunks);
    begun.or_else(|error| {
        this.state.borrow_mut().in_flight = 0;
        endpoint::fatal(transport, error, PipeTransport::WRITE_FAILED)
    })
}

/// A write has ended.
fn written(transport: &Bound<'_, PyAny>, arrival: Arrival) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    // The connection was lost meanwhile.
    let Some(context) = this.watch.writing(py) else { return Ok(()) };
    if this.state.borrow().life.phase.is_lost() {
        return Ok(());
    }
    this.state.borrow_mut().in_flight = 0;
    let context = context.bind(py);
    match arrival {
        Arrival::Written(written) => this.queue_rest(*written),
        Arrival::Failed(errno) => {
            let error = io::Error::from_raw_os_error(errno);
            this.state.borrow_mut().life.lost_writes += 1;
            return ffi::run_in_context(context, || {
                endpoint::fatal(transport, os_error(&error), PipeTransport::WRITE_FAILED)
            });
        }
        _ => {}
    }
    ffi::run_in_context(context, || {
        if !this.state.borrow().queue.is_empty() {
            return write_queued(transport);
        }
        writing::drained(transport)
    })
}

impl PipeTransport {
    /// Queues what of a write has not gone, in front of everything else.
    fn queue_rest(&self, written: Written) {
        let Written { chunks, count } = written;
        let mut state = self.state.borrow_mut();
        let total: usize = chunks.iter().map(|chunk| chunk.as_ref().len()).sum();
        if count >= total {
            return;
        }
        let mut queue = WriteQueue::new();
        for chunk in chunks {
            queue.push(chunk);
        }
        queue.advance(count, drop);
        for chunk in state.queue.clear() {
            queue.push(chunk);
        }
        state.queue = queue;
    }
}
