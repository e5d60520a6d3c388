//! The core of a loop: the engine, the descriptors it watches, and what every part of the loop shares.
//!
//! `Core` is the native base class of the loops, so a reference to it is at once the way to the engine and
//! the Python object that the user knows. Transports, servers and flows see this module and never the
//! event loop class: what happens to a descriptor reaches them through the [`Entry`] that they left here.

mod callbacks;
mod data;
mod entry;
mod wait;
mod watches;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use oxloop_engine::sys::datagram::Batch;
use oxloop_engine::sys::fd::RawFd;
use oxloop_engine::{Clock, Engine, Inbox, Timestamp, Token, Waker};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyDict, PyTuple, PyWeakrefReference};
use rustc_hash::FxHashMap;

use crate::buffer::Window;
use crate::cell::{LoopCell, Made};
use crate::ffi::{self, Ref};
use crate::handle::Handle;
use crate::imports::imports;
use crate::poller::Poller;
use crate::signals::Signals;
pub(crate) use callbacks::KeptWrite;
pub(crate) use entry::{Arrival, Entry, Filled, Reader, Receive, Run, Written};
pub(crate) use watches::{Watch, Watches};

/// The native base of every loop; not to be used by itself.
#[pyclass(frozen, subclass, module = "oxloop._native", name = "_Core")]
pub(crate) struct Core {
    made: Made,
    /// What `time` of this loop says, unless it is the user's.
    pub(crate) clock: Clock,
    pub(crate) engine: LoopCell<Engine<Entry>>,
    pub(crate) poller: LoopCell<Poller>,
    pub(crate) watches: LoopCell<Watches>,
    /// Where other threads leave callbacks; `None` before `__init__`, and once the loop is closed, which closes its
    /// descriptor.
    inbox: LoopCell<Option<Arc<Inbox<Entry>>>>,
    pub(crate) signals: LoopCell<Signals>,
    /// What runs once the entries of this turn have: what they have written leaves together then.
    turn_end: LoopCell<VecDeque<Entry>>,
    /// The number of the callback that runs; even while none does.
    callback: AtomicU64,
    /// What that has written and kept for its end; `has_kept` says whether there is something.
    kept: LoopCell<VecDeque<KeptWrite>>,
    has_kept: AtomicBool,
    /// The selector object that the user passed, to be closed with the loop.
    pub(crate) selector: LoopCell<Option<Ref>>,
    /// Where reads of all transports land before they are copied out; `None` while one is in use.
    pub(crate) read_buffer: LoopCell<Option<Box<[u8]>>>,
    /// Where TLS puts what it has decrypted before it is copied out; `None` before the first, and while it is in use.
    plain_buffer: LoopCell<Option<Box<[u8]>>>,
    /// Shows memory of ours to the interpreter's TLS; `None` before the first connection.
    window: LoopCell<Option<Ref<Window>>>,
    /// Where datagrams land; `None` before the first, and while it is in use.
    batch: LoopCell<Option<Box<Batch>>>,
    pub(crate) exception_handler: LoopCell<Option<Ref>>,
    pub(crate) task_factory: LoopCell<Option<Ref>>,
    pub(crate) executor: LoopCell<Option<Ref>>,
    /// The transport that owns each descriptor, weakly: `add_reader` and `sock_*` refuse those.
    owners: LoopCell<FxHashMap<RawFd, Py<PyWeakrefReference>>>,
    /// A `weakref.WeakSet` of the asynchronous generators that were started on this loop.
    pub(crate) asyncgens: LoopCell<Option<Ref>>,
    /// The interpreter's depth of coroutine origin tracking from before debug mode changed it.
    pub(crate) origin_depth: LoopCell<Option<Ref>>,
    pub(crate) asyncgens_shutdown: AtomicBool,
    pub(crate) executor_shutdown: AtomicBool,
    pub(crate) debug: AtomicBool,
    pub(crate) closed: AtomicBool,
    pub(crate) stopping: AtomicBool,
    /// The identifier of the thread that runs the loop, 0 while none does.
    pub(crate) thread: AtomicU64,
    /// Whether `time` was overridden by a subclass or replaced on the instance: then the loop asks it.
    pub(crate) own_clock: AtomicBool,
    /// Whether `call_at` was overridden by a subclass or replaced on the instance: then `call_later` asks it.
    pub(crate) own_call_at: AtomicBool,
    /// Whether `call_soon` was overridden by a subclass or replaced on the instance, whose code sees handles.
    pub(crate) own_call_soon: AtomicBool,
    /// The version of the loop's class for which the three flags above hold; 0 for none.
    pub(crate) class_version: AtomicU32,
    /// The handle that runs, in debug mode, for the reports of what goes wrong in it.
    pub(crate) current_handle: LoopCell<Option<Ref<Handle>>>,
    /// Seconds after which debug mode reports a callback as slow.
    pub(crate) slow_callback_duration: LoopCell<f64>,
}

