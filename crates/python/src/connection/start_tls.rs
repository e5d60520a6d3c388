//! `start_tls`: TLS on a connection that is already in use.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::Optional;
use crate::core::Core;
use crate::coroutine::{Coroutine, Kept};
use crate::ffi::Ref;
use crate::imports::is_since;
use crate::transports::tls::{Tls, TlsProtocol};

/// The arguments of `start_tls`.
pub(crate) struct Upgrade {
    pub(crate) transport: Kept,
    pub(crate) protocol: Kept,
    pub(crate) context: Ref,
    pub(crate) server_side: bool,
    pub(crate) server_hostname: Optional,
    pub(crate) handshake_timeout: Optional,
    pub(crate) shutdown_timeout: Optional,
}

/// What an upgrade in progress has done so far.
struct Upgrading {
    tls: Kept<TlsProtocol>,
    waiter: Kept,
    /// The handles of `connection_made` and of the end of the pause.
    scheduled: [Kept; 2],
}

/// `loop.start_tls(...)`: the transport that the protocol is to use from then on.
pub(crate) fn start_tls<'py>(
    event_loop: &Bound<'py, Core>,
    upgrade: Upgrade,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "EventLoop.start_tls", |flow| {
        let core = flow.keep(event_loop);
        flow.show(&upgrade.transport);
        flow.show(&upgrade.protocol);
        async move {
            let upgrading = Python::attach(|py| {
                upgrade.check(py)?;
                let (tls, [waiter, made, resumed]) = upgrade.begin(core.bind(py))?;
                Ok::<_, PyErr>(Upgrading {
                    tls: flow.keep(tls),
                    waiter: flow.keep(waiter),
                    scheduled: [flow.keep(made), flow.keep(resumed)],
                })
            })?;
            let handshake = flow.wait_kept(&upgrading.waiter).await;
            Python::attach(|py| match handshake {
                Ok(_) => Ok(match upgrading.tls.get().transport(py) {
                    Some(transport) => transport.into_any().into(),
                    None => py.None().into(),
                }),
                Err(error) => {
                    upgrade.transport.bind(py).call_method0(intern!(py, "close"))?;
                    for handle in &upgrading.scheduled {
                        handle.bind(py).call_method0(intern!(py, "cancel"))?;
                    }
                    Err(error)
                }
            })
        }
    })
}

/// What stands on the transport from now on, its waiter and the two handles.
type Begun<'py> = (Bound<'py, TlsProtocol>, [Bound<'py, PyAny>; 3]);

impl Upgrade {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let context = self.context.bind(py);
        if !context.is_instance(&py.import("ssl")?.getattr("SSLContext")?)? {
            return Err(PyTypeError::new_err(format!(
                "sslcontext is expected to be an instance of ssl.SSLContext, got {}",
                context.repr()?
            )));
        }
        let transport = self.transport.bind(py);
        let compatible = transport.getattr_opt(intern!(py, "_start_tls_compatible"))?;
        if !compatible.map_or(Ok(false), |compatible| compatible.is_truthy())? {
            return Err(PyTypeError::new_err(format!(
                "transport {} is not supported by start_tls()",
                transport.repr()?
            )));
        }
        Ok(())
    }

    /// Puts TLS between the transport and its protocol. Reading is paused until TLS has been told of the transport, so
    /// that it is told of no data before.
    fn begin<'py>(&self, core: &Bound<'py, Core>) -> PyResult<Begun<'py>> {
        let py = core.py();
        let clone = |value: &Optional| value.as_ref().map(|value| value.clone_ref(py));
        let tls = Tls {
            context: Some(self.context.clone_ref(py)),
            server_side: self.server_side,
            server_hostname: clone(&self.server_hostname),
            handshake_timeout: clone(&self.handshake_timeout),
            shutdown_timeout: clone(&self.shutdown_timeout),
        };
        let waiter = Core::future(core)?;
        let tls = tls.protocol(core, self.protocol.bind(py), Some(&waiter), false)?;
        let transport = self.transport.bind(py);
        transport.call_method0(intern!(py, "pause_reading"))?;
        if self.server_side && is_since(py, [13, 4, 0]) {
            self.take_what_was_read(&tls)?;
        }
        transport.call_method1(intern!(py, "set_protocol"), (&tls,))?;
        let call_soon = core.getattr(intern!(py, "call_soon"))?;
        let made = call_soon.call1((tls.getattr(intern!(py, "connection_made"))?, transport))?;
        let resumed = call_soon.call1((transport.getattr(intern!(py, "resume_reading"))?,))?;
        Ok((tls, [waiter, made, resumed]))
    }

    /// What a stream's reader has, and nobody has read, is the beginning of the handshake (gh-142352).
    fn take_what_was_read(&self, tls: &Bound<'_, TlsProtocol>) -> PyResult<()> {
        let py = tls.py();
        let protocol = self.protocol.bind(py);
        let streams = py.import("asyncio.streams")?;
        if !protocol.is_instance(&streams.getattr(intern!(py, "StreamReaderProtocol"))?)? {
            return Ok(());
        }
        let reader = protocol.getattr_opt(intern!(py, "_stream_reader"))?;
        let Some(reader) = reader.filter(|reader| !reader.is_none()) else { return Ok(()) };
        let buffer = reader.getattr(intern!(py, "_buffer"))?;
        if buffer.is_truthy()? {
            tls.get().feed(&buffer)?;
            buffer.call_method0(intern!(py, "clear"))?;
        }
        Ok(())
    }
}
