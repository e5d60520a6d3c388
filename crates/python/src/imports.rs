//! Every Python object that the native side uses, imported once.

use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyString, PyTuple, PyType};

/// What [`imports`] returns; the fields are named after what they hold.
pub(crate) struct Imports {
    /// The names of `asyncio.futures`, see [`Imports::future`].
    futures: Py<PyDict>,
    /// The names of `asyncio.tasks`, see [`Imports::task`].
    tasks: Py<PyDict>,
    /// `_asyncio`, held for the interpreter's last steps: before 3.12 its tasks cannot be shown without it, and one that is
    /// destroyed while it is pending is reported as long as there is a loop.
    _in_c: Option<Py<PyModule>>,
    pub(crate) handle: Py<PyAny>,
    pub(crate) timer_handle: Py<PyAny>,
    /// New in Python 3.14.
    pub(crate) thread_safe_handle: Option<Py<PyAny>>,
    pub(crate) transport: Py<PyAny>,
    pub(crate) read_transport: Py<PyAny>,
    pub(crate) subprocess_transport: Py<PyAny>,
    /// What a datagram transport says that it is: an `asyncio.DatagramTransport`, and an `asyncio.Transport`.
    pub(crate) datagram_transport: Py<PyAny>,
    pub(crate) protocol: Py<PyAny>,
    pub(crate) buffered_protocol: Py<PyAny>,
    /// Gives data to a `BufferedProtocol`, piece by piece as its buffers are.
    pub(crate) feed_buffered: Py<PyAny>,
    pub(crate) transport_socket: Py<PyAny>,
    pub(crate) cancelled_error: Py<PyType>,
    pub(crate) sendfile_not_available: Py<PyType>,
    /// `asyncio.constants._SendfileMode`, what transports say of themselves.
    pub(crate) sendfile_mode: Py<PyAny>,
    pub(crate) unsupported_operation: Py<PyType>,
    pub(crate) wrap_future: Py<PyAny>,
    pub(crate) is_future: Py<PyAny>,
    pub(crate) ensure_future: Py<PyAny>,
    pub(crate) events: Py<PyModule>,
    pub(crate) format_helpers: Py<PyModule>,
    pub(crate) base_events: Py<PyModule>,
    /// Its function that reads numeric addresses, unless somebody has put another in its place.
    pub(crate) ipaddr_info: Py<PyAny>,
    pub(crate) base_subprocess: Py<PyModule>,
    pub(crate) coroutines: Py<PyModule>,
    pub(crate) socket: Py<PyModule>,
    pub(crate) socket_class: Py<PyType>,
    /// `_socket.socket.connect`, which that class inherits unless somebody has replaced it.
    pub(crate) socket_connect: Py<PyAny>,
    pub(crate) signal: Py<PyModule>,
    pub(crate) selectors: Py<PyModule>,
    /// Seconds by which `time.monotonic()` moves.
    pub(crate) clock_resolution: f64,
    pub(crate) threading: Py<PyModule>,
    pub(crate) subprocess: Py<PyModule>,
    /// `asyncio.windows_utils`, on Windows: its `Popen` makes pipes that operations can be done on.
    pub(crate) windows_utils: Option<Py<PyAny>>,
    /// `msvcrt.get_osfhandle`, on Windows: the kernel's number of a file, of which `fileno()` is C's.
    pub(crate) get_osfhandle: Option<Py<PyAny>>,
    pub(crate) sys: Py<PyModule>,
    pub(crate) warnings: Py<PyModule>,
    /// `("loop",)`, the keyword names of `Future(loop=...)`.
    pub(crate) loop_keyword: Py<PyTuple>,
}

/// A patch that a version never gets, for [`is_since`].
pub(crate) const NEVER: u8 = u8::MAX;

/// Whether this is 3.13, 3.14 or 3.15 from these patches on, or a later version: for what asyncio has changed in
/// patch releases.
pub(crate) fn is_since(py: Python<'_>, patches_of_13_to_15: [u8; 3]) -> bool {
    // It is read out of a text each time.
    static VERSION: PyOnceLock<(u8, u8)> = PyOnceLock::new();
    let (minor, patch) = *VERSION.get_or_init(py, || {
        let version = py.version_info();
        (version.minor, version.patch)
    });
    match minor {
        ..=12 => false,
        13.. => {
            patches_of_13_to_15.get(usize::from(minor) - 13).is_none_or(|&since| patch >= since)
        }
    }
}

