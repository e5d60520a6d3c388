//! TLS: a state machine over the user's own `ssl.SSLContext`, between any transport and the user's protocol.
//!
//! The states, and what is said when, are those of `SSLProtocol` in asyncio's `sslproto.py` of Python 3.11 and later,
//! on every version. Its two objects are there, too: a protocol that stands on the transport below
//! ([`protocol`]) and a transport that the user's protocol is given ([`transport`]). What is ours is how the bytes go:
//!
//! * our stream transport hands over what it has received without an object made for it ([`reading`]), and no
//!   connection has a buffer of its own: ciphertext lands in the loop's read buffer, plaintext in another one;
//! * OpenSSL is not asked for what cannot be there ([`tls_records`](oxloop_engine::tls_records));
//! * what is written while the protocol handles what it was given becomes few records and one system call
//!   ([`writing`]), and what cannot be sent yet waits as the user's own `bytes`, not as ciphertext.
//!
//! What surprised us: asyncio hands out the TLS transport before the handshake is over, and a server that does
//! not wait for it would leave the exception of a failed one in a future that nobody asks.

mod closing;
mod handshake;
mod limits;
mod lower;
mod protocol;
mod reading;
mod session;
mod transport;
mod writing;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyBool;

use crate::core::Core;
use crate::error;
use crate::ffi::Ref;
use crate::report;
use crate::transports::stream::{Opening, StreamTransport};
use protocol::Making;
pub(crate) use protocol::TlsProtocol;
pub(crate) use reading::receive;
pub(crate) use transport::{TlsTransport, methods};
pub(crate) use writing::uncork;

/// A keyword of the user's: `None` is the same as not given.
pub(crate) type Optional = Option<Ref>;

/// What a connection is to be encrypted with.
pub(crate) struct Tls {
    /// The user's `ssl.SSLContext`; `None` for asyncio's default one.
    pub(crate) context: Optional,
    pub(crate) server_side: bool,
    pub(crate) server_hostname: Optional,
    pub(crate) handshake_timeout: Optional,
    pub(crate) shutdown_timeout: Optional,
}

impl Tls {
    /// From the arguments of the user; `None` without TLS, and `ValueError` for a timeout of it then.
    pub(crate) fn new(
        py: Python<'_>,
        ssl: &Optional,
        server_side: bool,
        server_hostname: Optional,
        [handshake_timeout, shutdown_timeout]: &[Optional; 2],
    ) -> PyResult<Option<Self>> {
        let wanted = match ssl {
            Some(ssl) => ssl.bind(py).is_truthy()?,
            None => false,
        };
        if !wanted {
            let timeouts = [
                ("ssl_handshake_timeout", handshake_timeout),
                ("ssl_shutdown_timeout", shutdown_timeout),
            ];
            if let Some((name, _)) = timeouts.iter().find(|(_, timeout)| timeout.is_some()) {
                return Err(PyValueError::new_err(format!("{name} is only meaningful with ssl")));
            }
            return Ok(None);
        }
        let clone = |value: &Optional| value.as_ref().map(|value| value.clone_ref(py));
        let context = clone(ssl).filter(|ssl| !ssl.bind(py).is_instance_of::<PyBool>());
        Ok(Some(Self {
            context,
            server_side,
            server_hostname,
            handshake_timeout: clone(handshake_timeout),
            shutdown_timeout: clone(shutdown_timeout),
        }))
    }

    /// A transport that speaks TLS to the peer and plain bytes to `opening.protocol`; `opening.waiter` is
    /// resolved by the end of the handshake.
    pub(crate) fn open<'py>(
        &self,
        core: &Bound<'py, Core>,
        opening: Opening<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = core.py();
        let layer = self.protocol(core, opening.protocol, opening.waiter, true)?;
        let Some(transport) = layer.get().transport(py) else {
            return Ok(py.None().into_bound(py));
        };
        let below = Opening { protocol: layer.as_any(), waiter: None, ..opening };
        if let Err(error) = StreamTransport::open(core, below) {
            // Nobody has seen it, and nobody can have forgotten to close it.
            transport.get().set_closed();
            return Err(error);
        }
        Ok(transport.into_any())
    }

    /// What stands between a transport and `protocol`.
    pub(crate) fn protocol<'py>(
        &self,
        core: &Bound<'py, Core>,
        protocol: &Bound<'py, PyAny>,
        waiter: Option<&Bound<'py, PyAny>>,
        call_connection_made: bool,
    ) -> PyResult<Bound<'py, TlsProtocol>> {
        let py = core.py();
        let object = |value: &Optional| value.as_ref().map(|value| value.bind(py).clone());
        let making = Making {
            context: object(&self.context),
            server_side: self.server_side,
            server_hostname: object(&self.server_hostname),
            handshake_timeout: &self.handshake_timeout,
            shutdown_timeout: &self.shutdown_timeout,
            protocol,
            waiter,
            call_connection_made,
        };
        TlsProtocol::new(core, making)
    }
}

/// Waits for the handshake of a connection that a server accepted: a failed one closes the connection, and is
/// reported in debug mode only, as in asyncio.
#[pyclass(frozen, module = "oxloop._native")]
pub(crate) struct Handshake {
    core: Ref<Core>,
    transport: Ref,
    protocol: Ref,
}

impl Handshake {
    /// Looks at `waiter` when it is done.
    pub(crate) fn watch(
        core: &Bound<'_, Core>,
        transport: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let handshake =
            Self { core: core.into(), transport: transport.into(), protocol: protocol.into() };
        let callback = Bound::new(core.py(), handshake)?;
        waiter.call_method1(intern!(core.py(), "add_done_callback"), (callback,)).map(drop)
    }
}

#[pymethods]
impl Handshake {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.core)?;
        visit.call(&*self.transport)?;
        visit.call(&*self.protocol)
    }

    fn __call__(&self, py: Python<'_>, waiter: &Bound<'_, PyAny>) -> PyResult<()> {
        let Err(error) = waiter.call_method0(intern!(py, "result")) else { return Ok(()) };
        let transport = self.transport.bind(py);
        transport.call_method0(intern!(py, "close"))?;
        if error::leaves_the_loop(py, &error) {
            return Err(error);
        }
        let core = self.core.bind(py);
        if !core.get().debug() {
            return Ok(());
        }
        let details = [("protocol", self.protocol.bind(py)), ("transport", transport)];
        report::caught(
            core.as_any(),
            "Error on transport creation for incoming connection",
            &error::exception(py, &error),
            &details,
        )
    }
}
