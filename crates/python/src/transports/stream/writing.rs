//! Sending: at once if the kernel takes it, the rest from a queue whenever there is room again.

use std::io::{self, IoSlice};

use oxloop_engine::sys;
use oxloop_engine::sys::fd::BorrowedFd;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::{Kind, State, StreamTransport, file, refused};
use crate::buffer::{Chunk, View};
use crate::error::{self, os_error};
use crate::ffi::{self, Arguments, FastMethod, Ref, fast_method};
use crate::imports::{NEVER, is_since};
use crate::transports::endpoint::{self, Endpoint};
use crate::transports::protocol::{check_data, log_lost_write};

/// How many buffers one system call sends at most.
const SLICES: usize = 64;

/// The methods that are called past `PyO3`.
pub(crate) fn methods() -> [FastMethod; 1] {
    [fast_method!(
        c"write",
        write,
        c"write($self, data)\n--\n\nSend data (bytes, bytearray or memoryview) without waiting; what the kernel does not take at once is buffered."
    )]
}

fn write<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    let py = slf.py();
    let data = arguments.single("write", "data")?;
    let transport = ffi::cast_known::<StreamTransport>(slf);
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        send(transport, data, bytes.as_bytes())?;
        return Ok(py.None().into());
    }
    check_data(data, wanted(py))?;
    let view = View::readable(data)?;
    send(transport, data, view.as_slice())?;
    Ok(py.None().into())
}

/// What `write` says that it takes: from Python 3.13.8 and 3.14.1 on, the types (gh-138703).
fn wanted(py: Python<'_>) -> &'static str {
    if is_since(py, [8, 1, 0]) { "bytes, bytearray, or memoryview" } else { "bytes-like" }
}

/// Sends `data`, the memory of `object`, or queues what the kernel does not take.
pub(super) fn send(
    transport: &Bound<'_, StreamTransport>,
    object: &Bound<'_, PyAny>,
    data: &[u8],
) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    // First, since it may run the user's code, after which everything may have changed.
    let fd = this.open_fd(transport.py());
    let sent = {
        let mut state = this.state.borrow_mut();
        if state.eof_written || state.sendfile.is_some() {
            return Err(refusal(&state, "write"));
        }
        if data.is_empty() {
            return Ok(());
        }
        if state.life.phase.is_lost() {
            drop(state);
            return drop_write(transport);
        }
        let keeps = keeps(transport, &mut state, data.len());
        if keeps || !state.queue.is_empty() {
            state.queue.push(Chunk::rest(object, data, 0).0);
            drop(state);
            return endpoint::queued(transport, keeps);
        }
        match &fd {
            Ok(Some(fd)) => sys::socket::send(*fd, data),
            Ok(None) => return Ok(()),
            Err(_) => Ok(0),
        }
    };
    if let Err(error) = fd {
        return endpoint::fatal(transport, error, StreamTransport::WRITE_FAILED);
    }
    let sent = match sent {
        Ok(sent) if sent == data.len() => return Ok(()),
        Ok(sent) => sent,
        Err(error) if error::is_transient(&error) => 0,
        Err(error) => {
            return endpoint::fatal(transport, os_error(&error), StreamTransport::WRITE_FAILED);
        }
    };
    let (chunk, gone) = Chunk::rest(object, data, sent);
    this.state.borrow_mut().queue.push_rest(chunk, gone);
    watch(transport)?;
    endpoint::grown(transport)
}

/// Why nothing can be written by the method of that name.
#[cold]
fn refusal(state: &State, name: &str) -> PyErr {
    if state.eof_written {
        return refused(&format!("Cannot call {name}() after write_eof()"));
    }
    refused(&format!("unable to {name}; sendfile is in progress"))
}

/// Whether a write is to be kept for the end of the callback. TLS has joined already what belongs together.
fn keeps(transport: &Bound<'_, StreamTransport>, state: &mut State, count: usize) -> bool {
    state.kind != Kind::Tls && endpoint::keeps(transport, state, count)
}

/// Sends what has been kept for the end of the callback.
pub(super) fn send_kept(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    {
        let mut state = transport.get().state.borrow_mut();
        if !endpoint::take_kept(&mut state.life) || state.life.phase.is_lost() {
            return Ok(());
        }
    }
    if !flush(transport)? {
        return Ok(());
    }
    watch(transport)?;
    endpoint::grown(transport)
}

/// Sends what was kept here; and lets TLS send what it has kept for the end of this turn: that was written before.
pub(super) fn uncork(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    send_kept(transport)?;
    let layer = {
        let state = transport.get().state.borrow();
        if state.kind != Kind::Tls || state.life.phase.is_closing() {
            return Ok(());
        }
        let Some(protocol) = &state.life.protocol else { return Ok(()) };
        protocol.bind(transport.py()).clone()
    };
    let layer = ffi::cast_known::<crate::transports::tls::TlsProtocol>(&layer);
    crate::transports::tls::uncork(layer)
}

/// A write after the connection was lost is dropped.
#[cold]
fn drop_write(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    let lost = {
        let mut state = transport.get().state.borrow_mut();
        state.life.lost_writes = state.life.lost_writes.saturating_add(1);
        state.life.lost_writes
    };
    log_lost_write(transport.py(), lost, "socket.send() raised exception.")
}

/// Lets the loop tell us when there is room for what is queued.
fn watch(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_closed()?;
    if this.watch.writes() || this.state.borrow().queue.is_empty() {
        return Ok(());
    }
    endpoint::start_writing(transport)
}

