//! A loop that waits in a proactor: what it is made of, and descriptors that are watched by its operations.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use oxloop_engine::proactor::{
    self, Completion, Completions, Config, Operation, Proactor, Returned,
};
use oxloop_engine::sys::descriptor::FileId;
use oxloop_engine::sys::fd::RawFd;
use oxloop_engine::volume::MUCH;
use oxloop_engine::{Interest, Pages, Token, Waker, sys};
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::{Change, Reading};
use crate::buffer::Chunk;
use crate::core::{Arrival, Filled, Written};

/// How a `ProactorEventLoop` uses `io_uring(7)`.
///
/// `entries` is how many operations can be submitted by one system call, from 1 to 32768 (256 by default); more of them
/// take several. `buffers` is how many buffers the loop's connections receive into at most, a power of two up to
/// 32768 (1024), and `buffer_size` the size of one in bytes (32 KiB). Raises `ValueError` for sizes out of range.
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
    fn new(
        entries: Option<Size<u32>>,
        buffers: Option<Size<u16>>,
        buffer_size: Option<Size<u32>>,
    ) -> PyResult<Self> {
        let default = Config::default();
        let config = Config {
            entries: entries.map_or(default.entries, |size| size.0),
            buffers: buffers.map_or(default.buffers, |size| size.0),
            buffer_size: buffer_size.map_or(default.buffer_size, |size| size.0),
            ..default
        };
        match config.check() {
            Ok(()) => Ok(Self { config }),
            Err(reason) => Err(PyValueError::new_err(reason.to_string())),
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

/// How a `ProactorEventLoop` uses an I/O completion port.
///
/// `concurrency` is how many threads may run for it at the same time; one does, whatever it is.
///
/// Source: asyncio's `IocpProactor` (`windows_events.py`).
#[pyclass(frozen, module = "oxloop._native")]
pub(crate) struct IocpProactor {
    /// How many threads may run for it at the same time.
    #[pyo3(get)]
    concurrency: u32,
}

#[pymethods]
impl IocpProactor {
    #[new]
    #[pyo3(signature = (concurrency=4_294_967_295))]
    fn new(concurrency: u32) -> Self {
        Self { concurrency }
    }

    fn __repr__(&self) -> String {
        format!("IocpProactor(concurrency={})", self.concurrency)
    }
}

/// What a `ProactorEventLoop` is made with.
#[derive(FromPyObject)]
pub(crate) enum Settings<'py> {
    IoUring(Bound<'py, IoUringProactor>),
    Iocp(#[allow(dead_code)] Bound<'py, IocpProactor>),
}

impl Settings<'_> {
    fn config(&self) -> Config {
        match self {
            Self::IoUring(proactor) => proactor.get().config,
            Self::Iocp(_) => Config::default(),
        }
    }

    /// The name of its class.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::IoUring(_) => "IoUringProactor",
            Self::Iocp(_) => "IocpProactor",
        }
    }
}

/// A size as the caller gives it. What no number of the type can be becomes 0, which is out of range, too.
struct Size<N>(N);

impl<'a, 'py, N> FromPyObject<'a, 'py> for Size<N>
where
    N: Default + FromPyObject<'a, 'py, Error = PyErr>,
{
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<N>() {
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                Ok(Self(N::default()))
            }
            size => size.map(Self),
        }
    }
}

/// Why this process can have no proactor; `None` if it can.
pub(crate) fn unavailable() -> Option<String> {
    proactor::probe().err().map(|reason| reason.to_string())
}

/// Whether the system has made a proactor for this process.
static HAD_ONE: AtomicBool = AtomicBool::new(false);

/// A proactor, and what it does for those who watch descriptors.
pub(crate) struct ProactorPoller {
    proactor: Proactor<Chunk, Box<[u8]>>,
    completions: Completions<Chunk, Box<[u8]>>,
    /// By the place of a watch's token: the operations that are under way for it.
    under_way: Pages<UnderWay>,
    /// From how many bytes at a time on it is better to tell of readiness: those of a buffer, at most.
    much: usize,
    /// Whether those who read data or connections are given them; otherwise they are told of readiness.
    completes: bool,
    /// For the data of pipes.
    spare: Vec<Box<[u8]>>,
    /// Whether the loop does not run: descriptors that are watched may be closed, and be others' when it does.
    suspended: bool,
}

/// How many buffers for the data of pipes are kept.
const SPARE: usize = 8;

/// How many bytes are read from a pipe at most at a time, as asyncio has it.
const READ_SIZE: usize = 64 * 1024;

/// The operations by which one descriptor is watched. They bear the token of the watch as their owner's.
#[derive(Clone, Copy, Default)]
struct UnderWay {
    /// Tells of readiness.
    poll: Option<Token>,
    /// Receives, accepts, or reads from a pipe that has no readiness.
    read: Option<Token>,
    /// Writes to a pipe that has no readiness.
    write: Option<Token>,
    fd: RawFd,
    /// Which file that was when it was watched.
    file: Option<FileId>,
    /// Whether the poll pauses.
    paused: bool,
}

