//! Where a loop waits: a native selector or proactor of the engine, or a user's own `selectors.BaseSelector`,
//! which is honoured through its own methods.
//!
//! While a thread waits in a native poller, the poller is not in its place: another thread that calls
//! `add_reader` on the loop (which asyncio forbids) finds it gone and gets a `RuntimeError`.

mod proactor;

use std::io;
use std::time::Duration;

use oxloop_engine::proactor as engine;
use oxloop_engine::sys::fd::RawFd;
use oxloop_engine::{Events, Interest, Selector, SelectorKind, Token, Waker};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;

pub(crate) use self::proactor::{
    IoUringProactor, IocpProactor, ProactorPoller, Settings, Told, unavailable,
};
use crate::error::os_error;
use crate::ffi::Ref;
use crate::imports::imports;

/// Events that one wait can report; more come with the next turn.
const EVENT_CAPACITY: usize = 1024;

/// What the engine offers to wait in.
#[allow(
    clippy::large_enum_variant,
    reason = "it is always in a box, and large on some systems only"
)]
pub(crate) enum NativePoller {
    /// A selector, and the buffer that its events land in.
    Selector { selector: Selector, events: Events },
    /// A proactor, by whose operations descriptors are watched.
    Proactor(ProactorPoller),
}

/// Where the loop waits.
#[derive(Default)]
pub(crate) enum Poller {
    /// Before `__init__` and after `close`.
    #[default]
    Closed,
    /// `None` while the loop's thread waits in it.
    Native(Option<Box<NativePoller>>),
    /// A subclass of `selectors.BaseSelector` that is none of the standard library's own.
    Python(Ref),
}

impl Poller {
    /// The poller for the `selector` argument of `SelectorEventLoop`: the platform's best for `None`, the
    /// native one of the same kind for a selector of the standard library, otherwise the object itself.
    ///
    /// # Errors
    /// `TypeError` for an object that is no selector; `OSError` from the kernel.
    pub(crate) fn new(selector: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let Some(selector) = selector else {
            return if engine::SERVES_SELECTORS {
                Ok(Self::of(ProactorPoller::for_readiness()?))
            } else {
                Self::native(SelectorKind::best())
            };
        };
        let py = selector.py();
        let selectors = imports(py).selectors.bind(py);
        for kind in SelectorKind::available() {
            if let Some(name) = class_name(*kind)
                && let Ok(class) = selectors.getattr(name)
                && selector.get_type().is(&class)
            {
                return Self::native(*kind);
            }
        }
        if !selector.is_instance(&selectors.getattr(intern!(py, "BaseSelector"))?)? {
            return Err(PyTypeError::new_err(format!(
                "selector must be a selectors.BaseSelector, not {}",
                selector.get_type().name()?
            )));
        }
        Ok(Self::Python(selector.into()))
    }

    fn native(kind: SelectorKind) -> PyResult<Self> {
        let selector = Selector::new(kind).map_err(|error| os_error(&error))?;
        let events = Events::with_capacity(EVENT_CAPACITY);
        Ok(Self::Native(Some(Box::new(NativePoller::Selector { selector, events }))))
    }

    /// The poller for the `proactor` argument of `ProactorEventLoop`.
    ///
    /// # Errors
    /// `RuntimeError` with the reason where there is none.
    pub(crate) fn completing(settings: &Settings<'_>) -> PyResult<Self> {
        Ok(Self::of(ProactorPoller::new(settings)?))
    }

    fn of(proactor: ProactorPoller) -> Self {
        Self::Native(Some(Box::new(NativePoller::Proactor(proactor))))
    }

    /// What lets other threads end its waits.
    pub(crate) fn waker(&self) -> io::Result<Waker> {
        match self {
            Self::Native(Some(native)) => match &**native {
                NativePoller::Selector { .. } => Waker::new(),
                NativePoller::Proactor(proactor) => proactor.waker(),
            },
            _ => Waker::new(),
        }
    }

    /// The name of the class in `selectors` that stands for the backend, or of the user's.
    pub(crate) fn class_name(&self, py: Python<'_>) -> PyResult<String> {
        match self {
            Self::Python(selector) => Ok(selector.bind(py).get_type().name()?.to_string()),
            _ => Ok(self.kind().and_then(class_name).unwrap_or("IocpProactor").to_owned()),
        }
    }

    /// The engine's name of the backend; `None` for a selector written in Python, and during a wait.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self {
            Self::Native(Some(native)) => Some(match &**native {
                NativePoller::Selector { selector, .. } => selector.kind().name(),
                NativePoller::Proactor(proactor) => proactor.name(),
            }),
            _ => None,
        }
    }

    fn kind(&self) -> Option<SelectorKind> {
        match self {
            Self::Native(Some(native)) => match &**native {
                NativePoller::Selector { selector, .. } => Some(selector.kind()),
                NativePoller::Proactor(_) => None,
            },
            _ => None,
        }
    }
}

