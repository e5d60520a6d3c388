//! `subprocess_exec` and `subprocess_shell`.

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use super::pair;
use crate::core::Core;
use crate::coroutine::{Coroutine, Flow, Kept};
use crate::error;
use crate::ffi::Ref;
use crate::imports::imports;
use crate::report;
use crate::transports::pipe;
use crate::transports::process::{Starting, SubprocessTransport};

/// What is to be run.
pub(crate) struct Command {
    pub(crate) protocol_factory: Ref,
    /// The program with its arguments, or the command for a shell.
    pub(crate) args: Ref,
    /// Whether it is for a shell.
    pub(crate) shell: bool,
    /// The keywords of the call.
    pub(crate) keywords: Ref<PyDict>,
}

/// A [`Command`] where the garbage collector sees it.
struct Run {
    factory: Kept,
    args: Kept,
    shell: bool,
    keywords: Kept<PyDict>,
}

/// `loop.subprocess_exec(...)`, `loop.subprocess_shell(...)`.
pub(crate) fn run<'py>(
    event_loop: &Bound<'py, Core>,
    command: Command,
) -> PyResult<Bound<'py, PyAny>> {
    let name = if command.shell { "subprocess_shell" } else { "subprocess_exec" };
    Coroutine::spawn(event_loop.py(), name, |flow| {
        let core: Kept<Core> = flow.keep(event_loop);
        let run = Run {
            factory: flow.keep(command.protocol_factory),
            args: flow.keep(command.args),
            shell: command.shell,
            keywords: flow.keep(command.keywords),
        };
        async move {
            Python::attach(|py| run.check(py))?;
            let (protocol, keywords) = Python::attach(|py| {
                let protocol = run.factory.bind(py).call0()?;
                Ok::<_, PyErr>((flow.keep::<PyAny>(protocol), flow.keep(run.popen_keywords(py)?)))
            })?;
            let debug = core.get().debug();
            if debug {
                Python::attach(|py| run.log(py, keywords.bind(py)))?;
            }
            let watcher = Python::attach(|py| enter_watcher(&flow, core.bind(py)))?;
            let entered = watcher.as_ref().map(|watcher| &watcher.entered);
            let started = start(&flow, &core, &run, &protocol, &keywords, entered).await;
            if let Some(watcher) = watcher {
                let error = started.as_ref().err();
                Python::attach(|py| leave_watcher(watcher.context.bind(py), error))?;
            }
            let transport = started?;
            if debug {
                Python::attach(|py| {
                    let transport = transport.bind(py).repr()?;
                    report::log(py, "info", &format!("{}: {transport}", run.text(py)?))
                })?;
            }
            let transport: Ref = Python::attach(|py| transport.bind(py).as_any().into());
            pair(&transport, &protocol)
        }
    })
}

impl Run {
    /// `ValueError` for what would not give pipes of bytes.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let args = self.args.bind(py);
        if self.shell && !args.is_instance_of::<PyString>() && !args.is_instance_of::<PyBytes>() {
            return Err(PyValueError::new_err("cmd must be a string"));
        }
        let keywords = self.keywords.bind(py);
        let is_true = |name: &str, default: bool| -> PyResult<bool> {
            keywords.get_item(name)?.map_or(Ok(default), |value| value.is_truthy())
        };
        let is_given = |name: &str| -> PyResult<bool> {
            Ok(keywords.get_item(name)?.is_some_and(|value| !value.is_none()))
        };
        let bufsize = keywords.get_item("bufsize")?.map_or(Ok(true), |size| size.eq(0))?;
        let shell = if self.shell { "shell must be True" } else { "shell must be False" };
        let faults = [
            (is_true("universal_newlines", false)?, "universal_newlines must be False"),
            (is_true("shell", self.shell)? != self.shell, shell),
            (!bufsize, "bufsize must be 0"),
            (is_true("text", false)?, "text must be False"),
            (is_given("encoding")?, "encoding must be None"),
            (is_given("errors")?, "errors must be None"),
        ];
        match faults.into_iter().find(|(is_fault, _)| *is_fault) {
            Some((_, message)) => Err(PyValueError::new_err(message)),
            None => Ok(()),
        }
    }

    /// The keywords of `Popen`.
    fn popen_keywords<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let keywords = self.keywords.bind(py).copy()?;
        for name in ["text", "encoding", "errors"] {
            if keywords.contains(name)? {
                keywords.del_item(name)?;
            }
        }
        let pipe = imports(py).subprocess.bind(py).getattr(intern!(py, "PIPE"))?;
        for name in ["stdin", "stdout", "stderr"] {
            if !keywords.contains(name)? {
                keywords.set_item(name, &pipe)?;
            }
        }
        keywords.set_item("shell", self.shell)?;
        keywords.set_item("universal_newlines", false)?;
        keywords.set_item("bufsize", 0)?;
        Ok(keywords)
    }

    /// What the log calls it. Arguments of a program may be secret, or long.
    fn text(&self, py: Python<'_>) -> PyResult<String> {
        let args = self.args.bind(py);
        if self.shell {
            return Ok(format!("run shell command {}", args.repr()?));
        }
        Ok(format!("execute program {}", args.get_item(0)?.repr()?))
    }

    fn log(&self, py: Python<'_>, keywords: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut text = self.text(py)?;
        let format = imports(py).base_events.bind(py).getattr(intern!(py, "_format_pipe"))?;
        let given = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
            Ok(keywords.get_item(name)?.filter(|value| !value.is_none()))
        };
        let mut add = |name: &str, value: &Option<Bound<'_, PyAny>>| -> PyResult<()> {
            if let Some(value) = value {
                text = format!("{text} {name}={}", format.call1((value,))?.str()?);
            }
            Ok(())
        };
        let (stdin, stdout, stderr) = (given("stdin")?, given("stdout")?, given("stderr")?);
        add("stdin", &stdin)?;
        let same = imports(py).subprocess.bind(py).getattr(intern!(py, "STDOUT"))?;
        let merged = match &stderr {
            Some(stderr) => stdout.is_some() && stderr.eq(same)?,
            None => false,
        };
        if merged {
            add("stdout=stderr", &stdout)?;
        } else {
            add("stdout", &stdout)?;
            add("stderr", &stderr)?;
        }
        report::log(py, "debug", &text)
    }
}

