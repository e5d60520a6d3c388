//! The stream transport: one state machine for every connection of bytes.
//!
//! Its states are few: *open*, *closing* (nothing is read any more, the write buffer drains), *lost*
//! (`connection_lost` is queued; writes are counted and dropped), and *closed* (the socket is gone). Whatever
//! the peer, the kernel or the protocol does, the way leads through them in this order and calls
//! `connection_lost` exactly once, never from inside `close`.
//!
//! Each step borrows the state, decides, ends the borrow, and only then calls the protocol, which may call
//! anything of the transport in turn. What surprised us: between two borrows everything may have changed,
//! so each step looks at the state again rather than carry a conclusion over a call.

mod delivering;
mod file;
mod reading;
mod stages;
mod writing;

use std::collections::VecDeque;

use oxloop_engine::sys::fd::{BorrowedFd, RawFd};
use oxloop_engine::{Volume, WriteQueue};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyDict};

use crate::buffer::Chunk;
use crate::cell::{LoopCell, Made};
use crate::core::Core;
use crate::ffi::{self, Ref};
use crate::imports::{NEVER, imports, is_since};
use crate::transports::endpoint::{self, Endpoint, Life, Piece, endpoint_methods, socket_methods};
use crate::transports::protocol::{self, limit};
use crate::transports::sendfile::Sendfile;
use crate::transports::socket::{Socket, describe, exposed};
use crate::transports::tls::TlsProtocol;
use crate::transports::watch::Watch;

pub(super) use writing::chunks;
pub(crate) use writing::methods;

/// What a transport knows of its connection.
pub(super) struct State {
    socket: Socket,
    life: Life,
    /// How the protocol is given what comes; follows `set_protocol`.
    kind: Kind,
    /// What has been written and not yet sent.
    queue: WriteQueue<Chunk>,
    /// How much comes at a time.
    volume: Volume,
    /// What the loop had received before reading was paused, to be delivered when it goes on.
    held: VecDeque<Piece>,
    /// Set by `write_eof`.
    eof_written: bool,
    /// The file that is sent, or waits for the queue to be empty: nothing may be written meanwhile.
    sendfile: Option<Ref<Sendfile>>,
    /// The server that accepted the connection, until the connection is lost.
    server: Option<Ref>,
}

/// A connection that carries a stream of bytes.
///
/// Source: asyncio's documentation, "Transports and Protocols".
#[pyclass(frozen, dict, weakref, module = "oxloop._native")]
pub(crate) struct StreamTransport {
    made: Made,
    core: Ref<Core>,
    watch: Watch,
    state: LoopCell<State>,
}

/// What a transport is made of.
pub(crate) struct Opening<'a, 'py> {
    pub(crate) socket: Socket,
    pub(crate) protocol: &'a Bound<'py, PyAny>,
    /// The peer's address if it is known already.
    pub(crate) peer: Option<Bound<'py, PyAny>>,
    pub(crate) waiter: Option<&'a Bound<'py, PyAny>>,
    pub(crate) server: Option<&'a Bound<'py, PyAny>>,
    /// The context in which the protocol is told of everything; without one, what it is told of is told in copies of
    /// the contexts in which that was asked for.
    pub(crate) context: Option<Ref>,
}

/// A copy of the current context for a connection, or for a server that gives copies of it to its connections: from
/// Python 3.15 on a protocol finds there what it has set before (gh-140947).
pub(crate) fn own_context(py: Python<'_>) -> PyResult<Option<Ref>> {
    is_since(py, [NEVER, NEVER, 0]).then(|| ffi::copy_context(py)).transpose()
}

