//! `create_server`: resolve the hosts, bind a socket to each address, listen.

use oxloop_engine::sys::{self, numbers};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString, PyTuple};

use super::attempt::bind_error;
use super::{Optional, check_not_tls, check_stream, or_none};
use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::dns::{self, Hints};
use crate::error;
use crate::ffi::Ref;
use crate::imports::imports;
use crate::report;
use crate::server::Server;
use crate::transports::tls::Tls;

/// The arguments of `create_server`.
#[allow(clippy::struct_excessive_bools)] // as many as the method has
pub(crate) struct Listening {
    pub(crate) protocol_factory: Kept,
    pub(crate) host: Optional,
    pub(crate) port: Optional,
    pub(crate) family: Ref,
    pub(crate) flags: Ref,
    pub(crate) sock: Optional,
    pub(crate) backlog: i32,
    pub(crate) ssl: Optional,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
    pub(crate) keep_alive: bool,
    /// Of TLS: `ssl_handshake_timeout` and `ssl_shutdown_timeout`.
    pub(crate) timeouts: [Optional; 2],
    pub(crate) start_serving: bool,
}

/// `loop.create_server(...)`.
pub(crate) fn create_server<'py>(
    event_loop: &Bound<'py, Core>,
    listening: Listening,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "EventLoop.create_server", |flow| {
        let core = flow.keep(event_loop);
        flow.show(&listening.protocol_factory);
        async move {
            let tls = Python::attach(|py| listening.check(py))?;
            let sockets = listening.sockets(&flow, &core).await?;
            let server = Python::attach(|py| {
                for socket in &sockets {
                    socket.bind(py).call_method1(intern!(py, "setblocking"), (false,))?;
                }
                let factory = listening.protocol_factory.bind(py);
                let server =
                    Server::new(core.bind(py), sockets, None, factory, listening.backlog, tls)?;
                Ok::<_, PyErr>(flow.keep(server))
            })?;
            let server = serve(&flow, server, listening.start_serving).await?;
            if core.get().debug() {
                Python::attach(|py| {
                    let text = format!("{} is serving", server.bind(py).repr()?);
                    report::log(py, "info", &text)
                })?;
            }
            Ok(server)
        }
    })
}

/// What a server encrypts with; `TypeError` for a `bool`.
pub(super) fn server_tls(
    py: Python<'_>,
    ssl: &Optional,
    timeouts: &[Optional; 2],
) -> PyResult<Option<Tls>> {
    if ssl.as_ref().is_some_and(|ssl| ssl.bind(py).is_instance_of::<PyBool>()) {
        return Err(PyTypeError::new_err("ssl argument must be an SSLContext or None"));
    }
    Tls::new(py, ssl, true, None, timeouts)
}

/// Lets a new server start, if it shall, and its watches take effect.
pub(super) async fn serve(flow: &Flow, server: Kept<Server>, start_serving: bool) -> PyResult<Ref> {
    if start_serving {
        Python::attach(|py| Server::listen(server.bind(py)))?;
        flow.turn().await?;
    }
    Ok(Python::attach(|py| server.bind(py).clone().into_any().into()))
}

impl Listening {
    /// The errors in the arguments that asyncio finds before it does anything; what is to be encrypted with.
    fn check(&self, py: Python<'_>) -> PyResult<Option<Tls>> {
        let tls = server_tls(py, &self.ssl, &self.timeouts)?;
        if let Some(socket) = &self.sock {
            check_not_tls(py, socket)?;
        }
        Ok(tls)
    }

    /// The sockets to listen on, bound.
    async fn sockets(&self, flow: &Flow, core: &Kept<Core>) -> PyResult<Vec<Ref>> {
        if self.host.is_none() && self.port.is_none() {
            return Python::attach(|py| {
                let Some(socket) = &self.sock else {
                    let message = "Neither host/port nor sock were specified";
                    return Err(PyValueError::new_err(message));
                };
                check_stream(socket.bind(py))?;
                Ok(vec![socket.clone_ref(py)])
            });
        }
        if self.sock.is_some() {
            let message = "host/port and sock can not be specified at the same time";
            return Err(PyValueError::new_err(message));
        }
        let mut infos: Vec<Ref> = Vec::new();
        for host in Python::attach(|py| self.hosts(py))? {
            let (address, hints) = Python::attach(|py| self.question(py, &host))?;
            let found = dns::resolve(flow, core, &address, &hints).await?;
            Python::attach(|py| collect(py, &host, &found, &mut infos))?;
        }
        let mut sockets = Vec::new();
        let bound = Python::attach(|py| self.bind_all(py, core, &infos, &mut sockets));
        if let Err(error) = bound {
            Python::attach(|py| close_all(py, &sockets));
            return Err(error);
        }
        Ok(sockets)
    }

