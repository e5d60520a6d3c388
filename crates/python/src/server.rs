//! `Server`: listening sockets, the connections that they accepted, and the end of both.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use oxloop_engine::{Interest, Timestamp, Token, sys};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyTuple, PyWeakrefMethods, PyWeakrefReference};

use crate::cell::{LoopCell, Made};
use crate::core::{Core, Entry};
use crate::coroutine::{self, Coroutine, Flow, Kept};
use crate::error::{self, os_error};
use crate::ffi::{self, Ref};
use crate::imports::imports;
use crate::report;
use crate::transports::socket::{Kind, Socket, address_object};
use crate::transports::stream::{Opening, StreamTransport};
use crate::transports::tls::{Handshake, Tls};
use crate::transports::unix_path::BoundPath;

/// Seconds until a listener tries again after the process ran out of descriptors or memory
/// (`ACCEPT_RETRY_DELAY`).
const ACCEPT_RETRY_DELAY: f64 = 1.0;

/// What changes in the life of a server.
struct State {
    /// The listening sockets; `None` once the server is closed.
    sockets: Option<Vec<Ref>>,
    listeners: Vec<Ref<Listener>>,
    /// The open connections, by the address of their transport. Weakly: an abandoned one shall be noticed.
    clients: HashMap<usize, Py<PyWeakrefReference>>,
    /// Who waits in `wait_closed`; `None` once there is nothing left to wait for.
    waiters: Option<Vec<Ref>>,
    /// What `serve_forever` waits for.
    forever: Option<Ref>,
    /// The file of a Unix socket that is to be removed when the server is closed.
    file: Option<BoundPath>,
}

/// A server: listening sockets and their connections.
///
/// Source: asyncio's documentation, "Server Objects".
#[pyclass(frozen, dict, weakref, module = "oxloop._native")]
pub(crate) struct Server {
    made: Made,
    core: Ref<Core>,
    protocol_factory: Ref,
    backlog: i32,
    /// What its connections are encrypted with.
    tls: Option<Tls>,
    serving: AtomicBool,
    state: LoopCell<State>,
}

impl Server {
    /// A server that does not listen yet.
    pub(crate) fn new<'py>(
        core: &Bound<'py, Core>,
        sockets: Vec<Ref>,
        file: Option<BoundPath>,
        protocol_factory: &Bound<'py, PyAny>,
        backlog: i32,
        tls: Option<Tls>,
    ) -> PyResult<Bound<'py, Self>> {
        let state = State {
            sockets: Some(sockets),
            listeners: Vec::new(),
            clients: HashMap::new(),
            waiters: Some(Vec::new()),
            forever: None,
            file,
        };
        Bound::new(
            core.py(),
            Self {
                made: Made::new(),
                core: core.into(),
                protocol_factory: protocol_factory.into(),
                backlog,
                tls,
                serving: AtomicBool::new(false),
                state: LoopCell::new(state),
            },
        )
    }

    /// Starts to listen and to accept. Idempotent.
    pub(crate) fn listen(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if this.serving.load(Relaxed) {
            return Ok(());
        }
        let Some(sockets) = this.sockets_bound(py) else {
            // What asyncio raises there, with a better text.
            return Err(PyTypeError::new_err(format!("server {} is closed", slf.repr()?)));
        };
        this.serving.store(true, Relaxed);
        for socket in sockets {
            socket.call_method1(intern!(py, "listen"), (this.backlog,))?;
            let listener = Bound::new(
                py,
                Listener {
                    server: slf.into(),
                    fd: socket.call_method0(intern!(py, "fileno"))?.extract()?,
                    kind: Kind::of(&socket)?,
                    socket: (&socket).into(),
                    context: ffi::copy_context(py)?,
                    retry: LoopCell::default(),
                },
            )?;
            Listener::watch(&listener)?;
            this.state.borrow_mut().listeners.push(listener.into());
        }
        Ok(())
    }

    fn sockets_bound<'py>(&self, py: Python<'py>) -> Option<Vec<Bound<'py, PyAny>>> {
        let state = self.state.borrow();
        let sockets = state.sockets.as_ref()?;
        Some(sockets.iter().map(|socket| socket.bind(py).clone()).collect())
    }

    /// Wakes those that wait for the end, if it has come.
    fn finish_if_over(&self, py: Python<'_>) -> PyResult<()> {
        let waiters = {
            let mut state = self.state.borrow_mut();
            if state.sockets.is_some() || !state.clients.is_empty() {
                return Ok(());
            }
            state.waiters.take()
        };
        for waiter in waiters.into_iter().flatten() {
            coroutine::resolve(waiter.bind(py))?;
        }
        Ok(())
    }

    fn do_close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.core.get().check_selector()?;
        let (sockets, listeners, forever, file) = {
            let mut state = this.state.borrow_mut();
            let Some(sockets) = state.sockets.take() else { return Ok(()) };
            let listeners = std::mem::take(&mut state.listeners);
            (sockets, listeners, state.forever.take(), state.file.take())
        };
        for listener in listeners {
            Listener::unwatch(listener.bind(py))?;
        }
        for socket in sockets {
            socket.bind(py).call_method0(intern!(py, "close"))?;
        }
        if let Some(file) = file {
            file.remove(py)?;
        }
        this.serving.store(false, Relaxed);
        if let Some(forever) = forever {
            forever.bind(py).call_method0(intern!(py, "cancel"))?;
        }
        this.finish_if_over(py)
    }

    fn clients<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let state = self.state.borrow();
        state.clients.values().filter_map(|weak| weak.bind(py).upgrade()).collect()
    }

    /// Waits until the server is closed and its connections are gone. Up to Python 3.11 asyncio returns at
    /// once from a server that is closed already, whatever its connections do.
    async fn until_closed(flow: &Flow, this: &Kept<Self>) -> PyResult<()> {
        let waiter = Python::attach(|py| {
            let server = this.get();
            {
                let state = server.state.borrow();
                let returns_when_closed = py.version_info() < (3, 12);
                if state.waiters.is_none() || (returns_when_closed && state.sockets.is_none()) {
                    return Ok(None);
                }
            }
            let waiter: Ref = Core::future(server.core.bind(py))?.into();
            if let Some(waiters) = &mut server.state.borrow_mut().waiters {
                waiters.push(waiter.clone_ref(py));
            }
            Ok::<_, PyErr>(Some(waiter))
        })?;
        if let Some(waiter) = waiter {
            flow.wait(waiter).await?;
        }
        Ok(())
    }
}

