//! The `sock_*` methods: a call on the user's socket, tried at once, and again whenever it is ready.

use std::io;

use oxloop_engine::sys::fd::{BorrowedFd, RawFd};
use oxloop_engine::{Interest, sys};
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PySequence;

use super::EventLoop;
use super::arguments::{Given, or_number};
use crate::buffer::View;
use crate::core::{Core, READ_SIZE};
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::dns;
use crate::error::{self, os_error};
use crate::ffi::{self, Ref};
use crate::imports::imports;

#[pymethods]
impl EventLoop {
    /// Receive at most n bytes; none are the end. A coroutine.
    ///
    /// Raises what the socket's own method does (`OSError`), `TypeError` for a TLS socket, and in debug mode
    /// `ValueError` for one that blocks; so do all of `sock_*`.
    fn sock_recv<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        n: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = "EventLoop.sock_recv";
        operation(slf.as_super(), sock, name, Interest::READABLE, move |py, operation| {
            let fast = match n.bind(py).extract::<usize>() {
                // Nothing to receive is no call of the kernel.
                Ok(size) if (1..=READ_SIZE).contains(&size) => Some(size),
                _ => None,
            };
            let (Some(size), Some(fd)) = (fast, plain_fd(py, operation)?) else {
                return call_socket(py, operation, "recv", (n.bind(py),));
            };
            operation.core.get().with_read_buffer(|buffer| {
                match retry_io(sys::socket::recv(fd, &mut buffer[..size]))? {
                    None => Ok(None),
                    Some(received) => Ok(Some(ffi::bytes(py, &buffer[..received])?.into())),
                }
            })
        })
    }

    /// Receive into buf; return the number of bytes. A coroutine.
    fn sock_recv_into<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        buf: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = "EventLoop.sock_recv_into";
        operation(slf.as_super(), sock, name, Interest::READABLE, move |py, operation| {
            call_socket(py, operation, "recv_into", (buf.bind(py),))
        })
    }

    /// Receive a datagram of at most bufsize bytes; return it and its address. A coroutine.
    fn sock_recvfrom<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        bufsize: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = "EventLoop.sock_recvfrom";
        operation(slf.as_super(), sock, name, Interest::READABLE, move |py, operation| {
            call_socket(py, operation, "recvfrom", (bufsize.bind(py),))
        })
    }

    /// Receive a datagram into buf; return the number of bytes and the address. A coroutine.
    #[pyo3(
        signature = (sock, buf, nbytes=Given::default()),
        text_signature = "($self, sock, buf, nbytes=0)"
    )]
    fn sock_recvfrom_into<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        buf: Ref,
        nbytes: Given,
    ) -> PyResult<Bound<'py, PyAny>> {
        let nbytes = or_number(slf.py(), nbytes, 0);
        let name = "EventLoop.sock_recvfrom_into";
        operation(slf.as_super(), sock, name, Interest::READABLE, move |py, operation| {
            let (buf, nbytes) = (buf.bind(py), nbytes.bind(py));
            if nbytes.is_truthy()? {
                return call_socket(py, operation, "recvfrom_into", (buf, nbytes));
            }
            call_socket(py, operation, "recvfrom_into", (buf, buf.len()?))
        })
    }

    /// Send all of data. A coroutine. How much was sent before an error, or before it was cancelled, is not told.
    fn sock_sendall<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        data: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut view: Option<View> = None;
        let mut sent = 0;
        let name = "EventLoop.sock_sendall";
        operation(slf.as_super(), sock, name, Interest::WRITABLE, move |py, operation| {
            let Some(fd) = plain_fd(py, operation)? else {
                return send_rest(py, operation, data.bind(py), &mut sent);
            };
            let view = match &mut view {
                Some(view) => view,
                none => none.insert(View::readable(data.bind(py))?),
            };
            let bytes = view.as_slice();
            match retry_io(sys::socket::send(fd, &bytes[sent..]))? {
                None => Ok(None),
                Some(count) => {
                    sent += count;
                    Ok((sent >= bytes.len()).then(|| py.None().into()))
                }
            }
        })
    }

    /// Send a datagram to address; return the number of bytes. A coroutine.
    fn sock_sendto<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        data: Ref,
        address: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = "EventLoop.sock_sendto";
        operation(slf.as_super(), sock, name, Interest::WRITABLE, move |py, operation| {
            call_socket(py, operation, "sendto", (data.bind(py), address.bind(py)))
        })
    }

    /// Connect to address, which is looked up if need be. A coroutine.
    fn sock_connect<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        address: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "EventLoop.sock_connect", |flow| {
            let operation = Operation::new(&flow, slf.as_super(), sock);
            async move {
                Python::attach(|py| operation.check(py))?;
                let address = resolved(&flow, &operation, address).await?;
                connect_resolved(&flow, &operation, &address).await
            }
        })
    }

    /// Accept a connection; return its non-blocking socket and the peer's address. A coroutine.
    fn sock_accept<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = "EventLoop.sock_accept";
        operation(slf.as_super(), sock, name, Interest::READABLE, |py, operation| {
            let accepted = call_socket(py, operation, "accept", ())?;
            if let Some(accepted) = &accepted {
                let connection = accepted.bind(py).get_item(0)?;
                connection.call_method1(intern!(py, "setblocking"), (false,))?;
            }
            Ok(accepted)
        })
    }
}

