//! Completion ports of Windows: operations that are started by a call each, and end by a packet.
//!
//! Operations are started by the next wait, as those of other systems, so that what a turn submits is
//! one batch and what it cancels again costs nothing. What ends at once has no packet
//! (`FILE_SKIP_COMPLETION_PORT_ON_SUCCESS`).
//!
//! * Sockets are polled by the driver below Winsock (`afd`), which is told of no port: so a user may
//!   watch a socket that belongs to another loop's port, or to none. Receiving into shared buffers is
//!   such a poll and recv: what is cancelled has received nothing, and who waits has no memory locked.
//! * While nobody waits what rests is guarded by a poll for its end alone: a socket that is closed by
//!   then is not mistaken for the next one of the same number.
//! * Connections are accepted by `AcceptEx`, again and again; those that wait already in one go. A listener
//!   that another port is told of is polled.
//! * Everything else is the overlapped call of its name.
//!
//! What surprised us:
//! * A port's wait ends in time by a packet that waits for a timer, or by a call to its thread, and by
//!   nothing else that a timer does (`timer`).
//! * Whether a start that fails has a packet depends upon the kind of failure: errors have none,
//!   and warnings (a datagram, a message that was cut) have one, although the call says that it has
//!   failed, on Windows, but not everywhere else that its programs run. So datagrams are received
//!   after a poll, and pipes of messages are read as bytes, where they let us: neither can be cut then.
//! * The end of a process is nobody's operation. A thread of the system waits for it
//!   (`signalled`), one for each 63 processes.
#![allow(unsafe_code)] // packets

mod afd;
mod begin;
mod buffers;
mod connections;
mod in_flight;
mod kernel;
mod report;
mod signalled;
#[cfg(test)]
mod tests;
mod timer;
mod wait_packet;
mod withdrawal;

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_ENTRY};

use self::begin::Begun;
use self::buffers::Buffers;
use self::in_flight::InFlight;
use self::kernel::Kernel;
use self::timer::Timer;
use super::{Chunk, Completions, Config, Lent, LentMut, Operation, Returned, Setup, Unavailable};
use crate::sys::port::Waited;
use crate::{Slots, Token, Waker};

/// How many packets one call takes.
const BATCH: usize = 256;
/// How many connections one listener accepts in one wait.
const MOST_AT_ONCE: usize = 64;

/// Operations under way by a port.
pub struct Iocp<B: Lent, M: LentMut> {
    kernel: Kernel,
    /// None where the system has no timers that are accurate.
    timer: Option<Timer>,
    buffers: Buffers,
    in_flight: Slots<InFlight<B, M>>,
    /// Those of them that are the kernel's, and do not rest, by what the port calls them. It may call others:
    /// a program may begin operations of its own by a file that the port is told of, and so may another process.
    lent: FxHashMap<NonNull<OVERLAPPED>, Token>,
    /// Operations that the next wait starts: new ones, and those that go on.
    resting: Vec<Token>,
    /// Receivers that found no free buffer, longest first.
    starved: Vec<Token>,
    /// Whether a listener has accepted, and may have more to accept.
    accepting: bool,
    /// Operations that were cancelled while they rested.
    cancelled: Vec<Token>,
    /// Whether nobody has waited since `suspend`: what rests is guarded.
    suspended: bool,
    /// What `withdraw` has seen, for the next wait to report.
    early: Vec<super::Completion<B, M>>,
    /// Room for packets.
    entries: Box<[OVERLAPPED_ENTRY; BATCH]>,
    /// Packets on their way out of the queue; empty between calls.
    packets: Vec<*mut OVERLAPPED>,
    config: Config,
}

impl<B: Lent, M: LentMut> Debug for Iocp<B, M> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Iocp").field("kernel", &self.kernel).finish_non_exhaustive()
    }
}

