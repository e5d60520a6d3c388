//! The file of a Unix socket: in the way before it is bound, and left behind when it is closed.

use pyo3::exceptions::{PyFileNotFoundError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error;
use crate::ffi::Ref;
use crate::report;

/// Whether `name` is a path, and not a name in the abstract namespace: a `str` or `bytes` that begins with NUL.
/// `IndexError` for an empty one, as asyncio has it.
fn is_path(name: &Bound<'_, PyAny>) -> PyResult<bool> {
    let first = name.get_item(0)?;
    Ok(!(first.eq(0)? || first.eq("\0")?))
}

/// Removes the socket that an earlier process left at `path`; whatever else is there stays.
pub(crate) fn remove_stale(path: &Bound<'_, PyAny>) -> PyResult<()> {
    if !is_path(path)? {
        return Ok(());
    }
    let py = path.py();
    let os = py.import(intern!(py, "os"))?;
    let removed = os.call_method1(intern!(py, "stat"), (path,)).and_then(|status| {
        let mode = status.getattr(intern!(py, "st_mode"))?;
        if py.import(intern!(py, "stat"))?.call_method1("S_ISSOCK", (mode,))?.is_truthy()? {
            os.call_method1(intern!(py, "remove"), (path,))?;
        }
        Ok(())
    });
    // A directory may have permissions to create sockets only.
    tolerate(path, removed, "Unable to check or remove stale UNIX socket %r: %r")
}

/// Lets a file that is not there pass, and logs any other error of the system.
fn tolerate(path: &Bound<'_, PyAny>, result: PyResult<()>, message: &str) -> PyResult<()> {
    let py = path.py();
    match result {
        Err(error) if error.is_instance_of::<PyFileNotFoundError>(py) => Ok(()),
        Err(error) if error.is_instance_of::<PyOSError>(py) => {
            let arguments = (message, path, error::exception(py, &error));
            report::logger(py)?.call_method1(intern!(py, "error"), arguments).map(drop)
        }
        result => result,
    }
}

/// The file that a listening socket made, to be removed with it.
pub(crate) struct BoundPath {
    path: Ref,
    inode: Ref,
}

impl BoundPath {
    /// The file of `socket`; `None` if its name is abstract or somebody has removed it.
    pub(crate) fn of(socket: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let path = socket.call_method0(intern!(socket.py(), "getsockname"))?;
        if !is_path(&path)? {
            return Ok(None);
        }
        match inode(&path) {
            Ok(inode) => Ok(Some(Self { path: path.into(), inode: inode.into() })),
            Err(error) if error.is_instance_of::<PyFileNotFoundError>(path.py()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the file, unless another one stands in its place by now.
    pub(crate) fn remove(&self, py: Python<'_>) -> PyResult<()> {
        let path = self.path.bind(py);
        let removed = inode(path).and_then(|inode| {
            if inode.eq(self.inode.bind(py))? {
                py.import(intern!(py, "os"))?.call_method1(intern!(py, "unlink"), (path,))?;
            }
            Ok(())
        });
        tolerate(path, removed, "Unable to clean up listening UNIX socket %r: %r")
    }
}

fn inode<'py>(path: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = path.py();
    let arguments = PyTuple::new(py, [path])?;
    let status = py.import(intern!(py, "os"))?.call_method1(intern!(py, "stat"), arguments)?;
    status.getattr(intern!(py, "st_ino"))
}
