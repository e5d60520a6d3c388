//! The subprocess transport: a child process, its pipes, and how it ended.
//!
//! The process is started by the standard library's `subprocess.Popen`, and the pipes' protocols are asyncio's
//! own classes: both are what users know and replace. What is here is the order of events: the protocol hears
//! of its connection when all pipes are connected, whatever happened before that is told after it, and
//! `connection_lost` comes when the process has ended and every pipe is lost.
//!
//! A process is watched by its pidfd, and the loop that finds it readable reaps it at once. What surprised us:
//! whoever else asks (a `Popen.poll()` is enough) may have reaped it before; then its `Popen` knows the code.

mod exit;
mod methods;
mod pipes;

pub(crate) use methods::told_by_watcher;

use oxloop_engine::sys::fd::OwnedFd;
use oxloop_engine::sys::process::ExitCode;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple};

use crate::cell::{LoopCell, Made};
use crate::core::Core;
use crate::ffi::{self, Ref};
use crate::imports::imports;
use crate::report;

/// One of the three standard streams of the child.
enum Stream {
    /// It is no pipe of ours.
    Inherited,
    /// It will be, once the process has been started.
    Expected,
    /// asyncio's protocol for the pipe, whose transport is its attribute `pipe`.
    Connected(Ref),
}

/// A call that waits for `connection_made`: the callback and its arguments.
type Call = (Ref, Ref<PyTuple>);

/// What changes in the life of a transport.
struct State {
    /// `None` once `connection_lost` has been called.
    protocol: Option<Ref>,
    /// The `Popen`; `None` before it was started, and once `connection_lost` has been called.
    process: Option<Ref>,
    streams: [Stream; 3],
    /// Set by `close`; never cleared.
    closed: bool,
    returncode: Option<Ref>,
    /// Set when `connection_lost` is queued.
    finished: bool,
    /// Calls of the protocol that wait for `connection_made`; `None` after it.
    pending: Option<Vec<Call>>,
    /// Who waits in `_wait`.
    exit_waiters: Vec<Ref>,
    /// Resolved when the pipes are connected; taken then.
    waiter: Option<Ref>,
    /// What `get_extra_info` knows.
    extra: Ref<PyDict>,
    /// The process's descriptor while it is watched.
    pidfd: Option<OwnedFd>,
    /// The exit code that was found, on its way to `_process_exited`.
    reaped: Option<ExitCode>,
    /// How many turns it still waits.
    hops: u32,
}

/// A child process with its pipes.
///
/// Source: asyncio's documentation, "Transports and Protocols".
#[pyclass(frozen, dict, weakref, module = "oxloop._native")]
pub(crate) struct SubprocessTransport {
    made: Made,
    core: Ref<Core>,
    /// A copy of the context in which the process was started, in which everything is told.
    context: Ref,
    pid: LoopCell<Option<i32>>,
    state: LoopCell<State>,
}

/// What a process is started with.
pub(crate) struct Starting<'a, 'py> {
    pub(crate) protocol: &'a Bound<'py, PyAny>,
    /// The program with its arguments, or the command for a shell.
    pub(crate) args: &'a Bound<'py, PyAny>,
    /// What `Popen` is given besides: `stdin`, `stdout`, `stderr`, `shell`, ...
    pub(crate) keywords: &'a Bound<'py, PyDict>,
    pub(crate) waiter: &'a Bound<'py, PyAny>,
}

