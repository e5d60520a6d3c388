//! One TLS session: the `ssl.SSLObject` that the user's context has made, and the two memory BIOs that are its
//! wire. Nothing here knows a transport or a protocol.
//!
//! What surprised us: an `ssl.SSLObject` is Python code round a C object (`_sslobj`), and each of its methods costs
//! a frame. Where nobody has put his own methods in their place the C object is called, which also takes a
//! [`Window`] on our memory rather than `bytes` made for the purpose.

use oxloop_engine::tls_records::Records;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyDict};

use crate::buffer::Window;
use crate::cell::LoopCell;
use crate::core::Core;
use crate::ffi::{self, Ref};
use crate::imports::{TlsImports, tls_imports};

/// The most plaintext in a record.
pub(super) const RECORD: usize = 16 * 1024;

/// A session, of which the peer has not been told anything yet.
pub(super) struct Session {
    object: Ref,
    /// The C object, if it may be called in the place of `object`.
    direct: Option<Ref>,
    /// What came from the peer.
    incoming: Ref,
    /// What is to go to the peer.
    outgoing: Ref,
    window: Ref<Window>,
    records: LoopCell<Records>,
    /// How much is in `incoming`; `None` when the object may have taken some of it since that was known.
    pending: LoopCell<Option<usize>>,
    /// The last read filled its buffer: the object may have kept the rest of a record.
    cut: LoopCell<bool>,
    /// Set while a method of the object runs: OpenSSL lets the interpreter go meanwhile, so another thread can get
    /// here, and two in one session are more than OpenSSL takes.
    busy: LoopCell<bool>,
}

