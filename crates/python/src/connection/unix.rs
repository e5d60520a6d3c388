//! `create_unix_connection` and `create_unix_server`: stream sockets that are named in the file system, or in
//! Linux's abstract namespace.

use oxloop_engine::sys::{self, numbers};
use pyo3::exceptions::{PyAssertionError, PyNotImplementedError, PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::listen::{serve, server_tls};
use super::{Connected, Optional, close_after, is_true, open_transport, pair};
use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::error;
use crate::ffi::Ref;
use crate::imports::imports;
use crate::server::Server;
use crate::transports::socket::Socket;
use crate::transports::tls::Tls;
use crate::transports::unix_path::{self, BoundPath};

/// The arguments of `create_unix_connection`.
pub(crate) struct UnixClient {
    pub(crate) protocol_factory: Kept,
    pub(crate) path: Optional,
    pub(crate) ssl: Optional,
    pub(crate) sock: Optional,
    pub(crate) server_hostname: Optional,
    /// Of TLS: `ssl_handshake_timeout` and `ssl_shutdown_timeout`.
    pub(crate) timeouts: [Optional; 2],
}

/// `loop.create_unix_connection(...)`.
pub(crate) fn connect_unix<'py>(
    event_loop: &Bound<'py, Core>,
    client: UnixClient,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "EventLoop.create_unix_connection", |flow| {
        let core = flow.keep(event_loop);
        flow.show(&client.protocol_factory);
        async move {
            let tls = Python::attach(|py| client.check(py))?;
            let socket = client.socket(&flow, &core).await?;
            let connected = Connected { socket, owned: client.sock.is_none(), tls };
            let (transport, protocol) =
                open_transport(&flow, &core, &client.protocol_factory, connected).await?;
            pair(&transport, &protocol)
        }
    })
}

impl UnixClient {
    /// The errors in the arguments that asyncio finds before it does anything; what is to be encrypted with.
    fn check(&self, py: Python<'_>) -> PyResult<Option<Tls>> {
        check_supported(py)?;
        if let Some(name) = &self.server_hostname
            && !name.bind(py).is_instance_of::<PyString>()
        {
            return Err(PyAssertionError::new_err(()));
        }
        let tls = is_true(py, &self.ssl)?;
        if tls != self.server_hostname.is_some() {
            return Err(PyValueError::new_err(if tls {
                "you have to pass server_hostname when using ssl"
            } else {
                "server_hostname is only meaningful with ssl"
            }));
        }
        let name = self.server_hostname.as_ref().map(|name| name.clone_ref(py));
        Tls::new(py, &self.ssl, false, name, &self.timeouts)
    }

    /// A connected socket.
    async fn socket(&self, flow: &Flow, core: &Kept<Core>) -> PyResult<Socket> {
        let (path, sock) = match (&self.path, &self.sock) {
            (Some(_), Some(_)) => return Err(both()),
            (None, None) => return Err(PyValueError::new_err("no path and sock were specified")),
            (path, sock) => (path, sock),
        };
        let (socket, connecting) = Python::attach(|py| {
            if let Some(sock) = sock {
                check_unix_stream(sock.bind(py))?;
                return Ok((sock.clone_ref(py), None));
            }
            let path = path.as_ref().map(|path| file_system_path(path.bind(py))).transpose()?;
            let socket = new_socket(py)?;
            socket.call_method1(intern!(py, "setblocking"), (false,))?;
            // By the method, as asyncio does: a user may have replaced it.
            let connecting = core.bind(py).call_method1("sock_connect", (&socket, path));
            Ok::<_, PyErr>((socket.into(), Some(connecting.map(Ref::from))))
        })?;
        let connected = match connecting {
            None => Ok(()),
            Some(Ok(connecting)) => flow.wait(connecting).await.map(drop),
            Some(Err(error)) => Err(error),
        };
        match connected {
            Ok(()) => Python::attach(|py| Socket::object(socket.bind(py))),
            Err(error) => Err(Python::attach(|py| close_after(socket.bind(py), error))),
        }
    }
}

/// The arguments of `create_unix_server`.
pub(crate) struct UnixListening {
    pub(crate) protocol_factory: Kept,
    pub(crate) path: Optional,
    pub(crate) sock: Optional,
    pub(crate) backlog: i32,
    pub(crate) ssl: Optional,
    /// Of TLS: `ssl_handshake_timeout` and `ssl_shutdown_timeout`.
    pub(crate) timeouts: [Optional; 2],
    pub(crate) start_serving: bool,
    /// Whether the file goes with the server: by default from Python 3.13 on.
    pub(crate) cleanup_socket: Option<bool>,
}

