//! Addresses as Python's `socket` module takes and gives them, and what the kernel is told.
//!
//! Addresses that are numbers already are read here, all others (names above all) by a socket object itself,
//! whose errors are then the errors of the call.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use oxloop_engine::{Address, sys::numbers};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};

use crate::ffi::{self, Ref};

/// The largest flow label with its traffic class that Python lets through (`flowinfo must be 0-1048575`).
const MAX_FLOWINFO: u32 = 0xf_ffff;

/// An address in both forms. The object is immutable through and through, so one stands for the other.
pub(crate) struct Known {
    pub(crate) object: Ref<PyTuple>,
    pub(crate) address: SocketAddr,
}

impl Known {
    /// The address of the object, if it is this very one.
    pub(crate) fn address_of(&self, object: &Bound<'_, PyAny>) -> Option<SocketAddr> {
        (self.object.as_ptr() == object.as_ptr()).then_some(self.address)
    }
}

/// Reads a numeric address of `family`; `None` for any other.
pub(crate) fn parse(object: &Bound<'_, PyAny>, family: i32) -> Option<Known> {
    let tuple = object.cast_exact::<PyTuple>().ok()?;
    let number = |index: usize| -> Option<u32> {
        tuple.get_item(index).ok()?.cast_exact::<PyInt>().ok()?.extract().ok()
    };
    let host = tuple.get_item(0).ok()?;
    let host = host.cast_exact::<PyString>().ok()?.to_str().ok()?;
    let port = number(1).and_then(|port| u16::try_from(port).ok())?;
    let optional = |index: usize| if index < tuple.len() { number(index) } else { Some(0) };
    let address = match (family, tuple.len()) {
        (numbers::AF_INET, 2) => SocketAddrV4::new(host.parse::<Ipv4Addr>().ok()?, port).into(),
        (numbers::AF_INET6, 2..=4) => {
            let flowinfo = optional(2).filter(|flowinfo| *flowinfo <= MAX_FLOWINFO)?;
            let host = host.parse::<Ipv6Addr>().ok()?;
            SocketAddrV6::new(host, port, flowinfo, optional(3)?).into()
        }
        _ => return None,
    };
    Some(Known { object: tuple.into(), address })
}

/// An address as Python's `socket` module gives it.
pub(crate) fn object<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    Ok(match address {
        Address::V4(address) => {
            (dotted(py, *address.ip()), address.port()).into_pyobject(py)?.into_any()
        }
        Address::V6(address) => {
            (address.ip().to_string(), address.port(), address.flowinfo(), address.scope_id())
                .into_pyobject(py)?
                .into_any()
        }
        Address::UnixPath(path) => ffi::path(py, path)?,
        Address::UnixAbstract(name) => {
            let mut bytes = vec![0];
            bytes.extend_from_slice(name);
            PyBytes::new(py, &bytes).into_any()
        }
        Address::UnixUnnamed => PyString::new(py, "").into_any(),
        Address::Other => py.None().into_bound(py),
    })
}

/// An address as `127.0.0.1`: each connection and each datagram has one, so it does not go through `fmt`.
fn dotted(py: Python<'_>, address: Ipv4Addr) -> Bound<'_, PyString> {
    let mut text = [0; "255.255.255.255".len()];
    let mut len = 0;
    let mut push = |byte: u8| {
        text[len] = byte;
        len += 1;
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    PyString::new(py, str::from_utf8(&text[..len]).unwrap_or_default())
}
