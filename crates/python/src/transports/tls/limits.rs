//! The limits of a buffer of TLS. They are not those of the other transports: asyncio's TLS has other defaults, and
//! takes a buffer that has reached its high-water mark for full.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// High- and low-water mark in bytes.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) high: usize,
    pub(super) low: usize,
    /// The high-water mark where none is given, in KiB.
    default: usize,
}

/// What a buffer has become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Full,
    Drained,
}

impl Limits {
    /// `FLOW_CONTROL_HIGH_WATER_SSL_WRITE` of asyncio's constants.
    pub(super) fn of_writing(py: Python<'_>) -> PyResult<Self> {
        Self::by_default(py, "FLOW_CONTROL_HIGH_WATER_SSL_WRITE", 512)
    }

    /// `FLOW_CONTROL_HIGH_WATER_SSL_READ` of asyncio's constants.
    pub(super) fn of_reading(py: Python<'_>) -> PyResult<Self> {
        Self::by_default(py, "FLOW_CONTROL_HIGH_WATER_SSL_READ", 256)
    }

    fn by_default(py: Python<'_>, name: &str, otherwise: usize) -> PyResult<Self> {
        let constant = py.import("asyncio.constants")?.getattr_opt(name)?;
        let default = constant.map_or(Ok(otherwise), |constant| constant.extract())?;
        Ok(Self { high: default * 1024, low: default * 1024 / 4, default })
    }

    /// The limits in bytes; `ValueError` unless high >= low >= 0.
    pub(super) fn set(&mut self, high: Option<isize>, low: Option<isize>) -> PyResult<()> {
        let otherwise = (self.default * 1024).cast_signed();
        let high = high.unwrap_or_else(|| low.map_or(otherwise, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high.div_euclid(4));
        match (usize::try_from(high), usize::try_from(low)) {
            (Ok(high), Ok(low)) if high >= low => {
                (self.high, self.low) = (high, low);
                Ok(())
            }
            _ => Err(PyValueError::new_err(format!(
                "high ({high}) must be >= low ({low}) must be >= 0"
            ))),
        }
    }

    /// What a buffer of `size` bytes has become, of which that has been said if it was full before.
    pub(super) fn level(&self, size: usize, was_full: bool) -> Option<Level> {
        if size >= self.high && !was_full {
            Some(Level::Full)
        } else if size <= self.low && was_full {
            Some(Level::Drained)
        } else {
            None
        }
    }
}
