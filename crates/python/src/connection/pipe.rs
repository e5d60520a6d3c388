//! `connect_read_pipe` and `connect_write_pipe`.

use pyo3::intern;
use pyo3::prelude::*;

use super::{opened, pair};
use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::ffi::Ref;
use crate::report;
use crate::transports::pipe::{Open, Opening, ReadPipeTransport, WritePipeTransport};

/// `loop.connect_read_pipe(protocol_factory, pipe)`.
pub(crate) fn connect_read_pipe<'py>(
    event_loop: &Bound<'py, Core>,
    protocol_factory: Ref,
    pipe: Ref,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "connect_read_pipe", |flow| {
        let core = flow.keep(event_loop);
        let (factory, pipe) = (flow.keep(protocol_factory), flow.keep(pipe));
        connect(flow, core, factory, pipe, ReadPipeTransport::open, "Read")
    })
}

/// `loop.connect_write_pipe(protocol_factory, pipe)`.
pub(crate) fn connect_write_pipe<'py>(
    event_loop: &Bound<'py, Core>,
    protocol_factory: Ref,
    pipe: Ref,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "connect_write_pipe", |flow| {
        let core = flow.keep(event_loop);
        let (factory, pipe) = (flow.keep(protocol_factory), flow.keep(pipe));
        connect(flow, core, factory, pipe, WritePipeTransport::open, "Write")
    })
}

async fn connect(
    flow: Flow,
    core: Kept<Core>,
    factory: Kept,
    pipe: Kept,
    open: Open,
    what: &'static str,
) -> PyResult<Ref> {
    let (transport, protocol, waiter) = Python::attach(|py| {
        let protocol = factory.bind(py).call0()?;
        let waiter = Core::future(core.bind(py))?;
        let opening = Opening { pipe: pipe.bind(py), protocol: &protocol, waiter: Some(&waiter) };
        let transport = open(core.bind(py), &opening)?;
        Ok::<_, PyErr>((
            flow.keep::<PyAny>(transport),
            flow.keep::<PyAny>(protocol),
            flow.keep::<PyAny>(waiter),
        ))
    })?;
    opened(&flow, &transport, &waiter).await?;
    if core.get().debug() {
        Python::attach(|py| {
            let number = pipe.bind(py).call_method0(intern!(py, "fileno"))?;
            let (transport, protocol) = (transport.bind(py).repr()?, protocol.bind(py).repr()?);
            let message =
                format!("{what} pipe {} connected: ({transport}, {protocol})", number.repr()?);
            report::log(py, "debug", &message)
        })?;
    }
    pair(&transport, &protocol)
}
