//! The datagram transport: UDP, Unix datagrams, and whatever else has messages and no connection.
//!
//! Its states are those of a stream: *open*, *closing* (nothing is received any more, the queue drains), *lost*
//! (`connection_lost` is queued) and *closed*. What differs is that errors of the system concern a datagram and not
//! the transport: the protocol hears of them by `error_received`, and the transport stays open.
//!
//! Many datagrams come with one system call, but a protocol that closes or pauses in the middle is told of no
//! further one; what was received already then waits for `resume_reading`.

mod receiving;
mod sending;
mod stages;

use std::collections::VecDeque;
use std::net::SocketAddr;

use oxloop_engine::sys::fd::{BorrowedFd, RawFd};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;

use self::receiving::{Arrival, Method};
use crate::address::Known;
use crate::buffer::Chunk;
use crate::cell::{LoopCell, Made};
use crate::core::Core;
use crate::ffi::{self, Ref};
use crate::imports::imports;
use crate::transports::endpoint::{self, Endpoint, Life, endpoint_methods, socket_methods};
use crate::transports::protocol::{self, limit};
use crate::transports::socket::{Kind, Socket, describe, exposed};
use crate::transports::watch::Watch;

pub(crate) use sending::methods;

/// A datagram that is still to be sent.
pub(super) struct Departure {
    data: Chunk,
    target: Target,
}

/// Where a datagram is to go.
enum Target {
    /// To whom the socket is connected.
    Peer,
    /// To an address of numbers.
    Address(SocketAddr),
    /// Wherever the socket object says that this is.
    Object(Option<Ref>),
}

/// What a transport knows of its socket.
pub(super) struct State {
    socket: Socket,
    life: Life,
    queue: VecDeque<Departure>,
    /// The size of the queue: the data, and a header for each datagram.
    queued: usize,
    /// What has been received and not yet delivered.
    arrivals: VecDeque<Arrival>,
    /// The last sender, whose address object the next datagram from there shares.
    sender: Option<Known>,
    /// The last address that the user sent to.
    target: Option<Known>,
}

/// A socket of datagrams.
///
/// Source: asyncio's documentation, "Transports and Protocols".
#[pyclass(frozen, dict, weakref, module = "oxloop._native")]
pub(crate) struct DatagramTransport {
    made: Made,
    core: Ref<Core>,
    kind: Kind,
    method: Method,
    /// Whether the socket has a peer, which all that is sent goes to.
    connected: bool,
    /// The remote address that the user asked for: the only one that he may send to.
    remote: Option<Ref>,
    /// What a datagram counts in the buffer beside its data, in bytes: from Python 3.13 on, so that empty ones
    /// count too. Before, these are not sent.
    header: usize,
    watch: Watch,
    state: LoopCell<State>,
}

impl DatagramTransport {
    /// Makes a transport and queues its `connection_made`, after which it receives and the waiter is resolved.
    pub(crate) fn open<'py>(
        core: &Bound<'py, Core>,
        socket: &Bound<'py, PyAny>,
        protocol: &Bound<'py, PyAny>,
        remote: Option<Ref>,
        waiter: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        // What is no protocol is found out before anything is made.
        let made = protocol.getattr(intern!(py, "connection_made"))?;
        let kind = Kind::of(socket)?;
        let object = socket;
        let socket = Socket::object(object)?;
        let fd = socket.raw_fd();
        core.get().check_no_transport(py, fd)?;
        let extra = PyDict::new(py);
        describe(py, &socket, None, &extra)?;
        let connected = match extra.get_item(intern!(py, "peername"))? {
            Some(peer) => peer.is_truthy()?,
            None => false,
        };
        let state = State {
            socket,
            life: Life::new(protocol, Some(waiter), extra.clone()),
            queue: VecDeque::new(),
            queued: 0,
            arrivals: VecDeque::new(),
            sender: None,
            target: None,
        };
        let transport = Self {
            made: Made::new(),
            core: core.into(),
            kind,
            method: Method::of(kind),
            connected,
            remote,
            header: if py.version_info() >= (3, 13) { 8 } else { 0 },
            watch: Watch::new(py, fd, None)?,
            state: LoopCell::new(state),
        };
        let transport = Bound::new(py, transport)?;
        extra.set_item(intern!(py, "socket"), exposed(object, transport.as_any(), None)?)?;
        core.get().own(fd, transport.as_any())?;
        protocol::queue_made(core, transport.as_any(), &made, endpoint::opened::<Self>, None)?;
        Ok(transport)
    }

    /// The user has the socket, too: what is written to the one comes after what was written to the other.
    pub(crate) fn keep_nothing(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::keep_nothing(slf)
    }

    /// The descriptor to send to and receive from; `None` once it is closed.
    fn open_fd<'a>(&self, py: Python<'_>) -> PyResult<Option<BorrowedFd<'a>>> {
        let number = self.state.borrow().socket.number(py);
        number.open(py)
    }

    /// The socket object; `None` once it is closed.
    fn socket_object<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match &self.state.borrow().socket {
            Socket::Object { object, .. } => Some(object.bind(py).clone()),
            Socket::Descriptor { .. } | Socket::Closed(_) => None,
        }
    }

    /// Tells the protocol of an error of the system, which may concern any datagram that was sent.
    fn tell_error(&self, py: Python<'_>, error: &PyErr) -> PyResult<()> {
        let Some(protocol) = self.protocol(py) else { return Ok(()) };
        let exception = crate::error::exception(py, error);
        ffi::call_method(&protocol, intern!(py, "error_received"), &[exception.as_any()])?;
        Ok(())
    }
}

endpoint_methods!(DatagramTransport);
socket_methods!(DatagramTransport);

#[pymethods]
impl DatagramTransport {
    /// Information about the socket: "socket", "sockname", "peername".
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let extra = slf.get().state.borrow().life.extra.clone_ref(py);
        Ok(extra.bind(py).get_item(name)?.or(default))
    }

    /// Close without sending what is buffered.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        endpoint::force(slf, None)
    }

    /// Change the protocol.
    fn set_protocol(slf: &Bound<'_, Self>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        sending::send_kept(slf)?;
        let before = slf.get().state.borrow_mut().life.protocol.replace(protocol.into());
        drop(before);
        Ok(())
    }

    /// Receive again. Idempotent.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        receiving::resume(slf)
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).datagram_transport.bind(py).clone()
    }

    #[getter]
    fn _sock<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.socket_object(py)
    }

    /// Sends what a callback has written and was kept for its end; if `for_good`, nothing is kept from now on.
    fn _send_kept(slf: &Bound<'_, Self>, for_good: bool) -> PyResult<()> {
        if for_good { endpoint::keep_nothing(slf) } else { sending::send_kept(slf) }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        self.watch.visit(&visit)?;
        if let Some(remote) = &self.remote {
            visit.call(&**remote)?;
        }
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        state.life.visit(&visit)?;
        state.socket.visit(&visit)?;
        for departure in &state.queue {
            if let Target::Object(Some(object)) = &departure.target {
                visit.call(&**object)?;
            }
        }
        for arrival in &state.arrivals {
            arrival.visit(&visit)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let taken = {
            let mut state = self.state.borrow_mut();
            (state.life.clear(), endpoint::State::clear(&mut *state))
        };
        drop(taken);
    }
}

impl Drop for DatagramTransport {
    /// A transport that was dropped without having been closed: its socket is closed here, with a warning.
    fn drop(&mut self) {
        endpoint::dropped(self);
    }
}
