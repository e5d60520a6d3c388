//! `EventLoop`: the table of a loop's methods. What they do stands in the files beside this one.
//!
//! It is one table, and so one long file, since `PyO3` takes the methods of a class in one block.

mod arguments;
mod exceptions;
mod executor;
mod run;
mod schedule;
mod sendfile;
mod sock;
mod task;
mod watch;

use std::sync::atomic::Ordering::Relaxed;

use oxloop_engine::Interest;
use oxloop_engine::sys::{self, numbers};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use self::arguments::{Given, Truth, or_number};
pub(crate) use self::run::watch_forks;
use crate::cell::Shared;
use crate::connection;
use crate::core::{Core, Entry};
use crate::dns;
use crate::error::os_error;
use crate::ffi::{self, Ref};
use crate::imports::imports;
use crate::poller::{Poller, Settings};
use crate::report;
use crate::signals;
use crate::transports::{pipe, process};

/// The native part of every loop class; the Python classes add only their place in asyncio's hierarchy.
#[pyclass(frozen, subclass, extends = Core, module = "oxloop._native")]
pub(crate) struct EventLoop;

/// Adds the methods that are called past `PyO3`.
pub(crate) fn add_fast_methods(py: Python<'_>) -> PyResult<()> {
    ffi::add_fast_methods(&py.get_type::<EventLoop>(), schedule::methods())
}

