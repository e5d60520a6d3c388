//! What every transport of a descriptor is, a stream, datagrams or a pipe: watched by the loop, flow control towards
//! a protocol, and one way from open to lost.
//!
//! The steps of that way stand here once, for whatever is an [`Endpoint`]. Reading begins in
//! [`start_reading`] and ends in [`stop_reading`], whoever asks for it. As everywhere in transports, a step borrows
//! the state, decides, ends the borrow, and only then calls anybody.

mod closing;
mod keeping;
mod methods;
mod reading;
mod writing;

use oxloop_engine::flow::FlowControl;
use pyo3::PyClass;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;

use self::keeping::Keeping;
use super::phase::Phase;
use super::watch::Watch;
use crate::cell::LoopCell;
use crate::core::{Core, Reader, Run};
use crate::coroutine;
use crate::ffi::{self, Ref};
use crate::report;

pub(super) use closing::{close, dropped, fatal, force, lose_now, lost, queue_lost};
pub(super) use keeping::{keep_nothing, keeps, queued, take_kept};
pub(super) use methods::{endpoint_methods, socket_methods};
pub(super) use reading::{
    Piece, change_reading, end, is_reading, pause, read_again, resume, start_reading, stop_reading,
};
pub(super) use writing::{
    drained, grown, set_limits, shrunk, start_writing, stop_writing, tell_flow,
};

/// A transport of a descriptor that the loop watches.
pub(super) trait Endpoint: PyClass<Frozen = True> + Sync {
    type State: State;

    /// What the loop runs when there is room for what is queued.
    const WRITABLE: Run;
    /// What is said of an error that came of writing.
    const WRITE_FAILED: &'static str;

    fn core(&self) -> &Ref<Core>;
    fn watch(&self) -> &Watch;
    fn state(&self) -> &LoopCell<Self::State>;

    /// The transport's `repr()`.
    fn text(&self) -> String;

    /// What the loop runs when the descriptor is readable, or something has come; `None` if nothing can be learnt
    /// from that.
    fn reader(&self) -> Option<Reader>;

    /// An error if the descriptor is no longer what it was: its user may have closed it.
    fn check_open(_transport: &Bound<'_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// Reading pauses.
    fn paused(_transport: &Bound<'_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// Reading goes on: what had come before, and was kept, can be delivered.
    fn resumed(_transport: &Bound<'_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// What becomes of an error of the selector, which does not tell when the descriptor is readable.
    fn unwatchable(transport: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        fatal(transport, error, "Fatal error on transport")
    }

    /// Whether the loop goes on to tell of the descriptor while a closing transport sends what is queued.
    fn reads_until_lost(&self) -> bool {
        false
    }

    /// Whether a fatal `error` is one that connections end by: the protocol hears of it, and the exception handler
    /// does not.
    fn is_ordinary(&self, py: Python<'_>, error: &PyErr) -> bool {
        error.is_instance_of::<PyOSError>(py)
    }

    /// What has to happen before a transport begins to close.
    fn before_close(_transport: &Bound<'_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// Sends what was written and kept for the end of the callback.
    fn send_kept(_transport: &Bound<'_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// What has to happen before the protocol hears that its connection is gone.
    fn before_lost(_transport: &Bound<'_, Self>, _reason: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(())
    }

    /// Closes what the transport owns, and takes leave of whoever knows it.
    fn release(transport: &Bound<'_, Self>) -> PyResult<()>;

    /// Closes what a transport owns that nobody refers to any more, not even the loop.
    fn abandon(&self, py: Python<'_>) -> PyResult<()>;

    /// The protocol, until it has been told that the connection is lost.
    fn protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let state = self.state().borrow();
        state.life().protocol.as_ref().map(|protocol| protocol.bind(py).clone())
    }

    /// Writes `repr(transport) what` to the log at `level`, in debug mode.
    fn log(transport: &Bound<'_, Self>, level: &str, what: &str) -> PyResult<()> {
        if transport.get().core().get().debug() {
            let text = format!("{} {what}", transport.as_any().repr()?);
            report::log(transport.py(), level, &text)?;
        }
        Ok(())
    }
}

/// The state of a transport, as the steps see it.
pub(super) trait State {
    /// What waits.
    type Queued;

    fn life(&self) -> &Life;
    fn life_mut(&mut self) -> &mut Life;

    /// Whether what the transport owns has been closed.
    fn is_closed(&self) -> bool;

    /// Whether nothing waits to be sent.
    fn is_drained(&self) -> bool;

    /// How much waits to be sent, in bytes, as flow control counts it.
    fn size(&self) -> usize;

    /// How many pieces wait to be sent.
    fn pieces(&self) -> usize;

    /// Takes out what waits to be sent, or to be delivered: to be dropped outside of the borrow.
    fn clear(&mut self) -> Self::Queued;
}

/// How far a transport has come, and with whom.
pub(super) struct Life {
    pub(super) phase: Phase,
    /// `None` once `connection_lost` has been called.
    pub(super) protocol: Option<Ref>,
    pub(super) flow: FlowControl,
    /// How often something was written in vain.
    pub(super) lost_writes: u32,
    /// What is kept for the end of a callback.
    keeping: Keeping,
    /// Resolved when the connection is made; taken then.
    waiter: Option<Ref>,
    /// What `get_extra_info` knows.
    pub(super) extra: Ref<PyDict>,
}

impl Life {
    pub(super) fn new(
        protocol: &Bound<'_, PyAny>,
        waiter: Option<&Bound<'_, PyAny>>,
        extra: Bound<'_, PyDict>,
    ) -> Self {
        Self {
            phase: Phase::Open,
            protocol: Some(protocol.into()),
            flow: FlowControl::new(),
            lost_writes: 0,
            keeping: Keeping::default(),
            waiter: waiter.map(Ref::from),
            extra: extra.into(),
        }
    }

    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in [&self.protocol, &self.waiter].into_iter().flatten() {
            visit.call(&**object)?;
        }
        visit.call(&*self.extra)
    }

    /// Takes out what may be part of a cycle.
    pub(super) fn clear(&mut self) -> impl Sized + use<> {
        (self.protocol.take(), self.waiter.take())
    }
}

/// The protocol has been told of its connection: starts to read, and resolves the waiter, two callbacks with asyncio.
pub(super) fn opened<T: Endpoint>(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<T>(transport);
    let watched = start_reading(transport);
    let waiter = transport.get().state().borrow_mut().life_mut().waiter.take();
    if let Some(waiter) = waiter {
        coroutine::resolve(waiter.bind(transport.py()))?;
    }
    watched
}

/// The text of a transport of a socket.
pub(super) fn socket_text<T: Endpoint>(this: &T, name: &str) -> String {
    let (state, watch) = (this.state().borrow(), this.watch());
    let fd = watch.fd();
    if state.is_closed() {
        return format!("<{name} closed fd={fd}>");
    }
    let closing = if state.life().phase.is_closing() { " closing" } else { "" };
    let (reads, writes) = (polling(watch.reads()), polling(watch.writes()));
    let size = state.size();
    format!("<{name}{closing} fd={fd} read={reads} write=<{writes}, bufsize={size}>>")
}

/// How the text of a transport says whether the loop watches.
pub(super) fn polling(watching: bool) -> &'static str {
    if watching { "polling" } else { "idle" }
}
