//! The socket of a transport: a descriptor that we own, or the user's `socket.socket`.
//!
//! A connection that the loop has made or accepted needs no Python object until somebody asks for one with
//! `get_extra_info`; a socket that the user passed stays the owner of its descriptor and is closed by its own method.

use std::io;

use oxloop_engine::sys;
use oxloop_engine::sys::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use oxloop_engine::sys::numbers;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::address;
use crate::error::os_error;
use crate::ffi::{self, Ref};
use crate::imports::imports;

/// Family, type and protocol: the arguments of `socket.socket`.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) family: i32,
    pub(crate) type_: i32,
    pub(crate) protocol: i32,
}

impl Kind {
    /// The kind of a Python socket.
    pub(crate) fn of(socket: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = socket.py();
        Ok(Self {
            family: socket.getattr(intern!(py, "family"))?.extract()?,
            type_: socket.getattr(intern!(py, "type"))?.extract()?,
            protocol: socket.getattr(intern!(py, "proto"))?.extract()?,
        })
    }

    /// A Python socket of this kind for the descriptor `fd`, which it owns from then on.
    pub(crate) fn object(self, py: Python<'_>, fd: RawFd) -> PyResult<Bound<'_, PyAny>> {
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "fileno"), fd)?;
        let class = imports(py).socket_class.bind(py);
        let object = class.call((self.family, self.type_, self.protocol), Some(&keywords))?;
        object.call_method1(intern!(py, "settimeout"), (0.0,))?;
        Ok(object)
    }

    /// A Python socket of this kind that is closed.
    pub(crate) fn closed_object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let class = imports(py).socket_class.bind(py);
        let object = class.call1((self.family, self.type_, self.protocol))?;
        object.call_method0(intern!(py, "close"))?;
        Ok(object)
    }

    pub(crate) fn is_tcp(self) -> bool {
        // `proto` may be 0 for a TCP socket: `socket.socket(AF_INET, SOCK_STREAM)`.
        (self.family == numbers::AF_INET || self.family == numbers::AF_INET6)
            && self.type_ == numbers::SOCK_STREAM
            && (self.protocol == 0 || self.protocol == numbers::IPPROTO_TCP)
    }
}

/// Who owns the descriptor.
pub(crate) enum Socket {
    Descriptor {
        fd: OwnedFd,
        kind: Kind,
    },
    Object {
        object: Ref,
        fd: RawFd,
    },
    /// What kind it was of, if there was no object.
    Closed(Option<Kind>),
}

impl Socket {
    /// The user's socket.
    pub(crate) fn object(socket: &Bound<'_, PyAny>) -> PyResult<Self> {
        let fd = socket.call_method0(intern!(socket.py(), "fileno"))?.extract()?;
        Ok(Self::Object { object: socket.into(), fd })
    }

    /// The user's socket once more, if that is what it is.
    pub(crate) fn shared(&self, py: Python<'_>) -> Option<Ref> {
        match self {
            Self::Object { object, .. } => Some(object.clone_ref(py)),
            Self::Descriptor { .. } | Self::Closed(_) => None,
        }
    }

    /// The address of the peer of a descriptor; a Python socket is asked by its own method, which may be the user's.
    pub(crate) fn peer<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Self::Descriptor { fd, .. } = self else { return Ok(None) };
        // A peer that has gone by now has no address any more.
        let peer = sys::socket::peer_address(fd.as_fd()).ok();
        peer.map(|peer| address::object(py, &peer)).transpose()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Takes the socket out, and leaves it closed.
    pub(crate) fn take(&mut self) -> Self {
        let kind = match self {
            Self::Descriptor { kind, .. } => Some(*kind),
            Self::Object { .. } => None,
            Self::Closed(kind) => *kind,
        };
        std::mem::replace(self, Self::Closed(kind))
    }

