//! Child processes: what `connection` makes of them, as methods of the loop.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::EventLoop;
use crate::connection;
use crate::ffi::Ref;
use crate::transports::process;

#[pymethods]
impl EventLoop {
    /// Run a program; return (transport, protocol). A coroutine.
    ///
    /// stdin, stdout and stderr are what `subprocess.Popen` takes, pipes by default, and so are all the other
    /// keywords. Raises `ValueError` for those that would make the pipes ones of text, `OSError` if the
    /// program cannot be run.
    #[pyo3(
        signature = (protocol_factory, program, *args, **kwargs),
        text_signature = "($self, protocol_factory, program, *args, stdin=-1, stdout=-1, \
stderr=-1, universal_newlines=False, shell=False, bufsize=0, encoding=None, errors=None, text=None, \
**kwargs)"
    )]
    fn subprocess_exec<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        program: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let mut all = vec![program.clone()];
        all.extend(args.iter());
        let command = connection::Command {
            protocol_factory,
            args: PyTuple::new(py, all)?.into_any().into(),
            shell: false,
            keywords: kwargs.map_or_else(|| PyDict::new(py), Clone::clone).into(),
        };
        connection::run(slf.as_super(), command)
    }

    /// Run cmd in a shell; return (transport, protocol). A coroutine. Keywords and errors are those of
    /// `subprocess_exec()`.
    #[pyo3(
        signature = (protocol_factory, cmd, **kwargs),
        text_signature = "($self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, \
universal_newlines=False, shell=True, bufsize=0, encoding=None, errors=None, text=None, **kwargs)"
    )]
    fn subprocess_shell<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Ref,
        cmd: Ref,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let command = connection::Command {
            protocol_factory,
            args: cmd,
            shell: true,
            keywords: kwargs.map_or_else(|| PyDict::new(slf.py()), Clone::clone).into(),
        };
        connection::run(slf.as_super(), command)
    }

    fn _child_watcher_callback(
        slf: &Bound<'_, Self>,
        _pid: &Bound<'_, PyAny>,
        returncode: &Bound<'_, PyAny>,
        transp: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        process::told_by_watcher(slf.as_super(), returncode, transp)
    }
}