/// A child watcher that the user chose.
struct Watcher {
    /// Whose `with` block it is.
    context: Kept,
    /// What is asked; before Python 3.12 asyncio asks what `__enter__` returned.
    entered: Kept,
}

/// Enters the child watcher that the user chose, and checks it; `None` if there is none.
fn enter_watcher(flow: &Flow, core: &Bound<'_, Core>) -> PyResult<Option<Watcher>> {
    let py = core.py();
    let watcher = core.call_method0(intern!(py, "_child_watcher"))?;
    if watcher.is_none() {
        return Ok(None);
    }
    let returned = watcher.call_method0(intern!(py, "__enter__"))?;
    let entered = if py.version_info() < (3, 12) { returned } else { watcher.clone() };
    let active = entered.call_method0(intern!(py, "is_active")).and_then(|it| it.is_truthy());
    let refused = match active {
        Ok(true) => {
            return Ok(Some(Watcher { context: flow.keep(watcher), entered: flow.keep(entered) }));
        }
        Ok(false) => PyRuntimeError::new_err(
            "asyncio.get_child_watcher() is not activated, subprocess support is not installed.",
        ),
        Err(error) => error,
    };
    leave_watcher(&watcher, Some(&refused))?;
    Err(refused)
}

fn leave_watcher(watcher: &Bound<'_, PyAny>, error: Option<&PyErr>) -> PyResult<()> {
    let py = watcher.py();
    let name = intern!(py, "__exit__");
    match error {
        None => watcher.call_method1(name, (py.None(), py.None(), py.None())),
        Some(error) => {
            watcher.call_method1(name, (error.get_type(py), error.value(py), error.traceback(py)))
        }
    }
    .map(drop)
}

/// Starts the process and waits until its pipes are connected.
async fn start(
    flow: &Flow,
    core: &Kept<Core>,
    run: &Run,
    protocol: &Kept,
    keywords: &Kept<PyDict>,
    watcher: Option<&Kept>,
) -> PyResult<Kept<SubprocessTransport>> {
    let (transport, waiter) = Python::attach(|py| {
        pipe::check_operations(core.get(), "processes")?;
        let waiter = Core::future(core.bind(py))?;
        let starting = Starting {
            protocol: protocol.bind(py),
            args: run.args.bind(py),
            keywords: keywords.bind(py),
            waiter: &waiter,
        };
        let transport = SubprocessTransport::start(core.bind(py), &starting)?;
        if let Err(error) = watch(core.bind(py), &transport, watcher.map(|it| it.bind(py))) {
            transport.call_method0(intern!(py, "close"))?;
            return Err(error);
        }
        Ok((flow.keep::<SubprocessTransport>(transport), flow.keep::<PyAny>(waiter)))
    })?;
    let Err(error) = flow.wait_kept(&waiter).await else { return Ok(transport) };
    let waiting = Python::attach(|py| {
        if error::leaves_the_loop(py, &error) {
            return Ok(None);
        }
        let transport = transport.bind(py);
        transport.call_method0(intern!(py, "close"))?;
        if error.is_instance_of::<PyGeneratorExit>(py) {
            return Ok(None);
        }
        transport.call_method0(intern!(py, "_wait")).map(Some).map(|it| it.map(Ref::from))
    })?;
    if let Some(waiting) = waiting {
        flow.wait(waiting).await?;
    }
    Err(error)
}

/// Lets somebody watch for the end of the process: the user's watcher, the loop by itself, or a thread.
fn watch(
    core: &Bound<'_, Core>,
    transport: &Bound<'_, SubprocessTransport>,
    watcher: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = core.py();
    let watcher = match watcher {
        Some(watcher) => watcher.clone(),
        None if SubprocessTransport::watch_exit(transport)? => return Ok(()),
        None => core.call_method0(intern!(py, "_waiting_child_watcher"))?,
    };
    let pid = transport.call_method0(intern!(py, "get_pid"))?;
    let callback = core.getattr(intern!(py, "_child_watcher_callback"))?;
    let arguments = PyTuple::new(py, [pid.as_any(), &callback, transport.as_any()])?;
    watcher.call_method1(intern!(py, "add_child_handler"), arguments).map(drop)
}