#[pymethods]
impl EventLoop {
    #[new]
    #[pyo3(signature = (*_args, **_keywords))]
    fn new(
        py: Python<'_>,
        _args: &Bound<'_, PyTuple>,
        _keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Core::new(py)).add_subclass(Self)
    }

    /// Make the loop wait in `selector`: None for the platform's best, a selector of the `selectors` module
    /// for the native one of its kind, or any other `BaseSelector`, which is used through its own methods.
    #[pyo3(signature = (selector=None))]
    fn __init__(slf: &Bound<'_, Self>, selector: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.as_super();
        let poller = Poller::new(selector)?;
        report::log(py, "debug", &format!("Using selector: {}", poller.class_name(py)?))?;
        if matches!(poller, Poller::Native(_))
            && let Some(selector) = selector
        {
            this.get().selector.set(Some(selector.into()));
        }
        begin(this, poller)
    }

    /// Make the loop wait in a proactor. Raises `RuntimeError` with the reason where there is none.
    fn _init_proactor(slf: &Bound<'_, Self>, proactor: Settings<'_>) -> PyResult<()> {
        let poller = Poller::completing(&proactor)?;
        report::log(slf.py(), "debug", &format!("Using proactor: {}", proactor.name()))?;
        begin(slf.as_super(), poller)
    }

    // Running

    /// Run until `stop()` is called.
    fn run_forever(slf: &Bound<'_, Self>) -> PyResult<()> {
        run::run_forever(slf.as_super())
    }

    /// Run until the future (or coroutine, which becomes a task) is done; return its result or raise its
    /// exception.
    fn run_until_complete<'py>(
        slf: &Bound<'py, Self>,
        future: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        run::run_until_complete(slf.as_super(), future)
    }

    /// Stop after the current turn; before `run_forever()` is called, after the first one.
    fn stop(slf: &Bound<'_, Self>) {
        slf.as_super().get().stopping.store(true, Relaxed);
    }

    /// Whether the loop is running.
    fn is_running(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_running()
    }

    /// Whether the loop was closed.
    fn is_closed(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_closed()
    }

    /// Close the loop: queues are emptied, the default executor is shut down without waiting. Idempotent.
    /// Raises `RuntimeError` while the loop runs.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        run::close(slf.as_super())
    }

    /// Close all asynchronous generators that are still open. A coroutine.
    fn shutdown_asyncgens<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        task::shutdown_asyncgens(slf.as_super())
    }

    /// Wait for the threads of the default executor to end, for timeout seconds at most. A coroutine.
    #[pyo3(signature = (timeout=None))]
    fn shutdown_default_executor<'py>(
        slf: &Bound<'py, Self>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        executor::shutdown(slf.as_super(), timeout)
    }

    // Scheduling, tasks (call_soon, create_task and their kin are fast methods: schedule.rs)

    /// Set what `create_task()` calls, as factory(loop, coro, **keywords); None for asyncio.Task.
    fn set_task_factory(slf: &Bound<'_, Self>, factory: &Bound<'_, PyAny>) -> PyResult<()> {
        task::set_factory(slf.as_super(), factory)
    }

    /// What `set_task_factory()` set, or None.
    fn get_task_factory<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let factory = slf.as_super().get().task_factory.borrow();
        factory.as_ref().map(|factory| factory.bind(slf.py()).clone())
    }

    fn _asyncgen_firstiter_hook(slf: &Bound<'_, Self>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
        task::asyncgen_started(slf.as_super(), agen)
    }

    fn _asyncgen_finalizer_hook(slf: &Bound<'_, Self>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
        task::asyncgen_finalized(slf.as_super(), agen)
    }

    // Threads

    /// Call func(*args) in an executor (None: the default one); return an asyncio.Future.
    #[pyo3(signature = (executor, func, *args))]
    fn run_in_executor<'py>(
        slf: &Bound<'py, Self>,
        executor: Option<&Bound<'py, PyAny>>,
        func: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        executor::run(slf.as_super(), executor, func, args)
    }

    /// Set the executor that `run_in_executor(None`, ...) uses: a `ThreadPoolExecutor`.
    fn set_default_executor(slf: &Bound<'_, Self>, executor: &Bound<'_, PyAny>) -> PyResult<()> {
        executor::set_default(slf.as_super(), executor)
    }

    // Names

    /// socket.getaddrinfo without blocking the loop. A coroutine.
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

    /// socket.getnameinfo without blocking the loop. A coroutine.
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

    // Connections

    /// Connect to a TCP server; return (transport, protocol). A coroutine.
    ///
    /// host and port, or sock. Raises `OSError` if no address could be connected to (an `ExceptionGroup` with
    /// `all_errors`), `ValueError` for arguments that contradict each other.
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

    /// Make a transport of a socket that was accepted elsewhere; return (transport, protocol). A coroutine.
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
    /// interfaces) and port, or on sock; return a Server. A coroutine.
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

    /// Encrypt the connection of transport with sslcontext; return the transport that protocol is to use from
    /// then on. A coroutine.
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

    // Pipes

    /// Read from pipe: a file object over a pipe, a FIFO, a socket or a character device. Return (transport,
    /// protocol). A coroutine. Raises `ValueError` for a regular file. On Windows the pipe has to be overlapped;
    /// of any other the protocol loses its connection by an `OSError`.
    fn connect_read_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        pipe: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        connection::connect_read_pipe(slf.as_super(), protocol_factory, pipe)
    }

    /// Make the transport of a pipe that goes both ways, such as Windows has, and queue the `connection_made` of its
    /// protocol. What `start_serving_pipe` and `create_pipe_connection` call.
    #[pyo3(signature = (pipe, protocol, extra=None))]
    fn _make_duplex_pipe_transport<'py>(
        slf: &Bound<'py, Self>,
        pipe: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        extra: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let opening = pipe::Opening { pipe, protocol, waiter: None };
        pipe::DuplexPipeTransport::open(slf.as_super(), &opening, extra)
    }

    /// Write to pipe: a file object over a pipe, a FIFO, a socket or a character device. Return (transport,
    /// protocol). A coroutine. Raises `ValueError` for a regular file, on Windows `OSError` for what is not
    /// overlapped.
    fn connect_write_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        pipe: Ref,
    ) -> PyResult<Bound<'py, PyAny>> {
        connection::connect_write_pipe(slf.as_super(), protocol_factory, pipe)
    }

    // Processes

    /// Run a program; return (transport, protocol). A coroutine.
    ///
    /// stdin, stdout and stderr are what `subprocess.Popen` takes, pipes by default, and so are all the other
    /// keywords. Raises `ValueError` for those that would make the pipes ones of text, `OSError` if the
    /// program cannot be run.
    #[pyo3(
        signature = (protocol_factory, program, *args, **kwargs),
        text_signature = "($self, protocol_factory, program, *args, stdin=-1, stdout=-1, \
stderr=-1, universal_newlines=False, shell=False, bufsize=0, encoding=None, errors=None, text=None, \
**kwargs)"
    )]
    fn subprocess_exec<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        program: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let mut all = vec![program.clone()];
        all.extend(args.iter());
        let command = connection::Command {
            protocol_factory,
            args: PyTuple::new(py, all)?.into_any().into(),
            shell: false,
            keywords: kwargs.map_or_else(|| PyDict::new(py), Clone::clone).into(),
        };
        connection::run(slf.as_super(), command)
    }

    /// Run cmd in a shell; return (transport, protocol). A coroutine. Keywords and errors are those of
    /// `subprocess_exec()`.
    #[pyo3(
        signature = (protocol_factory, cmd, **kwargs),
        text_signature = "($self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, \
universal_newlines=False, shell=True, bufsize=0, encoding=None, errors=None, text=None, **kwargs)"
    )]
    fn subprocess_shell<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        cmd: Ref,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let command = connection::Command {
            protocol_factory,
            args: cmd,
            shell: true,
            keywords: kwargs.map_or_else(|| PyDict::new(slf.py()), Clone::clone).into(),
        };
        connection::run(slf.as_super(), command)
    }

    /// `add_reader()` as asyncio's own child watchers call it.
    #[pyo3(signature = (fd, callback, *args))]
    fn _add_reader<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        Self::add_reader(slf, fd, callback, args)
    }

    /// `remove_reader()` as asyncio's own child watchers call it.
    fn _remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        Self::remove_reader(slf, fd)
    }

    fn _child_watcher_callback(
        slf: &Bound<'_, Self>,
        _pid: &Bound<'_, PyAny>,
        returncode: &Bound<'_, PyAny>,
        transp: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        process::told_by_watcher(slf.as_super(), returncode, transp)
    }

    /// Connect to a Unix stream socket; return (transport, protocol). A coroutine.
    ///
    /// path (a str that begins with NUL is a name in Linux's abstract namespace), or sock. Raises `OSError` if
    /// nobody listens there, `ValueError` for arguments that contradict each other.
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
    /// on, the file is removed when the server is closed.
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

    // Watching descriptors

    /// Call `callback()` whenever handle is signalled, which `remove_reader` ends: on Windows, for what is no socket.
    fn _add_signalled<'py>(
        slf: &Bound<'py, Self>,
        handle: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        watch::add_signalled(slf.as_super(), handle, callback)
    }

    /// Call callback(*args) whenever fd (a number, or an object with `fileno()`) can be read from.
    #[pyo3(signature = (fd, callback, *args))]
    fn add_reader<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        let arguments: Vec<_> = args.iter().collect();
        watch::add(slf.as_super(), fd, Interest::READABLE, callback, &arguments)
    }

    /// Stop watching fd for reading; return whether it was watched.
    fn remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        watch::remove(slf.as_super(), fd, Interest::READABLE)
    }

    /// Call callback(*args) whenever fd (a number, or an object with `fileno()`) can be written to.
    #[pyo3(signature = (fd, callback, *args))]
    fn add_writer<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        let arguments: Vec<_> = args.iter().collect();
        watch::add(slf.as_super(), fd, Interest::WRITABLE, callback, &arguments)
    }

    /// Stop watching fd for writing; return whether it was watched.
    fn remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        watch::remove(slf.as_super(), fd, Interest::WRITABLE)
    }

    // Sockets

    /// Receive at most n bytes. A coroutine.
    fn sock_recv<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        n: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sock::recv(slf.as_super(), sock, n)
    }

    /// Receive into buf; return the number of bytes. A coroutine.
    fn sock_recv_into<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        buf: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sock::recv_into(slf.as_super(), sock, buf)
    }

    /// Receive a datagram of at most bufsize bytes; return it and its address. A coroutine.
    fn sock_recvfrom<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        bufsize: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sock::recvfrom(slf.as_super(), sock, bufsize)
    }

    /// Receive a datagram into buf; return the number of bytes and the address. A coroutine.
    #[pyo3(
        signature = (sock, buf, nbytes=Given::default()),
        text_signature = "($self, sock, buf, nbytes=0)"
    )]
    fn sock_recvfrom_into<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        buf: &Bound<'py, PyAny>,
        nbytes: Given,
    ) -> PyResult<Bound<'py, PyAny>> {
        let nbytes = or_number(slf.py(), nbytes, 0);
        sock::recvfrom_into(slf.as_super(), sock, buf, nbytes.bind(slf.py()))
    }

    /// Send all of data. A coroutine.
    fn sock_sendall<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        data: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sock::sendall(slf.as_super(), sock, data)
    }

    /// Send a datagram to address; return the number of bytes. A coroutine.
    fn sock_sendto<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        data: &Bound<'py, PyAny>,
        address: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sock::sendto(slf.as_super(), sock, data, address)
    }

    /// Connect to address. A coroutine.
    fn sock_connect<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        address: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sock::connect(slf.as_super(), sock, address)
    }

    /// Accept a connection; return its non-blocking socket and the peer's address. A coroutine.
    fn sock_accept<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sock::accept(slf.as_super(), sock)
    }

    // Files

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
        let asked = sendfile::Asked { file, offset, count };
        sendfile::sock_sendfile(slf.as_super(), sock, asked, fallback.0)
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
        let asked = sendfile::Asked { file, offset, count };
        sendfile::sendfile(slf.as_super(), transport, asked, fallback.0)
    }

    fn _sock_sendfile_native<'py>(
        slf: &Bound<'py, Self>,
        sock: &Bound<'py, PyAny>,
        file: Ref,
        offset: Ref,
        count: Option<Ref>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sendfile::sock_native(slf.as_super(), sock, sendfile::Asked { file, offset, count })
    }

    fn _sendfile_native<'py>(
        slf: &Bound<'py, Self>,
        transp: &Bound<'py, PyAny>,
        file: Ref,
        offset: Ref,
        count: Option<Ref>,
    ) -> PyResult<Bound<'py, PyAny>> {
        sendfile::native(slf.as_super(), transp, sendfile::Asked { file, offset, count })
    }

    // Signals

    /// Call callback(*args) in the loop when the signal sig arrives.
    #[pyo3(signature = (sig, callback, *args))]
    fn add_signal_handler<'py>(
        slf: &Bound<'py, Self>,
        sig: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        let arguments: Vec<_> = args.iter().collect();
        signals::add_handler(slf.as_super(), sig, callback, &arguments)
    }

    /// Remove the handler of the signal sig; return whether there was one.
    fn remove_signal_handler(slf: &Bound<'_, Self>, sig: &Bound<'_, PyAny>) -> PyResult<bool> {
        signals::remove_signal_handler(slf.as_super(), sig)
    }

    // Errors

    /// Set what is called with (loop, context) for errors that nobody else handles; None for the default.
    fn set_exception_handler(slf: &Bound<'_, Self>, handler: &Bound<'_, PyAny>) -> PyResult<()> {
        exceptions::set_handler(slf.as_super(), handler)
    }

    /// What `set_exception_handler()` set, or None.
    fn get_exception_handler<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let handler = slf.as_super().get().exception_handler.borrow();
        handler.as_ref().map(|handler| handler.bind(slf.py()).clone())
    }

    /// Log the error of context to the logger "asyncio".
    fn default_exception_handler(
        slf: &Bound<'_, Self>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        exceptions::default_handler(slf.as_super(), context)
    }

    /// Hand context to the exception handler.
    fn call_exception_handler(slf: &Bound<'_, Self>, context: &Bound<'_, PyAny>) -> PyResult<()> {
        exceptions::call_handler(slf.as_super(), context)
    }

    // Debug mode

    /// Switch debug mode on or off.
    fn set_debug(slf: &Bound<'_, Self>, enabled: &Bound<'_, PyAny>) -> PyResult<()> {
        let core = slf.as_super().get();
        core.debug.store(enabled.is_truthy()?, Relaxed);
        if core.is_running() {
            // In the loop's own thread, since the interpreter keeps the depth by thread.
            let switch = slf.getattr(intern!(slf.py(), "_set_coroutine_origin_tracking"))?;
            slf.call_method1(intern!(slf.py(), "call_soon_threadsafe"), (switch, enabled))?;
        }
        Ok(())
    }

    fn _set_coroutine_origin_tracking(
        slf: &Bound<'_, Self>,
        enabled: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        run::track_origins(slf.as_super(), enabled.is_truthy()?)
    }

    /// Seconds after which debug mode reports a callback as slow.
    #[getter]
    fn slow_callback_duration(slf: &Bound<'_, Self>) -> f64 {
        slf.as_super().get().slow_callback_duration.get()
    }

    #[setter]
    fn set_slow_callback_duration(slf: &Bound<'_, Self>, seconds: f64) {
        slf.as_super().get().slow_callback_duration.set(seconds);
    }

    // What asyncio's own modules look at

    #[getter]
    fn _thread_id(slf: &Bound<'_, Self>) -> Option<u64> {
        let thread = slf.as_super().get().thread.load(Relaxed);
        (thread != 0).then_some(thread)
    }

    #[getter]
    fn _debug(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().debug()
    }

    #[getter]
    fn _closed(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().is_closed()
    }

    fn _check_closed(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.as_super().get().check_closed()
    }

    #[getter]
    fn _default_executor<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let executor = slf.as_super().get().executor.borrow();
        executor.as_ref().map(|executor| executor.bind(slf.py()).clone())
    }

    #[getter]
    fn _selector<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let py = slf.py();
        let core = slf.as_super().get();
        if let Poller::Python(selector) = &*core.poller.borrow() {
            return Some(selector.bind(py).clone());
        }
        core.selector.borrow().as_ref().map(|selector| selector.bind(py).clone())
    }

    #[setter(_selector)]
    fn set_selector(slf: &Bound<'_, Self>, selector: &Bound<'_, PyAny>) {
        let before = slf.as_super().get().selector.replace(Some(selector.into()));
        drop(before);
    }

    #[setter(_default_executor)]
    fn replace_default_executor(slf: &Bound<'_, Self>, executor: Option<&Bound<'_, PyAny>>) {
        let before = slf.as_super().get().executor.replace(executor.map(Ref::from));
        drop(before);
    }

    /// A loop that nobody refers to any more and that was not closed: warns, and closes it.
    fn __del__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let core = slf.as_super().get();
        if core.is_closed() || matches!(*core.poller.borrow(), Poller::Closed) {
            return Ok(());
        }
        let message = format!("unclosed event loop {}", slf.repr()?);
        let warned = report::resource_warning(slf.py(), &message, slf.as_any());
        if !core.is_running() {
            run::close(slf.as_super())?;
        }
        warned
    }

    /// The name of the backend: "epoll", "poll", "select", "kqueue", "`io_uring`", or None for a selector of the
    /// user's.
    #[getter]
    fn _backend(slf: &Bound<'_, Self>) -> Option<&'static str> {
        slf.as_super().get().poller.borrow().name()
    }

    fn __setattr__(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        ffi::set_attribute(slf.as_any(), name, Some(value))?;
        Self::attribute_changed(slf, name)
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        ffi::set_attribute(slf.as_any(), name, None)?;
        Self::attribute_changed(slf, name)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let core = slf.as_super().get();
        let flag = |value| if value { "True" } else { "False" };
        Ok(format!(
            "<{} running={} closed={} debug={}>",
            slf.get_type().name()?,
            flag(core.is_running()),
            flag(core.is_closed()),
            flag(core.debug())
        ))
    }
}

