//! `loop.sendfile` and `loop.sock_sendfile`: by the kernel, or by reading the file in a thread.

use oxloop_engine::sys::fd::RawFd;
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyInt, PyMemoryView, PySequence};

use super::EventLoop;
use super::arguments::{Given, Truth, or_number};
use super::sock;
use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::ffi::Ref;
use crate::imports::imports;
use crate::transports::fallback::SendfileFallback;
use crate::transports::sendfile::{Range, Sendfile, always_sets_position, not_available};
use crate::transports::stream::StreamTransport;

#[pymethods]
impl EventLoop {
    /// Send a file over a socket; return the number of bytes. A coroutine.
    ///
    /// From offset on, count bytes or all there are; the file's position is behind them afterwards, also when
    /// something fails. Without fallback what the kernel cannot send itself is a `SendfileNotAvailableError`.
    #[pyo3(
        signature = (sock, file, offset=Given::default(), count=None, *, fallback=Truth(true)),
        text_signature = "($self, sock, file, offset=0, count=None, *, fallback=True)"
    )]
    fn sock_sendfile<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        file: Ref,
        offset: Given,
        count: Option<Ref>,
        fallback: Truth,
    ) -> PyResult<Bound<'py, PyAny>> {
        let offset = or_number(slf.py(), offset, 0);
        let fallback = fallback.0;
        Coroutine::spawn(slf.py(), "EventLoop.sock_sendfile", |flow| {
            let operation = sock::Operation::new(&flow, slf.as_super(), sock);
            let part = Part::new(&flow, file, offset, count);
            async move {
                let (core, sock) = (&operation.core, &operation.socket);
                let native = Python::attach(|py| {
                    operation.check(py)?;
                    part.check(py, Some(sock))?;
                    call_native(py, core, "_sock_sendfile_native", sock, &part)
                })?;
                match flow.wait(native).await {
                    Err(error) if fallback && is_not_available(&error) => {}
                    outcome => return outcome,
                }
                let target = Target::Socket(sock.clone());
                read_and_send(&flow, core, &part, &target, SOCKET_BLOCK).await
            }
        })
    }

    /// Send a file over a transport, behind what was written to it; return the number of bytes. A coroutine.
    ///
    /// As `sock_sendfile()`. Nothing may be written, and nothing is received, until it ends. Raises `RuntimeError`
    /// if the transport is closing or not one of bytes.
    #[pyo3(
        signature = (transport, file, offset=Given::default(), count=None, *, fallback=Truth(true)),
        text_signature = "($self, transport, file, offset=0, count=None, *, fallback=True)"
    )]
    fn sendfile<'py>(
        slf: &Bound<'py, Self>,
        transport: &Bound<'py, PyAny>,
        file: Ref,
        offset: Given,
        count: Option<Ref>,
        fallback: Truth,
    ) -> PyResult<Bound<'py, PyAny>> {
        let offset = or_number(slf.py(), offset, 0);
        let fallback = fallback.0;
        Coroutine::spawn(slf.py(), "EventLoop.sendfile", |flow| {
            let core = flow.keep(slf.as_super());
            let transport = flow.keep(transport);
            let part = Part::new(&flow, file, offset, count);
            async move {
                let native = Python::attach(|py| {
                    let native = can_native(transport.bind(py))?;
                    let call = || call_native(py, &core, "_sendfile_native", &transport, &part);
                    native.then(call).transpose()
                })?;
                if let Some(native) = native {
                    match flow.wait(native).await {
                        Err(error) if fallback && is_not_available(&error) => {}
                        outcome => return outcome,
                    }
                }
                if !fallback {
                    return Err(Python::attach(|py| disabled(transport.bind(py))));
                }
                send_by_transport(&flow, &core, transport, &part).await
            }
        })
    }

    /// Send to a socket by sendfile(2). A coroutine.
    fn _sock_sendfile_native<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        file: Ref,
        offset: Ref,
        count: Option<Ref>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "EventLoop._sock_sendfile_native", |flow| {
            let core = flow.keep(slf.as_super());
            let sock = flow.keep(sock);
            let part = Part::new(&flow, file, offset, count);
            async move {
                let sendfile = Python::attach(|py| {
                    let sock = sock.bind(py);
                    let fd: RawFd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
                    core.get().check_no_transport(py, fd)?;
                    let (file, range) = (part.file.bind(py), part.range(py)?);
                    let sendfile = Sendfile::new(core.bind(py), Some(sock), fd, file, range)?;
                    Sendfile::start(&sendfile)?;
                    Ok::<_, PyErr>(flow.keep(sendfile))
                })?;
                sent(&flow, &sendfile).await
            }
        })
    }

    /// Send by sendfile(2), behind what was written to a transport. A coroutine.
    fn _sendfile_native<'py>(
        slf: &Bound<'py, Self>,
        transp: &Bound<'py, PyAny>,
        file: Ref,
        offset: Ref,
        count: Option<Ref>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "EventLoop._sendfile_native", |flow| {
            let transport = transp.cast::<StreamTransport>().ok().map(|own| flow.keep(own));
            let part = Part::new(&flow, file, offset, count);
            async move {
                let Some(transport) = transport else {
                    let message = "sendfile syscall is not supported";
                    return Err(Python::attach(|py| not_available(py, message)));
                };
                let resume = Python::attach(|py| pause_reading(transport.bind(py).as_any()))?;
                let sent = send_natively(&flow, &transport, &part).await;
                if resume {
                    Python::attach(|py| resume_reading(transport.bind(py).as_any()))?;
                }
                sent
            }
        })
    }
}

