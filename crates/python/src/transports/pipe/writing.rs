//! Writing to a pipe: at once if the kernel takes it, the rest from a queue whenever there is room again.

use std::io::{self, IoSlice};

use oxloop_engine::sys::fd::BorrowedFd;
use oxloop_engine::sys::{self, pipe::Kind};
use pyo3::exceptions::PyAssertionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::{PipeTransport, State, WritePipeTransport, operated};
use crate::buffer::{Chunk, View};
use crate::error::{self, os_error};
use crate::ffi::{self, Arguments, FastMethod, Ref, fast_method};
use crate::imports::imports;
use crate::transports::endpoint::{self, Endpoint, State as _};
use crate::transports::protocol::{check_data, limit, log_lost_write};

/// How many buffers one system call writes at most.
const SLICES: usize = 64;

#[pymethods]
impl WritePipeTransport {
    /// Close: what was written is sent, then `connection_lost(None)` is called.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::close(slf.as_super())
    }

    /// Close without sending what is buffered.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::force(slf.as_super(), None)
    }

    /// The same as `close()`: the end of a pipe is that it is closed.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::close(slf.as_super())
    }

    /// True.
    fn can_write_eof(&self) -> bool {
        true
    }

    /// Write the concatenation of the items of `list_of_data`.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let data = PyBytes::new(py, b"").call_method1(intern!(py, "join"), (list_of_data,))?;
        ffi::call_method(slf.as_any(), intern!(py, "write"), &[&data]).map(drop)
    }

    /// Set the buffer sizes in bytes above which the protocol is told to pause writing, and at or below which
    /// to resume. Raises `ValueError` unless high >= low >= 0.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        #[pyo3(from_py_with = limit)] high: Option<isize>,
        #[pyo3(from_py_with = limit)] low: Option<isize>,
    ) -> PyResult<()> {
        endpoint::set_limits(slf.as_super(), high, low)
    }

    /// The limits in bytes: (low, high).
    fn get_write_buffer_limits(slf: &Bound<'_, Self>) -> (usize, usize) {
        slf.as_super().get().state.borrow().life.flow.limits()
    }

    /// The number of bytes that have been written and not yet sent.
    fn get_write_buffer_size(slf: &Bound<'_, Self>) -> usize {
        slf.as_super().get().state.borrow().size()
    }

    /// Both of asyncio's directions, as its flow control is a mixin of both.
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).transport.bind(py).clone()
    }
}

/// The methods that are called past `PyO3`.
pub(crate) fn methods() -> [FastMethod; 1] {
    [fast_method!(
        c"write",
        write,
        c"write($self, data)\n--\n\nWrite data (bytes, bytearray or memoryview) without waiting; what the kernel does not take at once is buffered."
    )]
}

fn write<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    let py = slf.py();
    let data = arguments.single("write", "data")?;
    let transport = ffi::cast_known::<PipeTransport>(slf);
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        send(transport, data, bytes.as_bytes())?;
        return Ok(py.None().into());
    }
    let is_bytes = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !is_bytes && transport.get().is_operated() {
        check_data(data, "bytes-like")?;
    }
    if !is_bytes {
        return Err(PyAssertionError::new_err(data.repr()?.to_string()));
    }
    let view = View::readable(data)?;
    send(transport, data, view.as_slice())?;
    Ok(py.None().into())
}

