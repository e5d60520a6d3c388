//! Making connections, servers and endpoints: `create_connection`, `connect_accepted_socket`, `create_server`,
//! their kin of Unix sockets, `create_datagram_endpoint`, pipes and processes.

mod attempt;
mod client;
mod datagram;
mod listen;
mod pipe;
mod process;
mod start_tls;
mod unix;

pub(crate) use client::{Client, accepted, connect};
pub(crate) use datagram::{Endpoint, create_datagram_endpoint};
pub(crate) use listen::{Listening, create_server};
pub(crate) use pipe::{connect_read_pipe, connect_write_pipe};
pub(crate) use process::{Command, run};
pub(crate) use start_tls::{Upgrade, start_tls};
pub(crate) use unix::{UnixClient, UnixListening, connect_unix, create_unix_server};

use oxloop_engine::sys::numbers;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::core::Core;
use crate::coroutine::{Flow, Kept};
use crate::ffi::Ref;
use crate::imports::{NEVER, imports, is_since};
use crate::transports::socket::Socket;
use crate::transports::stream::{self, Opening, StreamTransport};
pub(crate) use crate::transports::tls::Optional;
use crate::transports::tls::Tls;

/// `TypeError` for a TLS socket.
fn check_not_tls(py: Python<'_>, socket: &Ref) -> PyResult<()> {
    imports(py)
        .base_events
        .bind(py)
        .call_method1(intern!(py, "_check_ssl_socket"), (socket.bind(py),))
        .map(drop)
}

/// `ValueError` for anything but a stream socket.
fn check_stream(socket: &Bound<'_, PyAny>) -> PyResult<()> {
    let kind: i32 = socket.getattr(intern!(socket.py(), "type"))?.extract()?;
    if kind == numbers::SOCK_STREAM {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("A Stream Socket was expected, got {}", socket.repr()?)))
}

/// The truth of a keyword.
fn is_true(py: Python<'_>, value: &Optional) -> PyResult<bool> {
    value.as_ref().map_or(Ok(false), |value| value.bind(py).is_truthy())
}

/// The keyword, or `None`.
fn or_none<'py>(py: Python<'py>, value: &Optional) -> Bound<'py, PyAny> {
    value.as_ref().map_or_else(|| py.None().into_bound(py), |value| value.bind(py).clone())
}

/// Closes the socket; the error before it is the one that counts.
fn close_after(socket: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let _ = socket.call_method0(intern!(socket.py(), "close"));
    error
}

/// A socket that is connected.
struct Connected {
    socket: Socket,
    /// Whether it is ours, not the user's.
    owned: bool,
    /// What it is to be encrypted with.
    tls: Option<Tls>,
}

/// The transport and the protocol of a connected socket, once `connection_made` has been called.
///
/// If there will be no transport (a factory that raises), the socket is closed if it is ours, and from Python
/// 3.14.8 on if it is the user's, too (gh-153133).
async fn open_transport(
    flow: &Flow,
    core: &Kept<Core>,
    protocol_factory: &Ref,
    connected: Connected,
) -> PyResult<(Kept, Kept)> {
    let (transport, protocol, waiter) = Python::attach(|py| {
        let core = core.bind(py);
        let owned = connected.owned;
        let object = connected.socket.shared(py);
        let made = begin(core, protocol_factory.bind(py), connected);
        let [transport, protocol, waiter] = match made {
            Ok(made) => made,
            Err(error) => {
                let closed = match object {
                    Some(object) if owned || is_since(py, [NEVER, 8, 0]) => {
                        object.bind(py).call_method0(intern!(py, "close")).err()
                    }
                    _ => None,
                };
                return Err(closed.unwrap_or(error));
            }
        };
        Ok::<_, PyErr>((flow.keep(transport), flow.keep(protocol), flow.keep(waiter)))
    })?;
    opened(flow, &transport, &waiter).await?;
    Ok((transport, protocol))
}

/// A transport that is about to tell its protocol, the protocol, and the future that says that it has.
fn begin<'py>(
    core: &Bound<'py, Core>,
    protocol_factory: &Bound<'py, PyAny>,
    connected: Connected,
) -> PyResult<[Bound<'py, PyAny>; 3]> {
    let py = core.py();
    let Connected { socket, owned, tls } = connected;
    if let Socket::Object { object, .. } = &socket {
        object.bind(py).call_method1(intern!(py, "setblocking"), (false,))?;
    }
    let context = stream::own_context(py)?;
    let protocol = protocol_factory.call0()?;
    let waiter = Core::future(core)?;
    let peer = socket.peer(py)?;
    let opening =
        Opening { socket, protocol: &protocol, peer, waiter: Some(&waiter), server: None, context };
    let transport = match tls {
        None => {
            let transport = StreamTransport::open(core, opening)?;
            if !owned {
                StreamTransport::keep_nothing(&transport)?;
            }
            transport.into_any()
        }
        Some(tls) => tls.open(core, opening)?,
    };
    Ok([transport, protocol, waiter])
}

/// Waits until the protocol has been told of its transport, which is closed if nobody waits for that any more.
async fn opened(flow: &Flow, transport: &Kept, waiter: &Kept) -> PyResult<()> {
    if let Err(error) = flow.wait_kept(waiter).await {
        Python::attach(|py| transport.bind(py).call_method0(intern!(py, "close")).map(drop))?;
        return Err(error);
    }
    Ok(())
}

/// `(transport, protocol)`.
fn pair(transport: &Ref, protocol: &Ref) -> PyResult<Ref> {
    Python::attach(|py| {
        let pair = pyo3::types::PyTuple::new(py, [transport.bind(py), protocol.bind(py)])?;
        Ok(pair.into_any().into())
    })
}
