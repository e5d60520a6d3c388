//! The protocol that stands on the transport below: it has the session, and all that a connection with TLS knows.
//!
//! Its methods are those that any transport calls. Our own stream transport calls [`receive`](super::reading::receive)
//! instead of `data_received`, with no object made for what it has received.

use oxloop_engine::write_queue::WriteQueue;
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyDict};

use super::limits::Limits;
use super::lower::Lower;
use super::session::Session;
use super::transport::TlsTransport;
use super::{Optional, closing, handshake, reading, writing};
use crate::buffer::Chunk;
use crate::cell::{LoopCell, Made};
use crate::core::Core;
use crate::ffi::Ref;
use crate::imports::{imports, tls_imports};
use crate::report;

/// Where a session is on its way: `SSLProtocolState` of asyncio's `sslproto.py`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the handshake, and after the end: there is nothing to encrypt for.
    Unwrapped,
    Handshake,
    Wrapped,
    /// Closing: what came is still delivered, and what was written is sent.
    Flushing,
    /// `close_notify` has been sent, or is about to be; the peer's is waited for.
    Shutdown,
}

/// What the protocol above has been told: `AppProtocolState` of asyncio's `sslproto.py`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Made,
    Eof,
    Lost,
}

/// What a connection with TLS knows beside its session.
#[allow(clippy::struct_excessive_bools)] // independent facts; each says who sets it
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) told: Told,
    /// The transport below; `None` before it is known, and once it is lost.
    pub(super) lower: Option<Lower>,
    /// The protocol above; `None` once the connection is lost.
    pub(super) protocol: Option<Ref>,
    /// Whether that is a `BufferedProtocol`; follows `set_protocol`.
    pub(super) buffered: bool,
    /// The transport that the protocol above is given; `None` once the connection is lost.
    pub(super) transport: Option<Ref<TlsTransport>>,
    /// Resolved by the end of the handshake; taken then.
    pub(super) waiter: Option<Ref>,
    /// The handle of the timer of the handshake, or of the end.
    pub(super) timer: Option<Ref>,
    /// When the handshake began, in debug mode.
    pub(super) started: Option<Ref>,
    /// What has been written and not yet encrypted.
    pub(super) queue: WriteQueue<Chunk>,
    /// Set while what is written stays in the queue, to be encrypted and sent together.
    pub(super) corked: bool,
    /// What writes at the end of this turn is done in: the context of the first write of the turn.
    pub(super) context: Option<Ref>,
    /// Set while what was in the queue is encrypted: what is written meanwhile comes after it.
    pub(super) encrypting: bool,
    /// The limits of what is written and has not reached the transport below.
    pub(super) write_limits: Limits,
    /// Whether the protocol above has been told to pause writing.
    pub(super) writing_paused: bool,
    /// Set and cleared by the transport below: it has enough to send.
    pub(super) lower_full: bool,
    /// The limits of what has come and was not decrypted because the protocol above reads nothing.
    pub(super) read_limits: Limits,
    /// Set and cleared by the protocol above.
    pub(super) reading_paused: bool,
    /// Whether the transport below has been told to pause reading.
    pub(super) lower_paused: bool,
    /// The transport below has received EOF.
    pub(super) eof_received: bool,
    /// How often something was written to a connection that is gone, plus one if it is lost.
    pub(super) lost: u32,
}

/// TLS between a transport and a protocol.
#[pyclass(frozen, weakref, module = "oxloop._native")]
pub(crate) struct TlsProtocol {
    made: Made,
    pub(super) core: Ref<Core>,
    pub(super) session: Session,
    /// Seconds, as the user gave them.
    pub(super) handshake_timeout: Ref,
    pub(super) shutdown_timeout: Ref,
    /// What `get_extra_info` knows beside the transport below.
    pub(super) extra: Ref<PyDict>,
    pub(super) state: LoopCell<State>,
}

/// What TLS is made of.
pub(super) struct Making<'a, 'py> {
    /// `None` for asyncio's default context.
    pub(super) context: Option<Bound<'py, PyAny>>,
    pub(super) server_side: bool,
    pub(super) server_hostname: Option<Bound<'py, PyAny>>,
    pub(super) handshake_timeout: &'a Optional,
    pub(super) shutdown_timeout: &'a Optional,
    pub(super) protocol: &'a Bound<'py, PyAny>,
    pub(super) waiter: Option<&'a Bound<'py, PyAny>>,
    pub(super) call_connection_made: bool,
}

