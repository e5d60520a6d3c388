//! A loop that waits in a proactor: what it is made of, and descriptors that are watched by its operations.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use oxloop_engine::proactor::{
    self, Completion, Completions, Config, Operation, Proactor, Returned,
};
use oxloop_engine::{Interest, Token, sys};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::Change;
use crate::buffer::Chunk;

/// How a `ProactorEventLoop` uses `io_uring(7)`.
///
/// *entries* is how many operations can be submitted by one system call, from 1 to 32768; more of them take
/// several. *buffers* is how many buffers the loop's connections receive into at most, a power of two up to
/// 32768, and *buffer_size* the size of one in bytes. Raises `ValueError` for sizes out of range.
///
/// Source: `io_uring_setup(2)`, `io_uring_register_buf_ring(3)`.
#[pyclass(frozen, module = "oxloop._native")]
pub(crate) struct IoUringProactor {
    config: Config,
}

#[pymethods]
impl IoUringProactor {
    #[new]
    #[pyo3(signature = (entries=None, buffers=None, buffer_size=None))]
    fn new(entries: Option<u32>, buffers: Option<u16>, buffer_size: Option<u32>) -> PyResult<Self> {
        let default = Config::default();
        let config = Config {
            entries: entries.unwrap_or(default.entries),
            buffers: buffers.unwrap_or(default.buffers),
            buffer_size: buffer_size.unwrap_or(default.buffer_size),
            ..default
        };
        match config.check() {
            Ok(()) => Ok(Self { config }),
            Err(error) => Err(PyValueError::new_err(error.to_string())),
        }
    }

    /// How many operations can be submitted by one system call.
    #[getter]
    fn entries(&self) -> u32 {
        self.config.entries
    }

    /// How many buffers the connections of the loop receive into at most.
    #[getter]
    fn buffers(&self) -> u16 {
        self.config.buffers
    }

    /// The size of a buffer, in bytes.
    #[getter]
    fn buffer_size(&self) -> u32 {
        self.config.buffer_size
    }

    fn __repr__(&self) -> String {
        let Config { entries, buffers, buffer_size, .. } = self.config;
        format!("IoUringProactor(entries={entries}, buffers={buffers}, buffer_size={buffer_size})")
    }
}

/// Why this process can have no proactor; `None` if it can.
pub(crate) fn unavailable() -> Option<String> {
    proactor::probe().err().map(|reason| reason.to_string())
}

/// A proactor, and the operations by which it watches descriptors.
pub(crate) struct ProactorPoller {
    proactor: Proactor<Chunk, Box<[u8]>>,
    completions: Completions<Chunk, Box<[u8]>>,
    /// By the place of a watch's token: the operation that watches its descriptor.
    polls: Vec<Option<Token>>,
}

impl ProactorPoller {
    pub(super) fn new(proactor: &IoUringProactor) -> PyResult<Self> {
        let proactor = Proactor::new(proactor.config).map_err(|reason| {
            PyRuntimeError::new_err(format!("ProactorEventLoop cannot be had: {reason}"))
        })?;
        Ok(Self { proactor, completions: Completions::new(), polls: Vec::new() })
    }

    pub(super) fn name(&self) -> &'static str {
        self.proactor.name()
    }

    /// Watches a descriptor for the owner `token`. What was watched before the kernel lets go of at once.
    pub(super) fn apply(&mut self, fd: RawFd, token: Token, change: Change) -> io::Result<()> {
        let Change { before, after } = change;
        if !before.contains(after) {
            // As a selector does, and not at the next wait.
            sys::descriptor::check_pollable(fd)?;
        }
        let place = token.index();
        if self.polls.len() <= place {
            self.polls.resize(place + 1, None);
        }
        // Also for the same directions: the descriptor may be that of another file by now.
        if let Some(poll) = self.polls[place].take() {
            self.proactor.withdraw(poll);
        }
        if !after.is_empty() {
            let poll = Operation::Poll { fd, interest: after };
            self.polls[place] = Some(self.proactor.submit(token, poll));
        }
        Ok(())
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.proactor.wait(&mut self.completions, timeout)
    }

    /// Takes everything back from the kernel until the next wait, which another thread may make.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        self.proactor.suspend(&mut self.completions)
    }

    /// Takes out what has come: for each owner the directions in which its descriptor is ready.
    pub(crate) fn ready(&mut self, mut tell: impl FnMut(Token, Interest)) {
        for completion in self.completions.drain() {
            let Completion { token, owner, returned, .. } = completion;
            if let Returned::Readiness(readiness) = returned
                && self.polls.get(owner.index()) == Some(&Some(token))
            {
                tell(owner, readiness);
            }
        }
    }
}