/// How many bytes are read at a time for a socket (`SENDFILE_FALLBACK_READBUFFER_SIZE`).
const SOCKET_BLOCK: usize = 256 * 1024;

/// How many bytes are read at a time for a transport: as many as its buffer takes before it asks to pause.
/// asyncio reads a quarter of that, and switches threads four times as often.
const TRANSPORT_BLOCK: usize = 64 * 1024;

/// A file, and what of it is to be sent, as the user has said it; kept by a flow.
struct Part {
    file: Kept,
    offset: Kept,
    count: Option<Kept>,
}

impl Part {
    fn new(flow: &Flow, file: Ref, offset: Ref, count: Option<Ref>) -> Self {
        let count = count.map(|count| flow.keep(count));
        Self { file: flow.keep(file), offset: flow.keep(offset), count }
    }

    /// `TypeError` or `ValueError` for what can be sent to no socket, or not to this one.
    fn check(&self, py: Python<'_>, socket: Option<&Kept>) -> PyResult<()> {
        let mode = self.file.bind(py).getattr_opt(intern!(py, "mode"))?;
        if let Some(mode) = mode
            && !mode.contains(intern!(py, "b"))?
        {
            return Err(PyValueError::new_err("file should be opened in binary mode"));
        }
        if let Some(socket) = socket {
            let stream = imports(py).socket.bind(py).getattr(intern!(py, "SOCK_STREAM"))?;
            if !socket.bind(py).getattr(intern!(py, "type"))?.eq(stream)? {
                return Err(PyValueError::new_err("only SOCK_STREAM type sockets are supported"));
            }
        }
        if let Some(count) = &self.count {
            check_number(count.bind(py), 1, "count must be a positive integer")?;
        }
        check_number(self.offset.bind(py), 0, "offset must be a non-negative integer")
    }

    fn range(&self, py: Python<'_>) -> PyResult<Range> {
        let count = self.count.as_ref().map(|count| match count.bind(py).extract::<u64>() {
            // More than any file has.
            Err(error) if error.is_instance_of::<PyOverflowError>(py) => Ok(u64::MAX),
            count => count,
        });
        Ok(Range { offset: self.offset.bind(py).extract()?, count: count.transpose()? })
    }

    /// How many bytes are to be read at a time, after `sent`.
    fn next(&self, py: Python<'_>, sent: usize, block: usize) -> PyResult<usize> {
        let Some(count) = &self.count else { return Ok(block) };
        let count = count.bind(py);
        if !count.is_truthy()? {
            return Ok(block);
        }
        let left = count.sub(sent)?;
        if left.gt(block)? {
            return Ok(block);
        }
        Ok(left.extract::<isize>()?.max(0).cast_unsigned())
    }

    /// Lets the file begin at the offset.
    fn seek(&self, py: Python<'_>) -> PyResult<()> {
        let (file, offset) = (self.file.bind(py), self.offset.bind(py));
        let wanted = if always_sets_position(py) {
            file.hasattr(intern!(py, "seek"))?
        } else {
            offset.is_truthy()?
        };
        if wanted {
            file.call_method1(intern!(py, "seek"), (offset,))?;
        }
        Ok(())
    }