impl Imports {
    /// The class of futures. Looked up at each use, as asyncio does: programs replace it.
    #[inline]
    pub(crate) fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        named(self.futures.bind(py), intern!(py, "Future"))
    }

    /// The class that starts processes. Looked up at each use, as asyncio does: programs replace it.
    pub(crate) fn popen<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let name = intern!(py, "Popen");
        match &self.windows_utils {
            Some(module) => module.bind(py).getattr(name),
            None => self.subprocess.bind(py).getattr(name),
        }
    }

    /// The class of tasks. Looked up at each use, as asyncio does: programs replace it.
    #[inline]
    pub(crate) fn task<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        named(self.tasks.bind(py), intern!(py, "Task"))
    }
}

#[inline]
fn named<'py>(
    names: &Bound<'py, PyDict>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    names
        .get_item(name)?
        .ok_or_else(|| PyAttributeError::new_err(format!("module 'asyncio' has no '{name}'")))
}

static IMPORTS: PyOnceLock<Imports> = PyOnceLock::new();

/// Makes the imports, with an error for the module's own import to raise.
pub(crate) fn make(py: Python<'_>) -> PyResult<()> {
    IMPORTS.get_or_try_init(py, || load(py)).map(drop)
}

/// The imports.
#[inline]
pub(crate) fn imports(py: Python<'_>) -> &'static Imports {
    match IMPORTS.get(py) {
        Some(imports) => imports,
        None => IMPORTS.get_or_init(py, || {
            // A class of the module's that needs them to be made itself. asyncio is in the standard library: this
            // fails only in an interpreter in which nothing of it works.
            load(py).expect("asyncio can be imported")
        }),
    }
}

fn load(py: Python<'_>) -> PyResult<Imports> {
    let asyncio = py.import("asyncio")?;
    let events = py.import("asyncio.events")?;
    let socket = py.import("socket")?;
    let class = |module: &Bound<'_, PyModule>, name: &str| -> PyResult<Py<PyType>> {
        Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind())
    };
    let object = |module: &Bound<'_, PyModule>, name: &str| -> PyResult<Py<PyAny>> {
        Ok(module.getattr(name)?.unbind())
    };
    let windows_utils = asyncio.getattr_opt("windows_utils")?;
    Ok(Imports {
        futures: py.import("asyncio.futures")?.dict().unbind(),
        tasks: py.import("asyncio.tasks")?.dict().unbind(),
        _in_c: py.import("_asyncio").ok().map(Bound::unbind),
        handle: object(&asyncio, "Handle")?,
        thread_safe_handle: events.getattr_opt("_ThreadSafeHandle")?.map(pyo3::Bound::unbind),
        timer_handle: object(&asyncio, "TimerHandle")?,
        transport: object(&asyncio, "Transport")?,
        read_transport: object(&asyncio, "ReadTransport")?,
        subprocess_transport: object(&asyncio, "SubprocessTransport")?,
        datagram_transport: datagram_transport(&asyncio)?,
        protocol: object(&asyncio, "Protocol")?,
        buffered_protocol: object(&asyncio, "BufferedProtocol")?,
        feed_buffered: object(&py.import("asyncio.protocols")?, "_feed_data_to_buffered_proto")?,
        transport_socket: object(&py.import("asyncio.trsock")?, "TransportSocket")?,
        cancelled_error: class(&asyncio, "CancelledError")?,
        sendfile_not_available: class(&asyncio, "SendfileNotAvailableError")?,
        sendfile_mode: object(&py.import("asyncio.constants")?, "_SendfileMode")?,
        unsupported_operation: class(&py.import("io")?, "UnsupportedOperation")?,
        wrap_future: object(&asyncio, "wrap_future")?,
        is_future: object(&asyncio, "isfuture")?,
        ensure_future: object(&asyncio, "ensure_future")?,
        events: events.unbind(),
        format_helpers: py.import("asyncio.format_helpers")?.unbind(),
        ipaddr_info: object(&py.import("asyncio.base_events")?, "_ipaddr_info")?,
        base_events: py.import("asyncio.base_events")?.unbind(),
        base_subprocess: py.import("asyncio.base_subprocess")?.unbind(),
        coroutines: py.import("asyncio.coroutines")?.unbind(),
        socket_class: class(&socket, "socket")?,
        socket_connect: py.import("_socket")?.getattr("socket")?.getattr("connect")?.unbind(),
        socket: socket.unbind(),
        signal: py.import("signal")?.unbind(),
        selectors: py.import("selectors")?.unbind(),
        clock_resolution: py
            .import("time")?
            .call_method1("get_clock_info", ("monotonic",))?
            .getattr("resolution")?
            .extract()?,
        threading: py.import("threading")?.unbind(),
        subprocess: py.import("subprocess")?.unbind(),
        get_osfhandle: windows_utils
            .as_ref()
            .map(|_| object(&py.import("msvcrt")?, "get_osfhandle"))
            .transpose()?,
        windows_utils: windows_utils.map(Bound::unbind),
        sys: py.import("sys")?.unbind(),
        warnings: py.import("warnings")?.unbind(),
        loop_keyword: PyTuple::new(py, ["loop"])?.unbind(),
    })
}

