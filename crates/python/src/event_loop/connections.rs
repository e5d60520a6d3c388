//! Names, connections and servers: what `connection` and `dns` do, as methods of the loop.

use oxloop_engine::sys::{self, numbers};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::EventLoop;
use super::arguments::{Given, Truth, or_number};
use super::schedule;
use crate::cell::Shared;
use crate::connection;
use crate::dns;
use crate::ffi::Ref;

#[pymethods]
impl EventLoop {
    /// socket.getaddrinfo without blocking the loop. A coroutine. Raises `socket.gaierror`.
    #[pyo3(
        signature = (
            host, port, *, family=Given::default(), r#type=Given::default(), proto=Given::default(),
            flags=Given::default()
        ),
        text_signature = "($self, host, port, *, family=0, type=0, proto=0, flags=0)"
    )]
    fn getaddrinfo<'py>(
        slf: &Bound<'py, Self>,
        host: &Bound<'py, PyAny>,
        port: &Bound<'py, PyAny>,
        family: Given,
        r#type: Given,
        proto: Given,
        flags: Given,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let hints = [family, r#type, proto, flags].map(|hint| or_number(py, hint, 0));
        dns::getaddrinfo(slf.as_super(), host, port, &hints)
    }

    /// socket.getnameinfo without blocking the loop. A coroutine. Raises `socket.gaierror`.
    #[pyo3(signature = (sockaddr, flags=Given::default()), text_signature = "($self, sockaddr, flags=0)")]
    fn getnameinfo<'py>(
        slf: &Bound<'py, Self>,
        sockaddr: &Bound<'py, PyAny>,
        flags: Given,
    ) -> PyResult<Bound<'py, PyAny>> {
        let flags = or_number(slf.py(), flags, 0);
        dns::getnameinfo(slf.as_super(), sockaddr, flags.bind(slf.py()))
    }

    #[pyo3(signature = (*args))]
    fn _getaddrinfo_debug<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        dns::getaddrinfo_debug(slf.as_super(), args)
    }

    /// Connect to a TCP server; return (transport, protocol). A coroutine.
    ///
    /// host and port, or sock. Timeouts and delays are in seconds. Raises `OSError` if no address could be connected to
    /// (an `ExceptionGroup` with `all_errors`), `ValueError` for arguments that contradict each other.
    #[pyo3(
        signature = (
            protocol_factory, host=None, port=None, *, ssl=None, family=Given::default(),
            proto=Given::default(), flags=Given::default(), sock=None, local_addr=None,
            server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None,
            happy_eyeballs_delay=None, interleave=None, all_errors=Truth(false)
        ),
        text_signature = "($self, protocol_factory, host=None, port=None, *, ssl=None, family=0, \
proto=0, flags=0, sock=None, local_addr=None, server_hostname=None, ssl_handshake_timeout=None, \
ssl_shutdown_timeout=None, happy_eyeballs_delay=None, interleave=None, all_errors=False)"
    )]
    fn create_connection<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        host: Option<Ref>,
        port: Option<Ref>,
        ssl: Option<Ref>,
        family: Given,
        proto: Given,
        flags: Given,
        sock: Option<Ref>,
        local_addr: Option<Ref>,
        server_hostname: Option<Ref>,
        ssl_handshake_timeout: Option<Ref>,
        ssl_shutdown_timeout: Option<Ref>,
        happy_eyeballs_delay: Option<Ref>,
        interleave: Option<Ref>,
        all_errors: Truth,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let own_sock_connect =
            schedule::is_overridden(slf.as_super(), intern!(slf.py(), "sock_connect"))?;
        let client = connection::Client {
            protocol_factory: Shared::new(protocol_factory),
            host,
            port,
            ssl,
            family: or_number(py, family, 0),
            proto: or_number(py, proto, 0),
            flags: or_number(py, flags, 0),
            sock,
            local_addr,
            server_hostname,
            timeouts: [ssl_handshake_timeout, ssl_shutdown_timeout],
            happy_eyeballs_delay,
            interleave,
            all_errors: all_errors.0,
            own_sock_connect,
        };
        connection::connect(slf.as_super(), client)
    }

    /// Make a transport of a socket that was accepted elsewhere; return (transport, protocol). A coroutine. Timeouts
    /// are in seconds. Raises `ValueError` for what is no stream socket, and for timeouts without ssl.
    #[pyo3(signature = (
        protocol_factory, sock, *, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None
    ))]
    fn connect_accepted_socket<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        sock: Ref,
        ssl: Option<Ref>,
        ssl_handshake_timeout: Option<Ref>,
        ssl_shutdown_timeout: Option<Ref>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let timeouts = [ssl_handshake_timeout, ssl_shutdown_timeout];
        connection::accepted(slf.as_super(), protocol_factory, sock, ssl, timeouts)
    }

    /// Listen for TCP connections on host (a name, an address, a sequence of them, or None for all
    /// interfaces) and port, or on sock; return a Server. A coroutine. Timeouts are in seconds. Raises `OSError` if an
    /// address cannot be had, `ValueError` for arguments that contradict each other.
    #[pyo3(
        signature = (
            protocol_factory, host=None, port=None, *, family=Given::default(),
            flags=Given::default(), sock=None, backlog=100, ssl=None, reuse_address=None, reuse_port=None,
            keep_alive=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None,
            start_serving=Truth(true)
        ),
        text_signature = "($self, protocol_factory, host=None, port=None, *, family=0, flags=1, \
sock=None, backlog=100, ssl=None, reuse_address=None, reuse_port=None, keep_alive=None, \
ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True)"
    )]
    fn create_server<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        host: Option<Ref>,
        port: Option<Ref>,
        family: Given,
        flags: Given,
        sock: Option<Ref>,
        backlog: i32,
        ssl: Option<Ref>,
        reuse_address: Option<Truth>,
        reuse_port: Option<Truth>,
        keep_alive: Option<Truth>,
        ssl_handshake_timeout: Option<Ref>,
        ssl_shutdown_timeout: Option<Ref>,
        start_serving: Truth,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let listening = connection::Listening {
            protocol_factory: Shared::new(protocol_factory),
            host,
            port,
            family: or_number(py, family, numbers::AF_UNSPEC),
            flags: or_number(py, flags, numbers::AI_PASSIVE),
            sock,
            backlog,
            ssl,
            reuse_address: reuse_address.map_or(sys::REUSES_ADDRESSES, |value| value.0),
            reuse_port: reuse_port.is_some_and(|value| value.0),
            keep_alive: keep_alive.is_some_and(|value| value.0),
            timeouts: [ssl_handshake_timeout, ssl_shutdown_timeout],
            start_serving: start_serving.0,
        };
        connection::create_server(slf.as_super(), listening)
    }

    /// Encrypt the connection of transport with sslcontext; return the transport that protocol is to use from then on.
    /// A coroutine. Timeouts are in seconds. Raises `TypeError` for another context or a transport that cannot be
    /// encrypted, and what the handshake fails with (`ssl.SSLError`, `ConnectionError`).
    #[pyo3(signature = (
        transport, protocol, sslcontext, *, server_side=Truth(false), server_hostname=None,
        ssl_handshake_timeout=None, ssl_shutdown_timeout=None
    ), text_signature = "($self, transport, protocol, sslcontext, *, server_side=False, \
server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)")]
    fn start_tls<'py>(
        slf: &Bound<'py, Self>,
        transport: Ref,
        protocol: Ref,
        sslcontext: Ref,
        server_side: Truth,
        server_hostname: Option<Ref>,
        ssl_handshake_timeout: Option<Ref>,
        ssl_shutdown_timeout: Option<Ref>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let upgrade = connection::Upgrade {
            transport: Shared::new(transport),
            protocol: Shared::new(protocol),
            context: sslcontext,
            server_side: server_side.0,
            server_hostname,
            handshake_timeout: ssl_handshake_timeout,
            shutdown_timeout: ssl_shutdown_timeout,
        };
        connection::start_tls(slf.as_super(), upgrade)
    }

    /// Connect to a Unix stream socket; return (transport, protocol). A coroutine.
    ///
    /// path (a str that begins with NUL is a name in Linux's abstract namespace), or sock. Raises `OSError` if nobody
    /// listens there, `ValueError` for arguments that contradict each other, `NotImplementedError` where Python has no
    /// `socket.AF_UNIX`.
    #[pyo3(signature = (
        protocol_factory, path=None, *, ssl=None, sock=None, server_hostname=None,
        ssl_handshake_timeout=None, ssl_shutdown_timeout=None
    ))]
    fn create_unix_connection<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        path: Option<Ref>,
        ssl: Option<Ref>,
        sock: Option<Ref>,
        server_hostname: Option<Ref>,
        ssl_handshake_timeout: Option<Ref>,
        ssl_shutdown_timeout: Option<Ref>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = connection::UnixClient {
            protocol_factory: Shared::new(protocol_factory),
            path,
            ssl,
            sock,
            server_hostname,
            timeouts: [ssl_handshake_timeout, ssl_shutdown_timeout],
        };
        connection::connect_unix(slf.as_super(), client)
    }

    /// Listen for connections on the Unix stream socket path, or on sock; return a Server. A coroutine.
    ///
    /// A socket that was left at path is replaced. With `cleanup_socket`, which is the default from Python 3.13
    /// on, the file is removed when the server is closed. Errors are those of `create_unix_connection()`.
    #[pyo3(
        signature = (
            protocol_factory, path=None, *, sock=None, backlog=100, ssl=None,
            ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=Truth(true),
            cleanup_socket=None
        ),
        text_signature = "($self, protocol_factory, path=None, *, sock=None, backlog=100, ssl=None, \
ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, cleanup_socket=True)"
    )]
    fn create_unix_server<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        path: Option<Ref>,
        sock: Option<Ref>,
        backlog: i32,
        ssl: Option<Ref>,
        ssl_handshake_timeout: Option<Ref>,
        ssl_shutdown_timeout: Option<Ref>,
        start_serving: Truth,
        cleanup_socket: Option<Truth>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let listening = connection::UnixListening {
            protocol_factory: Shared::new(protocol_factory),
            path,
            sock,
            backlog,
            ssl,
            timeouts: [ssl_handshake_timeout, ssl_shutdown_timeout],
            start_serving: start_serving.0,
            cleanup_socket: cleanup_socket.map(|value| value.0),
        };
        connection::create_unix_server(slf.as_super(), listening)
    }

    /// Make a socket of datagrams; return (transport, protocol). A coroutine.
    ///
    /// `local_addr` is what it is bound to, `remote_addr` what it is connected to: (host, port), or a path with
    /// `family=AF_UNIX`. Or sock. Raises `OSError` if no address would do, `ValueError` for arguments that
    /// contradict each other.
    #[pyo3(
        signature = (
            protocol_factory, local_addr=None, remote_addr=None, *, family=Given::default(),
            proto=Given::default(), flags=Given::default(), reuse_address=Given::default(),
            reuse_port=None, allow_broadcast=None, sock=None
        ),
        text_signature = "($self, protocol_factory, local_addr=None, remote_addr=None, *, family=0, \
proto=0, flags=0, reuse_port=None, allow_broadcast=None, sock=None)"
    )]
    fn create_datagram_endpoint<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        local_addr: Option<Ref>,
        remote_addr: Option<Ref>,
        family: Given,
        proto: Given,
        flags: Given,
        reuse_address: Given,
        reuse_port: Option<Ref>,
        allow_broadcast: Option<Ref>,
        sock: Option<Ref>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if reuse_address.0.is_some() && py.version_info() >= (3, 11) {
            return Err(PyTypeError::new_err(
                "create_datagram_endpoint() got an unexpected keyword argument 'reuse_address'",
            ));
        }
        let endpoint = connection::Endpoint {
            protocol_factory: Shared::new(protocol_factory),
            local_addr,
            remote_addr,
            family: or_number(py, family, 0),
            proto: or_number(py, proto, 0),
            flags: or_number(py, flags, 0),
            reuse_address: reuse_address.0,
            reuse_port,
            allow_broadcast,
            sock,
        };
        connection::create_datagram_endpoint(slf.as_super(), endpoint)
    }
}