impl UnderWay {
    fn is_any(&self) -> bool {
        self.operations().next().is_some()
    }

    fn operations(&self) -> impl Iterator<Item = Token> + use<> {
        [self.poll, self.read, self.write].into_iter().flatten()
    }

    /// Notes that an operation has ended.
    fn end(&mut self, operation: Token) {
        for place in [&mut self.poll, &mut self.read, &mut self.write] {
            *place = place.filter(|under_way| *under_way != operation);
        }
    }
}

/// What whoever watches a descriptor is told.
pub(crate) enum Told {
    Ready(Interest),
    Arrived(Arrival),
    /// What has become of what was written.
    Written(Arrival),
}

impl ProactorPoller {
    /// What a `ProactorEventLoop` waits in.
    pub(super) fn new(settings: &Settings<'_>) -> PyResult<Self> {
        Self::with(settings.config(), true, "ProactorEventLoop")
    }

    /// What a `SelectorEventLoop` waits in where that is better than any selector: it tells of readiness alone, but
    /// for pipes that have none.
    pub(super) fn for_readiness() -> PyResult<Self> {
        Self::with(Config::default(), false, "SelectorEventLoop")
    }

    fn with(config: Config, completes: bool, class: &str) -> PyResult<Self> {
        // Where there was a proactor before, the next one is made when it is needed.
        let proactor =
            if HAD_ONE.load(Relaxed) { Proactor::lazy(config) } else { Proactor::new(config) };
        let proactor = proactor.map_err(|reason| {
            PyRuntimeError::new_err(format!("{class} cannot be had: {reason}"))
        })?;
        HAD_ONE.store(true, Relaxed);
        Ok(Self {
            proactor,
            completions: Completions::new(),
            under_way: Pages::new(),
            much: MUCH.min(config.buffer_size as usize),
            completes,
            spare: Vec::new(),
            suspended: true,
        })
    }

    /// Whether those who read data are given it.
    pub(crate) fn completes(&self) -> bool {
        self.completes
    }

    pub(super) fn waker(&self) -> io::Result<Waker> {
        self.proactor.waker()
    }