/// A socket method of the loop in progress.
pub(super) struct Operation {
    pub(super) core: Kept<Core>,
    pub(super) socket: Kept,
}

impl Operation {
    pub(super) fn new(
        flow: &Flow,
        event_loop: &Bound<'_, Core>,
        socket: &Bound<'_, PyAny>,
    ) -> Self {
        Self { core: flow.keep(event_loop), socket: flow.keep(socket) }
    }

    /// `TypeError` for a TLS socket, and in debug mode `ValueError` for a blocking one.
    pub(super) fn check(&self, py: Python<'_>) -> PyResult<()> {
        let socket = self.socket.bind(py);
        let imports = imports(py);
        if !socket.get_type().is(imports.socket_class.bind(py)) {
            imports
                .base_events
                .bind(py)
                .call_method1(intern!(py, "_check_ssl_socket"), (socket,))?;
        }
        if self.core.get().debug() {
            let timeout = socket.call_method0(intern!(py, "gettimeout"))?;
            if !timeout.eq(0)? {
                return Err(PyValueError::new_err("the socket must be non-blocking"));
            }
        }
        Ok(())
    }

    fn fd(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.socket.bind(py).call_method0(intern!(py, "fileno"))?.extract()
    }

    /// Makes `attempt` now and whenever the socket is ready, until it has a result.
    async fn when_ready(
        &self,
        flow: &Flow,
        direction: Interest,
        mut attempt: impl FnMut(Python<'_>, &Self) -> PyResult<Option<Ref>>,
    ) -> PyResult<Ref> {
        if let Some(result) = Python::attach(|py| attempt(py, self))? {
            return Ok(result);
        }
        let fd = Python::attach(|py| {
            let fd = self.fd(py)?;
            self.core.get().check_no_transport(py, fd)?;
            Ok::<_, PyErr>(fd)
        })?;
        loop {
            flow.ready(&self.core, fd, direction).await?;
            if let Some(result) = Python::attach(|py| attempt(py, self))? {
                return Ok(result);
            }
        }
    }
}

/// A coroutine that makes `attempt` until it has a result.
fn operation<'py>(
    event_loop: &Bound<'py, Core>,
    socket: &Bound<'py, PyAny>,
    name: &'static str,
    direction: Interest,
    attempt: impl FnMut(Python<'_>, &Operation) -> PyResult<Option<Ref>> + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), name, |flow| {
        let operation = Operation::new(&flow, event_loop, socket);
        async move {
            Python::attach(|py| operation.check(py))?;
            operation.when_ready(&flow, direction, attempt).await
        }
    })
}

