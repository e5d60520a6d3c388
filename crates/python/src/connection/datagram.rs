//! `create_datagram_endpoint`: resolve, bind, connect, open.

use oxloop_engine::sys::numbers;
use pyo3::exceptions::{
    PyAssertionError, PyDeprecationWarning, PyOSError, PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::{Optional, close_after, is_true, opened, or_none, pair};
use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::dns::{self, Hints};
use crate::ffi::Ref;
use crate::imports::imports;
use crate::report;
use crate::transports::datagram::DatagramTransport;
use crate::transports::unix_path;

/// The arguments of `create_datagram_endpoint`.
pub(crate) struct Endpoint {
    pub(crate) protocol_factory: Kept,
    pub(crate) local_addr: Optional,
    pub(crate) remote_addr: Optional,
    pub(crate) family: Ref,
    pub(crate) proto: Ref,
    pub(crate) flags: Ref,
    /// Python 3.9 and 3.10 know it, to refuse it.
    pub(crate) reuse_address: Optional,
    pub(crate) reuse_port: Optional,
    pub(crate) allow_broadcast: Optional,
    pub(crate) sock: Optional,
}

/// A kind of socket, with what it is to be bound to and connected to.
struct Pair {
    family: Ref,
    proto: Ref,
    local: Optional,
    remote: Optional,
}

/// `loop.create_datagram_endpoint(...)`.
pub(crate) fn create_datagram_endpoint<'py>(
    event_loop: &Bound<'py, Core>,
    endpoint: Endpoint,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "EventLoop.create_datagram_endpoint", |flow| {
        let core = flow.keep(event_loop);
        flow.show(&endpoint.protocol_factory);
        async move {
            let (socket, remote) = match &endpoint.sock {
                Some(socket) => Python::attach(|py| {
                    let socket = socket.bind(py);
                    endpoint.check_socket(socket)?;
                    socket.call_method1(intern!(py, "setblocking"), (false,))?;
                    Ok::<_, PyErr>((Ref::from(socket), None))
                })?,
                None => endpoint.socket(&flow, &core).await?,
            };
            let (transport, protocol, waiter) = Python::attach(|py| {
                let core = core.bind(py);
                let protocol = endpoint.protocol_factory.bind(py).call0()?;
                let waiter = Core::future(core)?;
                let socket = socket.bind(py);
                let transport = DatagramTransport::open(core, socket, &protocol, remote, &waiter)?;
                if endpoint.sock.is_some() {
                    DatagramTransport::keep_nothing(&transport)?;
                }
                endpoint.log(core, transport.as_any(), &protocol)?;
                let transport = flow.keep(transport.into_any());
                Ok::<_, PyErr>((transport, flow.keep(protocol), flow.keep(waiter)))
            })?;
            opened(&flow, &transport, &waiter).await?;
            pair(&transport, &protocol)
        }
    })
}