    pub(super) fn name(&self) -> &'static str {
        self.proactor.name()
    }

    /// Watches a descriptor for the owner `token`. What was watched before the kernel lets go of at once.
    pub(super) fn apply(&mut self, fd: RawFd, token: Token, change: Change) -> io::Result<()> {
        let Change { before, after, reading, operated } = change;
        if operated {
            self.operate(fd, token, change);
            return Ok(());
        }
        let file = if !before.contains(after) {
            // As a selector does, and not at the next wait.
            Some(sys::descriptor::check_pollable(fd)?)
        } else if before == after {
            sys::descriptor::file_of(fd)
        } else {
            self.under_way.get(token.index()).and_then(|under_way| under_way.file)
        };
        let polled = match reading {
            Reading::Readiness | Reading::All | Reading::MuchData => after,
            Reading::Data | Reading::Connections if !self.completes => after,
            Reading::Data | Reading::Connections | Reading::Rests | Reading::Pipe => {
                after.without(Interest::READABLE)
            }
        };
        let completes = matches!(reading, Reading::Data | Reading::Connections);
        let reads = after.is_readable() && completes && self.completes;
        let is_patient = matches!(reading, Reading::All | Reading::MuchData);
        let is_patient = is_patient && polled == Interest::READABLE;
        let place = self.place(token);
        let UnderWay { poll, read, file: before, paused, .. } = self.under_way[place];
        if let Some(poll) = poll
            && file.is_some()
            && file == before
        {
            if paused && is_patient {
                self.proactor.resume_poll(poll);
                self.under_way[place].paused = false;
                return Ok(());
            }
            // And not to its end.
            let pauses = reading == Reading::Rests && after == Interest::READABLE;
            if pauses && self.proactor.pause_poll(poll) {
                self.under_way[place].paused = true;
                return Ok(());
            }
        }
        // Also for the same directions: the descriptor may be that of another file by now.
        if let Some(poll) = poll {
            self.proactor.withdraw(poll);
        }
        if let Some(read) = read
            && !reads
        {
            self.proactor.withdraw(read);
        }
        let poll = Operation::Poll { fd, interest: polled };
        let poll = (!polled.is_empty()).then(|| self.proactor.submit(token, poll));
        if let Some(poll) = poll.filter(|_| is_patient) {
            self.proactor.set_patient(poll);
        }
        let receive = match reading {
            Reading::Connections => Operation::Accept { fd },
            _ => Operation::Receive { fd },
        };
        let read = reads.then(|| read.unwrap_or_else(|| self.proactor.submit(token, receive)));
        self.under_way[place] = UnderWay { poll, read, write: None, fd, file, paused: false };
        Ok(())
    }

    fn place(&mut self, token: Token) -> usize {
        let place = token.index();
        while self.under_way.len() <= place {
            self.under_way.push(UnderWay::default());
        }
        place
    }

    /// The same for a pipe that has no readiness. What is read during a pause is read to its end.
    fn operate(&mut self, fd: RawFd, token: Token, change: Change) {
        let Change { after, reading, .. } = change;
        let place = self.place(token);
        let UnderWay { poll, mut read, mut write, .. } = self.under_way[place];
        if !after.is_writable()
            && let Some(write) = write.take()
        {
            self.proactor.withdraw(write);
        }
        if !after.is_readable()
            && let Some(read) = read.take()
        {
            self.proactor.withdraw(read);
        }
        if reading == Reading::Pipe && after.is_readable() && read.is_none() {
            let buffer = self.spare.pop().unwrap_or_else(|| vec![0; READ_SIZE].into());
            read = Some(self.proactor.submit(token, Operation::Read { fd, buffer }));
        }
        let file = sys::descriptor::file_of(fd);
        self.under_way[place] = UnderWay { poll, read, write, fd, file, paused: false };
    }

    /// Somebody who reads all there is has read less.
    pub(crate) fn hurry(&mut self) {
        self.proactor.hurry();
    }

    /// Writes to a pipe that has no readiness, for the owner `token`.
    pub(crate) fn write(&mut self, fd: RawFd, token: Token, buffers: Vec<Chunk>) {
        let place = self.place(token);
        let write = self.proactor.submit(token, Operation::Write { fd, buffers, skip: 0 });
        self.under_way[place].write = Some(write);
    }

    /// Keeps the buffer of a pipe's data for the next.
    pub(crate) fn give_back(&mut self, buffer: Box<[u8]>) {
        keep_spare(&mut self.spare, buffer);
    }

    /// Runs `use_data` on the data of a chunk, whose buffer is free again then.
    pub(crate) fn take<R>(
        &mut self,
        chunk: proactor::Chunk,
        use_data: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let result = use_data(self.proactor.bytes(&chunk));
        self.proactor.recycle(chunk);
        result
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if std::mem::take(&mut self.suspended) {
            self.forget_closed();
        }
        self.proactor.wait(&mut self.completions, timeout)
    }

    /// Takes everything back from the kernel until the next wait, which another thread may make.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        self.suspended = true;
        self.proactor.suspend(&mut self.completions)
    }

    /// Ceases to watch what its user has closed since it was watched: as a selector does, and whatever file has the number
    /// by now.
    fn forget_closed(&mut self) {
        for under_way in self.under_way.iter_mut().filter(|under_way| under_way.is_any()) {
            if under_way.file.is_some() && under_way.file == sys::descriptor::file_of(under_way.fd)
            {
                continue;
            }
            for operation in std::mem::take(under_way).operations() {
                self.proactor.withdraw(operation);
            }
        }
    }

    /// Takes out what has come, and tells each owner; he gives back what he does not want.
    pub(crate) fn tell(&mut self, mut tell: impl FnMut(Token, Told) -> Option<Arrival>) {
        for completion in self.completions.drain() {
            let Completion { token, owner, result, returned, more } = completion;
            if !more && let Some(under_way) = self.under_way.get_mut(owner.index()) {
                under_way.end(token);
            }
            let told = match (returned, result) {
                (Returned::Readiness(readiness), _) => {
                    let under_way = self.under_way.get(owner.index());
                    // Its owner may watch by another operation by now.
                    if under_way.is_none_or(|under_way| under_way.poll != Some(token)) {
                        continue;
                    }
                    Told::Ready(readiness)
                }
                (Returned::Chunk(chunk), _) => {
                    let is_much = chunk.len() >= self.much;
                    Told::Arrived(Arrival::Data { chunk, is_much })
                }
                (Returned::Connection(connection), _) => {
                    Told::Arrived(Arrival::Connection(connection))
                }
                (Returned::Buffer(buffer), Ok(count)) if count > 0 => {
                    Told::Arrived(Arrival::Filled(Box::new(Filled { buffer, count })))
                }
                (Returned::Buffers(chunks), Ok(count)) => {
                    Told::Written(Arrival::Written(Box::new(Written { chunks, count })))
                }
                (_, Ok(_)) if !more => Told::Arrived(Arrival::End),
                (returned, Err(error)) => match error.raw_os_error() {
                    // Withdrawn.
                    None | Some(sys::os_error::ECANCELED) => continue,
                    Some(errno) => match returned {
                        Returned::Buffers(_) => Told::Written(Arrival::Failed(errno)),
                        _ => Told::Arrived(Arrival::Failed(errno)),
                    },
                },
                _ => continue,
            };
            match tell(owner, told) {
                Some(Arrival::Data { chunk, .. }) => self.proactor.recycle(chunk),
                Some(Arrival::Filled(filled)) => keep_spare(&mut self.spare, filled.buffer),
                _ => {}
            }
        }
    }
}

/// Keeps a buffer for the next data of a pipe, if there are not enough of them.
fn keep_spare(spare: &mut Vec<Box<[u8]>>, buffer: Box<[u8]>) {
    if spare.len() < SPARE {
        spare.push(buffer);
    }
}
