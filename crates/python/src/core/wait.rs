//! The wait of a turn, and what it finds.

use std::time::Duration;

use oxloop_engine::{Engine, Interest};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::watches::Watch;
use super::{Arrival, Core, Entry};
use crate::error::os_error;
use crate::ffi::Ref;
use crate::poller::{self, NativePoller, Poller, Told};

impl Core {
    /// Waits for at most `timeout` (`None`: without end), and queues what became ready.
    pub(crate) fn poll(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<()> {
        let taken = match &mut *self.poller.borrow_mut() {
            Poller::Closed => {
                self.check_closed()?;
                let message = "the event loop was not initialised: super().__init__() not called";
                return Err(PyRuntimeError::new_err(message));
            }
            Poller::Native(native) => Ok(native.take().ok_or_else(poller::in_use)?),
            Poller::Python(selector) => Err(selector.clone_ref(py)),
        };
        let mut native = match taken {
            Ok(native) => native,
            Err(selector) => return self.poll_python(py, &selector, timeout),
        };
        let waited = self.sleep(timeout, |timeout| {
            if timeout == Some(Duration::ZERO) {
                // Nothing to wait for: not worth handing the interpreter to another thread.
                native.wait(timeout)
            } else {
                py.detach(|| native.wait(timeout))
            }
        });
        if waited.is_ok() {
            self.receive();
            self.queue_all_ready(py, &mut native);
        }
        if let Poller::Native(place) = &mut *self.poller.borrow_mut() {
            *place = Some(native);
        }
        match waited {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(os_error(&error)),
            _ => Ok(()),
        }
    }

    /// Queues what a wait has found to be ready.
    fn queue_all_ready(&self, py: Python<'_>, native: &mut NativePoller) {
        let watches = self.watches.borrow();
        let mut engine = self.engine.borrow_mut();
        match native {
            NativePoller::Selector { events, .. } => {
                for event in &*events {
                    if let Some(watch) = watches.get(event.token) {
                        queue_ready(py, &mut engine, watch, event.readiness);
                    }
                }
            }
            NativePoller::Proactor(proactor) => proactor.tell(|token, told| {
                let watch = watches.get(token);
                match told {
                    Told::Ready(readiness) => {
                        if let Some(watch) = watch {
                            queue_ready(py, &mut engine, watch, readiness);
                        }
                        None
                    }
                    Told::Arrived(arrival) => {
                        let reader = watch.and_then(|watch| watch.reader.as_ref());
                        queue_arrived(py, &mut engine, reader, arrival)
                    }
                    Told::Written(arrival) => {
                        let writer = watch.and_then(|watch| watch.writer.as_ref());
                        queue_arrived(py, &mut engine, writer, arrival)
                    }
                }
            }),
        }
    }

    /// The loop stops to run: nothing stays with the kernel that belongs to this thread.
    pub(crate) fn suspend(&self, py: Python<'_>) -> PyResult<()> {
        let native = match &mut *self.poller.borrow_mut() {
            Poller::Native(native) => native.take(),
            _ => None,
        };
        let Some(mut native) = native else { return Ok(()) };
        let suspended = match &mut *native {
            NativePoller::Selector { .. } => Ok(()),
            NativePoller::Proactor(proactor) => {
                let suspended = proactor.suspend();
                self.queue_all_ready(py, &mut native);
                suspended
            }
        };
        if let Poller::Native(place) = &mut *self.poller.borrow_mut() {
            *place = Some(native);
        }
        suspended.map_err(|error| os_error(&error))
    }

    fn poll_python(
        &self,
        py: Python<'_>,
        selector: &Ref,
        timeout: Option<Duration>,
    ) -> PyResult<()> {
        let ready =
            self.sleep(timeout, |timeout| poller::select_python(selector.bind(py), timeout))?;
        self.receive();
        let watches = self.watches.borrow();
        let mut engine = self.engine.borrow_mut();
        for (fd, readiness) in ready {
            if let Some(watch) = watches.by_fd(fd) {
                queue_ready(py, &mut engine, watch, readiness);
            }
        }
        Ok(())
    }
}

/// Queues `entry` with what has come, which is given back if nobody wants it.
#[inline]
fn queue_arrived(
    py: Python<'_>,
    engine: &mut Engine<Entry>,
    entry: Option<&Entry>,
    arrival: Arrival,
) -> Option<Arrival> {
    let Some(entry) = entry else { return Some(arrival) };
    match entry.arrived(py, arrival) {
        Ok(entry) => engine.ready.push(entry),
        Err(arrival) => return Some(arrival),
    }
    None
}

/// Queues the entries of `watch` that `readiness` concerns.
#[inline]
fn queue_ready(py: Python<'_>, engine: &mut Engine<Entry>, watch: &Watch, readiness: Interest) {
    if readiness.is_readable()
        && let Some(reader) = &watch.reader
    {
        engine.ready.push(reader.clone_ref(py));
    }
    if readiness.is_writable()
        && let Some(writer) = &watch.writer
    {
        engine.ready.push(writer.clone_ref(py));
    }
}