// SAFETY: the addresses of packets are compared, and nobody looks at what is there.
unsafe impl<B: Lent + Send, M: LentMut + Send> Send for Iocp<B, M> {}
// SAFETY: as above.
unsafe impl<B: Lent + Sync, M: LentMut + Sync> Sync for Iocp<B, M> {}

impl<B: Lent, M: LentMut> Iocp<B, M> {
    pub(super) fn new(config: Config) -> Result<Self, Unavailable> {
        config.check()?;
        Ok(Self {
            kernel: Kernel::new().map_err(Unavailable::Other)?,
            timer: Timer::new(),
            buffers: Buffers::new(&config),
            in_flight: Slots::new(),
            lent: FxHashMap::default(),
            resting: Vec::new(),
            starved: Vec::new(),
            accepting: false,
            cancelled: Vec::new(),
            suspended: true,
            early: Vec::new(),
            entries: Box::new([OVERLAPPED_ENTRY::default(); BATCH]),
            packets: Vec::new(),
            config,
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "one signature for all kinds")]
    pub(super) fn waker(&self) -> io::Result<Waker> {
        Ok(Waker::of_port(Arc::clone(&self.kernel.port)))
    }

    pub(super) const fn setup(&self) -> Setup {
        self.config.setup
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    #[inline]
    pub(super) fn submit(&mut self, owner: Token, operation: Operation<B, M>) -> Token {
        let token = self.in_flight.insert(InFlight::new(owner, operation));
        if !self.suspended || !self.guard(token) {
            self.resting.push(token);
        }
        token
    }

    /// Every poll is asked by each wait here.
    #[expect(clippy::unused_self, reason = "one signature for all kinds")]
    pub(super) const fn set_patient(&self, _poll: Token) {}

    #[expect(clippy::unused_self, reason = "one signature for all kinds")]
    pub(super) const fn hurry(&self) {}

    #[expect(clippy::unused_self, reason = "one signature for all kinds")]
    pub(super) const fn pause_poll(&self, _poll: Token) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "one signature for all kinds")]
    pub(super) const fn resume_poll(&self, _poll: Token) {}

    pub(super) fn cancel(&mut self, token: Token) -> bool {
        let Some(operation) = self.in_flight.get_mut(token) else { return false };
        if !mem::replace(&mut operation.cancelled, true) {
            if operation.resting {
                self.cancelled.push(token);
            } else if operation.ask_to_cancel() {
                operation.resting = true;
                operation.wait = None;
                if let Some(name) = operation.name() {
                    self.lent.remove(&name);
                }
                self.cancelled.push(token);
            }
        }
        true
    }

    pub(super) fn wait(
        &mut self,
        completions: &mut Completions<B, M>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.clear(completions);
        completions.list.append(&mut self.early);
        self.finish_cancelled(completions);
        if self.suspended {
            self.resume(completions)?;
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.restart(completions);
            let left = if !completions.is_empty() || self.has_starving() {
                Some(Duration::ZERO)
            } else {
                match (timeout, deadline) {
                    (Some(timeout), _) if timeout.is_zero() => Some(timeout),
                    (_, Some(at)) => Some(at.saturating_duration_since(Instant::now())),
                    _ => None,
                }
            };
            let woken = match self.gather(completions, left) {
                // An error that lasts is the next wait's.
                Err(_) if !completions.is_empty() => return Ok(()),
                result => result?,
            };
            self.accept_more(completions);
            self.finish_cancelled(completions);
            let is_over = left.is_some_and(|left| left.is_zero()) && !self.has_starving();
            if !completions.is_empty() || woken || is_over {
                return Ok(());
            }
        }
    }