/// The descriptor is writable.
pub(super) fn writable(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<StreamTransport>(transport);
    let py = transport.py();
    // The event was queued before the queue was emptied or the connection lost.
    let Some(context) = transport.get().watch.writing(py) else { return Ok(()) };
    if transport.get().state.borrow().life.phase.is_lost() {
        return Ok(());
    }
    if !flush(transport)? {
        return Ok(());
    }
    ffi::run_in_context(context.bind(py), || {
        endpoint::shrunk(transport)?;
        drained(transport)
    })
}

/// Sends what is queued, as much as the kernel takes; false if the connection was lost by it.
fn flush(transport: &Bound<'_, StreamTransport>) -> PyResult<bool> {
    let fd = match transport.get().open_fd(transport.py()) {
        Ok(Some(fd)) => fd,
        Ok(None) => return Ok(false),
        Err(error) => {
            endpoint::fatal(transport, error, StreamTransport::WRITE_FAILED)?;
            return Ok(false);
        }
    };
    let sent = {
        let mut state = transport.get().state.borrow_mut();
        loop {
            let (offered, sent) = send_queued(&state, fd);
            if let Ok(count) = sent {
                // Buffers are exactly `bytes` or ours: dropping them calls nothing.
                state.queue.advance(count, drop);
                if count == offered && !state.queue.is_empty() {
                    continue;
                }
            }
            break sent;
        }
    };
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error::is_transient(&error) => Ok(true),
        Err(error) => {
            endpoint::fatal(transport, os_error(&error), StreamTransport::WRITE_FAILED)?;
            Ok(false)
        }
    }
}

/// One system call: how many bytes it was offered, and how many it took.
fn send_queued(state: &State, fd: BorrowedFd<'_>) -> (usize, io::Result<usize>) {
    if state.queue.len() == 1
        && let Some(slice) = state.queue.first_slice()
    {
        return (slice.len(), sys::socket::send(fd, slice));
    }
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = state.queue.slices(&mut slices);
    let slices = &slices[..count];
    (slices.iter().map(|slice| slice.len()).sum(), sys::socket::send_vectored(fd, slices))
}

/// What was waiting for the queue to be empty: the end of the stream, a file, or the end of the connection.
fn drained(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    if !endpoint::drained(transport)? {
        return Ok(());
    }
    {
        let state = transport.get().state.borrow();
        if state.eof_written
            && let Some(fd) = state.socket.fd()
        {
            // As after any failed shutdown, the connection's next event tells what is wrong with it.
            let _ = sys::socket::shutdown_write(fd);
        }
    }
    file::start(transport)
}

pub(super) fn writelines(
    transport: &Bound<'_, StreamTransport>,
    list: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    // Up to Python 3.11 asyncio's writelines() joins and writes, which its texts tell.
    let joins = transport.py().version_info() < (3, 12);
    let name = if joins { "write" } else { "writelines" };
    {
        let state = this.state.borrow();
        if state.eof_written || state.sendfile.is_some() {
            return Err(refusal(&state, name));
        }
    }
    // From Python 3.14.8 on asyncio looks at no chunk that is false, be it None (gh-155888).
    let skips_false = is_since(transport.py(), [NEVER, 8, 0]);
    let chunks = if joins { joined(list)? } else { chunks(list, skips_false)? };
    if chunks.is_empty() {
        return Ok(());
    }
    let (keeps, sends) = {
        let mut state = this.state.borrow_mut();
        if state.life.phase.is_lost() {
            drop(state);
            drop(chunks);
            return drop_write(transport);
        }
        let count = chunks.iter().map(|chunk| chunk.as_ref().len()).sum();
        let keeps = keeps(transport, &mut state, count);
        let sends = state.queue.is_empty() && !keeps;
        for chunk in chunks {
            state.queue.push(chunk);
        }
        (keeps, sends)
    };
    if !sends {
        return endpoint::queued(transport, keeps);
    }
    if !flush(transport)? {
        return Ok(());
    }
    watch(transport)?;
    endpoint::grown(transport)
}

/// The items of `list` that are not empty, with the errors of `bytes.join`.
fn joined(list: &Bound<'_, PyAny>) -> PyResult<Vec<Chunk>> {
    let py = list.py();
    // An iterator gives its items, and its error, but once.
    let once = match list.try_iter() {
        Ok(items) if !list.is_instance_of::<PyList>() => {
            Some(PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?)
        }
        _ => None,
    };
    let list = once.as_ref().map_or(list, |items| items.as_any());
    chunks(list, false).or_else(|_| {
        PyBytes::new(py, b"").call_method1(intern!(py, "join"), (list,))?;
        Ok(Vec::new())
    })
}

/// The items of `list` that are not empty. If it `skips_false`, what is false may be anything.
pub(in crate::transports) fn chunks(
    list: &Bound<'_, PyAny>,
    skips_false: bool,
) -> PyResult<Vec<Chunk>> {
    let mut chunks = Vec::new();
    for item in list.try_iter()? {
        let item = item?;
        if skips_false && !item.is_truthy()? {
            continue;
        }
        let view = View::readable(&item).map_err(|error| {
            if !error.is_instance_of::<PyTypeError>(list.py()) {
                return error;
            }
            match item.get_type().name() {
                Ok(name) => PyTypeError::new_err(format!(
                    "memoryview: a bytes-like object is required, not '{name}'"
                )),
                Err(error) => error,
            }
        })?;
        if view.len() > 0 {
            chunks.push(Chunk::rest(&item, view.as_slice(), 0).0);
        }
    }
    Ok(chunks)
}

pub(super) fn write_eof(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    send_kept(transport)?;
    let mut state = transport.get().state.borrow_mut();
    if state.life.phase.is_closing() || state.eof_written {
        return Ok(());
    }
    state.eof_written = true;
    if !state.queue.is_empty() {
        return Ok(());
    }
    match state.socket.fd().map(sys::socket::shutdown_write) {
        Some(Err(error)) => Err(os_error(&error)),
        _ => Ok(()),
    }
}