    /// The hosts to bind to: one, several, or `None` for all interfaces.
    fn hosts(&self, py: Python<'_>) -> PyResult<Vec<Ref>> {
        let Some(host) = &self.host else { return Ok(vec![py.None().into()]) };
        let host = host.bind(py);
        if let Ok(text) = host.cast::<PyString>() {
            let every_interface = text.len()? == 0;
            return Ok(vec![if every_interface { py.None().into() } else { host.into() }]);
        }
        match host.try_iter() {
            Ok(hosts) => hosts.map(|host| Ok(host?.into())).collect(),
            Err(_) => Ok(vec![host.into()]),
        }
    }

    fn question(&self, py: Python<'_>, host: &Ref) -> PyResult<(Ref, Hints)> {
        let hints = Hints {
            family: self.family.clone_ref(py),
            kind: imports(py).socket.bind(py).getattr(intern!(py, "SOCK_STREAM"))?.into(),
            proto: None,
            flags: Some(self.flags.clone_ref(py)),
        };
        let address = PyTuple::new(py, [host.bind(py), &or_none(py, &self.port)])?;
        Ok((address.into_any().into(), hints))
    }

    fn bind_all(
        &self,
        py: Python<'_>,
        core: &Kept<Core>,
        infos: &[Ref],
        sockets: &mut Vec<Ref>,
    ) -> PyResult<()> {
        for info in infos {
            self.bind_one(py, core, info.bind(py), sockets)?;
        }
        if sockets.is_empty() {
            let addresses: Vec<String> = infos
                .iter()
                .map(|info| Ok(info.bind(py).get_item(4)?.repr()?.to_string()))
                .collect::<PyResult<_>>()?;
            let list = addresses.join(", ");
            return Err(PyOSError::new_err(format!(
                "could not bind on any address out of [{list}]"
            )));
        }
        Ok(())
    }

    /// Adds a bound socket for `info` to `sockets`; none if the system has not got its family.
    fn bind_one(
        &self,
        py: Python<'_>,
        core: &Kept<Core>,
        info: &Bound<'_, PyAny>,
        sockets: &mut Vec<Ref>,
    ) -> PyResult<()> {
        let module = imports(py).socket.bind(py);
        let (family, kind, proto) = (info.get_item(0)?, info.get_item(1)?, info.get_item(2)?);
        let socket = match module.getattr("socket")?.call1((&family, &kind, &proto)) {
            Ok(socket) => socket,
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                if core.get().debug() {
                    let message = format!(
                        "create_server() failed to create socket.socket({}, {}, {})",
                        family.repr()?,
                        kind.repr()?,
                        proto.repr()?
                    );
                    report::log(py, "warning", &message)?;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        sockets.push((&socket).into());
        self.set_options(&socket, &family)?;
        let address = info.get_item(4)?;
        let Err(error) = socket.call_method1(intern!(py, "bind"), (&address,)) else {
            return Ok(());
        };
        if !error.is_instance_of::<PyOSError>(py) {
            return Err(error);
        }
        let explained = bind_error(py, &address, &error)?;
        let errno: Option<i32> = error.value(py).getattr("errno")?.extract()?;
        if errno != Some(sys::errno::EADDRNOTAVAIL) {
            return Err(error::instead_of(py, &error, explained));
        }
        // The family is known but not configured: the other addresses may do.
        sockets.pop();
        socket.call_method0(intern!(py, "close"))?;
        if core.get().debug() {
            report::log(py, "warning", &explained.value(py).str()?.to_string())?;
        }
        Ok(())
    }

    fn set_options(&self, socket: &Bound<'_, PyAny>, family: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = socket.py();
        let module = imports(py).socket.bind(py);
        let set = |level: &str, option: &str| -> PyResult<()> {
            let arguments = (module.getattr(level)?, module.getattr(option)?, true);
            socket.call_method1(intern!(py, "setsockopt"), arguments).map(drop)
        };
        if self.reuse_address {
            set("SOL_SOCKET", "SO_REUSEADDR")?;
        }
        if self.reuse_port {
            let base_events = imports(py).base_events.bind(py);
            base_events.call_method1(intern!(py, "_set_reuseport"), (socket,))?;
        }
        if self.keep_alive {
            set("SOL_SOCKET", "SO_KEEPALIVE")?;
        }
        if family.eq(numbers::AF_INET6)? {
            // Each family has its own socket.
            set("IPPROTO_IPV6", "IPV6_V6ONLY")?;
        }
        Ok(())
    }
}

/// Adds what was found for `host` to `infos`, each address once.
fn collect(py: Python<'_>, host: &Ref, found: &Ref, infos: &mut Vec<Ref>) -> PyResult<()> {
    let found = found.bind(py);
    if !found.is_truthy()? {
        let host = host.bind(py).repr()?;
        return Err(PyOSError::new_err(format!("getaddrinfo({host}) returned empty list")));
    }
    for info in found.try_iter()? {
        let info = info?;
        let mut known = false;
        for other in infos.iter() {
            known = known || other.bind(py).eq(&info)?;
        }
        if !known {
            infos.push(info.into());
        }
    }
    Ok(())
}

/// Closes what was bound before an error, which is the one that counts.
fn close_all(py: Python<'_>, sockets: &[Ref]) {
    for socket in sockets {
        let _ = socket.bind(py).call_method0(intern!(py, "close"));
    }
}