#[pymethods]
impl Server {
    /// The loop of the server.
    fn get_loop<'py>(&self, py: Python<'py>) -> Bound<'py, Core> {
        self.core.bind(py).clone()
    }

    /// Whether the server accepts connections.
    fn is_serving(&self) -> bool {
        self.serving.load(Relaxed)
    }

    /// The listening sockets; empty once the server is closed.
    #[getter]
    fn sockets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let class = imports(py).transport_socket.bind(py);
        let sockets = self.sockets_bound(py).unwrap_or_default();
        let wrapped: Vec<_> =
            sockets.iter().map(|socket| class.call1((socket,))).collect::<PyResult<_>>()?;
        PyTuple::new(py, wrapped)
    }

    /// Stop listening and close the listening sockets; the connections stay open. Idempotent.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::do_close(slf)
    }

    /// Close the connections: `transport.close()` for each.
    fn close_clients(&self, py: Python<'_>) -> PyResult<()> {
        self.clients(py).iter().try_for_each(|client| client.call_method0("close").map(drop))
    }

    /// Abort the connections: `transport.abort()` for each.
    fn abort_clients(&self, py: Python<'_>) -> PyResult<()> {
        self.clients(py).iter().try_for_each(|client| client.call_method0("abort").map(drop))
    }

    /// Start to accept connections. Idempotent. A coroutine.
    fn start_serving<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "Server.start_serving", |flow| {
            let this = flow.keep(slf);
            async move {
                Python::attach(|py| Self::listen(this.bind(py)))?;
                flow.turn().await?;
                Ok(ffi::none())
            }
        })
    }

    /// Accept connections until the coroutine is cancelled; then the server is closed. A coroutine.
    fn serve_forever<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "Server.serve_forever", |flow| {
            let this = flow.keep(slf);
            async move {
                let forever = Python::attach(|py| start_forever(this.bind(py)))?;
                let waited = flow.wait(forever).await;
                let error = match waited {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                };
                if Python::attach(|py| error::is_cancelled(py, &error)) {
                    Python::attach(|py| Self::do_close(this.bind(py)))?;
                    // The cancellation is what the caller gets, whatever comes of this wait.
                    let closed = Self::until_closed(&flow, &this).await;
                    drop(closed);
                }
                let forever = this.get().state.borrow_mut().forever.take();
                drop(forever);
                Err(error)
            }
        })
    }

    /// Wait until the server is closed and all its connections are gone. A coroutine.
    fn wait_closed<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "Server.wait_closed", |flow| {
            let this = flow.keep(slf);
            async move {
                Self::until_closed(&flow, &this).await?;
                Ok(ffi::none())
            }
        })
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "Server.__aenter__", |flow| {
            let this = flow.keep(slf.as_any());
            async move { Ok(Python::attach(|py| this.clone_ref(py))) }
        })
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        _exception: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::spawn(slf.py(), "Server.__aexit__", |flow| {
            let this = flow.keep(slf);
            async move {
                Python::attach(|py| Self::do_close(this.bind(py)))?;
                Self::until_closed(&flow, &this).await?;
                Ok(ffi::none())
            }
        })
    }

    fn _attach(&self, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let weak = PyWeakrefReference::new(transport)?.unbind();
        self.state.borrow_mut().clients.insert(transport.as_ptr() as usize, weak);
        Ok(())
    }

    fn _detach(&self, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let removed = self.state.borrow_mut().clients.remove(&(transport.as_ptr() as usize));
        drop(removed);
        self.finish_if_over(transport.py())
    }

    /// A transport was dropped without having been closed.
    fn _forget(&self, py: Python<'_>) -> PyResult<()> {
        let dead: Vec<_> = {
            let mut state = self.state.borrow_mut();
            let gone: Vec<usize> = state
                .clients
                .iter()
                .filter(|(_, weak)| weak.bind(py).upgrade().is_none())
                .map(|(address, _)| *address)
                .collect();
            gone.iter().filter_map(|address| state.clients.remove(address)).collect()
        };
        drop(dead);
        self.finish_if_over(py)
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        imports(py).base_events.bind(py).getattr(intern!(py, "Server"))
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, Core> {
        self.core.bind(py).clone()
    }

    #[getter]
    fn _ssl_context<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let context = self.tls.as_ref()?.context.as_ref()?;
        Some(context.bind(py).clone())
    }

    #[getter]
    fn _sockets<'py>(&self, py: Python<'py>) -> Option<Vec<Bound<'py, PyAny>>> {
        self.sockets_bound(py)
    }

    #[getter]
    fn _waiters<'py>(&self, py: Python<'py>) -> Option<Vec<Bound<'py, PyAny>>> {
        let state = self.state.borrow();
        let waiters = state.waiters.as_ref()?;
        Some(waiters.iter().map(|waiter| waiter.bind(py).clone()).collect())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!("<Server sockets={}>", slf.get().sockets(slf.py())?.repr()?))
    }

    #[allow(clippy::needless_pass_by_value)] // the visitor's signature is PyO3's
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        visit.call(&*self.protocol_factory)?;
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        for listener in &state.listeners {
            visit.call(&**listener)?;
        }
        for object in state.sockets.iter().flatten().chain(state.waiters.iter().flatten()) {
            visit.call(&**object)?;
        }
        if let Some(forever) = &state.forever {
            visit.call(&**forever)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let taken = {
            let mut state = self.state.borrow_mut();
            (std::mem::take(&mut state.listeners), state.waiters.take(), state.forever.take())
        };
        drop(taken);
    }
}

