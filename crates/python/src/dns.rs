//! Names and addresses: `getaddrinfo` and `getnameinfo` in threads, numeric addresses at once.

use std::net::IpAddr;

use oxloop_engine::sys::numbers;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PySlice, PyString, PyTuple};

use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::ffi::Ref;
use crate::imports::imports;
use crate::report;

/// The keywords of `getaddrinfo`, in the order of the positional arguments of the `socket` function.
const KEYWORDS: [&str; 4] = ["family", "type", "proto", "flags"];

/// `loop.getaddrinfo(host, port, *, family, type, proto, flags)`.
pub(crate) fn getaddrinfo<'py>(
    event_loop: &Bound<'py, Core>,
    host: &Bound<'py, PyAny>,
    port: &Bound<'py, PyAny>,
    hints: &[Ref; 4],
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let [family, kind, proto, flags] = hints.each_ref().map(|hint| hint.bind(py));
    let arguments: Ref<PyTuple> =
        PyTuple::new(py, [host, port, family, kind, proto, flags])?.into();
    Coroutine::spawn(py, "EventLoop.getaddrinfo", |flow| {
        let this = flow.keep(event_loop.as_any());
        async move {
            let future = Python::attach(|py| {
                let event_loop = this.bind(py);
                let arguments = arguments.bind(py);
                if event_loop.cast::<Core>()?.get().debug() {
                    let function = event_loop.getattr(intern!(py, "_getaddrinfo_debug"))?;
                    return run_in_executor(event_loop, &function, arguments).map(Err);
                }
                let function = imports(py).socket.bind(py).getattr(intern!(py, "getaddrinfo"))?;
                if is_numeric(&arguments.get_item(0)?, &arguments.get_item(1)?) {
                    // The resolver only parses it: no thread is needed, and the zone stays what it makes of it.
                    return function.call1(arguments).map(Ref::from).map(Ok);
                }
                run_in_executor(event_loop, &function, arguments).map(Err)
            })?;
            match future {
                Ok(result) => Ok(result),
                Err(future) => flow.wait(future).await,
            }
        }
    })
}

/// `loop.getnameinfo(sockaddr, flags=0)`.
pub(crate) fn getnameinfo<'py>(
    event_loop: &Bound<'py, Core>,
    address: &Bound<'py, PyAny>,
    flags: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let arguments: Ref<PyTuple> = PyTuple::new(py, [address, flags])?.into();
    Coroutine::spawn(py, "EventLoop.getnameinfo", |flow| {
        let this = flow.keep(event_loop.as_any());
        async move {
            let future = Python::attach(|py| {
                let function = imports(py).socket.bind(py).getattr(intern!(py, "getnameinfo"))?;
                run_in_executor(this.bind(py), &function, arguments.bind(py))
            })?;
            flow.wait(future).await
        }
    })
}

/// `loop.run_in_executor(None, function, *arguments)`, by the method, which a user may have replaced.
fn run_in_executor(
    event_loop: &Bound<'_, PyAny>,
    function: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyTuple>,
) -> PyResult<Ref> {
    let py = event_loop.py();
    let mut call = vec![py.None().into_bound(py), function.clone()];
    call.extend(arguments.iter());
    let method = event_loop.getattr(intern!(py, "run_in_executor"))?;
    method.call1(PyTuple::new(py, call)?).map(Ref::from)
}

/// Debug mode's `getaddrinfo`, which runs in the thread and logs how long it took.
pub(crate) fn getaddrinfo_debug<'py>(
    event_loop: &Bound<'py, Core>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let mut parts =
        vec![format!("{}:{}", arguments.get_item(0)?.str()?, arguments.get_item(1)?.repr()?)];
    for (name, value) in KEYWORDS.iter().zip(arguments.iter().skip(2)) {
        if value.is_truthy()? {
            parts.push(format!("{name}={}", value.repr()?));
        }
    }
    let what = parts.join(", ");
    let logger = report::logger(py)?;
    logger.call_method1("debug", ("Get address info %s", &what))?;
    let start = Core::now(event_loop)?;
    let result = imports(py).socket.bind(py).getattr("getaddrinfo")?.call1(arguments)?;
    let took = Core::now(event_loop)?.saturating_duration_since(start).as_secs_f64();
    let message =
        format!("Getting address info {what} took {:.3}ms: {}", took * 1e3, result.repr()?);
    let is_slow = took >= event_loop.get().slow_callback_duration.get();
    logger.call_method1(if is_slow { "info" } else { "debug" }, (message,))?;
    Ok(result)
}