/// Writes `data`, the memory of `object`, or queues what the kernel does not take.
fn send(
    transport: &Bound<'_, PipeTransport>,
    object: &Bound<'_, PyAny>,
    data: &[u8],
) -> PyResult<()> {
    let this = transport.get();
    this.core.get().check_selector()?;
    if data.is_empty() {
        return Ok(());
    }
    let fd = this.open_fd();
    let written = {
        let mut state = this.state.borrow_mut();
        if state.life.phase.is_closing() {
            drop(state);
            return count_lost_write(transport);
        }
        let Some(fd) = fd else { return Ok(()) };
        if this.is_operated() {
            drop(state);
            return operated::write(transport, Chunk::rest(object, data, 0).0);
        }
        if !state.queue.is_empty() {
            state.queue.push(Chunk::rest(object, data, 0).0);
            drop(state);
            return endpoint::grown(transport);
        }
        drop(state);
        this.put(fd, &[IoSlice::new(data)])
    };
    let written = match written {
        Ok(written) if written == data.len() => return Ok(()),
        Ok(written) => written,
        Err(error) if error::is_transient(&error) => 0,
        Err(error) => {
            this.state.borrow_mut().life.lost_writes += 1;
            return endpoint::fatal(transport, os_error(&error), PipeTransport::WRITE_FAILED);
        }
    };
    let (chunk, gone) = Chunk::rest(object, data, written);
    this.state.borrow_mut().queue.push_rest(chunk, gone);
    endpoint::start_writing(transport)?;
    endpoint::grown(transport)
}

impl PipeTransport {
    /// One system call that writes; never a SIGPIPE.
    fn put(&self, fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self.kind, slices) {
            (Kind::Socket, _) => sys::socket::send_vectored(fd, slices),
            _ if self.sigpipe_kills => {
                sys::sigpipe::shielded(|| sys::pipe::write_vectored(fd, slices))
            }
            (_, [slice]) => sys::pipe::write(fd, slice),
            _ => sys::pipe::write_vectored(fd, slices),
        }
    }
}

/// A write to a pipe that is closing is dropped; the sixth and later ones say so in the log.
#[cold]
fn count_lost_write(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let lost = {
        let mut state = transport.get().state.borrow_mut();
        let lost = state.life.lost_writes;
        state.life.lost_writes = lost.saturating_add(1);
        lost
    };
    let message = if transport.get().is_operated() {
        "socket.send() raised exception."
    } else {
        "pipe closed by peer or os.write(pipe, data) raised exception."
    };
    log_lost_write(transport.py(), lost, message)
}

/// The descriptor is writable.
pub(super) fn writable(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<PipeTransport>(transport);
    let py = transport.py();
    let this = transport.get();
    // The event was queued before the queue was emptied or the connection lost.
    let Some(context) = this.watch.writing(py) else { return Ok(()) };
    if this.state.borrow().life.phase.is_lost() {
        return Ok(());
    }
    let Some(fd) = this.open_fd() else { return Ok(()) };
    let written = this.put_queued(&this.state.borrow(), fd);
    match written {
        Ok(count) => {
            // Buffers are exactly `bytes` or ours: dropping them calls nothing.
            this.state.borrow_mut().queue.advance(count, drop);
        }
        Err(error) if error::is_transient(&error) => return Ok(()),
        Err(error) => {
            this.state.borrow_mut().life.lost_writes += 1;
            return ffi::run_in_context(context.bind(py), || {
                endpoint::fatal(transport, os_error(&error), PipeTransport::WRITE_FAILED)
            });
        }
    }
    ffi::run_in_context(context.bind(py), || drained(transport))
}

impl PipeTransport {
    fn put_queued(&self, state: &State, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = state.queue.slices(&mut slices);
        self.put(fd, &slices[..count])
    }
}

/// What was waiting for the queue to be empty: the protocol (asyncio resumes it only then, whatever the
/// low-water mark of a pipe is), and the end of a closing pipe.
pub(super) fn drained(transport: &Bound<'_, PipeTransport>) -> PyResult<()> {
    let this = transport.get();
    if !this.state.borrow().queue.is_empty() {
        return Ok(());
    }
    endpoint::stop_writing(transport)?;
    let event = this.state.borrow_mut().life.flow.on_shrink(0);
    endpoint::tell_flow(transport, event)?;
    let closing = this.state.borrow().life.phase.is_closing();
    if closing { endpoint::lose_now(transport) } else { Ok(()) }
}
