//! The descriptors that a loop watches: who is told of each, and the wait for them.

use oxloop_engine::sys::fd::RawFd;
use oxloop_engine::{Interest, Slots, Token};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyInt, PyWeakrefMethods, PyWeakrefReference};
use rustc_hash::FxHashMap;

use super::{Arrival, Core, Entry, Reader, Receive};
use crate::buffer::Chunk;
use crate::error::os_error;
use crate::ffi::Ref;
use crate::poller::{self, Change, Poller, Reading};

/// Who is told when a descriptor becomes ready. A descriptor has at most one of each.
pub(crate) struct Watch {
    fd: RawFd,
    /// The file object by which the user named the descriptor, if it was none of ours and no number.
    file: Option<Ref>,
    pub(crate) reader: Option<Entry>,
    /// What the reader wants.
    reading: Reading,
    pub(crate) writer: Option<Entry>,
    /// Whether it is a pipe that has no readiness: it is read from and written to by operations.
    operated: bool,
}

/// How somebody watches.
#[derive(Clone, Copy)]
struct Way {
    reading: Reading,
    operated: bool,
}

impl Watch {
    fn interest(&self) -> Interest {
        let mut interest = Interest::NONE;
        if self.reader.is_some() {
            interest = interest.with(Interest::READABLE);
        }
        if self.writer.is_some() {
            interest = interest.with(Interest::WRITABLE);
        }
        interest
    }

    fn slot(&mut self, direction: Interest) -> &mut Option<Entry> {
        if direction.is_readable() { &mut self.reader } else { &mut self.writer }
    }
}

/// The watched descriptors: by token for the selector's events, by number for the user's calls.
#[derive(Default)]
pub(crate) struct Watches {
    slots: Slots<Watch>,
    /// By descriptor. Not a table: a selector of the user's may take any number for one.
    tokens: FxHashMap<RawFd, Token>,
    /// How many of them are the loop's own (the waker, the signals): with no other there is nothing to poll.
    pub(crate) internal: usize,
}

impl Watches {
    fn token(&self, fd: RawFd) -> Option<Token> {
        self.tokens.get(&fd).copied()
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Watch> {
        self.slots.get(token)
    }

    pub(crate) fn by_fd(&self, fd: RawFd) -> Option<&Watch> {
        self.slots.get(self.token(fd)?)
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> Vec<Watch> {
        self.tokens.clear();
        self.internal = 0;
        self.slots.drain()
    }

    pub(super) fn visit(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for (_, watch) in self.slots.iter() {
            for entry in watch.reader.iter().chain(watch.writer.iter()) {
                entry.visit(visit)?;
            }
            if let Some(file) = &watch.file {
                visit.call(&**file)?;
            }
        }
        Ok(())
    }

    /// Whether somebody other than the loop itself watches a descriptor.
    pub(crate) fn any_external(&self) -> bool {
        self.slots.len() > self.internal
    }
}

impl Core {
    /// `RuntimeError` while another thread waits in the selector: then nothing may be done that needs it, and
    /// whoever would is to find out before it has changed anything.
    #[inline]
    pub(crate) fn check_selector(&self) -> PyResult<()> {
        match &*self.poller.borrow() {
            Poller::Native(None) => Err(poller::in_use()),
            _ => Ok(()),
        }
    }

    /// Tells `object` what it wants of `fd`, in place of who was told before.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub(crate) fn read(
        &self,
        fd: RawFd,
        object: &Bound<'_, PyAny>,
        reader: Reader,
    ) -> PyResult<()> {
        let entry = reader.entry(object.into());
        let reading = match reader {
            Reader::Readable(_) | Reader::SomeData(_) => Reading::Readiness,
            Reader::All(_) => Reading::All,
            Reader::MuchData(_) => Reading::MuchData,
            Reader::Data(_) => Reading::Data,
            Reader::Connections(_) => Reading::Connections,
            Reader::Pipe(_) => Reading::Pipe,
        };
        let way = Way { reading, operated: reading == Reading::Pipe };
        let replaced = self.watch_as(object.py(), fd, Interest::READABLE, entry, way)?;
        drop(replaced);
        Ok(())
    }

    /// Tells `entry` whenever `fd` is ready in `direction` (one of the two). Returns what was told before.
    ///
    /// # Errors
    /// `OSError` from the selector: a closed descriptor, or one that it cannot watch. Then nothing changed.
    pub(crate) fn watch(
        &self,
        py: Python<'_>,
        fd: RawFd,
        direction: Interest,
        entry: Entry,
    ) -> PyResult<Option<Entry>> {
        let way = Way { reading: Reading::Readiness, operated: false };
        self.watch_as(py, fd, direction, entry, way)
    }

    /// Writes `chunks` to the pipe `fd`, which has no readiness, and tells `object` when they have gone: before that
    /// nothing else may be written.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub(crate) fn write(
        &self,
        fd: RawFd,
        object: &Bound<'_, PyAny>,
        run: Receive,
        chunks: Vec<Chunk>,
    ) -> PyResult<()> {
        let entry = Entry::Arrival { object: object.into(), run, arrival: Arrival::Readable };
        let way = Way { reading: Reading::Readiness, operated: true };
        let replaced = self.watch_as(object.py(), fd, Interest::WRITABLE, entry, way)?;
        drop(replaced);
        let Some(token) = self.watches.borrow().token(fd) else { return Ok(()) };
        self.with_proactor(|proactor| proactor.write(fd, token, chunks)).ok_or_else(poller::in_use)
    }

