//! Sending: at once if the kernel takes a datagram, otherwise from a queue whenever there is room again, many with one
//! system call. Where callbacks send more than one, these are kept until the callback ends, and leave together, too.

use oxloop_engine::sys;
use oxloop_engine::sys::datagram::Outgoing;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use super::receiving::is_transient;
use super::{DatagramTransport, Departure, Target};
use crate::address;
use crate::buffer::{Chunk, View};
use crate::error::{self, os_error};
use crate::ffi::{self, Arguments, FastMethod, Ref, fast_method};
use crate::transports::endpoint::{self, Endpoint};
use crate::transports::protocol::{check_data, log_lost_write};

/// The methods that are called past `PyO3`.
pub(crate) fn methods() -> [FastMethod; 1] {
    [fast_method!(
        c"sendto",
        sendto,
        c"sendto($self, data, addr=None)\n--\n\nSend data (bytes, bytearray or memoryview) to addr without waiting; None is the remote address of the endpoint. A datagram that the kernel does not take at once is buffered."
    )]
}

/// What became of a datagram.
enum Outcome {
    Sent,
    /// There is no room for it.
    Waits,
    Failed(PyErr),
}

fn sendto<'py>(slf: &Bound<'py, PyAny>, arguments: &Arguments<'_, 'py>) -> PyResult<Ref> {
    let py = slf.py();
    let (data, address) = arguments.one_or_two("sendto", ["data", "addr"])?;
    let transport = ffi::cast_known::<DatagramTransport>(slf);
    check_data(data, "bytes-like")?;
    if transport.get().header == 0 && !data.is_truthy()? {
        return Ok(py.None().into());
    }
    transport.get().core.get().check_selector()?;
    let address = address.filter(|address| !address.is_none());
    send(transport, data, address)?;
    Ok(py.None().into())
}

fn send<'py>(
    transport: &Bound<'py, DatagramTransport>,
    data: &Bound<'py, PyAny>,
    address: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let address = destination(transport, address)?;
    let (lost, waits) = {
        let mut state = this.state.borrow_mut();
        // Without a remote address asyncio goes on to send until the socket is closed.
        let lost =
            state.life.phase.is_lost() && (this.remote.is_some() || state.socket.is_closed());
        if lost {
            state.life.lost_writes = state.life.lost_writes.saturating_add(1);
        }
        (lost.then_some(state.life.lost_writes), !state.queue.is_empty())
    };
    if let Some(lost) = lost {
        return log_lost_write(py, lost, "socket.send() raised exception.");
    }
    let view = match View::readable(data) {
        Ok(view) => view,
        Err(error) => return endpoint::fatal(transport, error, DatagramTransport::WRITE_FAILED),
    };
    let target = target_of(this, address);
    let keeps = keeps(transport, view.as_slice().len(), &target);
    if !waits && !keeps {
        match try_send(transport, data, view.as_slice(), &target) {
            Outcome::Sent => return Ok(()),
            Outcome::Waits => endpoint::start_writing(transport)?,
            Outcome::Failed(error) => return failed(transport, error),
        }
    }
    let departure = Departure { data: Chunk::rest(data, view.as_slice(), 0).0, target };
    {
        let mut state = this.state.borrow_mut();
        state.queued += this.size(&departure);
        state.queue.push_back(departure);
    }
    endpoint::queued(transport, keeps)
}

/// Whom a datagram for `address` goes to: a transport that has a remote address sends to that one alone.
#[inline]
fn destination<'a, 'py>(
    transport: &'a Bound<'py, DatagramTransport>,
    address: Option<&'a Bound<'py, PyAny>>,
) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
    let Some(remote) = &transport.get().remote else { return Ok(address) };
    let remote = remote.bind(transport.py());
    if let Some(given) = address
        && !given.eq(remote)?
    {
        let text = format!("Invalid address: must be None or {}", remote.str()?);
        return Err(PyValueError::new_err(text));
    }
    Ok(Some(remote))
}

