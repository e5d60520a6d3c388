//! `create_connection`: resolve, try the addresses (one after the other, or by happy eyeballs), open.

use pyo3::exceptions::{PyOSError, PyTimeoutError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::attempt::{Attempt, Target};
use super::{
    Connected, Optional, check_not_tls, check_stream, is_true, open_transport, or_none, pair,
};
use crate::cell::LoopCell;
use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::dns::{self, Hints};
use crate::ffi::Ref;
use crate::imports::imports;
use crate::report;
use crate::transports::socket::Socket;
use crate::transports::tls::Tls;

/// The arguments of `create_connection`.
pub(crate) struct Client {
    pub(crate) protocol_factory: Kept,
    pub(crate) host: Optional,
    pub(crate) port: Optional,
    pub(crate) ssl: Optional,
    pub(crate) family: Ref,
    pub(crate) proto: Ref,
    pub(crate) flags: Ref,
    pub(crate) sock: Optional,
    pub(crate) local_addr: Optional,
    pub(crate) server_hostname: Optional,
    /// Of TLS: `ssl_handshake_timeout` and `ssl_shutdown_timeout`.
    pub(crate) timeouts: [Optional; 2],
    pub(crate) happy_eyeballs_delay: Optional,
    pub(crate) interleave: Optional,
    pub(crate) all_errors: bool,
    /// Whether `sock_connect` is the user's.
    pub(crate) own_sock_connect: bool,
}

impl Client {
    /// The errors in the arguments that asyncio finds before it does anything; what is to be encrypted with.
    fn check(&self, py: Python<'_>) -> PyResult<Option<Tls>> {
        let encrypted = is_true(py, &self.ssl)?;
        if self.server_hostname.is_some() && !encrypted {
            return Err(PyValueError::new_err("server_hostname is only meaningful with ssl"));
        }
        let mut server_hostname = self.server_hostname.as_ref().map(|name| name.clone_ref(py));
        if encrypted && server_hostname.is_none() {
            // The host's name is what its certificate is checked for; "" asks for no check.
            let host = match &self.host {
                Some(host) if host.bind(py).is_truthy()? => host.clone_ref(py),
                _ => {
                    let message = "You must set server_hostname when using ssl without a host";
                    return Err(PyValueError::new_err(message));
                }
            };
            server_hostname = Some(host);
        }
        let tls = Tls::new(py, &self.ssl, false, server_hostname, &self.timeouts)?;
        if let Some(socket) = &self.sock {
            check_not_tls(py, socket)?;
        }
        Ok(tls)
    }

    fn hints(&self, py: Python<'_>) -> PyResult<Hints> {
        Ok(Hints {
            family: self.family.clone_ref(py),
            kind: imports(py).socket.bind(py).getattr(intern!(py, "SOCK_STREAM"))?.into(),
            proto: Some(self.proto.clone_ref(py)),
            flags: Some(self.flags.clone_ref(py)),
        })
    }

    /// A connected socket.
    async fn socket(&self, flow: &Flow, core: &Kept<Core>) -> PyResult<Socket> {
        if self.host.is_none() && self.port.is_none() {
            return Python::attach(|py| {
                let Some(socket) = &self.sock else {
                    let message = "host and port was not specified and no sock specified";
                    return Err(PyValueError::new_err(message));
                };
                check_stream(socket.bind(py))?;
                Socket::object(socket.bind(py))
            });
        }
        if self.sock.is_some() {
            let message = "host/port and sock can not be specified at the same time";
            return Err(PyValueError::new_err(message));
        }
        let (address, hints) = Python::attach(|py| {
            let address = PyTuple::new(py, [or_none(py, &self.host), or_none(py, &self.port)])?;
            Ok::<_, PyErr>((Ref::from(address.into_any()), self.hints(py)?))
        })?;
        let infos = dns::resolve(flow, core, &address, &hints).await?;
        Python::attach(|py| dns::check_found(infos.bind(py)))?;
        let local = match &self.local_addr {
            None => None,
            Some(local) => {
                let found = dns::resolve(flow, core, local, &hints).await?;
                Python::attach(|py| dns::check_found(found.bind(py)))?;
                Some(found)
            }
        };
        let infos = Python::attach(|py| self.order(py, &infos))?;
        self.try_addresses(flow, core, infos, local).await
    }

    /// The addresses in the order in which they are to be tried.
    fn order(&self, py: Python<'_>, infos: &Ref) -> PyResult<Vec<Ref>> {
        let infos: Vec<Bound<'_, PyAny>> = infos.bind(py).try_iter()?.collect::<PyResult<_>>()?;
        let first_count: usize = match &self.interleave {
            Some(count) if count.bind(py).is_truthy()? => count.bind(py).extract()?,
            None if self.happy_eyeballs_delay.is_some() => 1,
            _ => 0,
        };
        let ordered = if first_count == 0 { infos } else { interleave(infos, first_count)? };
        Ok(ordered.into_iter().map(Ref::from).collect())
    }

    async fn try_addresses(
        &self,
        flow: &Flow,
        core: &Kept<Core>,
        infos: Vec<Ref>,
        local: Option<Ref>,
    ) -> PyResult<Socket> {
        let errors = flow.keep(Python::attach(|py| Ref::from(PyList::empty(py))));
        let targets: Vec<Target> = Python::attach(|py| {
            infos
                .into_iter()
                .map(|info| Target {
                    info,
                    local: local.as_ref().map(|local| local.clone_ref(py)),
                    errors: errors.clone_ref(py),
                })
                .collect()
        });
        if let Some(delay) = &self.happy_eyeballs_delay {
            let race = Python::attach(|py| race(core, targets, delay.bind(py)))?;
            let outcome = flow.wait(race).await?;
            let winner = Python::attach(|py| {
                let winner = outcome.bind(py).get_item(0)?;
                Ok::<_, PyErr>((!winner.is_none()).then(|| Ref::from(winner)))
            })?;
            return Python::attach(|py| match winner {
                Some(winner) => Socket::object(winner.bind(py)),
                None => Err(self.failure(errors.bind(py))),
            });
        }
        let attempts = targets.into_iter().map(|target| Attempt::new(flow, core.clone(), target));
        for attempt in attempts {
            match attempt.connect(flow, self.own_sock_connect).await {
                Ok(socket) => return Ok(socket),
                Err(error) => {
                    if !Python::attach(|py| error.is_instance_of::<PyOSError>(py)) {
                        return Err(error);
                    }
                }
            }
        }
        Err(Python::attach(|py| self.failure(errors.bind(py))))
    }

    /// The exception for attempts that all failed.
    fn failure(&self, errors: &Bound<'_, PyList>) -> PyErr {
        combine(errors, self.all_errors).unwrap_or_else(|error| error)
    }
}

fn combine(errors: &Bound<'_, PyList>, all_errors: bool) -> PyResult<PyErr> {
    let py = errors.py();
    if all_errors {
        let group = py.import("builtins")?.getattr("ExceptionGroup")?;
        let group = group.call1(("create_connection failed", errors))?;
        return Ok(PyErr::from_value(group));
    }
    if errors.is_empty() {
        return Ok(PyTimeoutError::new_err("create_connection failed"));
    }
    let texts: Vec<String> =
        errors.iter().map(|error| Ok(error.str()?.to_string())).collect::<PyResult<_>>()?;
    if texts.iter().all(|text| *text == texts[0]) {
        return Ok(PyErr::from_value(errors.get_item(0)?));
    }
    Ok(PyOSError::new_err(format!("Multiple exceptions: {}", texts.join(", "))))
}

/// Address families take turns, after `first_count` addresses of the first one (RFC 8305, section 4).
fn interleave<'py>(
    infos: Vec<Bound<'py, PyAny>>,
    first_count: usize,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let mut families: Vec<(i32, std::collections::VecDeque<Bound<'py, PyAny>>)> = Vec::new();
    for info in infos {
        let family: i32 = info.get_item(0)?.extract()?;
        match families.iter_mut().find(|(known, _)| *known == family) {
            Some((_, members)) => members.push_back(info),
            None => families.push((family, [info].into())),
        }
    }
    let mut ordered = Vec::new();
    if let Some((_, first)) = families.first_mut() {
        for _ in 1..first_count {
            ordered.extend(first.pop_front());
        }
    }
    while families.iter().any(|(_, members)| !members.is_empty()) {
        ordered.extend(families.iter_mut().filter_map(|(_, members)| members.pop_front()));
    }
    Ok(ordered)
}

/// A race of attempts, each started `delay` seconds after the one before or when that has failed.
fn race(core: &Kept<Core>, targets: Vec<Target>, delay: &Bound<'_, PyAny>) -> PyResult<Ref> {
    let py = delay.py();
    let starters = PyList::empty(py);
    for target in targets {
        let starter = Starter { core: core.clone_ref(py), target: LoopCell::new(Some(target)) };
        starters.append(Bound::new(py, starter)?)?;
    }
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), core.bind(py))?;
    py.import("asyncio.staggered")?
        .getattr("staggered_race")?
        .call((starters, delay), Some(&keywords))
        .map(Ref::from)
}

