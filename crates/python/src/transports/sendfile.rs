//! Sending a file by sendfile(2): block by block, whenever the socket has room.
//!
//! The descriptor is watched from the first block that does not go at once to the last, and each event sends
//! one: nobody is woken up before the end. What surprised us: sendfile(2) does not say that the file has
//! ended until it is asked once more, which is done at once where the end was when we began.

use std::io;

use oxloop_engine::sys::fd::{AsRawFd, BorrowedFd, RawFd};
use oxloop_engine::{Interest, sys};
use pyo3::exceptions::{PyAttributeError, PyConnectionError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use crate::cell::LoopCell;
use crate::core::{Core, Entry};
use crate::error::{self, os_error};
use crate::ffi::{self, Ref};
use crate::imports::{imports, is_since};

/// How many bytes one system call sends at most: enough that calls cost nothing beside the data, and little
/// enough that others wait for a fraction of a millisecond.
const BLOCK: usize = 1024 * 1024;

/// What is to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    /// `None`: up to the end of the file.
    pub(crate) count: Option<u64>,
}

/// How far a file has been sent.
struct State {
    rest: Range,
    sent: u64,
    /// Whether the loop watches the socket for us.
    watching: bool,
    /// Set at the end, whatever it was; never cleared.
    ended: bool,
}

/// A file on its way to a socket. Its future gets the number of bytes.
#[pyclass(frozen, module = "oxloop._native", name = "_Sendfile")]
pub(crate) struct Sendfile {
    core: Ref<Core>,
    /// The user's socket; `None` for a descriptor of a transport, which stops us before it closes that.
    socket: Option<Ref>,
    fd: RawFd,
    file: Ref,
    file_fd: RawFd,
    /// Where the file ended when we began.
    size: u64,
    future: Ref,
    state: LoopCell<State>,
}

impl Sendfile {
    /// Makes ready to send a part of `file`; nothing is sent before [`start`](Self::start).
    ///
    /// # Errors
    /// `SendfileNotAvailableError` for what is no file of the system.
    pub(crate) fn new<'py>(
        core: &Bound<'py, Core>,
        socket: Option<&Bound<'py, PyAny>>,
        fd: RawFd,
        file: &Bound<'py, PyAny>,
        range: Range,
    ) -> PyResult<Bound<'py, Self>> {
        let py = core.py();
        let file_fd = file_number(file)?;
        let size = ffi::borrow_fd(file_fd).and_then(|fd| sys::file::size(fd).ok());
        let Some(size) = size else { return Err(not_available(py, "not a regular file")) };
        // Nothing of an empty file, nor of one that does not know its size, as asyncio has it.
        let count = range.count.or((size == 0).then_some(0));
        let rest = Range { count, ..range };
        let sendfile = Self {
            core: core.into(),
            socket: socket.map(Ref::from),
            fd,
            file: file.into(),
            file_fd,
            size,
            future: Core::future(core)?.into(),
            state: LoopCell::new(State { rest, sent: 0, watching: false, ended: false }),
        };
        Bound::new(py, sendfile)
    }

    /// What is resolved at the end.
    pub(crate) fn future<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.future.bind(py).clone()
    }

    /// Sends the first block.
    pub(crate) fn start(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().state.borrow().rest.count == Some(0) {
            return Self::end(slf, Ok(()));
        }
        Self::step(slf)
    }

    /// Ends it early; `error` is for who waits, if somebody still does. Does nothing at or after the end.
    pub(crate) fn stop(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        if slf.get().state.borrow().ended {
            return Ok(());
        }
        match error {
            Some(error) => Self::end(slf, Err(error)),
            None => Self::leave(slf).map(drop),
        }
    }

    /// Sends a block, and asks whether the file has ended where it should have.
    fn step(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        for _ in 0..2 {
            let sent = match this.send(slf.py()) {
                Ok(0) => return Self::end(slf, Ok(())),
                Ok(sent) => sent,
                Err(error) if error::is_transient(&error) => break,
                Err(error) => {
                    let error = this.failure(slf.py(), &error);
                    return Self::end(slf, Err(error));
                }
            };
            let (all, at_end) = {
                let mut state = this.state.borrow_mut();
                if state.ended {
                    return Ok(());
                }
                state.sent += sent;
                state.rest.offset += sent;
                state.rest.count = state.rest.count.map(|count| count.saturating_sub(sent));
                (state.rest.count == Some(0), state.rest.offset >= this.size)
            };
            if all {
                return Self::end(slf, Ok(()));
            }
            if !at_end {
                break;
            }
        }
        Self::watch(slf)
    }

    /// One system call, without the interpreter: it may wait for the disk.
    fn send(&self, py: Python<'_>) -> io::Result<u64> {
        let gone = || io::Error::from_raw_os_error(sys::os_error::EBADF);
        let socket = self.open_socket(py).ok_or_else(gone)?;
        let file = same(file_number(self.file.bind(py)), self.file_fd).ok_or_else(gone)?;
        let Range { offset, count } = self.state.borrow().rest;
        let count = count.map_or(BLOCK, |count| usize::try_from(count).unwrap_or(BLOCK).min(BLOCK));
        let sent = py.detach(|| sys::file::send(socket, file, offset, count))?;
        Ok(sent as u64)
    }

    fn open_socket<'a>(&self, py: Python<'_>) -> Option<BorrowedFd<'a>> {
        match &self.socket {
            Some(socket) => same(socket_number(socket.bind(py)), self.fd),
            None => ffi::borrow_fd(self.fd),
        }
    }

    /// The exception for an error of the kernel. Nothing can have been wrong with the file once some of it
    /// has gone.
    fn failure(&self, py: Python<'_>, error: &io::Error) -> PyErr {
        if self.state.borrow().sent == 0 {
            return not_available(py, "os.sendfile call failed");
        }
        if error.raw_os_error() == Some(sys::os_error::ENOTCONN) {
            let normalised =
                PyConnectionError::new_err(("socket is not connected", sys::errno::ENOTCONN));
            normalised.set_cause(py, Some(os_error(error)));
            return normalised;
        }
        os_error(error)
    }

    /// Lets the loop tell us when there is room.
    fn watch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        if std::mem::replace(&mut this.state.borrow_mut().watching, true) {
            return Ok(());
        }
        let entry = Entry::Native { object: slf.as_any().into(), run: writable };
        match this.core.get().watch(slf.py(), this.fd, Interest::WRITABLE, entry) {
            Ok(replaced) => {
                drop(replaced);
                Ok(())
            }
            Err(error) => {
                this.state.borrow_mut().watching = false;
                Self::end(slf, Err(error))
            }
        }
    }

    /// Takes leave of the socket and the file.
    ///
    /// # Errors
    /// `OSError` when the position of the file cannot be set.
    fn leave(slf: &Bound<'_, Self>) -> PyResult<u64> {
        let py = slf.py();
        let this = slf.get();
        let (watching, sent, offset) = {
            let mut state = this.state.borrow_mut();
            state.ended = true;
            (std::mem::take(&mut state.watching), state.sent, state.rest.offset)
        };
        if watching {
            let core = this.core.get();
            let entry = core.unwatch_object(py, this.fd, Interest::WRITABLE, slf.as_ptr())?;
            drop(entry);
        }
        if (sent > 0 || always_sets_position(py))
            && let Some(file) = same(file_number(this.file.bind(py)), this.file_fd)
        {
            sys::file::set_position(file, offset).map_err(|error| os_error(&error))?;
        }
        Ok(sent)
    }

    /// Tells who waits.
    fn end(slf: &Bound<'_, Self>, outcome: PyResult<()>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let left = Self::leave(slf);
        let future = this.future.bind(py);
        if ffi::call_method(future, intern!(py, "done"), &[])?.is_truthy()? {
            return Ok(());
        }
        match outcome.and(left) {
            Ok(sent) => {
                let sent = pyo3::types::PyInt::new(py, sent);
                ffi::call_method(future, intern!(py, "set_result"), &[sent.as_any()])?;
            }
            Err(error) => {
                let error = error::exception(py, &error);
                ffi::call_method(future, intern!(py, "set_exception"), &[error.as_any()])?;
            }
        }
        Ok(())
    }
}