impl EventLoop {
    /// Notices what the user put in the place of a method that is otherwise called natively.
    fn attribute_changed(slf: &Bound<'_, Self>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        for method in ["time", "call_soon", "call_at"] {
            if name.eq(method)? {
                return schedule::find_overrides(slf.as_super());
            }
        }
        Ok(())
    }
}

/// Makes the loop wait in `poller`, for a start for what other threads tell it.
fn begin(event_loop: &Bound<'_, Core>, poller: Poller) -> PyResult<()> {
    let py = event_loop.py();
    let core = event_loop.get();
    core.open_inbox(poller.waker().map_err(|error| os_error(&error))?);
    let before = core.poller.replace(poller);
    drop(before);
    core.debug.store(debug_by_default(py)?, Relaxed);
    schedule::find_overrides(event_loop)?;
    if let Some(fd) = core.waker_fd() {
        let entry = Entry::Native { object: event_loop.as_any().into(), run: woken };
        core.watch(py, fd, Interest::READABLE, entry)?;
        core.watches.borrow_mut().internal += 1;
    }
    Ok(())
}

/// The waker's descriptor is readable: what woke the loop is in the inbox.
#[allow(clippy::unnecessary_wraps)] // a native entry may fail
fn woken(event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    ffi::cast_known::<Core>(event_loop).get().drain_waker();
    Ok(())
}

/// `PYTHONASYNCIODEBUG`, `-X dev`.
fn debug_by_default(py: Python<'_>) -> PyResult<bool> {
    imports(py).coroutines.bind(py).call_method0(intern!(py, "_is_debug_mode"))?.is_truthy()
}