/// Notes a datagram of so many bytes; whether it is to be kept for the end of the callback, as others have been.
fn keeps(transport: &Bound<'_, DatagramTransport>, count: usize, target: &Target) -> bool {
    let this = transport.get();
    let mut state = this.state.borrow_mut();
    endpoint::keeps(transport, &mut state, count + this.header)
        && !matches!(target, Target::Object(_)) // which may take some time to find out
        && !state.life.phase.is_closing()
}

/// Sends what has been kept for the end of the callback.
pub(super) fn send_kept(transport: &Bound<'_, DatagramTransport>) -> PyResult<()> {
    let this = transport.get();
    if !endpoint::take_kept(&mut this.state.borrow_mut().life) {
        return Ok(());
    }
    let mut result = Ok(());
    loop {
        // An error is that of one datagram, and the others go on, also if hearing of it raises.
        match flush(transport) {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) if result.is_ok() => result = Err(error),
            Err(error) => error.write_unraisable(transport.py(), Some(transport.as_any())),
        }
        if this.state.borrow().life.phase.is_lost() {
            return result;
        }
    }
    let (drained, closing) = {
        let state = this.state.borrow();
        (state.queue.is_empty(), state.life.phase.is_closing())
    };
    let went_on = match (drained, closing) {
        (false, _) => endpoint::start_writing(transport),
        // It was closed by who heard of an error, and has waited for this.
        (true, true) => {
            endpoint::stop_reading(transport).and_then(|()| endpoint::queue_lost(transport, None))
        }
        (true, false) => Ok(()),
    };
    result.and(went_on).and_then(|()| endpoint::grown(transport))
}

impl DatagramTransport {
    /// What a datagram counts in the buffer.
    fn size(&self, departure: &Departure) -> usize {
        departure.data.as_ref().len() + self.header
    }
}

/// An error of the system concerns the datagram alone; any other ends the transport.
fn failed(transport: &Bound<'_, DatagramTransport>, error: PyErr) -> PyResult<()> {
    let py = transport.py();
    if error.is_instance_of::<PyOSError>(py) {
        return transport.get().tell_error(py, &error);
    }
    endpoint::fatal(transport, error, DatagramTransport::WRITE_FAILED)
}

/// Sends one datagram, of which `object` is the data as the socket object takes it.
fn try_send<'py>(
    transport: &Bound<'py, DatagramTransport>,
    object: &Bound<'py, PyAny>,
    data: &[u8],
    target: &Target,
) -> Outcome {
    match send_now(transport, object, data, target) {
        Ok(()) => Outcome::Sent,
        Err(error) if is_transient(transport.py(), &error) => Outcome::Waits,
        Err(error) => Outcome::Failed(error),
    }
}

fn send_now<'py>(
    transport: &Bound<'py, DatagramTransport>,
    object: &Bound<'py, PyAny>,
    data: &[u8],
    target: &Target,
) -> PyResult<()> {
    let py = transport.py();
    let this = transport.get();
    let Some(fd) = this.open_fd(py)? else { return Ok(()) };
    let address = match target {
        Target::Peer => {
            return sys::socket::send(fd, data).map(drop).map_err(|error| os_error(&error));
        }
        Target::Address(address) => {
            return sys::datagram::send_to(fd, data, address).map_err(|error| os_error(&error));
        }
        Target::Object(address) => address.as_ref().map(|address| address.bind(py)),
    };
    let Some(socket) = this.socket_object(py) else { return Ok(()) };
    socket.call_method1(intern!(py, "sendto"), (object, address)).map(drop)
}

/// Where a datagram for `address` goes: in the kernel's form, if that is one of numbers.
fn target_of(this: &DatagramTransport, address: Option<&Bound<'_, PyAny>>) -> Target {
    if this.connected {
        return Target::Peer;
    }
    let Some(object) = address else { return Target::Object(None) };
    {
        let state = this.state.borrow();
        let known = [&state.sender, &state.target];
        if let Some(address) =
            known.into_iter().flatten().find_map(|known| known.address_of(object))
        {
            return Target::Address(address);
        }
    }
    let Some(known) = address::parse(object, this.kind.family) else {
        return Target::Object(Some(object.into()));
    };
    let address = known.address;
    let before = this.state.borrow_mut().target.replace(known);
    drop(before);
    Target::Address(address)
}