impl TlsProtocol {
    pub(super) fn new<'py>(
        core: &Bound<'py, Core>,
        making: Making<'_, 'py>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        tls_imports(py)?;
        let handshake_timeout =
            timeout(py, making.handshake_timeout, "ssl_handshake_timeout", 60.0)?;
        let shutdown_timeout = timeout(py, making.shutdown_timeout, "ssl_shutdown_timeout", 30.0)?;
        let context = match making.context {
            Some(context) if context.is_truthy()? => context,
            _ => default_context(py, making.server_side, making.server_hostname.as_ref())?,
        };
        let hostname = match making.server_hostname {
            Some(name) if !making.server_side && name.is_truthy()? => Some(name),
            _ => None,
        };
        let session = Session::new(core.get(), &context, making.server_side, hostname.as_ref())?;
        let extra = PyDict::new(py);
        extra.set_item(intern!(py, "sslcontext"), context)?;
        let told = if making.call_connection_made { Told::Nothing } else { Told::Made };
        let state = State {
            phase: Phase::Unwrapped,
            told,
            lower: None,
            protocol: Some(making.protocol.into()),
            buffered: is_buffered(making.protocol)?,
            transport: None,
            waiter: making.waiter.map(Ref::from),
            timer: None,
            started: None,
            queue: WriteQueue::new(),
            corked: false,
            context: None,
            encrypting: false,
            write_limits: Limits::of_writing(py)?,
            writing_paused: false,
            lower_full: false,
            read_limits: Limits::of_reading(py)?,
            reading_paused: false,
            lower_paused: false,
            eof_received: false,
            lost: 0,
        };
        let this = Self {
            made: Made::new(),
            core: core.into(),
            session,
            handshake_timeout,
            shutdown_timeout,
            extra: extra.into(),
            state: LoopCell::new(state),
        };
        let this = Bound::new(py, this)?;
        let transport = Bound::new(py, TlsTransport::new(core, &this))?;
        this.get().state.borrow_mut().transport = Some(transport.into());
        Ok(this)
    }

    /// `data` came from the peer, and is looked at later.
    pub(crate) fn feed(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = data.py();
        if let Ok(data) = data.cast::<PyBytes>() {
            return self.session.feed(py, data.as_bytes());
        }
        let data = py.get_type::<PyBytes>().call1((data,))?;
        self.session.feed(py, data.cast::<PyBytes>()?.as_bytes())
    }

    /// The transport for the protocol above; `None` once the connection is lost.
    pub(crate) fn transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, TlsTransport>> {
        self.state.borrow().transport.as_ref().map(|transport| transport.bind(py).clone())
    }

    /// The protocol above; `None` once the connection is lost.
    pub(super) fn protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.borrow().protocol.as_ref().map(|protocol| protocol.bind(py).clone())
    }

    pub(super) fn lower(&self, py: Python<'_>) -> Option<Lower> {
        self.state.borrow().lower.as_ref().map(|lower| lower.clone_ref(py))
    }

    #[inline]
    pub(super) fn phase(&self) -> Phase {
        self.state.borrow().phase
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.state.borrow_mut().phase = phase;
    }

    pub(super) fn set_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        let buffered = is_buffered(protocol)?;
        let before = {
            let mut state = self.state.borrow_mut();
            state.buffered = buffered;
            state.protocol.replace(protocol.into())
        };
        drop(before);
        Ok(())
    }

    pub(super) fn extra_info<'py>(
        &self,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = name.py();
        if let Some(value) = self.extra.bind(py).get_item(name)? {
            return Ok(Some(value));
        }
        match self.lower(py) {
            Some(lower) => lower
                .object(py)
                .call_method1(intern!(py, "get_extra_info"), (name, default))
                .map(Some),
            None => Ok(default),
        }
    }

    /// Calls `loop.call_soon` or another method that schedules, which may be the user's.
    pub(super) fn schedule<'py>(
        slf: &Bound<'py, Self>,
        method: &str,
        delay: Option<&Ref>,
        callback: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let callback = slf.getattr(callback)?;
        let core = slf.get().core.bind(py);
        match delay {
            Some(delay) => core.call_method1(method, (delay.bind(py), callback)),
            None => core.call_method1(method, (callback,)),
        }
    }

    pub(super) fn cancel_timer(&self, py: Python<'_>) -> PyResult<()> {
        let timer = self.state.borrow_mut().timer.take();
        match timer {
            Some(timer) => timer.bind(py).call_method0(intern!(py, "cancel")).map(drop),
            None => Ok(()),
        }
    }

    /// Resolves the waiter, if there is one and nobody has cancelled it.
    pub(super) fn wake(&self, py: Python<'_>, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let waiter = self.state.borrow_mut().waiter.take();
        let Some(waiter) = waiter else { return Ok(()) };
        let waiter = waiter.bind(py);
        if waiter.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            return Ok(());
        }
        match error {
            Some(error) => waiter.call_method1(intern!(py, "set_exception"), (error,)),
            None => waiter.call_method1(intern!(py, "set_result"), (py.None(),)),
        }
        .map(drop)
    }

    pub(super) fn log_debug(slf: &Bound<'_, Self>, what: &str) -> PyResult<()> {
        if slf.get().core.get().debug() {
            report::log(slf.py(), "debug", &format!("{} {what}", slf.repr()?))?;
        }
        Ok(())
    }
}

