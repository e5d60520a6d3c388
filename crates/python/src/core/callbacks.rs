//! The callback that runs, and what it has written and kept, so that it leaves together at the callback's end.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use super::{Core, Run};
use crate::ffi::{self, Ref};

/// A transport that has kept what was written to it.
pub(crate) struct KeptWrite {
    pub(crate) transport: Ref,
    /// In which it was written.
    pub(crate) context: Ref,
    /// Sends it.
    pub(crate) send: Run,
}

impl KeptWrite {
    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.transport)?;
        visit.call(&*self.context)
    }
}

impl Core {
    /// A callback begins.
    #[inline]
    pub(crate) fn begin_callback(&self) {
        // Odd while one runs; only the loop's thread changes it.
        self.callback.store((self.callback.load(Relaxed) + 1) | 1, Relaxed);
    }

    /// The callback has ended; whether something was kept in it.
    #[inline]
    pub(crate) fn end_callback(&self) -> bool {
        self.callback.store(self.callback.load(Relaxed) + 1, Relaxed);
        self.has_kept.load(Relaxed)
    }

    /// The number of the callback that runs, if one does.
    #[inline]
    pub(crate) fn callback(&self) -> Option<u64> {
        Some(self.callback.load(Relaxed)).filter(|number| number % 2 == 1)
    }

    /// Whether the thread that runs is the loop's.
    pub(crate) fn is_own_thread(&self, py: Python<'_>) -> bool {
        self.thread.load(Relaxed) == ffi::thread_ident(py)
    }

    /// Calls `send(transport)` in a copy of the current context when the callback that runs has ended.
    pub(crate) fn push_kept(&self, transport: &Bound<'_, PyAny>, send: Run) -> PyResult<()> {
        let context = ffi::copy_context(transport.py())?;
        self.kept.borrow_mut().push_back(KeptWrite { transport: transport.into(), context, send });
        self.has_kept.store(true, Relaxed);
        Ok(())
    }

    /// What is to be sent next.
    pub(crate) fn pop_kept(&self) -> Option<KeptWrite> {
        let kept = self.kept.borrow_mut().pop_front();
        if kept.is_none() {
            self.has_kept.store(false, Relaxed);
        }
        kept
    }
}