fn start_forever(server: &Bound<'_, Server>) -> PyResult<Ref> {
    let py = server.py();
    let this = server.get();
    {
        let state = this.state.borrow();
        let problem = if state.forever.is_some() {
            Some("is already being awaited on serve_forever()")
        } else if state.sockets.is_none() {
            Some("is closed")
        } else {
            None
        };
        drop(state);
        if let Some(problem) = problem {
            return Err(PyRuntimeError::new_err(format!("server {} {problem}", server.repr()?)));
        }
    }
    Server::listen(server)?;
    let forever: Ref = Core::future(this.core.bind(py))?.into();
    this.state.borrow_mut().forever = Some(forever.clone_ref(py));
    Ok(forever)
}

/// One listening socket of a server: what the loop is to tell about it.
#[pyclass(frozen, module = "oxloop._native")]
struct Listener {
    server: Ref<Server>,
    socket: Ref,
    fd: RawFd,
    kind: Kind,
    /// A copy of the context in which the server started to serve: what its protocols are made in.
    context: Ref,
    /// The timer after which it tries again, while the process is out of resources.
    retry: LoopCell<Option<Token>>,
}

#[pymethods]
impl Listener {
    #[allow(clippy::needless_pass_by_value)] // the visitor's signature is PyO3's
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.server)?;
        visit.call(&*self.context)?;
        visit.call(&*self.socket)
    }
}