    /// Lets the file go on behind what was sent, if it can.
    fn seek_behind(&self, py: Python<'_>, sent: usize) -> PyResult<()> {
        let file = self.file.bind(py);
        if sent > 0 && file.hasattr(intern!(py, "seek"))? {
            let position = self.offset.bind(py).add(sent)?;
            file.call_method1(intern!(py, "seek"), (position,))?;
        }
        Ok(())
    }
}

/// `TypeError` unless it is an `int`, `ValueError` if it is below `least`.
fn check_number(number: &Bound<'_, PyAny>, least: i32, text: &str) -> PyResult<()> {
    let is_number = number.is_instance_of::<PyInt>();
    if is_number && number.ge(least)? {
        return Ok(());
    }
    let text = format!("{text} (got {})", number.repr()?);
    Err(if is_number { PyValueError::new_err(text) } else { PyTypeError::new_err(text) })
}

/// Whether the error is `SendfileNotAvailableError`.
fn is_not_available(error: &PyErr) -> bool {
    Python::attach(|py| error.is_instance(py, imports(py).sendfile_not_available.bind(py)))
}

/// Whether the transport is one to which the kernel may send.
///
/// # Errors
/// `RuntimeError` for one that is closing or has no bytes.
fn can_native(transport: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = transport.py();
    if transport.call_method0(intern!(py, "is_closing"))?.is_truthy()? {
        return Err(PyRuntimeError::new_err("Transport is closing"));
    }
    let modes = imports(py).sendfile_mode.bind(py);
    let mode = transport.getattr_opt(intern!(py, "_sendfile_compatible"))?;
    match mode {
        Some(mode) if !mode.is(modes.getattr(intern!(py, "UNSUPPORTED"))?) => {
            Ok(mode.is(modes.getattr(intern!(py, "TRY_NATIVE"))?))
        }
        _ => Err(PyRuntimeError::new_err(format!(
            "sendfile is not supported for transport {}",
            transport.repr()?
        ))),
    }
}

#[cold]
fn disabled(transport: &Bound<'_, PyAny>) -> PyErr {
    match transport.repr() {
        Ok(text) => PyRuntimeError::new_err(format!(
            "fallback is disabled and native sendfile is not supported for transport {text}"
        )),
        Err(error) => error,
    }
}

/// Calls the loop's own method, which asyncio's users override to turn the kernel's way off.
fn call_native(
    py: Python<'_>,
    core: &Kept<Core>,
    name: &str,
    target: &Kept,
    part: &Part,
) -> PyResult<Ref> {
    let count = part.count.as_ref().map(|count| count.bind(py));
    let arguments = (target.bind(py), part.file.bind(py), part.offset.bind(py), count);
    core.bind(py).call_method1(name, arguments).map(Ref::from)
}

async fn send_natively(
    flow: &Flow,
    transport: &Kept<StreamTransport>,
    part: &Part,
) -> PyResult<Ref> {
    let sendfile = Python::attach(|py| {
        part.check(py, None)?;
        let (file, range) = (part.file.bind(py), part.range(py)?);
        StreamTransport::send_file(transport.bind(py), file, range).map(|file| flow.keep(file))
    })?;
    let sent = sent(flow, &sendfile).await;
    Python::attach(|py| transport.get().file_sent(sendfile.bind(py)));
    sent
}

/// Waits for the end, and sees to it that there is one if nobody waits any more.
async fn sent(flow: &Flow, sendfile: &Kept<Sendfile>) -> PyResult<Ref> {
    let future = Python::attach(|py| sendfile.get().future(py).into());
    let sent = flow.wait(future).await;
    let stopped = Python::attach(|py| Sendfile::stop(sendfile.bind(py), None));
    let sent = sent?;
    stopped.map(|()| sent)
}

/// Stops reading; whether it is to go on afterwards.
fn pause_reading(transport: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = transport.py();
    let reading = transport.call_method0(intern!(py, "is_reading"))?.is_truthy()?;
    transport.call_method0(intern!(py, "pause_reading"))?;
    Ok(reading)
}

fn resume_reading(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    transport.call_method0(intern!(transport.py(), "resume_reading")).map(drop)
}