/// The size of the shared read buffer, in bytes: what asyncio reads at most at a time.
pub(crate) const READ_SIZE: usize = oxloop_engine::volume::MOST;

impl Core {
    /// A core that can queue work but does not poll yet.
    pub(crate) fn new(py: Python<'_>) -> Self {
        Self {
            made: Made::new(),
            clock: Clock::new(imports(py).clock_resolution),
            engine: LoopCell::new(Engine::new()),
            poller: LoopCell::default(),
            watches: LoopCell::default(),
            inbox: LoopCell::default(),
            signals: LoopCell::default(),
            turn_end: LoopCell::default(),
            callback: AtomicU64::new(0),
            kept: LoopCell::default(),
            has_kept: AtomicBool::new(false),
            selector: LoopCell::default(),
            read_buffer: LoopCell::default(),
            plain_buffer: LoopCell::default(),
            window: LoopCell::default(),
            batch: LoopCell::default(),
            exception_handler: LoopCell::default(),
            task_factory: LoopCell::default(),
            executor: LoopCell::default(),
            owners: LoopCell::default(),
            asyncgens: LoopCell::default(),
            origin_depth: LoopCell::default(),
            asyncgens_shutdown: AtomicBool::new(false),
            executor_shutdown: AtomicBool::new(false),
            debug: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            thread: AtomicU64::new(0),
            own_clock: AtomicBool::new(false),
            own_call_at: AtomicBool::new(false),
            own_call_soon: AtomicBool::new(false),
            class_version: AtomicU32::new(0),
            current_handle: LoopCell::default(),
            slow_callback_duration: LoopCell::new(0.1),
        }
    }