/// Whether the resolver would only parse `host` and `port`: an address (with a zone, perhaps) and a number.
fn is_numeric(host: &Bound<'_, PyAny>, port: &Bound<'_, PyAny>) -> bool {
    let text = match (host.cast::<PyString>(), host.cast::<PyBytes>()) {
        (Ok(text), _) => text.to_string_lossy().into_owned(),
        (_, Ok(bytes)) => String::from_utf8_lossy(bytes.as_bytes()).into_owned(),
        _ => return false,
    };
    let address = text.split_once('%').map_or(text.as_str(), |(address, _)| address);
    if address.parse::<IpAddr>().is_err() {
        return false;
    }
    port.is_none()
        || port.is_instance_of::<PyInt>()
        || port.cast::<PyString>().is_ok_and(|port| port.to_string_lossy().parse::<u16>().is_ok())
}

/// Whether the socket's family is one in which addresses are to be resolved.
pub(crate) fn is_internet(socket: &Bound<'_, PyAny>) -> PyResult<bool> {
    let family: i32 = socket.getattr(intern!(socket.py(), "family"))?.extract()?;
    Ok(family == numbers::AF_INET || family == numbers::AF_INET6)
}

/// The keywords of a look-up.
pub(crate) struct Hints {
    pub(crate) family: Ref,
    /// `type`.
    pub(crate) kind: Ref,
    pub(crate) proto: Option<Ref>,
    pub(crate) flags: Option<Ref>,
}

impl Hints {
    fn keywords<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let keywords = PyDict::new(py);
        let given =
            [Some(&self.family), Some(&self.kind), self.proto.as_ref(), self.flags.as_ref()];
        for (name, value) in KEYWORDS.into_iter().zip(given) {
            if let Some(value) = value {
                keywords.set_item(name, value.bind(py))?;
            }
        }
        Ok(keywords)
    }
}

/// What `getaddrinfo` says of `address` for the kind of socket that `like` is; an address that is numeric
/// already is not looked up.
pub(crate) async fn ensure_resolved(
    flow: &Flow,
    core: &Kept<Core>,
    address: &Ref,
    like: &Kept,
) -> PyResult<Ref> {
    let hints = Python::attach(|py| {
        let like = like.bind(py);
        Ok::<_, PyErr>(Hints {
            family: like.getattr(intern!(py, "family"))?.into(),
            kind: like.getattr(intern!(py, "type"))?.into(),
            proto: Some(like.getattr(intern!(py, "proto"))?.into()),
            flags: None,
        })
    })?;
    resolve(flow, core, address, &hints).await
}

/// The same with the keywords of `getaddrinfo`.
pub(crate) async fn resolve(
    flow: &Flow,
    core: &Kept<Core>,
    address: &Ref,
    hints: &Hints,
) -> PyResult<Ref> {
    let looked_up = Python::attach(|py| {
        let address = address.bind(py);
        check_pair(address)?;
        if let Some(info) = numeric_info(address, hints)? {
            return Ok(Ok(Ref::from(PyList::new(py, [info])?.into_any())));
        }
        let (host, port) = (address.get_item(0)?, address.get_item(1)?);
        // By the method: a user's override is what decides.
        core.bind(py)
            .call_method(intern!(py, "getaddrinfo"), (host, port), Some(&hints.keywords(py)?))
            .map(|awaitable| Err(Ref::from(awaitable)))
    })?;
    match looked_up {
        Ok(infos) => Ok(infos),
        Err(awaitable) => flow.wait(awaitable).await,
    }
}

