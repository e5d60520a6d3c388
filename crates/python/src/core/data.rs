//! What a proactor has received for those who read: in buffers of its own, which it gets back as soon as the data is
//! somewhere else.

use oxloop_engine::proactor::Chunk;
use pyo3::prelude::*;

use super::{Arrival, Core};
use crate::ffi;
use crate::poller::{self, NativePoller, Poller, ProactorPoller};

impl Core {
    /// Runs `use_proactor` on the loop's proactor; `None` for a loop that has none.
    pub(super) fn with_proactor<R>(
        &self,
        use_proactor: impl FnOnce(&mut ProactorPoller) -> R,
    ) -> Option<R> {
        match &mut *self.poller.borrow_mut() {
            Poller::Native(Some(native)) => match &mut **native {
                NativePoller::Proactor(proactor) => Some(use_proactor(proactor)),
                NativePoller::Selector { .. } => None,
            },
            _ => None,
        }
    }

    /// Whether the loop waits in a proactor.
    pub(crate) fn has_proactor(&self) -> bool {
        self.with_proactor(|_| ()).is_some()
    }

    /// Whether the loop waits for completions.
    pub(crate) fn completes(&self) -> bool {
        self.with_proactor(|proactor| proactor.completes()).unwrap_or(false)
    }

    /// Says that there may be more to read than was read: what fitted was less than all.
    pub(crate) fn hurry(&self) {
        self.with_proactor(ProactorPoller::hurry);
    }

    /// Takes data out of the loop's buffer, as `bytes`.
    pub(crate) fn take_data<'py>(
        &self,
        py: Python<'py>,
        chunk: Chunk,
    ) -> PyResult<Bound<'py, PyAny>> {
        let taken =
            self.with_proactor(|proactor| proactor.take(chunk, |data| ffi::bytes(py, data)));
        taken.ok_or_else(poller::in_use)?
    }

    /// Takes data out of the loop's buffer into the read buffer, and runs `use_data` on it there.
    pub(crate) fn with_data(
        &self,
        chunk: Chunk,
        use_data: impl FnOnce(&[u8]) -> PyResult<()>,
    ) -> PyResult<()> {
        self.with_read_buffer(|buffer| {
            let mut large = Vec::new();
            let length = self.with_proactor(|proactor| {
                proactor.take(chunk, |data| {
                    match buffer.get_mut(..data.len()) {
                        Some(place) => place.copy_from_slice(data),
                        None => large.extend_from_slice(data),
                    }
                    data.len()
                })
            });
            let length = length.ok_or_else(poller::in_use)?;
            if large.is_empty() { use_data(&buffer[..length]) } else { use_data(&large) }
        })
    }

    /// Drops data that nobody wants.
    pub(crate) fn drop_data(&self, arrival: Arrival) {
        match arrival {
            Arrival::Data { chunk, .. } => {
                self.with_proactor(|proactor| proactor.take(chunk, |_| ()));
            }
            Arrival::Filled(filled) => self.give_back(filled.buffer),
            _ => {}
        }
    }

    /// Gives the loop a buffer back that the data of a pipe came in.
    pub(crate) fn give_back(&self, buffer: Box<[u8]>) {
        self.with_proactor(|proactor| proactor.give_back(buffer));
    }
}