/// The descriptor is writable.
pub(super) fn writable(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let transport = ffi::cast_known::<DatagramTransport>(transport);
    let py = transport.py();
    // The event was queued before the queue was emptied or the transport lost.
    let Some(context) = transport.get().watch.writing(py) else { return Ok(()) };
    if transport.get().state.borrow().life.phase.is_lost() {
        return Ok(());
    }
    ffi::run_in_context(context.bind(py), || {
        if !flush(transport)? {
            return Ok(());
        }
        endpoint::shrunk(transport)?;
        endpoint::drained(transport).map(drop)
    })
}

/// Sends what is queued, as much as the kernel takes; false if an error ended it.
fn flush(transport: &Bound<'_, DatagramTransport>) -> PyResult<bool> {
    loop {
        let next = transport.get().state.borrow().queue.front().map(Departure::is_native);
        let outcome = match next {
            None => return Ok(true),
            Some(true) => send_first(transport),
            Some(false) => send_by_object(transport),
        };
        match outcome {
            Outcome::Sent => {}
            Outcome::Waits => return Ok(true),
            Outcome::Failed(error) => {
                failed(transport, error)?;
                return Ok(false);
            }
        }
    }
}

impl Departure {
    /// Whether the kernel is told where to without the socket object.
    fn is_native(&self) -> bool {
        !matches!(self.target, Target::Object(_))
    }

    fn outgoing(&self) -> Outgoing<'_> {
        let target = match self.target {
            Target::Address(address) => Some(address),
            Target::Peer | Target::Object(_) => None,
        };
        Outgoing { data: self.data.as_ref(), target }
    }
}

/// Sends the first datagrams of the queue with one system call.
fn send_first(transport: &Bound<'_, DatagramTransport>) -> Outcome {
    let py = transport.py();
    let fd = match transport.get().open_fd(py) {
        Ok(Some(fd)) => fd,
        Ok(None) => return Outcome::Waits,
        Err(error) => return gone(transport, error),
    };
    let sent = {
        let state = transport.get().state.borrow();
        let first = state.queue.iter().take_while(|departure| departure.is_native());
        sys::datagram::send_many(fd, first.map(Departure::outgoing))
    };
    match sent {
        Ok(count) => {
            for _ in 0..count {
                drop(take_first(transport));
            }
            Outcome::Sent
        }
        Err(error) if error::is_transient(&error) => Outcome::Waits,
        Err(error) => gone(transport, os_error(&error)),
    }
}

/// The first datagram cannot be sent.
fn gone(transport: &Bound<'_, DatagramTransport>, error: PyErr) -> Outcome {
    drop(take_first(transport));
    Outcome::Failed(error)
}

/// Sends the first datagram of the queue by the socket object.
fn send_by_object(transport: &Bound<'_, DatagramTransport>) -> Outcome {
    let py = transport.py();
    let Some(departure) = take_first(transport) else { return Outcome::Sent };
    let object = match ffi::bytes(py, departure.data.as_ref()) {
        Ok(object) => object,
        Err(error) => return Outcome::Failed(error),
    };
    let outcome = try_send(transport, &object, departure.data.as_ref(), &departure.target);
    if matches!(outcome, Outcome::Waits) {
        let this = transport.get();
        let mut state = this.state.borrow_mut();
        state.queued += this.size(&departure);
        state.queue.push_front(departure);
    }
    outcome
}

/// Takes the first datagram out of the queue.
fn take_first(transport: &Bound<'_, DatagramTransport>) -> Option<Departure> {
    let this = transport.get();
    let mut state = this.state.borrow_mut();
    let departure = state.queue.pop_front()?;
    state.queued = state.queued.saturating_sub(this.size(&departure));
    Some(departure)
}
