//! One attempt of `create_connection`: a socket, bound if need be, connected to one address.
//!
//! As long as nothing of the user's has a say in it, there is no Python socket: asking for one
//! (`get_extra_info("socket")`) makes it, as with connections that were accepted. Making it costs more than everything
//! else that an attempt does in Python.

use std::io;
use std::net::TcpStream;

use oxloop_engine::sys::fd::AsRawFd;
use oxloop_engine::sys::os_error::EINPROGRESS;
use oxloop_engine::{Interest, sys};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use socket2::{Domain, Protocol, SockAddr, Type};

use super::close_after;
use crate::address::{self, Known};
use crate::core::Core;
use crate::coroutine::{Flow, Kept};
use crate::error::{self, os_error};
use crate::ffi::Ref;
use crate::imports::imports;
use crate::transports::socket::{Kind, Socket};

/// One address to connect to.
pub(super) struct Target {
    /// What `getaddrinfo` said of it.
    pub(super) info: Ref,
    /// What `getaddrinfo` said of the local address, if one is asked for.
    pub(super) local: Option<Ref>,
    /// Where the errors of all attempts are collected.
    pub(super) errors: Ref<PyList>,
}

/// An attempt to connect to it.
pub(super) struct Attempt {
    core: Kept<Core>,
    info: Ref,
    local: Option<Ref>,
    /// The errors have tracebacks, and these the frames of who waits.
    errors: Kept<PyList>,
}

impl Attempt {
    pub(super) fn new(flow: &Flow, core: Kept<Core>, target: Target) -> Self {
        let Target { info, local, errors } = target;
        Self { core, info, local, errors: flow.keep(errors) }
    }

    /// A connected socket; an error is noted. A `sock_connect` of the user's is called.
    pub(super) async fn connect(&self, flow: &Flow, own_sock_connect: bool) -> PyResult<Socket> {
        let native = if own_sock_connect { None } else { Python::attach(|py| self.native(py))? };
        if let Some((kind, known)) = native {
            let connected = connect(flow, &self.core, kind, &known).await;
            return connected.map_err(|error| Python::attach(|py| self.note(py, error)));
        }
        let object = self.connect_object(flow).await?;
        Python::attach(|py| Socket::object(object.bind(py)))
    }

    /// A connected Python socket; an error is noted, and the socket closed.
    pub(super) async fn connect_object(&self, flow: &Flow) -> PyResult<Ref> {
        let socket = Python::attach(|py| self.create(py).map_err(|error| self.note(py, error)))?;
        let connected = match Python::attach(|py| self.prepare(py, &socket)) {
            Ok(connecting) => flow.wait(connecting).await.map(drop),
            Err(error) => Err(error),
        };
        match connected {
            Ok(()) => Ok(socket),
            Err(error) => {
                Err(Python::attach(|py| self.note(py, close_after(socket.bind(py), error))))
            }
        }
    }

    /// What to connect to without a Python socket; `None` if its class or debug mode would make a
    /// difference, or the address is one that only the Python socket can read.
    fn native(&self, py: Python<'_>) -> PyResult<Option<(Kind, Known)>> {
        let imports = imports(py);
        let class = imports.socket_class.bind(py);
        if self.local.is_some()
            || self.core.get().debug()
            || !imports.socket.bind(py).getattr(intern!(py, "socket"))?.is(class)
            || !class.getattr(intern!(py, "connect"))?.is(imports.socket_connect.bind(py))
        {
            return Ok(None);
        }
        let info = self.info.bind(py);
        // What is no such tuple the Python socket refuses in its own words.
        let Ok((family, type_, protocol)) = numbers_of(info) else { return Ok(None) };
        let Ok(address) = info.get_item(4) else { return Ok(None) };
        if protocol < 0 {
            return Ok(None);
        }
        let kind = Kind { family, type_, protocol };
        Ok(address::parse(&address, family).map(|known| (kind, known)))
    }

    fn note(&self, py: Python<'_>, error: PyErr) -> PyErr {
        if !error.is_instance_of::<PyOSError>(py) {
            return error;
        }
        match self.errors.bind(py).append(error::exception(py, &error)) {
            Ok(()) => error,
            Err(other) => other,
        }
    }