/// What `host, port = address[:2]` raises for an address that is too short.
fn check_pair(address: &Bound<'_, PyAny>) -> PyResult<()> {
    if address.cast_exact::<PyTuple>().is_ok_and(|address| address.len() >= 2) {
        return Ok(());
    }
    // Not `PySlice::new`, which leaks its numbers, as of PyO3 0.30.
    let first_two = address.py().get_type::<PySlice>().call1((2,))?;
    let pair = address.get_item(first_two)?.len()?;
    if pair == 2 {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("not enough values to unpack (expected 2, got {pair})")))
}

/// The entry that `getaddrinfo` would give for a numeric address, without asking it.
fn numeric_info<'py>(
    address: &Bound<'py, PyAny>,
    hints: &Hints,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = address.py();
    let imports = imports(py);
    let function = imports.base_events.bind(py).getattr(intern!(py, "_ipaddr_info"))?;
    if function.is(&imports.ipaddr_info)
        && let Some(info) = plain_info(address, hints)?
    {
        return Ok(Some(info));
    }
    let proto = match &hints.proto {
        Some(proto) => proto.bind(py).clone(),
        None => PyInt::new(py, 0).into_any(),
    };
    let mut arguments = vec![
        address.get_item(0)?,
        address.get_item(1)?,
        hints.family.bind(py).clone(),
        hints.kind.bind(py).clone(),
        proto,
    ];
    for index in 2..address.len()? {
        arguments.push(address.get_item(index)?);
    }
    let info = function.call1(PyTuple::new(py, arguments)?)?;
    Ok(if info.is_none() { None } else { Some(info) })
}

/// What asyncio's `_ipaddr_info` says of the most common addresses: `("127.0.0.1", 80)`, of TCP or UDP. `None` for any
/// other.
fn plain_info<'py>(
    address: &Bound<'py, PyAny>,
    hints: &Hints,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = address.py();
    let Ok(tuple) = address.cast_exact::<PyTuple>() else { return Ok(None) };
    let (host, port) = (tuple.get_item(0)?, tuple.get_item(1)?);
    let Ok(text) = host.cast_exact::<PyString>() else { return Ok(None) };
    if tuple.len() != 2 || !port.is_exact_instance_of::<PyInt>() {
        return Ok(None);
    }
    let number = |hint: &Ref| hint.bind(py).extract::<i32>().ok();
    let proto = hints.proto.as_ref().map_or(Some(0), number);
    let proto = match (number(&hints.kind), proto) {
        (Some(numbers::SOCK_STREAM), Some(0 | numbers::IPPROTO_TCP)) => numbers::IPPROTO_TCP,
        (Some(numbers::SOCK_DGRAM), Some(0 | numbers::IPPROTO_UDP)) => numbers::IPPROTO_UDP,
        _ => return Ok(None),
    };
    let Ok(ip) = text.to_str()?.parse::<IpAddr>() else { return Ok(None) };
    let (family, name) = match ip {
        IpAddr::V4(_) => (numbers::AF_INET, intern!(py, "AF_INET")),
        IpAddr::V6(_) => (numbers::AF_INET6, intern!(py, "AF_INET6")),
    };
    let family = match number(&hints.family) {
        Some(0) => imports(py).socket.bind(py).getattr(name)?,
        Some(given) if given == family => hints.family.bind(py).clone(),
        _ => return Ok(None),
    };
    let address = match ip {
        IpAddr::V4(_) => address.clone(),
        IpAddr::V6(_) => (host, port, 0, 0).into_pyobject(py)?.into_any(),
    };
    let info = (family, hints.kind.bind(py), proto, "", address);
    Ok(Some(info.into_pyobject(py)?.into_any()))
}

/// `OSError` when a look-up found nothing.
pub(crate) fn check_found(infos: &Bound<'_, PyAny>) -> PyResult<()> {
    if !infos.is_truthy()? {
        return Err(PyOSError::new_err("getaddrinfo() returned empty list"));
    }
    Ok(())
}