/// An attempt in the form that `staggered_race` takes: a callable that returns a coroutine.
#[pyclass(frozen, module = "oxloop._native")]
struct Starter {
    core: Ref<Core>,
    target: LoopCell<Option<Target>>,
}

#[pymethods]
impl Starter {
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Some(target) = self.target.take() else {
            return Err(PyOSError::new_err("the attempt was made already"));
        };
        Coroutine::spawn(py, "EventLoop._connect_sock", |flow| {
            let core = flow.keep(self.core.clone_ref(py));
            let attempt = Attempt::new(&flow, core, target);
            async move { attempt.connect_object(&flow).await }
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(target) = self.target.try_borrow()
            && let Some(target) = &*target
        {
            visit.call(&*target.errors)?;
        }
        visit.call(&*self.core)
    }
}

/// `loop.create_connection(...)`.
pub(crate) fn connect<'py>(
    event_loop: &Bound<'py, Core>,
    client: Client,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "EventLoop.create_connection", |flow| {
        let core = flow.keep(event_loop);
        flow.show(&client.protocol_factory);
        async move {
            let tls = Python::attach(|py| client.check(py))?;
            let socket = client.socket(&flow, &core).await?;
            let connected = Connected { socket, owned: client.sock.is_none(), tls };
            let (transport, protocol) =
                open_transport(&flow, &core, &client.protocol_factory, connected).await?;
            Python::attach(|py| {
                if !core.get().debug() {
                    return Ok(());
                }
                let (transport, protocol) = (transport.bind(py), protocol.bind(py));
                let socket = transport.call_method1(intern!(py, "get_extra_info"), ("socket",))?;
                let text = format!(
                    "{} connected to {}:{}: ({}, {})",
                    socket.repr()?,
                    or_none(py, &client.host).str()?,
                    or_none(py, &client.port).repr()?,
                    transport.repr()?,
                    protocol.repr()?
                );
                report::log(py, "debug", &text)
            })?;
            pair(&transport, &protocol)
        }
    })
}

/// `loop.connect_accepted_socket(...)`.
pub(crate) fn accepted<'py>(
    event_loop: &Bound<'py, Core>,
    protocol_factory: Ref,
    socket: Ref,
    ssl: Optional,
    timeouts: [Optional; 2],
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "EventLoop.connect_accepted_socket", |flow| {
        let core = flow.keep(event_loop);
        let (protocol_factory, socket) = (flow.keep(protocol_factory), flow.keep(socket));
        async move {
            let (socket, tls) = Python::attach(|py| {
                check_stream(socket.bind(py))?;
                let name = Some(PyString::new(py, "").into_any().into());
                let tls = Tls::new(py, &ssl, true, name, &timeouts)?;
                check_not_tls(py, &socket)?;
                Ok::<_, PyErr>((Socket::object(socket.bind(py))?, tls))
            })?;
            let connected = Connected { socket, owned: false, tls };
            let (transport, protocol) =
                open_transport(&flow, &core, &protocol_factory, connected).await?;
            pair(&transport, &protocol)
        }
    })
}