/// The socket is writable.
fn writable(sendfile: &Bound<'_, PyAny>) -> PyResult<()> {
    let sendfile = ffi::cast_known::<Sendfile>(sendfile);
    // The event was queued before the end.
    if sendfile.get().state.borrow().ended {
        return Ok(());
    }
    let future = sendfile.get().future(sendfile.py());
    if ffi::call_method(&future, intern!(future.py(), "done"), &[])?.is_truthy()? {
        return Sendfile::stop(sendfile, None); // cancelled
    }
    Sendfile::step(sendfile)
}

/// The descriptor of a file or socket of the user's, if it is still the one that it was: whoever has closed it
/// must not meet the next one of that number.
fn same<'a>(number: PyResult<RawFd>, fd: RawFd) -> Option<BorrowedFd<'a>> {
    ffi::borrow_fd(number.ok()?).filter(|open| open.as_raw_fd() == fd)
}

/// The descriptor of a socket object.
fn socket_number(socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    ffi::call_method(socket, intern!(socket.py(), "fileno"), &[])?.extract()
}

/// The descriptor of a file object.
fn file_number(file: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = file.py();
    let number = match ffi::call_method(file, intern!(py, "fileno"), &[]) {
        Err(error)
            if error.is_instance_of::<PyAttributeError>(py)
                || error.is_instance(py, imports(py).unsupported_operation.bind(py)) =>
        {
            return Err(not_available(py, "not a regular file"));
        }
        number => number?,
    };
    match &imports(py).get_osfhandle {
        Some(get_osfhandle) => get_osfhandle.bind(py).call1((number,))?.extract(),
        None => number.extract(),
    }
}

/// `asyncio.SendfileNotAvailableError`.
pub(crate) fn not_available(py: Python<'_>, message: &str) -> PyErr {
    PyErr::from_type(imports(py).sendfile_not_available.bind(py).clone(), message.to_owned())
}

#[pymethods]
impl Sendfile {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.core)?;
        visit.call(&*self.file)?;
        visit.call(&*self.future)?;
        self.socket.as_ref().map_or(Ok(()), |socket| visit.call(&**socket))
    }
}

/// Whether a file begins at the offset also if that is 0 and its position another, and is left there also if
/// nothing was sent: from Python 3.13.14 and 3.14.6 on (gh-150107).
pub(crate) fn always_sets_position(py: Python<'_>) -> bool {
    is_since(py, [14, 6, 0])
}