/// A class with both bases, as asyncio's own datagram transports have them (from Python 3.12 on).
fn datagram_transport(asyncio: &Bound<'_, PyModule>) -> PyResult<Py<PyAny>> {
    let py = asyncio.py();
    let bases = (asyncio.getattr("DatagramTransport")?, asyncio.getattr("Transport")?);
    let body = PyDict::new(py);
    body.set_item("__slots__", PyTuple::empty(py))?;
    let class = py.get_type::<PyType>().call1(("DatagramTransport", bases, body))?;
    Ok(class.unbind())
}

/// What TLS needs of the module `ssl`, which an interpreter can lack.
pub(crate) struct TlsImports {
    pub(crate) ssl: Py<PyModule>,
    pub(crate) ssl_error: Py<PyType>,
    pub(crate) certificate_error: Py<PyType>,
    /// `(SSLWantReadError, SSLSyscallError)`
    pub(crate) again: Py<PyTuple>,
    /// `ssl.MemoryBIO`, and the class of what an `ssl.SSLObject` has in its `_sslobj`.
    pub(crate) memory_bio: Py<PyAny>,
    pub(crate) native_object: Py<PyAny>,
    /// The methods `read` and `write` of `ssl.SSLObject`.
    pub(crate) object_read: Py<PyAny>,
    pub(crate) object_write: Py<PyAny>,
    /// What a TLS transport says that it is: asyncio's own class, since nothing else tells TLS from its looks.
    pub(crate) transport: Py<PyAny>,
    /// An `int` above the size of any buffer of ours.
    pub(crate) read_size: Py<PyAny>,
}

/// The imports of TLS, made at the first call; `RuntimeError` where there is no module `ssl`, in asyncio's words.
#[inline]
pub(crate) fn tls_imports(py: Python<'_>) -> PyResult<&'static TlsImports> {
    static IMPORTS: PyOnceLock<TlsImports> = PyOnceLock::new();
    match IMPORTS.get(py) {
        Some(imports) => Ok(imports),
        None => IMPORTS.get_or_try_init(py, || load_tls(py)),
    }
}

fn load_tls(py: Python<'_>) -> PyResult<TlsImports> {
    let ssl =
        py.import("ssl").map_err(|_| PyRuntimeError::new_err("stdlib ssl module not available"))?;
    let class = |name: &str| -> PyResult<Py<PyType>> {
        Ok(ssl.getattr(name)?.cast_into::<PyType>()?.unbind())
    };
    let again = (ssl.getattr("SSLWantReadError")?, ssl.getattr("SSLSyscallError")?);
    let object = ssl.getattr("SSLObject")?;
    let asyncios = py.import("asyncio.sslproto")?.getattr_opt("_SSLProtocolTransport")?;
    Ok(TlsImports {
        ssl_error: class("SSLError")?,
        certificate_error: class("CertificateError")?,
        again: again.into_pyobject(py)?.unbind(),
        memory_bio: ssl.getattr("MemoryBIO")?.unbind(),
        native_object: py.import("_ssl")?.getattr("_SSLSocket")?.unbind(),
        object_read: object.getattr("read")?.unbind(),
        object_write: object.getattr("write")?.unbind(),
        transport: match asyncios {
            Some(class) => class.unbind(),
            None => imports(py).transport.clone_ref(py),
        },
        read_size: PyInt::new(py, i32::MAX).into_any().unbind(),
        ssl: ssl.unbind(),
    })
}