/// `None` for an error that says "not yet".
fn retry<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.is_instance_of::<PyBlockingIOError>(py)
                || error.is_instance_of::<PyInterruptedError>(py) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Calls a method of the socket.
fn call_socket<'py, A>(
    py: Python<'py>,
    operation: &Operation,
    method: &str,
    arguments: A,
) -> PyResult<Option<Ref>>
where
    A: pyo3::call::PyCallArgs<'py>,
{
    let called = operation.socket.bind(py).call_method1(method, arguments);
    Ok(retry(py, called)?.map(Ref::from))
}

/// The descriptor of a socket of exactly the class `socket.socket`, on which the kernel may be called without
/// its methods; `None` for another class, which may have overridden them, for a closed one, and for one that would
/// make the loop wait.
fn plain_fd<'a>(py: Python<'_>, operation: &'a Operation) -> PyResult<Option<BorrowedFd<'a>>> {
    let socket = operation.socket.bind(py);
    if !socket.get_type().is(imports(py).socket_class.bind(py)) {
        return Ok(None);
    }
    let name = intern!(py, "gettimeout");
    if sys::CALLS_MAY_BLOCK && ffi::call_method(socket, name, &[])?.ne(0.0)? {
        return Ok(None);
    }
    Ok(ffi::borrow_fd(operation.fd(py)?))
}

/// `None` for "not yet", the exception for any other error of the kernel.
fn retry_io<T>(result: io::Result<T>) -> PyResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error::is_transient(&error) => Ok(None),
        Err(error) => Err(os_error(&error)),
    }
}

/// Sends what is left by the socket's own method.
fn send_rest(
    py: Python<'_>,
    operation: &Operation,
    data: &Bound<'_, PyAny>,
    sent: &mut usize,
) -> PyResult<Option<Ref>> {
    let rest = if *sent == 0 {
        data.clone()
    } else {
        let view = pyo3::types::PyMemoryView::from(data)?;
        // Not a `PySlice`: `PySlice::new` leaks its numbers, as of PyO3 0.30.
        view.cast::<PySequence>()?.get_slice(*sent, usize::MAX)?.into_any()
    };
    let Some(count) = call_socket(py, operation, "send", (rest,))? else { return Ok(None) };
    *sent += count.bind(py).extract::<usize>()?;
    Ok((*sent >= data.len()?).then(|| py.None().into()))
}

/// The address to connect to: of an internet socket, the first one that the look-up finds.
async fn resolved(flow: &Flow, operation: &Operation, address: Ref) -> PyResult<Ref> {
    if !Python::attach(|py| dns::is_internet(operation.socket.bind(py)))? {
        return Ok(address);
    }
    let found = dns::ensure_resolved(flow, &operation.core, &address, &operation.socket).await?;
    Python::attach(|py| Ok(Ref::from(found.bind(py).get_item(0)?.get_item(4)?)))
}

async fn connect_resolved(flow: &Flow, operation: &Operation, address: &Ref) -> PyResult<Ref> {
    let mut started = false;
    operation
        .when_ready(flow, Interest::WRITABLE, move |py, operation| {
            if !started {
                started = true;
                return call_socket(py, operation, "connect", (address.bind(py),));
            }
            finish_connect(py, operation.socket.bind(py), address.bind(py))?;
            Ok(Some(py.None().into()))
        })
        .await
}

/// The outcome of a connection attempt, once the socket is writable.
fn finish_connect(
    py: Python<'_>,
    socket: &Bound<'_, PyAny>,
    address: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let module = imports(py).socket.bind(py);
    let level = module.getattr(intern!(py, "SOL_SOCKET"))?;
    let option = module.getattr(intern!(py, "SO_ERROR"))?;
    let errno: i32 = socket.call_method1(intern!(py, "getsockopt"), (level, option))?.extract()?;
    if errno == 0 { Ok(()) } else { Err(error::connect_failed(errno, address)) }
}