impl StreamTransport {
    /// Makes a transport and queues its `connection_made`, after which it reads and the waiter is resolved: what
    /// asyncio queues as three callbacks, one behind the other.
    pub(crate) fn open<'py>(
        core: &Bound<'py, Core>,
        opening: Opening<'_, 'py>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        let Opening { socket, protocol, peer, waiter, server, context } = opening;
        if matches!(socket, Socket::Object { .. }) {
            core.get().check_no_transport(py, socket.raw_fd())?;
        }
        // What is no protocol is found out before anything is made.
        let made = protocol.getattr(intern!(py, "connection_made"))?;
        let extra = PyDict::new(py);
        describe(py, &socket, peer, &extra)?;
        let fd = socket.raw_fd();
        let object = socket.shared(py);
        let state = State {
            socket,
            life: Life::new(protocol, waiter, extra.clone()),
            kind: Kind::of(protocol)?,
            queue: WriteQueue::new(),
            volume: Volume::default(),
            held: VecDeque::new(),
            eof_written: false,
            sendfile: None,
            server: server.map(Ref::from),
        };
        let transport = Self {
            made: Made::new(),
            core: core.into(),
            watch: Watch::new(py, fd, context)?,
            state: LoopCell::new(state),
        };
        let transport = Bound::new(py, transport)?;
        if let Some(object) = object {
            let socket = exposed(object.bind(py), transport.as_any(), None)?;
            extra.set_item(intern!(py, "socket"), socket)?;
        }
        if let Some(server) = server {
            ffi::call_method(server, intern!(py, "_attach"), &[transport.as_any()])?;
        }
        core.get().own(fd, transport.as_any())?;
        let context = transport.get().watch.context(py);
        protocol::queue_made(core, transport.as_any(), &made, endpoint::opened::<Self>, context)?;
        Ok(transport)
    }

    /// The user has the socket, too: what is written to the one comes after what was written to the other.
    pub(crate) fn keep_nothing(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::keep_nothing(slf)
    }

    /// Sends `data`, a `bytes` object: the method `write` for TLS.
    pub(super) fn send(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        writing::send(slf, data, data.cast::<PyBytes>()?.as_bytes())
    }

    /// The descriptor to send to and receive from; `None` once it is closed.
    #[inline]
    fn open_fd<'a>(&self, py: Python<'_>) -> PyResult<Option<BorrowedFd<'a>>> {
        let number = self.state.borrow().socket.number(py);
        number.open(py)
    }
}

/// How a protocol is given what comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By `data_received`.
    Plain,
    /// By `get_buffer` and `buffer_updated`.
    Buffered,
    /// It is TLS of ours, which takes memory.
    Tls,
}

impl Kind {
    fn of(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        if protocol.is_exact_instance_of::<TlsProtocol>() {
            return Ok(Self::Tls);
        }
        let class = imports(protocol.py()).buffered_protocol.bind(protocol.py());
        Ok(if protocol.is_instance(class)? { Self::Buffered } else { Self::Plain })
    }
}

endpoint_methods!(StreamTransport);
socket_methods!(StreamTransport);