    fn watch_as(
        &self,
        py: Python<'_>,
        fd: RawFd,
        direction: Interest,
        entry: Entry,
        way: Way,
    ) -> PyResult<Option<Entry>> {
        let Way { reading, operated } = way;
        let (token, before, read_before, is_new) = {
            let mut watches = self.watches.borrow_mut();
            if let Some(token) = watches.token(fd) {
                let watch = watches.get(token);
                let interest = watch.map_or(Interest::NONE, Watch::interest);
                let reading = watch.map_or(Reading::Readiness, |watch| watch.reading);
                (token, interest, reading, false)
            } else {
                let reading = Reading::Readiness;
                let watch = Watch { fd, file: None, reader: None, reading, writer: None, operated };
                (watches.slots.insert(watch), Interest::NONE, reading, true)
            }
        };
        let reading = if direction.is_readable() { reading } else { read_before };
        let change = Change { before, after: before.with(direction), reading, operated };
        if let Err(error) = self.apply(py, fd, token, change) {
            let removed = is_new.then(|| self.watches.borrow_mut().slots.remove(token));
            drop(removed);
            return Err(error);
        }
        let mut watches = self.watches.borrow_mut();
        if is_new {
            // Not before the selector has said that there is such a descriptor.
            watches.tokens.insert(fd, token);
        }
        let Some(watch) = watches.slots.get_mut(token) else { return Ok(None) };
        watch.reading = reading;
        Ok(watch.slot(direction).replace(entry))
    }

    /// Stops telling about `fd` in `direction`. Returns what was told, `None` if nothing was.
    pub(crate) fn unwatch(
        &self,
        py: Python<'_>,
        fd: RawFd,
        direction: Interest,
    ) -> PyResult<Option<Entry>> {
        self.check_selector()?;
        let (token, entry, after, reading, operated) = {
            let mut watches = self.watches.borrow_mut();
            let Some(token) = watches.token(fd) else { return Ok(None) };
            let Some(watch) = watches.slots.get_mut(token) else { return Ok(None) };
            let Some(entry) = watch.slot(direction).take() else { return Ok(None) };
            let (interest, reading) = (watch.interest(), watch.reading);
            let operated = watch.operated;
            if interest.is_empty() {
                let removed = watches.slots.remove(token);
                watches.tokens.remove(&fd);
                (token, (entry, removed), interest, reading, operated)
            } else {
                (token, (entry, None), interest, reading, operated)
            }
        };
        let change = Change { before: after.with(direction), after, reading, operated };
        self.apply(py, fd, token, change)?;
        Ok(Some(entry.0))
    }

    /// Notes by which object the user named `fd`.
    pub(crate) fn name_watched(&self, fd: RawFd, file: &Bound<'_, PyAny>) {
        let before = {
            let mut watches = self.watches.borrow_mut();
            let token = watches.token(fd);
            let watch = token.and_then(|token| watches.slots.get_mut(token));
            let name = (!file.is_instance_of::<PyInt>()).then(|| file.into());
            watch.and_then(|watch| std::mem::replace(&mut watch.file, name))
        };
        drop(before);
    }

    /// The descriptor that is watched under the name of `file`.
    pub(crate) fn watched_as(&self, file: &Bound<'_, PyAny>) -> Option<RawFd> {
        let watches = self.watches.borrow();
        let mut all = watches.slots.iter();
        all.find(|(_, watch)| {
            watch.file.as_ref().is_some_and(|name| name.as_ptr() == file.as_ptr())
        })
        .map(|(_, watch)| watch.fd)
    }

