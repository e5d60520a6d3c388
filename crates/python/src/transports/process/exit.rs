//! How a process ends: noticed by its pidfd, or told by a child watcher.

use oxloop_engine::sys::fd::{AsRawFd, OwnedFd};
use oxloop_engine::sys::process::ExitCode;
use oxloop_engine::{Interest, sys};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};

use super::{Stream, SubprocessTransport};
use crate::core::Entry;
use crate::coroutine;
use crate::ffi::{self, Ref};
use crate::imports::{imports, is_since};
use crate::report;

/// The exit code of a process whose own nobody can know any more.
const LOST_CODE: ExitCode = 255;

impl SubprocessTransport {
    /// Lets the loop notice the end of the process; false where the system cannot tell, and something else has
    /// to wait for it.
    pub(crate) fn watch_exit(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let this = slf.get();
        let Some(pid) = this.pid.get() else { return Ok(false) };
        match sys::process::pidfd_open(pid) {
            Ok(pidfd) => Ok(watch(slf, pidfd)),
            // It has ended and was waited for already, by somebody else or because SIGCHLD is ignored.
            Err(error) if error.raw_os_error() == Some(sys::os_error::ESRCH) => {
                reap(slf)?;
                Ok(true)
            }
            // No pidfds here, forbidden by a sandbox, or no descriptor left.
            Err(_) => Ok(false),
        }
    }
}

fn watch(transport: &Bound<'_, SubprocessTransport>, pidfd: OwnedFd) -> bool {
    let this = transport.get();
    let entry = Entry::Native { object: transport.as_any().into(), run: ended };
    let fd = pidfd.as_raw_fd();
    let Ok(replaced) = this.core.get().watch(transport.py(), fd, Interest::READABLE, entry) else {
        // A selector with no room for it.
        return false;
    };
    drop(replaced);
    this.state.borrow_mut().pidfd = Some(pidfd);
    true
}

/// The process's descriptor is readable: it has ended.
fn ended(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    SubprocessTransport::in_context(transport, found_ended)
}

fn found_ended(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let pidfd = transport.get().state.borrow_mut().pidfd.take();
    // The event was queued twice.
    let Some(pidfd) = pidfd else { return Ok(()) };
    let core = transport.get().core.get();
    let entry = core.unwatch(transport.py(), pidfd.as_raw_fd(), Interest::READABLE)?;
    drop((entry, pidfd));
    reap(transport)
}

/// Takes the exit code, and tells of it when asyncio does.
fn reap(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let this = transport.get();
    let code = exit_code(transport)?;
    this.state.borrow_mut().reaped = Some(code);
    if let Some(process) = this.process(transport.py()) {
        // At once: who asks the `Popen` before we tell would find nothing to wait for.
        process.setattr(intern!(transport.py(), "returncode"), code)?;
    }
    // How often asyncio's child watchers and loops hand the code on by `call_soon_threadsafe`.
    let hops = match transport.py().version_info().minor {
        _ if imports(transport.py()).windows_utils.is_some() => 0,
        10 | 11 => 2,
        ..=13 => 1,
        _ => 0,
    };
    this.state.borrow_mut().hops = hops;
    tell(transport)
}

fn exit_code(transport: &Bound<'_, SubprocessTransport>) -> PyResult<ExitCode> {
    let py = transport.py();
    let this = transport.get();
    let pid = this.pid.get().unwrap_or_default();
    if let Ok(Some(code)) = sys::process::reap(pid) {
        return Ok(code);
    }
    if let Some(process) = this.process(py)
        && let Some(code) = process.getattr(intern!(py, "returncode"))?.extract()?
    {
        return Ok(code);
    }
    let message =
        format!("child process pid {pid} exit status already read:  will report returncode 255");
    report::log(py, "warning", &message)?;
    Ok(LOST_CODE)
}

fn tell_later(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    SubprocessTransport::in_context(transport, tell)
}

/// Tells of the end of the process, after as many turns as are left.
fn tell(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let this = transport.get();
    let left = {
        let mut state = this.state.borrow_mut();
        let left = state.hops;
        state.hops = left.saturating_sub(1);
        left
    };
    if left > 0 {
        return this.core.get().push_native(transport.as_any().into(), tell_later);
    }
    let code = this.state.borrow_mut().reaped.take().unwrap_or(LOST_CODE);
    process_exited(transport, &PyInt::new(transport.py(), code).into_any())
}

/// The process has ended with `returncode`.
pub(super) fn process_exited(
    transport: &Bound<'_, SubprocessTransport>,
    returncode: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    if this.state.borrow().returncode.is_some() {
        return Ok(());
    }
    if this.core.get().debug() {
        let code = returncode.repr()?;
        report::log(py, "info", &format!("{} exited with return code {code}", transport.repr()?))?;
    }
    this.state.borrow_mut().returncode = Some(returncode.into());
    if let Some(process) = this.process(py)
        && process.getattr(intern!(py, "returncode"))?.is_none()
    {
        // A child watcher has reaped it: the `Popen` shall not look for it, nor warn that it runs.
        process.setattr(intern!(py, "returncode"), returncode)?;
    }
    SubprocessTransport::call_protocol(transport, "process_exited", &PyTuple::empty(py))?;
    try_finish(transport)?;
    if !wakes_with_connection_lost(py) {
        wake_waiters(transport)?;
    }
    Ok(())
}

/// From 3.11 on asyncio's `_wait` waits for the pipes too, until 3.13.15 and 3.14.7 (gh-119710).
fn wakes_with_connection_lost(py: Python<'_>) -> bool {
    py.version_info() >= (3, 11) && !is_since(py, [15, 7, 0])
}

/// Queues `connection_lost` once the process has ended and its pipes are lost.
pub(super) fn try_finish(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    {
        let state = this.state.borrow();
        let expects = state.streams.iter().any(|stream| matches!(stream, Stream::Expected));
        if state.returncode.is_none() || state.finished || expects {
            return Ok(());
        }
    }
    for protocol in this.pipes(py) {
        if !protocol.getattr(intern!(py, "disconnected"))?.is_truthy()? {
            return Ok(());
        }
    }
    this.state.borrow_mut().finished = true;
    let lost = transport.getattr(intern!(py, "_call_connection_lost"))?;
    SubprocessTransport::call(transport, &lost, &PyTuple::new(py, [py.None()])?)
}

/// Tells the protocol that its connection is gone.
pub(super) fn tell_lost(
    transport: &Bound<'_, SubprocessTransport>,
    reason: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let told = match this.protocol(py) {
        Some(protocol) => ffi::call_method(&protocol, intern!(py, "connection_lost"), &[reason]),
        None => Ok(py.None().into_bound(py)),
    };
    let woken = wake_waiters(transport);
    let taken = {
        let mut state = this.state.borrow_mut();
        (state.protocol.take(), state.process.take())
    };
    drop(taken);
    told.and(woken)
}

fn wake_waiters(transport: &Bound<'_, SubprocessTransport>) -> PyResult<()> {
    let py = transport.py();
    let (waiters, code): (Vec<Ref>, _) = {
        let mut state = transport.get().state.borrow_mut();
        let code = state.returncode.as_ref().map(|code| code.clone_ref(py));
        (std::mem::take(&mut state.exit_waiters), code)
    };
    // `_wait` reads the code itself.
    drop(code);
    for waiter in waiters {
        coroutine::resolve(waiter.bind(py))?;
    }
    Ok(())
}
