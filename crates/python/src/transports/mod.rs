//! Transports: what a protocol writes to and is told by.

pub(crate) mod datagram;
mod endpoint;
pub(crate) mod fallback;
mod phase;
pub(crate) mod pipe;
pub(crate) mod process;
mod protocol;
pub(crate) mod sendfile;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod unix_path;
mod watch;

use pyo3::prelude::*;

use crate::ffi;

/// Adds the methods that are called past `PyO3`.
pub(crate) fn add_fast_methods(py: Python<'_>) -> PyResult<()> {
    ffi::add_fast_methods(&py.get_type::<stream::StreamTransport>(), stream::methods())?;
    ffi::add_fast_methods(&py.get_type::<tls::TlsTransport>(), tls::methods())?;
    ffi::add_fast_methods(&py.get_type::<pipe::WritePipeTransport>(), pipe::methods())?;
    ffi::add_fast_methods(&py.get_type::<datagram::DatagramTransport>(), datagram::methods())
}
