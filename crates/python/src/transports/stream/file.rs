//! Sending a file: behind what is queued, and nothing may be written before its end.

use pyo3::exceptions::{PyBaseException, PyConnectionError};
use pyo3::prelude::*;

use super::{StreamTransport, refused, writing};
use crate::transports::sendfile::{Range, Sendfile};
use crate::transports::socket::Socket;

impl StreamTransport {
    /// Sends a part of `file` once everything that was written has gone. Whoever asked calls
    /// [`file_sent`](Self::file_sent) after it.
    ///
    /// # Errors
    /// `RuntimeError` while another file is sent.
    pub(crate) fn send_file<'py>(
        slf: &Bound<'py, Self>,
        file: &Bound<'py, PyAny>,
        range: Range,
    ) -> PyResult<Bound<'py, Sendfile>> {
        let py = slf.py();
        let this = slf.get();
        let (fd, socket) = {
            let state = this.state.borrow();
            let object = match &state.socket {
                Socket::Object { object, .. } => Some(object.bind(py).clone()),
                Socket::Descriptor { .. } | Socket::Closed(_) => None,
            };
            (state.socket.raw_fd(), object)
        };
        writing::send_kept(slf)?;
        let sendfile = Sendfile::new(this.core.bind(py), socket.as_ref(), fd, file, range)?;
        let waits = {
            let mut state = this.state.borrow_mut();
            if state.sendfile.is_some() {
                return Err(refused("Empty waiter is already set"));
            }
            state.sendfile = Some((&sendfile).into());
            !state.queue.is_empty()
        };
        if !waits {
            Sendfile::start(&sendfile)?;
        }
        Ok(sendfile)
    }

    /// The file has been sent, or will not be: writing is allowed again.
    pub(crate) fn file_sent(&self, sendfile: &Bound<'_, Sendfile>) {
        let before = {
            let mut state = self.state.borrow_mut();
            let ours = state.sendfile.as_ref().is_some_and(|own| own.as_ptr() == sendfile.as_ptr());
            if ours { state.sendfile.take() } else { None }
        };
        drop(before);
    }
}

/// The queue is empty: it is the file's turn.
pub(super) fn start(transport: &Bound<'_, StreamTransport>) -> PyResult<()> {
    let py = transport.py();
    let sendfile =
        transport.get().state.borrow().sendfile.as_ref().map(|file| file.bind(py).clone());
    sendfile.map_or(Ok(()), |sendfile| Sendfile::start(&sendfile))
}

/// The connection is lost, and the descriptor is about to be closed.
pub(super) fn stop(
    transport: &Bound<'_, StreamTransport>,
    reason: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let sendfile = transport.get().state.borrow_mut().sendfile.take();
    let Some(sendfile) = sendfile else { return Ok(()) };
    let error = match reason.cast::<PyBaseException>() {
        Ok(reason) => PyErr::from_value(reason.clone().into_any()),
        Err(_) => PyConnectionError::new_err("Connection is closed by peer"),
    };
    Sendfile::stop(sendfile.bind(py), Some(error))
}