    pub(crate) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Object { object, .. } => visit.call(&**object),
            Self::Descriptor { .. } | Self::Closed(_) => Ok(()),
        }
    }

    /// The descriptor; `None` once the socket is closed.
    #[inline]
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Descriptor { fd, .. } => Some(fd.as_fd()),
            Self::Object { fd, .. } => ffi::borrow_fd(*fd),
            Self::Closed(_) => None,
        }
    }

    #[inline]
    pub(crate) fn number(&self, py: Python<'_>) -> Number {
        match self {
            Self::Descriptor { fd, .. } => Number::Known(fd.as_raw_fd()),
            Self::Object { object, .. } => Number::Asked(object.clone_ref(py)),
            Self::Closed(_) => Number::Closed,
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// Gives the descriptor up without closing it: somebody else owns it now.
    pub(crate) fn forget(self) {
        if let Self::Descriptor { fd, .. } = self {
            let _ = fd.into_raw_fd();
        }
    }

    /// Closes the socket; errors of a user's own class come back.
    pub(crate) fn close(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Object { object, .. } => {
                object.bind(py).call_method0(intern!(py, "close")).map(drop)
            }
            Self::Descriptor { fd, .. } => {
                drop(fd);
                Ok(())
            }
            Self::Closed(_) => Ok(()),
        }
    }
}

/// How to come by the number of a descriptor, once nothing of a transport is borrowed any more.
///
/// A user who closes a socket that he has given to a transport frees its number for other files, so such a
/// socket is asked every time.
pub(crate) enum Number {
    Known(RawFd),
    Asked(Ref),
    Closed,
}

impl Number {
    /// The descriptor; `None` once the transport has closed it, `OSError` (EBADF) if the user has.
    #[inline]
    pub(crate) fn open<'a>(self, py: Python<'_>) -> PyResult<Option<BorrowedFd<'a>>> {
        let object = match self {
            Self::Known(fd) => return Ok(ffi::borrow_fd(fd)),
            Self::Closed => return Ok(None),
            Self::Asked(object) => object,
        };
        let fd = ffi::call_method(object.bind(py), intern!(py, "fileno"), &[])?.extract()?;
        match ffi::borrow_fd(fd) {
            None => Err(os_error(&io::Error::from_raw_os_error(sys::os_error::EBADF))),
            open => Ok(open),
        }
    }
}

/// What `get_extra_info("socket")` gives of the socket object of a transport.
///
/// `protocol` is what the connection was made with, if the loop has made it and `object` is of its number: on Windows
/// such a Python socket says 0, whatever it was told (socketmodule.c, `sock_initobj_impl`: no `SO_PROTOCOL`).
pub(crate) fn exposed<'py>(
    object: &Bound<'py, PyAny>,
    transport: &Bound<'py, PyAny>,
    protocol: Option<i32>,
) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = object.py();
    CLASS.import(py, "oxloop._sockets", "TransportSocket")?.call1((object, transport, protocol))
}

/// Switches Nagle's algorithm off and notes the addresses.
pub(crate) fn describe<'py>(
    py: Python<'py>,
    socket: &Socket,
    peer: Option<Bound<'py, PyAny>>,
    extra: &Bound<'py, PyDict>,
) -> PyResult<()> {
    match socket {
        Socket::Descriptor { fd, kind } => {
            if kind.is_tcp() {
                // A connection that is gone already says so when it is read from.
                let _ = sys::socket::set_nodelay(fd.as_fd());
            }
            let local = match sys::socket::local_address(fd.as_fd()) {
                Ok(address) => address::object(py, &address)?,
                Err(_) => py.None().into_bound(py),
            };
            extra.set_item(intern!(py, "sockname"), local)?;
            extra.set_item(intern!(py, "peername"), peer)?;
        }
        Socket::Object { object, .. } => {
            let object = object.bind(py);
            if Kind::of(object)?.is_tcp()
                && let Some(fd) = socket.fd()
            {
                let _ = sys::socket::set_nodelay(fd);
            }
            let name = object.call_method0(intern!(py, "getsockname"));
            extra.set_item(intern!(py, "sockname"), name.ok())?;
            let peer = match peer {
                Some(peer) => Some(peer),
                None => object.call_method0(intern!(py, "getpeername")).ok(),
            };
            extra.set_item(intern!(py, "peername"), peer)?;
        }
        Socket::Closed(_) => {}
    }
    Ok(())
}