impl SubprocessTransport {
    /// Starts the process and connects its pipes, after which the waiter is resolved. The caller lets its exit
    /// be watched.
    pub(crate) fn start<'py>(
        core: &Bound<'py, Core>,
        starting: &Starting<'_, 'py>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        let expected = |name: &str| -> PyResult<Stream> {
            let given = starting.keywords.get_item(name)?;
            let pipe = imports(py).subprocess.bind(py).getattr(intern!(py, "PIPE"))?;
            let is_pipe = given.map_or(Ok(false), |given| given.eq(pipe))?;
            Ok(if is_pipe { Stream::Expected } else { Stream::Inherited })
        };
        let state = State {
            protocol: Some(starting.protocol.into()),
            process: None,
            streams: [expected("stdin")?, expected("stdout")?, expected("stderr")?],
            closed: false,
            returncode: None,
            finished: false,
            pending: Some(Vec::new()),
            exit_waiters: Vec::new(),
            waiter: Some(starting.waiter.into()),
            extra: PyDict::new(py).into(),
            pidfd: None,
            reaped: None,
            hops: 0,
        };
        let transport = Self {
            made: Made::new(),
            core: core.into(),
            context: ffi::copy_context(py)?,
            pid: LoopCell::new(None),
            state: LoopCell::new(state),
        };
        let transport = Bound::new(py, transport)?;
        let popen = imports(py).popen(py)?;
        match popen.call((starting.args,), Some(starting.keywords)) {
            Ok(process) => transport.get().adopt(&process)?,
            Err(error) => {
                transport.get().state.borrow_mut().closed = true;
                return Err(error);
            }
        }
        log_created(&transport, starting.args)?;
        // In the next turn, as asyncio's task does: an error goes to the waiter, after the exit is watched.
        core.get().push_native(transport.as_any().into(), pipes::connect)?;
        Ok(transport)
    }

    fn adopt(&self, process: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = process.py();
        let pid: i32 = process.getattr(intern!(py, "pid"))?.extract()?;
        self.pid.set(Some(pid));
        let extra = {
            let mut state = self.state.borrow_mut();
            state.process = Some(process.into());
            state.extra.clone_ref(py)
        };
        extra.bind(py).set_item(intern!(py, "subprocess"), process)
    }

    /// Runs `body` in the context in which the process was started.
    fn in_context(
        transport: &Bound<'_, PyAny>,
        body: impl FnOnce(&Bound<'_, Self>) -> PyResult<()>,
    ) -> PyResult<()> {
        let transport = ffi::cast_known::<Self>(transport);
        let context = transport.get().context.bind(transport.py());
        ffi::run_in_context(context, || body(transport))
    }

    fn protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.borrow().protocol.as_ref().map(|protocol| protocol.bind(py).clone())
    }

    fn process<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.borrow().process.as_ref().map(|process| process.bind(py).clone())
    }

    /// asyncio's protocols of the pipes that are connected.
    fn pipes<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let state = self.state.borrow();
        let connected = state.streams.iter().filter_map(|stream| match stream {
            Stream::Connected(protocol) => Some(protocol.bind(py).clone()),
            _ => None,
        });
        connected.collect()
    }

    /// Queues a call of the protocol: behind `connection_made`, if that is still to come.
    fn call(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        if let Some(pending) = &mut slf.get().state.borrow_mut().pending {
            pending.push((callback.into(), arguments.into()));
            return Ok(());
        }
        call_soon(slf, callback, arguments)
    }

    /// Queues a call of the protocol's method `name`.
    fn call_protocol(
        slf: &Bound<'_, Self>,
        name: &str,
        arguments: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        let Some(protocol) = slf.get().protocol(slf.py()) else { return Ok(()) };
        Self::call(slf, &protocol.getattr(name)?, arguments)
    }
}

fn call_soon(
    transport: &Bound<'_, SubprocessTransport>,
    callback: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyTuple>,
) -> PyResult<()> {
    let py = transport.py();
    let event_loop = transport.get().core.bind(py).as_any();
    let mut all = vec![callback];
    let arguments: Vec<_> = arguments.iter().collect();
    all.extend(&arguments);
    ffi::call_method(event_loop, intern!(py, "call_soon"), &all).map(drop)
}

fn log_created(
    transport: &Bound<'_, SubprocessTransport>,
    args: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let this = transport.get();
    if !this.core.get().debug() {
        return Ok(());
    }
    let py = transport.py();
    let program = match args.cast::<PyTuple>() {
        Ok(args) => args.get_item(0)?,
        Err(_) => args.clone(),
    };
    let pid = this.pid.get().unwrap_or_default();
    report::log(py, "debug", &format!("process {} created: pid {pid}", program.repr()?))
}

impl SubprocessTransport {
    fn text(&self, py: Python<'_>) -> PyResult<String> {
        let (closed, returncode) = {
            let state = self.state.borrow();
            (state.closed, state.returncode.as_ref().map(|code| code.clone_ref(py)))
        };
        let closed = if closed { " closed" } else { "" };
        let state = match (self.pid.get(), returncode) {
            (None, _) => String::from("not started"),
            (Some(pid), Some(code)) => format!("pid={pid} returncode={}", code.bind(py).str()?),
            (Some(pid), None) => format!("pid={pid} running"),
        };
        let mut text = format!("<SubprocessTransport{closed} {state}");
        for protocol in self.pipes(py) {
            // The collector may have emptied it already.
            let Ok(pipe) = protocol.getattr(intern!(py, "pipe")) else { continue };
            let number: usize = protocol.getattr(intern!(py, "fd"))?.extract()?;
            let name = pipes::NAMES.get(number).copied().unwrap_or_default();
            text = format!("{text} {name}={}", pipe.str()?);
        }
        Ok(text + ">")
    }

    fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        visit.call(&*self.core)?;
        visit.call(&*self.context)?;
        let Some(state) = self.state.try_borrow() else { return Ok(()) };
        for object in [&state.protocol, &state.process, &state.returncode, &state.waiter]
            .into_iter()
            .flatten()
        {
            visit.call(&**object)?;
        }
        for stream in &state.streams {
            if let Stream::Connected(protocol) = stream {
                visit.call(&**protocol)?;
            }
        }
        for waiter in &state.exit_waiters {
            visit.call(&**waiter)?;
        }
        for (callback, arguments) in state.pending.iter().flatten() {
            visit.call(&**callback)?;
            visit.call(&**arguments)?;
        }
        visit.call(&*state.extra)
    }
}

impl Drop for SubprocessTransport {
    /// A transport that was dropped without having been closed: the process is killed here, with a warning.
    fn drop(&mut self) {
        if self.state.borrow().closed {
            return;
        }
        Python::attach(|py| {
            ffi::keep_exception(py, || {
                if let Err(error) = methods::abandon(py, self) {
                    error.write_unraisable(py, None);
                }
            });
        });
    }
}
