//! The pipes of a child process: transports of their own, whose protocols hand everything on.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyTuple};

use super::{Stream, SubprocessTransport, call_soon};
use crate::core::Core;
use crate::coroutine::{self, Coroutine, Flow, Kept};
use crate::error;
use crate::ffi::{self, Ref};
use crate::imports::imports;
use crate::transports::pipe::{Open, Opening, ReadPipeTransport, WritePipeTransport};

/// What `Popen` calls the pipes, by the child's descriptor.
pub(super) const NAMES: [&str; 3] = ["stdin", "stdout", "stderr"];

/// Makes transports of the child's pipes.
pub(super) fn connect(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    SubprocessTransport::in_context(transport, connect_all)
}

fn connect_all(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let core = transport.get().core.bind(transport.py());
    if is_replaced(core)? {
        return connect_by_methods(transport);
    }
    match open_all(transport) {
        // Behind the `connection_made` of each pipe.
        Ok(()) => core.get().push_native(transport.as_any().into(), |transport| {
            SubprocessTransport::in_context(transport, connected)
        }),
        Err(error) => failed(transport, &error),
    }
}

/// Whether a subclass or the user put something else in the place of the loop's own methods.
fn is_replaced(core: &Bound<'_, Core>) -> PyResult<bool> {
    for name in ["connect_read_pipe", "connect_write_pipe"] {
        if !core.getattr(name)?.is_instance_of::<PyCFunction>() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// asyncio's protocol for the pipe `index`.
fn protocol_class(py: Python<'_>, index: usize) -> PyResult<Bound<'_, PyAny>> {
    let name = if index == 0 { "WriteSubprocessPipeProto" } else { "ReadSubprocessPipeProto" };
    imports(py).base_subprocess.bind(py).getattr(name)
}

/// The file object of the pipe `index`, if there is one.
fn pipe_object<'py>(
    transport: &Bound<'py, SubprocessTransport>,
    index: usize,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(process) = transport.get().process(transport.py()) else { return Ok(None) };
    let pipe = process.getattr(NAMES[index])?;
    Ok(if pipe.is_none() { None } else { Some(pipe) })
}

fn keep(transport: &Bound<'_, SubprocessTransport>, index: usize, protocol: &Bound<'_, PyAny>) {
    let connected = Stream::Connected(protocol.into());
    let before =
        std::mem::replace(&mut transport.get().state.borrow_mut().streams[index], connected);
    drop(before);
}

fn open_all(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let py = transport.py();
    let core = transport.get().core.bind(py);
    for index in 0..NAMES.len() {
        let Some(pipe) = pipe_object(transport, index)? else { continue };
        let open: Open =
            if index == 0 { WritePipeTransport::open } else { ReadPipeTransport::open };
        let protocol = protocol_class(py, index)?.call1((transport, index))?;
        let opened = open(core, &Opening { pipe: &pipe, protocol: &protocol, waiter: None })?;
        // Here already, so that `close()` finds it.
        protocol.setattr(intern!(py, "pipe"), opened)?;
        keep(transport, index, &protocol);
    }
    Ok(())
}

/// The same by the loop's `connect_read_pipe` and `connect_write_pipe`, whatever they are, in a task.
fn connect_by_methods(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let py = transport.py();
    let connecting = Coroutine::spawn(py, "_connect_pipes", |flow| {
        let transport = flow.keep(transport);
        async move {
            let result = match await_all(&flow, &transport).await {
                Ok(()) => Python::attach(|py| connected(transport.bind(py))),
                Err(error) => Python::attach(|py| {
                    if error::leaves_the_loop(py, &error) {
                        return Err(error);
                    }
                    failed(transport.bind(py), &error)
                }),
            };
            result.map(|()| ffi::none())
        }
    })?;
    let event_loop = transport.get().core.bind(py).as_any();
    ffi::call_method(event_loop, intern!(py, "create_task"), &[&connecting]).map(drop)
}

async fn await_all(flow: &Flow, transport: &Kept<SubprocessTransport>) -> PyResult<()> {
    for index in 0..NAMES.len() {
        let connecting = Python::attach(|py| {
            let transport = transport.bind(py);
            let Some(pipe) = pipe_object(transport, index)? else { return Ok(None) };
            let partial = py.import("functools")?.getattr("partial")?;
            let factory = partial.call1((protocol_class(py, index)?, transport, index))?;
            let name = if index == 0 { "connect_write_pipe" } else { "connect_read_pipe" };
            let core = transport.get().core.bind(py);
            core.call_method1(name, (factory, pipe)).map(|it| Some(Ref::from(it)))
        });
        let Some(connecting) = connecting? else { continue };
        let pair = flow.wait(connecting).await?;
        Python::attach(|py| {
            let protocol = pair.bind(py).get_item(1)?;
            keep(transport.bind(py), index, &protocol);
            Ok::<_, PyErr>(())
        })?;
    }
    Ok(())
}

/// The pipes could not be connected, which the waiter is told.
fn failed(transport: &Bound<'_, SubprocessTransport>, error: &PyErr) -> PyResult<()> {
    let py = transport.py();
    close_pipes(transport);
    let waiter = transport.get().state.borrow_mut().waiter.take();
    let Some(waiter) = waiter else { return Ok(()) };
    let waiter = waiter.bind(py);
    if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
        let exception = error::exception(py, error);
        waiter.call_method1(intern!(py, "set_exception"), (exception,))?;
    }
    Ok(())
}

/// Closes what of the child's pipes is open, transports or not.
fn close_pipes(transport: &Bound<'_, SubprocessTransport>) {
    let py = transport.py();
    for protocol in transport.get().pipes(py) {
        let closed =
            protocol.getattr(intern!(py, "pipe")).and_then(|pipe| pipe.call_method0("close"));
        drop(closed);
    }
    let Some(process) = transport.get().process(py) else { return };
    let before = {
        let mut state = transport.get().state.borrow_mut();
        for stream in &mut state.streams {
            if matches!(stream, Stream::Expected) {
                *stream = Stream::Inherited;
            }
        }
        // The caller hears of it; the protocol, which was never connected, of nothing.
        (state.protocol.take(), state.pending.take())
    };
    drop(before);
    for name in NAMES {
        drop(process.getattr(name).and_then(|pipe| pipe.call_method0(intern!(py, "close"))));
    }
}

/// The pipes are connected: the protocol hears of it, then of everything that has happened meanwhile.
fn connected(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    if let Some(protocol) = this.protocol(py) {
        let made = protocol.getattr(intern!(py, "connection_made"))?;
        call_soon(transport, &made, &PyTuple::new(py, [transport])?)?;
    }
    let (pending, waiter) = {
        let mut state = this.state.borrow_mut();
        (state.pending.take(), state.waiter.take())
    };
    for (callback, arguments) in pending.into_iter().flatten() {
        call_soon(transport, callback.bind(py), arguments.bind(py))?;
    }
    match waiter {
        Some(waiter) => coroutine::resolve(waiter.bind(py)),
        None => Ok(()),
    }
}
