//! `Server`: listening sockets, the connections that they accepted, and the end of both.

mod listener;

use std::collections::HashMap;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyTuple, PyWeakrefMethods, PyWeakrefReference};

use self::listener::Listener;
use crate::cell::{LoopCell, Made};
use crate::core::Core;
use crate::coroutine::{self, Coroutine, Flow, Kept};
use crate::error;
use crate::ffi::{self, Ref};
use crate::imports::{imports, is_since};
use crate::transports::stream;
use crate::transports::tls::Tls;
use crate::transports::unix_path::BoundPath;

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
    /// What its connections' contexts are copies of, from Python 3.15 on.
    context: Option<Ref>,
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
        let py = core.py();
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
                context: stream::own_context(py)?,
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
            let listener = Listener::new(slf, &socket)?;
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
                    Python::attach(|py| {
                        Self::do_close(this.bind(py))?;
                        // A handler that waits for its client would keep the server (gh-123720).
                        if is_since(py, [15, 7, 0]) { this.get().close_clients(py) } else { Ok(()) }
                    })?;
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        visit.call(&*self.protocol_factory)?;
        if let Some(context) = &self.context {
            visit.call(&**context)?;
        }
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