    /// Like [`unwatch`](Self::unwatch), if who is told is the native entry of `object`; otherwise nothing changes.
    pub(crate) fn unwatch_object(
        &self,
        py: Python<'_>,
        fd: RawFd,
        direction: Interest,
        object: *mut pyo3::ffi::PyObject,
    ) -> PyResult<Option<Entry>> {
        let ours = self.watches.borrow().by_fd(fd).is_some_and(|watch| {
            let entry = if direction.is_readable() { &watch.reader } else { &watch.writer };
            matches!(entry, Some(Entry::Native { object: told, .. }) if told.as_ptr() == object)
        });
        if ours { self.unwatch(py, fd, direction) } else { Ok(None) }
    }

    fn apply(&self, py: Python<'_>, fd: RawFd, token: Token, change: Change) -> PyResult<()> {
        let selector = match &mut *self.poller.borrow_mut() {
            Poller::Closed => return self.check_closed(),
            Poller::Native(None) => return Err(poller::in_use()),
            Poller::Native(Some(native)) => {
                return native.apply(fd, token, change).map_err(|error| os_error(&error));
            }
            Poller::Python(selector) => selector.clone_ref(py),
        };
        poller::apply_python(selector.bind(py), fd, change)
    }

    /// Lets who reads the data of `fd` rest until [`read`](Self::read) is called again: he is told of what had come by
    /// now, and nothing more is received. False for a loop that receives nothing: it can as well stop to watch.
    pub(crate) fn rest(&self, py: Python<'_>, fd: RawFd) -> PyResult<bool> {
        let completes = self.completes();
        let (token, interest) = {
            let mut watches = self.watches.borrow_mut();
            let Some(token) = watches.token(fd) else { return Ok(false) };
            let Some(watch) = watches.slots.get_mut(token) else { return Ok(false) };
            if watch.reading == Reading::Pipe {
                // What is read is read to its end: an operation that is cancelled may have taken something.
                watch.reading = Reading::Rests;
                return Ok(true);
            }
            if !completes {
                return Ok(false);
            }
            if !matches!(watch.reading, Reading::Data | Reading::MuchData) {
                return Ok(false);
            }
            watch.reading = Reading::Rests;
            (token, watch.interest())
        };
        let reading = Reading::Rests;
        let change = Change { before: interest, after: interest, reading, operated: false };
        self.apply(py, fd, token, change).map(|()| true)
    }

    /// Whether a poll that does not wait could find anything.
    #[inline]
    pub(crate) fn has_watches(&self) -> bool {
        self.watches.borrow().any_external()
            || self.signals.borrow().has_handlers()
            || matches!(*self.poller.borrow(), Poller::Python(_))
    }

    /// Notes that `transport` owns `fd`.
    pub(crate) fn own(&self, fd: RawFd, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let weak = PyWeakrefReference::new(transport)?.unbind();
        let before = self.owners.borrow_mut().insert(fd, weak);
        drop(before);
        Ok(())
    }

    /// `transport` no longer owns `fd`.
    pub(crate) fn disown(&self, fd: RawFd, transport: &Bound<'_, PyAny>) {
        let removed = {
            let mut owners = self.owners.borrow_mut();
            let ours = owners.get(&fd).is_some_and(|weak| {
                weak.bind(transport.py()).upgrade().is_none_or(|owner| owner.is(transport))
            });
            if ours { owners.remove(&fd) } else { None }
        };
        drop(removed);
    }

    /// The open transport that owns `fd`, if there is one.
    fn owner<'py>(&self, py: Python<'py>, fd: RawFd) -> PyResult<Option<Bound<'py, PyAny>>> {
        let owner = self.owners.borrow().get(&fd).and_then(|weak| weak.bind(py).upgrade());
        let Some(owner) = owner else { return Ok(None) };
        let closing = owner.call_method0(intern!(py, "is_closing"))?.is_truthy()?;
        Ok(if closing { None } else { Some(owner) })
    }

    /// `RuntimeError` when a transport owns `fd`.
    pub(crate) fn check_no_transport(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        self.check_no_transport_of(PyInt::new(py, fd).as_any(), fd)
    }

    /// The same for `file`, which has that descriptor.
    pub(crate) fn check_no_transport_of(&self, file: &Bound<'_, PyAny>, fd: RawFd) -> PyResult<()> {
        match self.owner(file.py(), fd)? {
            None => Ok(()),
            Some(transport) => Err(PyRuntimeError::new_err(format!(
                "File descriptor {} is used by transport {}",
                file.repr()?,
                transport.repr()?
            ))),
        }
    }
}