    #[inline]
    pub(crate) fn debug(&self) -> bool {
        self.debug.load(Relaxed)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    #[inline]
    pub(crate) fn is_running(&self) -> bool {
        self.thread.load(Relaxed) != 0
    }

    /// `RuntimeError` on a closed loop.
    #[inline]
    pub(crate) fn check_closed(&self) -> PyResult<()> {
        if self.is_closed() {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        Ok(())
    }

    /// The time on the loop's clock.
    #[inline]
    pub(crate) fn now(slf: &Bound<'_, Self>) -> PyResult<Timestamp> {
        if slf.get().own_clock.load(Relaxed) {
            let seconds: f64 = slf.call_method0(intern!(slf.py(), "time"))?.extract()?;
            return Ok(Timestamp::from_seconds(seconds));
        }
        Ok(slf.get().clock.now())
    }

    /// Queues `entry` behind what is queued already, other threads' callbacks included.
    #[inline]
    pub(crate) fn push(&self, entry: Entry) {
        self.receive();
        self.engine.borrow_mut().ready.push(entry);
    }

    /// Queues what other threads have left in the inbox.
    #[inline]
    pub(crate) fn receive(&self) {
        if let Some(inbox) = &*self.inbox.borrow()
            && inbox.is_pending()
        {
            inbox.drain_into(self.engine.borrow_mut().ready.queue_mut());
        }
    }

    /// Shows the garbage collector what is queued, as far as it was hidden: a loop that does not run may be abandoned.
    pub(crate) fn show_queued(&self) {
        self.engine.borrow().ready.iter().for_each(Entry::show);
        if let Some(inbox) = &*self.inbox.borrow() {
            let Ok(()) = inbox.try_for_each::<Infallible>(|entry| {
                entry.show();
                Ok(())
            });
        }
    }

    /// Queues `entry` from whatever thread, and wakes the loop. Gives it back once the loop is closed.
    pub(crate) fn push_threadsafe(&self, entry: Entry) -> Result<(), Entry> {
        match &*self.inbox.borrow() {
            Some(inbox) => inbox.push(entry),
            None => Err(entry),
        }
    }

    /// Lets other threads leave callbacks, if they cannot yet; `waker` tells the loop of them.
    pub(crate) fn open_inbox(&self, waker: Waker) {
        let mut inbox = self.inbox.borrow_mut();
        if inbox.is_none() {
            *inbox = Some(Arc::new(Inbox::new(waker)));
        }
    }

    /// The descriptor that wakes the loop; `None` where it needs none.
    pub(crate) fn waker_fd(&self) -> Option<RawFd> {
        self.inbox.borrow().as_ref().and_then(|inbox| inbox.waker().source())
    }

    /// The waker's descriptor was readable.
    pub(crate) fn drain_waker(&self) {
        if let Some(inbox) = &*self.inbox.borrow() {
            inbox.waker().drain();
        }
    }

    /// Closes the inbox for good; what was in it is for the caller to drop.
    pub(crate) fn close_inbox(&self) -> Vec<Entry> {
        let inbox = self.inbox.take();
        let entries = inbox.map(|inbox| inbox.close()).unwrap_or_default();
        entries.iter().for_each(Entry::show);
        entries
    }

    /// Runs `wait` with the timeout that may be slept for: none if something came in before.
    fn sleep<R>(&self, timeout: Option<Duration>, wait: impl FnOnce(Option<Duration>) -> R) -> R {
        let inbox = self.inbox.borrow().clone();
        let Some(inbox) = inbox.filter(|_| timeout != Some(Duration::ZERO)) else {
            return wait(timeout);
        };
        let timeout = if inbox.prepare_sleep() { timeout } else { Some(Duration::ZERO) };
        let result = wait(timeout);
        inbox.finish_sleep();
        result
    }

    /// Queues `run(object)`.
    #[inline]
    pub(crate) fn push_native(&self, object: Ref, run: Run) -> PyResult<()> {
        self.check_closed()?;
        self.push(Entry::Native { object, run });
        Ok(())
    }

    /// Leaves `run(object)` for the end of this turn, before the loop waits.
    pub(crate) fn push_turn_end(&self, object: Ref, run: Run) {
        self.turn_end.borrow_mut().push_back(Entry::Native { object, run });
    }

    /// What is next to run at the end of this turn.
    #[inline]
    pub(crate) fn pop_turn_end(&self) -> Option<Entry> {
        self.turn_end.borrow_mut().pop_front()
    }

    pub(crate) fn cancel_timer(&self, token: Token) -> Option<Entry> {
        self.engine.borrow_mut().timers.cancel(token)
    }

    pub(crate) fn is_timer(&self, token: Token) -> bool {
        self.engine.borrow().timers.get(token).is_some()
    }

    /// Queues `run(object)` for the time `when`.
    pub(crate) fn push_timer(&self, when: Timestamp, object: Ref, run: Run) -> Token {
        self.engine.borrow_mut().timers.insert(when, Entry::Native { object, run })
    }

    /// A new `asyncio.Future` of this loop.
    #[inline]
    pub(crate) fn future<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let imports = imports(py);
        ffi::call_keyword(&imports.future(py)?, None, imports.loop_keyword.bind(py), slf.as_any())
    }

    /// Runs `use_buffer` on the loop's read buffer.
    pub(crate) fn with_read_buffer<R>(&self, use_buffer: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer =
            self.read_buffer.take().unwrap_or_else(|| vec![0; READ_SIZE].into_boxed_slice());
        let result = use_buffer(&mut buffer);
        self.read_buffer.set(Some(buffer));
        result
    }

    /// Runs `use_buffer` on the loop's buffer for what TLS has decrypted.
    pub(crate) fn with_plain_buffer<R>(&self, use_buffer: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer =
            self.plain_buffer.take().unwrap_or_else(|| vec![0; READ_SIZE].into_boxed_slice());
        let result = use_buffer(&mut buffer);
        self.plain_buffer.set(Some(buffer));
        result
    }

    /// The loop's window on memory.
    pub(crate) fn window(&self, py: Python<'_>) -> PyResult<Ref<Window>> {
        if let Some(window) = &*self.window.borrow() {
            return Ok(window.clone_ref(py));
        }
        let window: Ref<Window> = Bound::new(py, Window::new())?.into();
        self.window.set(Some(window.clone_ref(py)));
        Ok(window)
    }

    /// Runs `use_batch` on the loop's batch of datagrams.
    pub(crate) fn with_batch<R>(&self, use_batch: impl FnOnce(&mut Batch) -> R) -> R {
        let mut batch = self.batch.take().unwrap_or_default();
        let result = use_batch(&mut batch);
        self.batch.set(Some(batch));
        result
    }

    /// Everything that the loop still holds, for the caller to drop: queues, timers, watches.
    pub(crate) fn take_everything(&self) -> (Vec<Entry>, Vec<Watch>, VecDeque<KeptWrite>) {
        let mut entries: Vec<Entry> = Vec::new();
        {
            let mut engine = self.engine.borrow_mut();
            entries.extend(engine.ready.drain());
            entries.extend(engine.timers.drain());
        }
        entries.extend(self.turn_end.take());
        entries.iter().for_each(Entry::show);
        (entries, self.watches.borrow_mut().drain(), self.kept.take())
    }
}

#[pymethods]
impl Core {
    /// Arguments are for `__init__`, and a subclass may give it others.
    #[new]
    #[pyo3(signature = (*_args, **_keywords))]
    fn py_new(
        py: Python<'_>,
        _args: &Bound<'_, PyTuple>,
        _keywords: Option<&Bound<'_, PyDict>>,
    ) -> Self {
        Self::new(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.made.is_set() {
            return Ok(());
        }
        if let Some(engine) = self.engine.try_borrow() {
            for entry in engine.ready.iter().chain(engine.timers.iter()) {
                entry.visit(visit)?;
            }
        }
        if let Some(turn_end) = self.turn_end.try_borrow() {
            turn_end.iter().try_for_each(|entry| entry.visit(visit))?;
        }
        if let Some(kept) = self.kept.try_borrow() {
            kept.iter().try_for_each(|kept| kept.visit(&visit))?;
        }
        if let Some(watches) = self.watches.try_borrow() {
            watches.visit(visit)?;
        }
        for cell in [
            &self.selector,
            &self.exception_handler,
            &self.task_factory,
            &self.executor,
            &self.asyncgens,
        ] {
            if let Some(value) = cell.try_borrow()
                && let Some(value) = value.as_ref()
            {
                visit.call(&**value)?;
            }
        }
        if let Some(signals) = self.signals.try_borrow() {
            signals.visit(visit)?;
        }
        if let Some(poller) = self.poller.try_borrow()
            && let Poller::Python(selector) = &*poller
        {
            visit.call(&**selector)?;
        }
        if let Some(inbox) = self.inbox.try_borrow()
            && let Some(inbox) = inbox.as_ref()
        {
            inbox.try_for_each(|entry| entry.visit(visit))?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let everything = self.take_everything();
        let others = (
            self.exception_handler.take(),
            self.task_factory.take(),
            self.executor.take(),
            self.asyncgens.take(),
            self.signals.take(),
            self.close_inbox(),
        );
        drop((everything, others));
    }
}
