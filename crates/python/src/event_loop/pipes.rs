//! Pipes: what `connection` makes of them, as methods of the loop.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::EventLoop;
use crate::connection;
use crate::ffi::Ref;
use crate::transports::pipe;

#[pymethods]
impl EventLoop {
    /// Read from pipe: a file object over a pipe, a FIFO, a socket or a character device. Return (transport,
    /// protocol). A coroutine. Raises `ValueError` for a regular file. On Windows the pipe has to be overlapped;
    /// of any other the protocol loses its connection by an `OSError`.
    fn connect_read_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        pipe: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        connection::connect_read_pipe(slf.as_super(), protocol_factory, pipe)
    }

    /// Make the transport of a pipe that goes both ways, such as Windows has, and queue the `connection_made` of its
    /// protocol. What `start_serving_pipe` and `create_pipe_connection` call.
    #[pyo3(signature = (pipe, protocol, extra=None))]
    fn _make_duplex_pipe_transport<'py>(
        slf: &Bound<'py, Self>,
        pipe: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        extra: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let opening = pipe::Opening { pipe, protocol, waiter: None };
        pipe::DuplexPipeTransport::open(slf.as_super(), &opening, extra)
    }

    /// Write to pipe: a file object over a pipe, a FIFO, a socket or a character device. Return (transport,
    /// protocol). A coroutine. Raises `ValueError` for a regular file, on Windows `OSError` for what is not
    /// overlapped.
    fn connect_write_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        pipe: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        connection::connect_write_pipe(slf.as_super(), protocol_factory, pipe)
    }
}