impl Endpoint {
    /// `ValueError` for a socket of a wrong kind, and for keywords that say how one is to be made.
    fn check_socket(&self, socket: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = socket.py();
        let kind: i32 = socket.getattr(intern!(py, "type"))?.extract()?;
        let (refused, name) = if takes_any_but_streams(py) {
            (kind == numbers::SOCK_STREAM, "datagram socket")
        } else {
            (kind != numbers::SOCK_DGRAM, "UDP Socket")
        };
        if refused {
            let text = format!("A {name} was expected, got {}", socket.repr()?);
            return Err(PyValueError::new_err(text));
        }
        let mut problems = Vec::new();
        for (name, value) in [
            ("local_addr", or_none(py, &self.local_addr)),
            ("remote_addr", or_none(py, &self.remote_addr)),
            ("family", self.family.bind(py).clone()),
            ("proto", self.proto.bind(py).clone()),
            ("flags", self.flags.bind(py).clone()),
            ("reuse_port", or_none(py, &self.reuse_port)),
            ("allow_broadcast", or_none(py, &self.allow_broadcast)),
        ] {
            if value.is_truthy()? {
                let text = value.call_method1(intern!(py, "__format__"), ("",))?;
                problems.push(format!("{name}={text}"));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "socket modifier keyword arguments can not be used when sock is specified. ({})",
            problems.join(", ")
        )))
    }

    /// A bound and connected socket, as far as it was asked for, and the remote address.
    async fn socket(&self, flow: &Flow, core: &Kept<Core>) -> PyResult<(Ref, Optional)> {
        let pairs = self.pairs(flow, core).await?;
        Python::attach(|py| self.check_reuse_address(py))?;
        let mut first: Option<PyErr> = None;
        for pair in &pairs {
            match self.prepare(flow, core, pair).await {
                Ok(made) => return Ok(made),
                Err(error) if Python::attach(|py| error.is_instance_of::<PyOSError>(py)) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first.unwrap_or_else(|| PyValueError::new_err("can not get address information")))
    }

    /// The kinds of sockets that are to be tried, one after the other.
    async fn pairs(&self, flow: &Flow, core: &Kept<Core>) -> PyResult<Vec<Pair>> {
        let known = Python::attach(|py| {
            let (local, remote) = (&self.local_addr, &self.remote_addr);
            if !is_true(py, local)? && !is_true(py, remote)? {
                if self.family.bind(py).eq(0)? {
                    return Err(PyValueError::new_err("unexpected address family"));
                }
                return Ok(Some(vec![self.pair(py, &None, &None)]));
            }
            if self.family.bind(py).eq(numbers::AF_UNIX)? {
                self.check_paths(py)?;
                return Ok(Some(vec![self.pair(py, local, remote)]));
            }
            Ok(None)
        })?;
        match known {
            Some(pairs) => Ok(pairs),
            None => self.resolve(flow, core).await,
        }
    }

    fn pair(&self, py: Python<'_>, local: &Optional, remote: &Optional) -> Pair {
        let copy = |value: &Optional| value.as_ref().map(|value| value.clone_ref(py));
        Pair {
            family: self.family.clone_ref(py),
            proto: self.proto.clone_ref(py),
            local: copy(local),
            remote: copy(remote),
        }
    }

    /// Addresses of Unix sockets are strings; a socket that was left at the local one is removed.
    fn check_paths(&self, py: Python<'_>) -> PyResult<()> {
        for address in [&self.local_addr, &self.remote_addr].into_iter().flatten() {
            if !address.bind(py).is_instance_of::<PyString>() {
                return Err(PyTypeError::new_err("string is expected"));
            }
        }
        match &self.local_addr {
            Some(path) if path.bind(py).is_truthy()? => unix_path::remove_stale(path.bind(py)),
            _ => Ok(()),
        }
    }

    /// What the look-ups of both addresses say, joined by family and protocol.
    async fn resolve(&self, flow: &Flow, core: &Kept<Core>) -> PyResult<Vec<Pair>> {
        let mut pairs: Vec<Pair> = Vec::new();
        for (is_remote, address) in [(false, &self.local_addr), (true, &self.remote_addr)] {
            let Some(address) = address else { continue };
            let hints = Python::attach(|py| {
                check_tuple(address.bind(py))?;
                self.hints(py)
            })?;
            let infos = dns::resolve(flow, core, address, &hints).await?;
            Python::attach(|py| {
                dns::check_found(infos.bind(py))?;
                for info in infos.bind(py).try_iter()? {
                    join(&mut pairs, &info?, is_remote)?;
                }
                Ok::<_, PyErr>(())
            })?;
        }
        Python::attach(|py| {
            let (local, remote) = (is_true(py, &self.local_addr)?, is_true(py, &self.remote_addr)?);
            pairs.retain(|pair| {
                (!local || pair.local.is_some()) && (!remote || pair.remote.is_some())
            });
            if pairs.is_empty() {
                return Err(PyValueError::new_err("can not get address information"));
            }
            Ok(pairs)
        })
    }

    fn hints(&self, py: Python<'_>) -> PyResult<Hints> {
        Ok(Hints {
            family: self.family.clone_ref(py),
            kind: imports(py).socket.bind(py).getattr(intern!(py, "SOCK_DGRAM"))?.into(),
            proto: Some(self.proto.clone_ref(py)),
            flags: Some(self.flags.clone_ref(py)),
        })
    }

    /// `ValueError` for `reuse_address`, which lets two processes take each other's datagrams (bpo-37228).
    fn check_reuse_address(&self, py: Python<'_>) -> PyResult<()> {
        let Some(reuse_address) = &self.reuse_address else { return Ok(()) };
        if reuse_address.bind(py).is_truthy()? {
            return Err(PyValueError::new_err(
                "Passing `reuse_address=True` is no longer supported, as the usage of SO_REUSEPORT in UDP \
                 poses a significant security concern.",
            ));
        }
        let text = c"The *reuse_address* parameter has been deprecated as of 3.5.10 and is scheduled for removal in 3.11.";
        PyErr::warn(py, &py.get_type::<PyDeprecationWarning>(), text, 1)
    }

    /// A socket of a kind, bound and connected; it is closed again on an error.
    async fn prepare(
        &self,
        flow: &Flow,
        core: &Kept<Core>,
        pair: &Pair,
    ) -> PyResult<(Ref, Optional)> {
        let socket = Python::attach(|py| {
            let module = imports(py).socket.bind(py);
            let keywords = PyDict::new(py);
            keywords.set_item("family", pair.family.bind(py))?;
            keywords.set_item("type", module.getattr(intern!(py, "SOCK_DGRAM"))?)?;
            keywords.set_item("proto", pair.proto.bind(py))?;
            module.getattr(intern!(py, "socket"))?.call((), Some(&keywords)).map(Ref::from)
        })?;
        let connecting = Python::attach(|py| self.bind(py, core, socket.bind(py), pair));
        let connected = match connecting {
            Ok(Some(connecting)) => flow.wait(connecting).await.map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        Python::attach(|py| {
            if let Err(error) = connected {
                return Err(close_after(socket.bind(py), error));
            }
            let remote = match &pair.remote {
                Some(remote) if is_true(py, &self.remote_addr)? => Some(remote.clone_ref(py)),
                _ => None,
            };
            Ok((socket, remote))
        })
    }

    /// Sets the options of the socket and binds it; the awaitable that connects it, if it is to be connected.
    fn bind(
        &self,
        py: Python<'_>,
        core: &Kept<Core>,
        socket: &Bound<'_, PyAny>,
        pair: &Pair,
    ) -> PyResult<Option<Ref>> {
        let module = imports(py).socket.bind(py);
        if is_true(py, &self.reuse_port)? {
            let base_events = imports(py).base_events.bind(py);
            base_events.call_method1(intern!(py, "_set_reuseport"), (socket,))?;
        }
        let broadcast = is_true(py, &self.allow_broadcast)?;
        if broadcast {
            let arguments = (module.getattr("SOL_SOCKET")?, module.getattr("SO_BROADCAST")?, 1);
            socket.call_method1(intern!(py, "setsockopt"), arguments)?;
        }
        socket.call_method1(intern!(py, "setblocking"), (false,))?;
        if is_true(py, &self.local_addr)? {
            socket.call_method1(intern!(py, "bind"), (or_none(py, &pair.local),))?;
        }
        if !is_true(py, &self.remote_addr)? || broadcast {
            return Ok(None);
        }
        // By the method, as asyncio does: a user may have replaced it.
        let arguments = (socket, or_none(py, &pair.remote));
        core.bind(py).call_method1(intern!(py, "sock_connect"), arguments).map(|it| Some(it.into()))
    }

    fn log(
        &self,
        core: &Bound<'_, Core>,
        transport: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = core.py();
        if !core.get().debug() {
            return Ok(());
        }
        let (local, remote) = (or_none(py, &self.local_addr), or_none(py, &self.remote_addr));
        let (level, start) = if local.is_truthy()? {
            ("info", format!("local_addr={} ", local.repr()?))
        } else {
            ("debug", String::new())
        };
        let (transport, protocol) = (transport.repr()?, protocol.repr()?);
        let remote = remote.repr()?;
        let text = format!(
            "Datagram endpoint {start}remote_addr={remote} created: ({transport}, {protocol})"
        );
        report::logger(py)?.call_method1(level, ("%s", text)).map(drop)
    }
}

/// Whether asyncio takes every kind of socket but streams, or datagrams only: it changed in 3.13 and in releases
/// of 3.11 and 3.12 (gh-114887).
fn takes_any_but_streams(py: Python<'_>) -> bool {
    let version = py.version_info();
    version >= (3, 12, 3) || (version >= (3, 11, 9) && version < (3, 12))
}

/// `TypeError` for anything but a pair of host and port; Python 3.10 asserts it.
fn check_tuple(address: &Bound<'_, PyAny>) -> PyResult<()> {
    match address.cast::<PyTuple>() {
        Ok(tuple) if tuple.len() == 2 => Ok(()),
        _ if address.py().version_info().minor == 10 => {
            Err(PyAssertionError::new_err("2-tuple is expected"))
        }
        _ => Err(PyTypeError::new_err("2-tuple is expected")),
    }
}

/// Adds an entry of `getaddrinfo` to the pair of its family and protocol.
fn join(pairs: &mut Vec<Pair>, info: &Bound<'_, PyAny>, is_remote: bool) -> PyResult<()> {
    let py = info.py();
    let (family, proto, address) = (info.get_item(0)?, info.get_item(2)?, info.get_item(4)?);
    let mut place = None;
    for (index, pair) in pairs.iter().enumerate() {
        if pair.family.bind(py).eq(&family)? && pair.proto.bind(py).eq(&proto)? {
            place = Some(index);
        }
    }
    let place = place.unwrap_or_else(|| {
        pairs.push(Pair { family: family.into(), proto: proto.into(), local: None, remote: None });
        pairs.len() - 1
    });
    let slot = if is_remote { &mut pairs[place].remote } else { &mut pairs[place].local };
    *slot = Some(address.into());
    Ok(())
}