impl Session {
    /// A session of `context`, by its `wrap_bio`, which a user's class may have overridden.
    pub(super) fn new(
        core: &Core,
        context: &Bound<'_, PyAny>,
        server_side: bool,
        server_hostname: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = context.py();
        let imports = tls_imports(py)?;
        let memory_bio = imports.ssl.bind(py).getattr(intern!(py, "MemoryBIO"))?;
        let (incoming, outgoing) = (memory_bio.call0()?, memory_bio.call0()?);
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "server_side"), server_side)?;
        keywords.set_item(intern!(py, "server_hostname"), server_hostname)?;
        let object = context.call_method(
            intern!(py, "wrap_bio"),
            (&incoming, &outgoing),
            Some(&keywords),
        )?;
        let direct = if incoming.get_type().is(&imports.memory_bio) {
            direct(&object, imports)?
        } else {
            None
        };
        Ok(Self {
            object: object.into(),
            direct,
            incoming: incoming.into(),
            outgoing: outgoing.into(),
            window: core.window(py)?,
            records: LoopCell::default(),
            pending: LoopCell::new(Some(0)),
            cut: LoopCell::default(),
            busy: LoopCell::default(),
        })
    }

    /// Runs a method of the object; `None` for an error that says that more is needed from the peer.
    fn alone<T>(&self, py: Python<'_>, call: impl FnOnce() -> PyResult<T>) -> PyResult<Option<T>> {
        if self.busy.replace(true) {
            return Err(PyRuntimeError::new_err(
                "the TLS connection is in use; it belongs to the thread of its event loop",
            ));
        }
        let result = call();
        self.busy.set(false);
        self.pending.set(None);
        match result {
            Ok(value) => Ok(Some(value)),
            // `SSLAgainErrors` of asyncio's `sslproto.py`.
            Err(error) if error.matches(py, tls_imports(py)?.again.bind(py))? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The `ssl.SSLObject`.
    pub(super) fn object<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.object.bind(py)
    }

    /// `data` came from the peer.
    pub(super) fn feed(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.records.borrow_mut().see(data);
        let pending = self.pending.get();
        self.pending.set(pending.map(|pending| pending + data.len()));
        let incoming = self.incoming.bind(py);
        if self.direct.is_some() {
            self.window.get().lend(data, || {
                let window = self.window.bind(py).as_any();
                ffi::call_method(incoming, intern!(py, "write"), &[window])
            })?;
        } else {
            incoming.call_method1(intern!(py, "write"), (PyBytes::new(py, data),))?;
        }
        Ok(())
    }

    /// How much came from the peer and has not been looked at.
    pub(super) fn pending_in(&self, py: Python<'_>) -> PyResult<usize> {
        if let Some(pending) = self.pending.get() {
            return Ok(pending);
        }
        let pending = self.incoming.bind(py).getattr(intern!(py, "pending"))?.extract()?;
        self.pending.set(Some(pending));
        Ok(pending)
    }

    /// How much has not been taken for the peer.
    pub(super) fn pending_out(&self, py: Python<'_>) -> PyResult<usize> {
        self.outgoing.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// Whether [`read`](Self::read) may find something.
    pub(super) fn has_record(&self, py: Python<'_>) -> PyResult<bool> {
        if self.cut.get() {
            let kept = self.object.bind(py).call_method0(intern!(py, "pending"))?;
            if kept.is_truthy()? {
                return Ok(true);
            }
            self.cut.set(false);
        }
        let pending = self.pending_in(py)?;
        Ok(self.records.borrow().any_in(pending))
    }

    /// The first `count` bytes of what is to go to the peer.
    pub(super) fn take_first<'py>(
        &self,
        py: Python<'py>,
        count: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.outgoing.bind(py).call_method1(intern!(py, "read"), (count,))
    }

    /// What is to go to the peer.
    pub(super) fn take_out<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let data = ffi::call_method(self.outgoing.bind(py), intern!(py, "read"), &[])?;
        Ok(if data.cast::<PyBytes>()?.as_bytes().is_empty() { None } else { Some(data) })
    }

    /// One step of the handshake; false if it needs more from the peer.
    pub(super) fn shake_hands(&self, py: Python<'_>) -> PyResult<bool> {
        let object = self.object.bind(py);
        let step = self.alone(py, || object.call_method0(intern!(py, "do_handshake")))?;
        Ok(step.is_some())
    }

    /// One step of the end (`close_notify`); false if it needs more from the peer.
    pub(super) fn unwrap(&self, py: Python<'_>) -> PyResult<bool> {
        let object = self.object.bind(py);
        let step = self.alone(py, || object.call_method0(intern!(py, "unwrap")))?;
        Ok(step.is_some())
    }

    /// Decrypts into `target`, a record's worth at most: how many bytes, 0 at the end (`close_notify`), `None` if it
    /// needs more from the peer.
    pub(super) fn read(&self, py: Python<'_>, target: &mut [u8]) -> PyResult<Option<usize>> {
        let room = target.len();
        let count = match &self.direct {
            Some(direct) => self.read_directly(py, direct, target)?,
            None => self.read_copied(py, target)?,
        };
        self.cut.set(count == Some(room));
        Ok(count)
    }

    fn read_directly(
        &self,
        py: Python<'_>,
        direct: &Ref,
        target: &mut [u8],
    ) -> PyResult<Option<usize>> {
        let imports = tls_imports(py)?;
        let count = self.alone(py, || {
            self.window.get().lend_mut(target, || {
                // Less than it is told if the buffer has less.
                let (size, window) = (imports.read_size.bind(py), self.window.bind(py).as_any());
                ffi::call_method(direct.bind(py), intern!(py, "read"), &[size, window])
            })
        })?;
        count.map(|count| count.extract()).transpose()
    }

    fn read_copied(&self, py: Python<'_>, target: &mut [u8]) -> PyResult<Option<usize>> {
        let object = self.object.bind(py);
        let data = self.alone(py, || object.call_method1(intern!(py, "read"), (target.len(),)))?;
        let Some(data) = data else { return Ok(None) };
        let data = data.cast::<PyBytes>()?.as_bytes();
        let Some(target) = target.get_mut(..data.len()) else {
            return Err(PyTypeError::new_err("read() returned more than it was asked for"));
        };
        target.copy_from_slice(data);
        Ok(Some(data.len()))
    }

    /// Encrypts the beginning of `data`, a record's worth at most: how much, `None` if it needs something from the peer
    /// first.
    pub(super) fn write(&self, py: Python<'_>, data: &[u8]) -> PyResult<Option<usize>> {
        let count = self.alone(py, || {
            let Some(direct) = &self.direct else {
                let data = PyBytes::new(py, data);
                return self.object.bind(py).call_method1(intern!(py, "write"), (data,));
            };
            self.window.get().lend(data, || {
                let window = self.window.bind(py).as_any();
                ffi::call_method(direct.bind(py), intern!(py, "write"), &[window])
            })
        })?;
        match count {
            Some(count) => Ok(Some(count.extract::<usize>()?.min(data.len()))),
            None => Ok(None),
        }
    }

    pub(super) fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.object)?;
        if let Some(direct) = &self.direct {
            visit.call(&**direct)?;
        }
        visit.call(&*self.incoming)?;
        visit.call(&*self.outgoing)
    }
}

/// The C object of `object`, unless its class has `read` or `write` of its own.
fn direct(object: &Bound<'_, PyAny>, imports: &TlsImports) -> PyResult<Option<Ref>> {
    let py = object.py();
    let class = object.get_type();
    let is_asyncios = class.getattr(intern!(py, "read"))?.is(&imports.object_read)
        && class.getattr(intern!(py, "write"))?.is(&imports.object_write);
    let beneath = if is_asyncios { object.getattr_opt(intern!(py, "_sslobj"))? } else { None };
    Ok(beneath.filter(|beneath| beneath.get_type().is(&imports.native_object)).map(Ref::from))
}