/// `loop.create_unix_server(...)`.
pub(crate) fn create_unix_server<'py>(
    event_loop: &Bound<'py, Core>,
    listening: UnixListening,
) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::spawn(event_loop.py(), "EventLoop.create_unix_server", |flow| {
        let core = flow.keep(event_loop);
        flow.show(&listening.protocol_factory);
        async move {
            let server = Python::attach(|py| {
                let tls = listening.check(py)?;
                let socket = listening.socket(py)?;
                let cleans_up = listening.cleanup_socket.unwrap_or(py.version_info() >= (3, 13));
                let file = if cleans_up { BoundPath::of(&socket)? } else { None };
                socket.call_method1(intern!(py, "setblocking"), (false,))?;
                let factory = listening.protocol_factory.bind(py);
                let sockets = vec![socket.into()];
                let server =
                    Server::new(core.bind(py), sockets, file, factory, listening.backlog, tls)?;
                Ok::<_, PyErr>(flow.keep(server))
            })?;
            serve(&flow, server, listening.start_serving).await
        }
    })
}

impl UnixListening {
    /// The errors in the arguments that asyncio finds before it does anything; what is to be encrypted with.
    fn check(&self, py: Python<'_>) -> PyResult<Option<Tls>> {
        check_supported(py)?;
        server_tls(py, &self.ssl, &self.timeouts)
    }

    /// The socket to listen on, bound.
    fn socket<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match (&self.path, &self.sock) {
            (Some(_), Some(_)) => Err(both()),
            (None, None) => {
                Err(PyValueError::new_err("path was not specified, and no sock specified"))
            }
            (None, Some(sock)) => {
                let socket = sock.bind(py);
                check_unix_stream(socket)?;
                Ok(socket.clone())
            }
            (Some(path), None) => {
                let path = file_system_path(path.bind(py))?;
                let socket = new_socket(py)?;
                unix_path::remove_stale(&path)?;
                match socket.call_method1(intern!(py, "bind"), (&path,)) {
                    Ok(_) => Ok(socket),
                    Err(error) => Err(close_after(&socket, bind_error(&path, error)?)),
                }
            }
        }
    }
}

/// The error of bind(2), with the path in its text if somebody else has it.
fn bind_error(path: &Bound<'_, PyAny>, error: PyErr) -> PyResult<PyErr> {
    let py = path.py();
    if !error.is_instance_of::<PyOSError>(py) {
        return Ok(error);
    }
    let errno: Option<i32> = error.value(py).getattr(intern!(py, "errno"))?.extract()?;
    if errno != Some(sys::errno::EADDRINUSE) {
        return Ok(error);
    }
    let text = format!("Address {} is already in use", path.repr()?);
    let explained = PyOSError::new_err((sys::errno::EADDRINUSE, text));
    Ok(error::instead_of(py, &error, explained))
}

/// `NotImplementedError` where Python knows no Unix sockets: on Windows, up to now.
fn check_supported(py: Python<'_>) -> PyResult<()> {
    if imports(py).socket.bind(py).hasattr(intern!(py, "AF_UNIX"))? {
        return Ok(());
    }
    let message = "this Python has no Unix sockets (socket.AF_UNIX)";
    Err(PyNotImplementedError::new_err(message))
}

fn both() -> PyErr {
    PyValueError::new_err("path and sock can not be specified at the same time")
}

/// `os.fspath(path)`.
fn file_system_path<'py>(path: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = path.py();
    py.import(intern!(py, "os"))?.call_method1(intern!(py, "fspath"), (path,))
}

/// A new Unix stream socket.
fn new_socket(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let module = imports(py).socket.bind(py);
    let (family, kind) = (module.getattr("AF_UNIX")?, module.getattr("SOCK_STREAM")?);
    module.getattr(intern!(py, "socket"))?.call1((family, kind))
}

/// `ValueError` for anything but a Unix stream socket.
fn check_unix_stream(socket: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = socket.py();
    let family: i32 = socket.getattr(intern!(py, "family"))?.extract()?;
    let kind: i32 = socket.getattr(intern!(py, "type"))?.extract()?;
    if family == numbers::AF_UNIX && kind == numbers::SOCK_STREAM {
        return Ok(());
    }
    let text = format!("A UNIX Domain Stream Socket was expected, got {}", socket.repr()?);
    Err(PyValueError::new_err(text))
}
