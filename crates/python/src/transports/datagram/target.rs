//! Addresses as Python's `socket` module takes them, and what the kernel is told.
//!
//! Addresses that are numbers already are read here, all others (names above all) by the socket object itself,
//! whose errors are then the errors of the call.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use oxloop_engine::sys::numbers;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyTuple};

use crate::ffi::Ref;

/// The largest flow label with its traffic class that Python lets through (`flowinfo must be 0-1048575`).
const MAX_FLOWINFO: u32 = 0xf_ffff;

/// An address in both forms. The object is immutable through and through, so one stands for the other.
pub(super) struct Known {
    pub(super) object: Ref<PyTuple>,
    pub(super) address: SocketAddr,
}

impl Known {
    /// The address of the object, if it is this very one.
    pub(super) fn address_of(&self, object: &Bound<'_, PyAny>) -> Option<SocketAddr> {
        (self.object.as_ptr() == object.as_ptr()).then_some(self.address)
    }
}

/// Reads a numeric address of `family`; `None` for any other.
pub(super) fn parse(object: &Bound<'_, PyAny>, family: i32) -> Option<Known> {
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