/// The class in `selectors` that stands for a native kind.
fn class_name(kind: SelectorKind) -> Option<&'static str> {
    Some(match kind {
        SelectorKind::Epoll => "EpollSelector",
        SelectorKind::Kqueue => "KqueueSelector",
        SelectorKind::Poll => "PollSelector",
        SelectorKind::Select => "SelectSelector",
        #[allow(unreachable_patterns)]
        _ => return None,
    })
}

/// What a descriptor was watched for, and what it is to be watched for: the same, if somebody else is to be told.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    pub(crate) before: Interest,
    pub(crate) after: Interest,
    /// What is wanted of it as far as it is readable.
    pub(crate) reading: Reading,
    /// Whether it is a pipe that is read from and written to by operations.
    pub(crate) operated: bool,
}

/// What is to come of a descriptor that is readable. A selector tells of readiness, whatever is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The news of it.
    Readiness,
    /// The same, for one who reads all there is.
    All,
    /// The data.
    Data,
    /// The same as `All`, and the data that came while that was wanted.
    MuchData,
    /// Nothing at present, but the data that came while that was wanted.
    Rests,
    /// The connections.
    Connections,
    /// The data of a pipe that has no readiness, once.
    Pipe,
}

/// The change as a selector sees it.
enum Call {
    Register(Interest),
    Modify(Interest),
    Deregister,
}

impl Change {
    fn call(self) -> Call {
        if self.before.is_empty() {
            Call::Register(self.after)
        } else if self.after.is_empty() {
            Call::Deregister
        } else {
            Call::Modify(self.after)
        }
    }
}

impl NativePoller {
    /// Submits what there is, and waits until a descriptor is ready.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Selector { selector, events } => selector.wait(events, timeout),
            Self::Proactor(proactor) => proactor.wait(timeout),
        }
    }

    pub(crate) fn apply(&mut self, fd: RawFd, token: Token, change: Change) -> io::Result<()> {
        match self {
            Self::Selector { selector, .. } => match change.call() {
                Call::Register(interest) => selector.register(fd, token, interest),
                Call::Modify(interest) => selector.modify(fd, token, interest),
                Call::Deregister => selector.deregister(fd),
            },
            Self::Proactor(proactor) => proactor.apply(fd, token, change),
        }
    }
}

/// Tells a Python selector about a change.
pub(crate) fn apply_python(selector: &Bound<'_, PyAny>, fd: RawFd, change: Change) -> PyResult<()> {
    let py = selector.py();
    match change.call() {
        Call::Register(interest) => {
            selector.call_method1(intern!(py, "register"), (fd, mask(interest)))
        }
        Call::Modify(interest) => {
            selector.call_method1(intern!(py, "modify"), (fd, mask(interest)))
        }
        Call::Deregister => selector.call_method1(intern!(py, "unregister"), (fd,)),
    }
    .map(drop)
}

/// Waits in a Python selector; the descriptors that are ready and in which directions.
pub(crate) fn select_python(
    selector: &Bound<'_, PyAny>,
    timeout: Option<Duration>,
) -> PyResult<Vec<(RawFd, Interest)>> {
    let py = selector.py();
    let seconds = timeout.map(|timeout| timeout.as_secs_f64());
    let ready = selector.call_method1(intern!(py, "select"), (seconds,))?;
    let mut events = Vec::new();
    for item in ready.try_iter()? {
        let (key, bits): (Bound<'_, PyAny>, u8) = item?.extract()?;
        let fd: RawFd = key.getattr(intern!(py, "fd"))?.extract()?;
        let mut readiness = Interest::NONE;
        if bits & 1 != 0 {
            readiness = readiness.with(Interest::READABLE);
        }
        if bits & 2 != 0 {
            readiness = readiness.with(Interest::WRITABLE);
        }
        events.push((fd, readiness));
    }
    Ok(events)
}

/// `EVENT_READ` (1) and `EVENT_WRITE` (2) of the `selectors` module.
fn mask(interest: Interest) -> u8 {
    u8::from(interest.is_readable()) | (u8::from(interest.is_writable()) << 1)
}

/// What another thread gets that touches the selector of a loop that waits in it.
#[cold]
pub(crate) fn in_use() -> PyErr {
    PyRuntimeError::new_err(
        "Non-thread-safe operation invoked on an event loop other than the current one",
    )
}