fn is_buffered(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    protocol.is_instance(imports(protocol.py()).buffered_protocol.bind(protocol.py()))
}

/// A timeout in seconds: the user's, or asyncio's constant, or what that is from the version on that has it.
fn timeout(py: Python<'_>, given: &Optional, name: &str, default: f64) -> PyResult<Ref> {
    let Some(given) = given else {
        let constants = py.import("asyncio.constants")?;
        let constant = constants.getattr_opt(name.to_uppercase().as_str())?;
        return Ok(match constant {
            Some(constant) => constant.into(),
            None => default.into_pyobject(py)?.into_any().into(),
        });
    };
    if given.bind(py).le(0)? {
        return Err(PyValueError::new_err(format!(
            "{name} should be a positive number, got {}",
            given.bind(py).str()?
        )));
    }
    Ok(given.clone_ref(py))
}

/// asyncio's default context, which only a client has.
fn default_context<'py>(
    py: Python<'py>,
    server_side: bool,
    server_hostname: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    if server_side {
        return Err(PyValueError::new_err("Server side SSL needs a valid SSLContext"));
    }
    let ssl = tls_imports(py)?.ssl.bind(py);
    let context = ssl.call_method0(intern!(py, "create_default_context"))?;
    let named = server_hostname.map_or(Ok(false), PyAnyMethods::is_truthy)?;
    if !named {
        context.setattr(intern!(py, "check_hostname"), false)?;
    }
    Ok(context)
}

#[pymethods]
impl TlsProtocol {
    /// The transport below is there: the handshake begins.
    fn connection_made(slf: &Bound<'_, Self>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let before = slf.get().state.borrow_mut().lower.replace(Lower::new(transport));
        drop(before);
        handshake::start(slf)
    }

    /// The transport below is gone.
    fn connection_lost(slf: &Bound<'_, Self>, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        closing::lost(slf, exc)
    }

    /// The transport below has received `data`; only one that is not ours says so.
    fn data_received(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        // All at once: it may be called again, by what the protocol does with the beginning.
        slf.get().feed(data)?;
        reading::receive(slf, &[])
    }

    /// The transport below has received EOF; true if it is to stay open until what came has been read.
    fn eof_received(slf: &Bound<'_, Self>) -> PyResult<bool> {
        closing::eof(slf).or_else(|error| {
            if error.is_instance_of::<PyException>(slf.py())
                && let Some(lower) = slf.get().lower(slf.py())
            {
                lower.close(slf.py())?;
            }
            Err(error)
        })
    }

    /// The transport below has enough to send.
    fn pause_writing(&self) -> PyResult<()> {
        if std::mem::replace(&mut self.state.borrow_mut().lower_full, true) {
            return Err(PyRuntimeError::new_err("writing is paused already"));
        }
        Ok(())
    }

    /// The transport below can send more.
    fn resume_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        if !std::mem::replace(&mut slf.get().state.borrow_mut().lower_full, false) {
            return Err(PyRuntimeError::new_err("writing is not paused"));
        }
        writing::resume(slf)
    }

    fn _check_handshake_timeout(slf: &Bound<'_, Self>) -> PyResult<()> {
        handshake::timed_out(slf)
    }

    fn _check_shutdown_timeout(slf: &Bound<'_, Self>) -> PyResult<()> {
        closing::timed_out(slf)
    }

    /// What `resume_reading` of the transport schedules.
    fn _resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        reading::resumed(slf)
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).protocol.bind(py).clone()
    }

    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> Bound<'py, Core> {
        self.core.bind(py).clone()
    }

    #[getter]
    fn _sslobj<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.session.object(py).clone()
    }

    #[getter]
    fn _extra<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.extra.bind(py).clone()
    }

    #[getter]
    fn _app_protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.protocol(py)
    }

    #[getter]
    fn _app_transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, TlsTransport>> {
        self.transport(py)
    }

    #[getter]
    fn _transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.lower(py).map(|lower| lower.object(py).clone())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        visit.call(&*self.extra)?;
        self.session.visit(visit)?;
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        if let Some(lower) = &state.lower {
            lower.visit(visit)?;
        }
        if let Some(transport) = &state.transport {
            visit.call(&**transport)?;
        }
        let objects = [&state.protocol, &state.waiter, &state.timer, &state.context];
        for object in objects.into_iter().flatten() {
            visit.call(&**object)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let taken = {
            let mut state = self.state.borrow_mut();
            let objects = (state.protocol.take(), state.waiter.take(), state.timer.take());
            (objects, state.lower.take(), state.transport.take())
        };
        drop(taken);
    }
}
