//! The Python binding of oxloop: the module `oxloop._native`.
//!
//! Everything that knows both the interpreter and the engine is here; the engine knows no interpreter, and
//! the Python package that contains this module only names what is here and adapts it to asyncio's versions.

#![allow(clippy::unused_self)] // Python methods and getters have one
#![allow(clippy::needless_pass_by_value)] // PyO3 passes visitors and arguments by value
#![allow(clippy::too_many_arguments)] // asyncio's methods have as many keywords as they have

mod address;
mod buffer;
mod callback;
mod cell;
mod connection;
mod core;
mod coroutine;
mod dns;
mod error;
mod event_loop;
mod ffi;
mod handle;
mod imports;
mod poller;
mod report;
mod rlock;
mod server;
mod signals;
mod transports;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The native part of oxloop.
#[pymodule(gil_used = false)] // without a GIL, `cell` guards what threads could share
mod _native {
    #[pymodule_export]
    use crate::coroutine::Coroutine;
    #[pymodule_export]
    use crate::event_loop::EventLoop;
    #[pymodule_export]
    use crate::handle::{Handle, TimerHandle};
    #[pymodule_export]
    use crate::poller::{IoUringProactor, IocpProactor};
    #[pymodule_export]
    use crate::server::Server;
    #[pymodule_export]
    use crate::transports::datagram::DatagramTransport;
    #[pymodule_export]
    use crate::transports::pipe::{DuplexPipeTransport, ReadPipeTransport, WritePipeTransport};
    #[pymodule_export]
    use crate::transports::process::SubprocessTransport;
    #[pymodule_export]
    use crate::transports::stream::StreamTransport;
    #[pymodule_export]
    use crate::transports::tls::TlsTransport;
    #[pymodule_export]
    use crate::{build_info, proactor_unavailable, selectors_available};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        // It is initialized; but PyO3 has to have seen that once to attach while the interpreter ends.
        Python::initialize();
        crate::imports::make(py)?;
        crate::ffi::set_finalizer::<Coroutine>(py);
        crate::event_loop::add_fast_methods(py)?;
        crate::event_loop::watch_forks(py)?;
        crate::transports::add_fast_methods(py)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// What this module was built from and for: version, profile, target.
#[pyfunction]
fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    info.set_item("architecture", std::env::consts::ARCH)?;
    info.set_item("os", std::env::consts::OS)?;
    Ok(info)
}

/// The names of the native selectors that this platform has, the best one first.
#[pyfunction]
fn selectors_available() -> Vec<&'static str> {
    oxloop_engine::SelectorKind::available().iter().map(|kind| kind.name()).collect()
}

/// Why this process can have no proactor; None if it can.
#[pyfunction]
fn proactor_unavailable() -> Option<String> {
    poller::unavailable()
}