impl Listener {
    fn watch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let core = this.server.get().core.get();
        let entry = Entry::Native { object: slf.as_any().into(), run: acceptable };
        let replaced = core.watch(slf.py(), this.fd, Interest::READABLE, entry)?;
        drop(replaced);
        Ok(())
    }

    fn unwatch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let core = this.server.get().core.get();
        let timer = this.retry.take().and_then(|token| core.cancel_timer(token));
        drop(timer);
        let entry = core.unwatch(slf.py(), this.fd, Interest::READABLE)?;
        drop(entry);
        Ok(())
    }

    /// Accepts what is waiting, as many connections as the backlog holds.
    fn accept(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let server = this.server.get();
        for _ in 0..server.backlog.max(1) {
            if !server.serving.load(Relaxed) {
                return Ok(());
            }
            let Some(fd) = ffi::borrow_fd(this.fd) else { return Ok(()) };
            let (connection, peer) = match sys::socket::accept(fd) {
                Ok(accepted) => accepted,
                Err(error) => return Self::accept_failed(slf, &error),
            };
            let socket = Socket::Descriptor { fd: connection, kind: this.kind };
            let peer = address_object(slf.py(), &peer)?;
            // Each connection has a context of its own, as the task has that asyncio makes for it.
            let context = ffi::copy_of_context(this.context.bind(slf.py()))?;
            ffi::run_in_context(context.bind(slf.py()), || Self::connect(slf, socket, peer))?;
        }
        Ok(())
    }

    /// Makes the protocol and the transport of a new connection.
    fn connect<'py>(
        slf: &Bound<'py, Self>,
        socket: Socket,
        peer: Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let server = slf.get().server.bind(py);
        let core = server.get().core.bind(py);
        if core.get().debug() {
            let text = format!(
                "{} got a new connection from {}: <socket.socket fd={}>",
                server.repr()?,
                peer.repr()?,
                socket.raw_fd()
            );
            report::log(py, "debug", &text)?;
        }
        let made = ffi::call(server.get().protocol_factory.bind(py), &[]).and_then(|protocol| {
            let waiter = server.get().tls.as_ref().map(|_| Core::future(core)).transpose()?;
            let opening = Opening {
                socket,
                protocol: &protocol,
                peer: Some(peer),
                waiter: waiter.as_ref(),
                server: Some(server.as_any()),
            };
            match (&server.get().tls, &waiter) {
                (Some(tls), Some(waiter)) => {
                    let transport = tls.open(core, opening)?;
                    Handshake::watch(core, &transport, &protocol, waiter)
                }
                _ => StreamTransport::open(core, opening).map(drop),
            }
        });
        let Err(error) = made else { return Ok(()) };
        if error::leaves_the_loop(py, &error) {
            return Err(error);
        }
        // asyncio tells nobody outside debug mode; the peer sees its connection closed.
        if !core.get().debug() {
            return Ok(());
        }
        report::call_exception_handler(
            core.as_any(),
            "Error on transport creation for incoming connection",
            Some(&error::exception(py, &error)),
            &[],
        )
    }

    #[cold]
    fn accept_failed(slf: &Bound<'_, Self>, error: &io::Error) -> PyResult<()> {
        if error::is_transient(error) || error.kind() == io::ErrorKind::ConnectionAborted {
            return Ok(());
        }
        let py = slf.py();
        let this = slf.get();
        let core = this.server.get().core.bind(py);
        let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        let socket = imports(py).transport_socket.bind(py).call1((this.socket.bind(py),))?;
        let exception = os_error(error);
        let details = [("socket", &socket)];
        if !error.raw_os_error().is_some_and(|errno| exhausted.contains(&errno)) {
            return report::call_exception_handler(
                core.as_any(),
                "Exception in callback Server._accept_connection()",
                Some(&error::exception(py, &exception)),
                &details,
            );
        }
        // The kernel would tell us again at once, and we would fail again: stop looking for a while.
        let entry = core.get().unwatch(py, this.fd, Interest::READABLE)?;
        drop(entry);
        let when = Core::now(core)?.as_seconds() + ACCEPT_RETRY_DELAY;
        let object = slf.as_any().into();
        let token = core.get().push_timer(Timestamp::from_seconds(when), object, retry);
        this.retry.set(Some(token));
        report::call_exception_handler(
            core.as_any(),
            "socket.accept() out of system resource",
            Some(&error::exception(py, &exception)),
            &details,
        )
    }
}

/// The listening socket is readable.
fn acceptable(listener: &Bound<'_, PyAny>) -> PyResult<()> {
    Listener::accept(ffi::cast_known::<Listener>(listener))
}

/// Time to look again for connections.
fn retry(listener: &Bound<'_, PyAny>) -> PyResult<()> {
    let listener = ffi::cast_known::<Listener>(listener);
    listener.get().retry.set(None);
    let this = listener.get();
    let py = listener.py();
    // Its owner may have closed the socket meanwhile.
    let fd: RawFd = this.socket.bind(py).call_method0(intern!(py, "fileno"))?.extract()?;
    if fd == this.fd && this.server.get().serving.load(Relaxed) {
        Listener::watch(listener)
    } else {
        Ok(())
    }
}
