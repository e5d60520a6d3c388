//! `TimerHandle`: a handle that has a time.

use oxloop_engine::Token;
use pyo3::basic::CompareOp;
use pyo3::intern;
use pyo3::prelude::*;

use super::Handle;
use crate::cell::LoopCell;
use crate::ffi::Ref;
use crate::imports::imports;

/// A callback scheduled by `call_later` or `call_at`.
///
/// Source: asyncio's documentation, "Callback handles".
#[pyclass(frozen, extends = Handle, module = "oxloop._native")]
pub(crate) struct TimerHandle {
    /// Seconds on the loop's clock.
    when: f64,
    /// What the caller of `call_at` gave, if that was no `float`: `when()` returns it.
    given: Option<Ref>,
    /// The place in the loop's timers; set once it has been scheduled, stale after it has fired.
    token: LoopCell<Option<Token>>,
}

impl TimerHandle {
    pub(crate) fn new(when: f64, given: Option<Ref>) -> Self {
        Self { when, given, token: LoopCell::new(None) }
    }

    pub(crate) fn set_token(&self, token: Token) {
        self.token.set(Some(token));
    }
}

#[pymethods]
impl TimerHandle {
    /// Cancel the callback. It and its arguments are released at once.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        let base = slf.as_super();
        if let Some(token) = slf.get().token.get() {
            let entry = base.get().core.get().cancel_timer(token);
            slf.get().token.set(None);
            let result = Handle::do_cancel(base);
            drop(entry);
            return result;
        }
        Handle::do_cancel(base)
    }

    /// The time at which the callback is due, in seconds on the loop's clock (`loop.time()`).
    fn when<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &self.given {
            Some(given) => given.bind(py).clone(),
            None => pyo3::types::PyFloat::new(py, self.when).into_any(),
        }
    }

    #[getter]
    fn _when<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.when(py)
    }

    #[getter]
    fn _scheduled(slf: &Bound<'_, Self>) -> bool {
        let token = slf.get().token.get();
        token.is_some_and(|token| slf.as_super().get().core.get().is_timer(token))
    }

    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        imports(py).timer_handle.bind(py).clone()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let when = format!("when={}", slf.get().when(slf.py()).str()?);
        slf.as_super().get().repr_text(slf.py(), "TimerHandle", Some(when))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.when(py).hash()
    }

    fn __richcmp__<'py>(
        slf: &Bound<'py, Self>,
        other: &Bound<'py, PyAny>,
        operation: CompareOp,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if !other.is_instance(imports(py).timer_handle.bind(py))? {
            return Ok(py.NotImplemented().into_bound(py));
        }
        let mine = slf.get().when(py);
        let theirs = other.call_method0(intern!(py, "when"))?;
        let result = match operation {
            CompareOp::Lt => mine.lt(&theirs)?,
            CompareOp::Gt => mine.gt(&theirs)?,
            CompareOp::Le => mine.lt(&theirs)? || Self::same(slf, other)?,
            CompareOp::Ge => mine.gt(&theirs)? || Self::same(slf, other)?,
            CompareOp::Eq => Self::same(slf, other)?,
            CompareOp::Ne => !Self::same(slf, other)?,
        };
        Ok(pyo3::types::PyBool::new(py, result).to_owned().into_any())
    }
}

impl TimerHandle {
    /// Equality as asyncio defines it: time, callback, arguments and cancellation.
    fn same(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        for name in ["_when", "_callback", "_args", "_cancelled"] {
            if !slf.as_any().getattr(name)?.eq(other.getattr(name)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