    #[inline]
    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "one signature for all kinds")]
    pub(super) fn recycle(&mut self, chunk: Chunk) {
        self.buffers.recycle(chunk.buffer);
    }

    /// Forgets completions, and takes back the buffers of those that nobody has looked at.
    fn clear(&mut self, completions: &mut Completions<B, M>) {
        for completion in completions.drain() {
            if let Returned::Chunk(chunk) = completion.returned {
                self.buffers.recycle(chunk.buffer);
            }
        }
    }

    /// Starts what rests, of the receivers without a buffer as many as there are buffers now.
    fn restart(&mut self, completions: &mut Completions<B, M>) {
        if self.has_starving() {
            let count = self.starved.len().min(self.buffers.available());
            let starved: Vec<_> = self.starved.drain(..count).collect();
            for token in starved {
                self.start_one(token, completions);
            }
        }
        for token in mem::take(&mut self.resting) {
            self.start_one(token, completions);
        }
    }

    /// Accepts the connections that wait already: a turn for each would be slow.
    fn accept_more(&mut self, completions: &mut Completions<B, M>) {
        for _ in 0..MOST_AT_ONCE {
            if !mem::take(&mut self.accepting) {
                break;
            }
            let accepts = |one: &InFlight<B, M>| matches!(one.operation, Operation::Accept { .. });
            let all = mem::take(&mut self.resting);
            let (listeners, rest): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|token| self.in_flight.get(*token).is_some_and(accepts));
            self.resting = rest;
            for token in listeners {
                self.start_one(token, completions);
            }
            // There are completions: an error that lasts is the next wait's.
            if self.gather(completions, Some(Duration::ZERO)).is_err() {
                break;
            }
        }
    }

    /// Whether there are receivers without a buffer, and buffers.
    fn has_starving(&self) -> bool {
        !self.starved.is_empty() && self.buffers.available() > 0
    }

    fn start_one(&mut self, token: Token, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        if operation.cancelled || !operation.resting || operation.operation.is_silent() {
            return;
        }
        match operation.begin(&mut self.kernel, &mut self.buffers, token) {
            Begun::Pending => self.lend(token),
            Begun::Starved => self.starved.push(token),
            Begun::Ended(result) => self.ended(token, result, completions),
        }
    }

    /// Notes that an operation is the kernel's from now on.
    fn lend(&mut self, token: Token) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        operation.resting = false;
        if let Some(name) = operation.name() {
            self.lent.insert(name, token);
        }
    }

    /// Takes the packets out of the queue, waiting for the first one for at most `timeout`. True if
    /// somebody wanted the wait to end.
    fn gather(
        &mut self,
        completions: &mut Completions<B, M>,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let mut timeout = timeout;
        let mut woken = false;
        loop {
            let mut packets = mem::take(&mut self.packets);
            let waited = self.sleep(&mut packets, timeout);
            let count = packets.len();
            for overlapped in packets.drain(..) {
                let ours = NonNull::new(overlapped).and_then(|name| self.lent.remove(&name));
                if let Some(token) = ours {
                    self.complete(token, completions);
                }
            }
            self.packets = packets;
            woken |= waited? == Waited::Woken;
            if count < BATCH {
                return Ok(woken);
            }
            timeout = Some(Duration::ZERO);
        }
    }

    /// Waits, as accurately as the system can.
    fn sleep(
        &mut self,
        packets: &mut Vec<*mut OVERLAPPED>,
        timeout: Option<Duration>,
    ) -> io::Result<Waited> {
        let port = &self.kernel.port;
        let timer = match (timeout, &self.timer) {
            (Some(timeout), Some(timer)) if !timeout.is_zero() && timer.set(port, timeout) => {
                Some(timer)
            }
            _ => None,
        };
        // The port's own timeout comes with the system's tick, not before its time.
        let millis = timeout.map_or(u32::MAX, |timeout| {
            let millis = timeout.as_nanos().div_ceil(1_000_000);
            u32::try_from(millis).unwrap_or(u32::MAX).min(u32::MAX - 1)
        });
        let waited = port.wait(&mut self.entries[..], packets, millis);
        if let Some(timer) = timer {
            timer.clear();
        }
        waited
    }
}