/// Writes to a transport, of which the protocol is another one meanwhile.
async fn send_by_transport(
    flow: &Flow,
    core: &Kept<Core>,
    transport: Kept,
    part: &Part,
) -> PyResult<Ref> {
    let (fallback, resume) = Python::attach(|py| {
        part.seek(py)?;
        let transport = transport.bind(py);
        let fallback = SendfileFallback::new(core.bind(py), transport)?;
        let resume = pause_reading(transport)?;
        transport.call_method1(intern!(py, "set_protocol"), (&fallback,))?;
        Ok::<_, PyErr>((flow.keep(fallback), resume))
    })?;
    let target = Target::Transport { transport, fallback };
    let sent = read_and_send(flow, core, part, &target, TRANSPORT_BLOCK).await;
    let Target::Transport { transport, fallback } = &target else { return sent };
    Python::attach(|py| {
        let (transport, fallback) = (transport.bind(py), fallback.get());
        transport.call_method1(intern!(py, "set_protocol"), (fallback.protocol(py),))?;
        if resume {
            resume_reading(transport)?;
        }
        fallback.leave(py)
    })?;
    sent
}

/// What a file that is read is sent to.
enum Target {
    Socket(Kept),
    Transport { transport: Kept, fallback: Kept<SendfileFallback> },
}

impl Target {
    /// Sends a view of a buffer, which may be written to again afterwards.
    async fn send(&self, flow: &Flow, core: &Kept<Core>, view: Ref) -> PyResult<()> {
        match self {
            Self::Socket(socket) => {
                let sending = Python::attach(|py| {
                    let arguments = (socket.bind(py), view.bind(py));
                    core.bind(py)
                        .call_method1(intern!(py, "sock_sendall"), arguments)
                        .map(Ref::from)
                })?;
                flow.wait(sending).await.map(drop)
            }
            Self::Transport { transport, fallback } => {
                let waiter = Python::attach(|py| fallback.get().waiter(py))?;
                if let Some(waiter) = waiter {
                    flow.wait(waiter).await?;
                }
                Python::attach(|py| {
                    // A copy: not every transport makes one of what it does not send at once.
                    let data = py.get_type::<PyBytes>().call1((view.bind(py),))?;
                    transport.bind(py).call_method1(intern!(py, "write"), (data,)).map(drop)
                })
            }
        }
    }
}

/// Reads the file in the loop's default executor, and sends what was read. The number of bytes.
async fn read_and_send(
    flow: &Flow,
    core: &Kept<Core>,
    part: &Part,
    target: &Target,
    block: usize,
) -> PyResult<Ref> {
    let buffer = Python::attach(|py| {
        if matches!(target, Target::Socket(_)) {
            part.seek(py)?;
        }
        let size = part.next(py, 0, block)?;
        Ok::<_, PyErr>(flow.keep(PyByteArray::new_with(py, size, |_| Ok(()))?))
    })?;
    let mut sent = 0;
    let outcome = loop {
        match copy_block(flow, core, part, target, &buffer, sent).await {
            Ok(0) => break Ok(()),
            Ok(count) => sent += count,
            Err(error) => break Err(error),
        }
    };
    Python::attach(|py| {
        part.seek_behind(py, sent)?;
        outcome.map(|()| PyInt::new(py, sent).into_any().into())
    })
}

/// How many bytes were read and sent; 0 at the end.
async fn copy_block(
    flow: &Flow,
    core: &Kept<Core>,
    part: &Part,
    target: &Target,
    buffer: &Kept<PyByteArray>,
    sent: usize,
) -> PyResult<usize> {
    let reading = Python::attach(|py| {
        let buffer = buffer.bind(py);
        let size = part.next(py, sent, buffer.len())?;
        if size == 0 {
            return Ok(None);
        }
        let readinto = part.file.bind(py).getattr(intern!(py, "readinto"))?;
        let arguments = (py.None(), readinto, slice(buffer, size)?);
        core.bind(py)
            .call_method1(intern!(py, "run_in_executor"), arguments)
            .map(|future| Some(Ref::from(future)))
    })?;
    let Some(reading) = reading else { return Ok(0) };
    let read = flow.wait(reading).await?;
    let (count, view) = Python::attach(|py| {
        let read = read.bind(py);
        let count = if read.is_truthy()? { read.extract::<usize>()? } else { 0 };
        Ok::<_, PyErr>((count, Ref::from(slice(buffer.bind(py), count)?)))
    })?;
    if count > 0 {
        target.send(flow, core, view).await?;
    }
    Ok(count)
}

/// A view of the first `size` bytes of the buffer.
fn slice<'py>(buffer: &Bound<'py, PyByteArray>, size: usize) -> PyResult<Bound<'py, PyAny>> {
    let view = PyMemoryView::from(buffer.as_any())?;
    // Not a `PySlice`: `PySlice::new` leaks its numbers, as of PyO3 0.30.
    view.cast::<PySequence>()?.get_slice(0, size).map(Bound::into_any)
}
