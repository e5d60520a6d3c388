//! A listening socket of a server: what comes in becomes connections.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use oxloop_engine::sys::fd::{AsFd, OwnedFd, RawFd};
use oxloop_engine::{Address, Interest, Timestamp, Token, sys};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use super::Server;
use crate::address;
use crate::cell::LoopCell;
use crate::core::{Arrival, Core, Reader};
use crate::error::{self, os_error};
use crate::ffi::{self, Ref};
use crate::imports::imports;
use crate::report;
use crate::transports::socket::{Kind, Socket};
use crate::transports::stream::{Opening, StreamTransport};
use crate::transports::tls::Handshake;

/// Seconds until a listener tries again after the process ran out of descriptors or memory
/// (`ACCEPT_RETRY_DELAY`).
const ACCEPT_RETRY_DELAY: f64 = 1.0;

/// One listening socket of a server: what the loop is to tell about it.
#[pyclass(frozen, module = "oxloop._native")]
pub(super) struct Listener {
    server: Ref<Server>,
    socket: Ref,
    fd: RawFd,
    kind: Kind,
    /// Each connection's protocol is made in a copy of this: the server's, or the one in which it started to serve.
    context: Ref,
    /// The timer after which it tries again, while the process is out of resources.
    retry: LoopCell<Option<Token>>,
}

#[pymethods]
impl Listener {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.server)?;
        visit.call(&*self.context)?;
        visit.call(&*self.socket)
    }
}

impl Listener {
    pub(super) fn new<'py>(
        server: &Bound<'py, Server>,
        socket: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = server.py();
        let listener = Self {
            server: server.into(),
            fd: socket.call_method0(intern!(py, "fileno"))?.extract()?,
            kind: Kind::of(socket)?,
            socket: socket.into(),
            context: match &server.get().context {
                Some(context) => context.clone_ref(py),
                None => ffi::copy_context(py)?,
            },
            retry: LoopCell::default(),
        };
        Bound::new(py, listener)
    }

    pub(super) fn watch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let core = this.server.get().core.get();
        core.read(this.fd, slf.as_any(), Reader::Connections(arrived))
    }

    pub(super) fn unwatch(slf: &Bound<'_, Self>) -> PyResult<()> {
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
            Self::accepted(slf, connection, Some(&peer))?;
        }
        Ok(())
    }

    fn accepted(
        slf: &Bound<'_, Self>,
        connection: OwnedFd,
        peer: Option<&Address>,
    ) -> PyResult<()> {
        let this = slf.get();
        let socket = Socket::Descriptor { fd: connection, kind: this.kind };
        let peer = peer.map(|peer| address::object(slf.py(), peer)).transpose()?;
        // Each connection has a context of its own, as the task has that asyncio makes for it.
        let context = ffi::copy_of_context(this.context.bind(slf.py()))?;
        ffi::run_in_context(context.bind(slf.py()), || {
            let is_kept = this.server.get().context.is_some();
            let context = is_kept.then(|| context.clone_ref(slf.py()));
            Self::connect(slf, socket, peer, context)
        })
    }

    /// Makes the protocol and the transport of a new connection.
    fn connect<'py>(
        slf: &Bound<'py, Self>,
        socket: Socket,
        peer: Option<Bound<'py, PyAny>>,
        context: Option<Ref>,
    ) -> PyResult<()> {
        let py = slf.py();
        let server = slf.get().server.bind(py);
        let core = server.get().core.bind(py);
        if core.get().debug() {
            let text = format!(
                "{} got a new connection from {}: <socket.socket fd={}>",
                server.repr()?,
                (&peer).into_pyobject(py)?.repr()?,
                socket.raw_fd()
            );
            report::log(py, "debug", &text)?;
        }
        let made = ffi::call(server.get().protocol_factory.bind(py), &[]).and_then(|protocol| {
            let waiter = server.get().tls.as_ref().map(|_| Core::future(core)).transpose()?;
            let opening = Opening {
                socket,
                protocol: &protocol,
                peer,
                waiter: waiter.as_ref(),
                server: Some(server.as_any()),
                context,
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
        report::caught(
            core.as_any(),
            "Error on transport creation for incoming connection",
            &error::exception(py, &error),
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
        let exhausted = [
            sys::os_error::EMFILE,
            sys::os_error::ENFILE,
            sys::os_error::ENOBUFS,
            sys::os_error::ENOMEM,
        ];
        let socket = imports(py).transport_socket.bind(py).call1((this.socket.bind(py),))?;
        let exception = os_error(error);
        let details = [("socket", &socket)];
        if !error.raw_os_error().is_some_and(|errno| exhausted.contains(&errno)) {
            return report::caught(
                core.as_any(),
                "Exception in callback Server._accept_connection()",
                &error::exception(py, &exception),
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
        report::caught(
            core.as_any(),
            "socket.accept() out of system resource",
            &error::exception(py, &exception),
            &details,
        )
    }
}

/// A connection has come, or the listening socket is readable.
fn arrived(listener: &Bound<'_, PyAny>, arrival: Arrival) -> PyResult<()> {
    let listener = ffi::cast_known::<Listener>(listener);
    match arrival {
        Arrival::Readable => Listener::accept(listener),
        // A server that was closed meanwhile: so is its connection.
        Arrival::Connection(_) if !listener.get().server.get().serving.load(Relaxed) => Ok(()),
        Arrival::Connection(connection) => {
            // A peer that has gone by now has no address any more.
            let peer = sys::socket::peer_address(connection.as_fd()).ok();
            Listener::accepted(listener, connection, peer.as_ref())
        }
        Arrival::Failed(errno) => {
            Listener::accept_failed(listener, &io::Error::from_raw_os_error(errno))?;
            // It has ended, unlike a watch.
            let this = listener.get();
            let goes_on = this.retry.get().is_none() && this.server.get().serving.load(Relaxed);
            if goes_on { Listener::watch(listener) } else { Ok(()) }
        }
        Arrival::Data { .. } | Arrival::Filled(_) | Arrival::Written(_) | Arrival::End => Ok(()),
    }
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