    fn create(&self, py: Python<'_>) -> PyResult<Ref> {
        let info = self.info.bind(py);
        let class = imports(py).socket.bind(py).getattr(intern!(py, "socket"))?;
        let keywords = PyDict::new(py);
        for (index, name) in ["family", "type", "proto"].into_iter().enumerate() {
            keywords.set_item(name, info.get_item(index)?)?;
        }
        class.call((), Some(&keywords)).map(Ref::from)
    }

    /// Binds the socket if need be; the awaitable that connects it.
    fn prepare(&self, py: Python<'_>, socket: &Ref) -> PyResult<Ref> {
        let socket = socket.bind(py);
        socket.call_method1(intern!(py, "setblocking"), (false,))?;
        if let Some(local) = &self.local {
            self.bind_local(socket, local.bind(py))?;
        }
        let address = self.info.bind(py).get_item(4)?;
        // By the method, as asyncio does: a user may have replaced it.
        let event_loop = self.core.bind(py);
        event_loop.call_method1(intern!(py, "sock_connect"), (socket, address)).map(Ref::from)
    }

    fn bind_local(&self, socket: &Bound<'_, PyAny>, local: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = socket.py();
        let family = self.info.bind(py).get_item(0)?;
        let mut failed: Option<PyErr> = None;
        for info in local.try_iter()? {
            let info = info?;
            if !info.get_item(0)?.eq(&family)? {
                continue;
            }
            let address = info.get_item(4)?;
            let Err(error) = socket.call_method1(intern!(py, "bind"), (&address,)) else {
                return Ok(());
            };
            if !error.is_instance_of::<PyOSError>(py) {
                return Err(error);
            }
            if let Some(before) = failed.replace(bind_error(py, &address, &error)?) {
                self.note(py, before);
            }
        }
        Err(match failed {
            Some(error) => error,
            None => PyOSError::new_err(format!(
                "no matching local address with family={} found",
                family.repr()?
            )),
        })
    }
}

/// Family, type and protocol of what `getaddrinfo` has said.
fn numbers_of(info: &Bound<'_, PyAny>) -> PyResult<(i32, i32, i32)> {
    let number = |index: usize| info.get_item(index)?.extract();
    Ok((number(0)?, number(1)?, number(2)?))
}

/// A socket of our own, connected to a known address.
async fn connect(flow: &Flow, core: &Kept<Core>, kind: Kind, known: &Known) -> PyResult<Socket> {
    let protocol = (kind.protocol != 0).then(|| Protocol::from(kind.protocol));
    let (domain, type_) = (Domain::from(kind.family), Type::from(kind.type_));
    let socket = sys::socket::create(domain, type_, protocol).map_err(|error| os_error(&error))?;
    if let Err(error) = socket.connect(&SockAddr::from(known.address)) {
        if !is_under_way(&error) {
            return Err(os_error(&error));
        }
        flow.ready(core, socket.as_raw_fd(), Interest::WRITABLE).await?;
        let failed = socket.take_error().map_err(|error| os_error(&error))?;
        if let Some(errno) = failed.and_then(|error| error.raw_os_error()) {
            return Err(Python::attach(|py| error::connect_failed(errno, known.object.bind(py))));
        }
    }
    // By way of the standard library's own type, which every system's descriptors are made of.
    Ok(Socket::Descriptor { fd: TcpStream::from(socket).into(), kind })
}

/// Whether a connection is being made, after `connect` said this.
fn is_under_way(error: &io::Error) -> bool {
    error::is_transient(error) || error.raw_os_error() == Some(EINPROGRESS)
}

/// The error of bind(2) with the address in its text.
pub(super) fn bind_error(
    py: Python<'_>,
    address: &Bound<'_, PyAny>,
    error: &PyErr,
) -> PyResult<PyErr> {
    let value = error.value(py);
    let text = if py.version_info() >= (3, 13) {
        value.str()?.into_any()
    } else {
        value.getattr("strerror")?
    };
    let message = format!(
        "error while attempting to bind on address {}: {}",
        address.repr()?,
        text.str()?.to_string().to_lowercase()
    );
    Ok(PyOSError::new_err((value.getattr("errno")?.unbind(), message)))
}