#[pymethods]
impl StreamTransport {
    /// Information about the connection: "socket", "sockname", "peername".
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let extra = slf.get().state.borrow().life.extra.clone_ref(py);
        let extra = extra.bind(py);
        if let Some(value) = extra.get_item(name)? {
            return Ok(Some(value));
        }
        if name.eq(intern!(py, "socket"))? {
            let protocol = slf.get().protocol_made_with();
            let object = match slf.get().socket_object(py)? {
                None => slf.get().closed_socket(py)?,
                object => object,
            };
            let Some(object) = object else { return Ok(default) };
            let socket = exposed(&object, slf.as_any(), protocol)?;
            extra.set_item(name, &socket)?;
            return Ok(Some(socket));
        }
        Ok(default)
    }

    /// Close without sending what is buffered.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        writing::uncork(slf)?;
        endpoint::force(slf, None)
    }

    /// Change the protocol.
    fn set_protocol(slf: &Bound<'_, Self>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        writing::send_kept(slf)?;
        let kind = Kind::of(protocol)?;
        let before = {
            let mut state = slf.get().state.borrow_mut();
            state.kind = kind;
            state.life.protocol.replace(protocol.into())
        };
        drop(before);
        Ok(())
    }

    /// Receive again. Idempotent.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::resume(slf).map(drop)
    }

    /// Write the concatenation of the items of `list_of_data`, without joining them.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        writing::writelines(slf, list_of_data)
    }

    /// Close the sending side once what was written is sent; receiving goes on.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        writing::write_eof(slf)
    }

    /// True: a stream socket can be half-closed.
    fn can_write_eof(&self) -> bool {
        true
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).transport.bind(py).clone()
    }

    /// What asyncio's `SSLProtocol` calls for an error that ends the connection.
    fn _force_close(slf: &Bound<'_, Self>, exc: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        endpoint::force(slf, exc.map(PyErr::from_value))
    }

    /// What asyncio's `SSLProtocol` looks at before Python 3.11.
    #[getter]
    fn _paused(&self) -> bool {
        self.watch.is_paused()
    }

    /// What asyncio calls flow control: whether the protocol has been told to pause.
    #[getter]
    fn _protocol_paused(&self) -> bool {
        self.state.borrow().life.flow.is_paused()
    }

    /// What `sendfile` asks.
    #[classattr]
    fn _sendfile_compatible(py: Python<'_>) -> PyResult<Py<PyAny>> {
        imports(py).sendfile_mode.getattr(py, "TRY_NATIVE")
    }

    /// What `start_tls` asks.
    #[getter]
    fn _start_tls_compatible(&self) -> bool {
        true
    }

    #[getter]
    fn _sock<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.socket_object(py)
    }

    /// Sends what a callback has written and was kept for its end; if `for_good`, nothing is kept from now on.
    fn _send_kept(slf: &Bound<'_, Self>, for_good: bool) -> PyResult<()> {
        if for_good {
            endpoint::keep_nothing(slf)?;
        }
        writing::uncork(slf)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        self.watch.visit(&visit)?;
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        state.life.visit(&visit)?;
        state.socket.visit(&visit)?;
        if let Some(server) = &state.server {
            visit.call(&**server)?;
        }
        state.sendfile.as_ref().map_or(Ok(()), |sendfile| visit.call(&**sendfile))
    }

    fn __clear__(&self) {
        let taken = {
            let mut state = self.state.borrow_mut();
            (state.life.clear(), state.server.take(), state.sendfile.take())
        };
        drop(taken);
    }
}

impl StreamTransport {
    /// The number that `socket.socket` would have been given for a connection that the loop has made. One that was
    /// accepted comes by its descriptor in asyncio, too.
    fn protocol_made_with(&self) -> Option<i32> {
        match &*self.state.borrow() {
            State { socket: Socket::Descriptor { kind, .. }, server: None, .. } => {
                Some(kind.protocol)
            }
            _ => None,
        }
    }

    /// The Python socket, made when it is first asked for; `None` once it is closed.
    fn socket_object<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let kind = match &self.state.borrow().socket {
            Socket::Object { object, .. } => return Ok(Some(object.bind(py).clone())),
            Socket::Closed(_) => return Ok(None),
            Socket::Descriptor { kind, .. } => *kind,
        };
        let fd = self.watch.fd();
        let object = kind.object(py, fd)?;
        // Making it ran Python code, which may have closed the transport or asked for the socket too.
        let ours = {
            let mut state = self.state.borrow_mut();
            let ours = matches!(state.socket, Socket::Descriptor { .. });
            if ours {
                let next = Socket::Object { object: (&object).into(), fd };
                std::mem::replace(&mut state.socket, next).forget();
            }
            ours
        };
        if ours {
            return Ok(Some(object));
        }
        object.call_method0(intern!(py, "detach"))?;
        match &self.state.borrow().socket {
            Socket::Object { object, .. } => Ok(Some(object.bind(py).clone())),
            _ => Ok(None),
        }
    }
}

impl StreamTransport {
    /// A closed Python socket in the place of the descriptor that was closed, whose kind it still tells.
    fn closed_socket<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Socket::Closed(Some(kind)) = self.state.borrow().socket else { return Ok(None) };
        match kind.closed_object(py) {
            // It is open for a moment, and there is no descriptor to be had.
            Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(None),
            closed => closed.map(Some),
        }
    }
}

impl Drop for StreamTransport {
    /// A transport that was dropped without having been closed: its socket is closed here, with a warning.
    fn drop(&mut self) {
        endpoint::dropped(self);
    }
}

/// `RuntimeError` for what cannot be done any more.
fn refused(message: &str) -> PyErr {
    PyRuntimeError::new_err(message.to_owned())
}
