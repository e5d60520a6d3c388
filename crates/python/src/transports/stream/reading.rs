//! Receiving: by recv(2) when the descriptor is readable, into the loop's buffer or the protocol's own; or what the
//! loop has received for us.

use oxloop_engine::proactor::Chunk;
use oxloop_engine::volume::MUCH;
use oxloop_engine::{Timestamp, sys};
use pyo3::prelude::*;

use super::delivering::{self, FAILED, Recipient};
use super::{Kind, StreamTransport};
use crate::core::{Arrival, Core, READ_SIZE};
use crate::error::{self, os_error};
use crate::ffi;
use crate::transports::endpoint::{self, Piece};

/// How long, at least, the loop refers to a transport that pauses, in seconds.
const LEASE: f64 = 0.05;

/// Something has come, or the descriptor is readable.
pub(super) fn arrived(transport: &Bound<'_, PyAny>, arrival: Arrival) -> PyResult<()> {
    let transport = ffi::cast_known::<StreamTransport>(transport);
    let this = transport.get();
    let core = this.core.get();
    match arrival {
        Arrival::Readable => readable(transport),
        Arrival::Data { .. } if !this.watch.is_told() => {
            core.drop_data(arrival);
            Ok(())
        }
        Arrival::Data { chunk, is_much } => {
            // Its error is for later: what has come is delivered first.
            let noted = if is_much { note(transport, MUCH) } else { Ok(()) };
            received(transport, chunk).and(noted)
        }
        Arrival::End => delivering::piece(transport, Piece::End),
        Arrival::Failed(errno) => delivering::piece(transport, Piece::Failed(errno)),
        Arrival::Connection(_) | Arrival::Filled(_) | Arrival::Written(_) => Ok(()),
    }
}

/// Takes data out of the loop's buffer, and delivers it.
fn received(transport: &Bound<'_, StreamTransport>, chunk: Chunk) -> PyResult<()> {
    let this = transport.get();
    let core = this.core.get();
    if this.takes_memory() {
        return core.with_data(chunk, |data| delivering::data(transport, data));
    }
    let data = core.take_data(transport.py(), chunk)?;
    delivering::piece(transport, Piece::Data(data.into()))
}

/// Reading pauses. A loop that receives refers to the transport for what had come before: some time later it lets go, so
/// that one that nobody else refers to is collected.
pub(super) fn paused(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    if transport.get().watch.take_lease() { look_later(transport) } else { Ok(()) }
}

fn look_later(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    let core = transport.get().core.bind(transport.py());
    let when = Timestamp::from_seconds(Core::now(core)?.as_seconds() + LEASE);
    core.get().push_timer(when, transport.as_any().into(), look);
    Ok(())
}

fn look(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<StreamTransport>(transport);
    let this = transport.get();
    if this.watch.look_after_lease(this.core.get(), transport.py())? {
        return look_later(transport);
    }
    Ok(())
}

impl StreamTransport {
    /// Whether what comes can go to the protocol at once, and is memory to it and not an object.
    fn takes_memory(&self) -> bool {
        let state = self.state.borrow();
        state.kind != Kind::Plain && state.held.is_empty() && self.watch.reads()
    }
}

/// The descriptor is readable.
fn readable(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    // If there is none, the event was queued before reading was paused or ended.
    let Some(recipient) = Recipient::of(transport) else { return Ok(()) };
    if recipient.waits {
        return Ok(()); // what came before has to be delivered first, and will be
    }
    match recipient.kind {
        Kind::Plain => match receive(transport) {
            Ok(Some(data)) if data.len()? == 0 => recipient.end(transport),
            Ok(Some(data)) => recipient.give(transport, data),
            Ok(None) => Ok(()),
            Err(error) => endpoint::fatal(transport, error, FAILED),
        },
        Kind::Buffered => recipient.fill(transport, |buffer| receive_into(transport, buffer)),
        Kind::Tls => receive_tls(transport, &recipient),
    }
}

/// Notes how many bytes came, and lets the loop receive or tell of readiness, whichever is better for so many.
#[inline]
fn note(transport: &Bound<'_, StreamTransport>, count: usize) -> PyResult<()> {
    let changed = transport.get().state.borrow_mut().volume.note(count);
    if changed { endpoint::change_reading(transport) } else { Ok(()) }
}

/// The same for what came into a place for `room`: if that is full, there may be more.
#[inline]
fn note_in(transport: &Bound<'_, StreamTransport>, count: usize, room: usize) -> PyResult<()> {
    if count == room {
        transport.get().core.get().hurry();
    }
    note(transport, count)
}

/// Receives as `bytes`, which are empty at the end; `None` for nothing yet.
fn receive<'py>(transport: &Bound<'py, StreamTransport>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = transport.py();
    let this = transport.get();
    let Some(fd) = this.open_fd(py)? else { return Ok(None) };
    let room = this.state.borrow().volume.room();
    let most = room.unwrap_or(READ_SIZE);
    let received = if let Some(room) = room {
        ffi::bytes_filled(py, room, |memory| sys::socket::recv_uninit(fd, memory))?
    } else {
        this.core.get().with_read_buffer(|buffer| match sys::socket::recv(fd, buffer) {
            Ok(count) => ffi::bytes(py, &buffer[..count]).map(Ok),
            Err(error) => Ok(Err(error)),
        })?
    };
    match received {
        Ok(data) => {
            note_in(transport, data.len()?, most)?;
            Ok(Some(data))
        }
        Err(error) if error::is_transient(&error) => Ok(None),
        Err(error) => Err(os_error(&error)),
    }
}

/// Receives into the loop's buffer, for TLS to take it from there.
fn receive_tls(transport: &Bound<'_, StreamTransport>, recipient: &Recipient<'_>) -> PyResult<()> {
    let this = transport.get();
    let fd = match this.open_fd(transport.py()) {
        Ok(Some(fd)) => fd,
        Ok(None) => return Ok(()),
        Err(error) => return endpoint::fatal(transport, error, FAILED),
    };
    this.core.get().with_read_buffer(|buffer| match sys::socket::recv(fd, buffer) {
        Ok(0) => recipient.end(transport),
        Ok(count) => {
            note_in(transport, count, buffer.len())?;
            recipient.decrypt(transport, &buffer[..count])
        }
        Err(error) if error::is_transient(&error) => Ok(()),
        Err(error) => endpoint::fatal(transport, os_error(&error), FAILED),
    })
}

/// Receives into the buffer of a `BufferedProtocol`; `None` for nothing yet.
fn receive_into(
    transport: &Bound<'_, StreamTransport>,
    buffer: &mut [u8],
) -> PyResult<Option<usize>> {
    let Some(fd) = transport.get().open_fd(transport.py())? else { return Ok(None) };
    match sys::socket::recv(fd, buffer) {
        Ok(count) => {
            note_in(transport, count, buffer.len())?;
            Ok(Some(count))
        }
        Err(error) if error::is_transient(&error) => Ok(None),
        Err(error) => Err(os_error(&error)),
    }
}
