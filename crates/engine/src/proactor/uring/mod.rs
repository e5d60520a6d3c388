//! `io_uring(7)`: submissions and completions in memory that is shared with the kernel.
//!
//! One call of a turn submits everything and waits. Between calls the kernel does nothing in our
//! thread (where it is new enough for `DEFER_TASKRUN`), and completions come in batches.
//!
//! What surprised us:
//! * Closing a ring does not end its operations: that happens later, in a thread of the kernel, and
//!   until then buffers are read and written. So everything is cancelled and waited for before the
//!   ring is closed; where that cannot be done (on another thread than the ring's) the buffers are
//!   never freed.
//! * Multishot operations may end at any time, after a success: when the completion queue
//!   overflows, or because the kernel thought it better. Whoever does not submit them again hangs.
//! * A multishot poll, for all its flags, tells of changes, not of a level. A level is what a poll
//!   of one shot sees when it is submitted, so a poll is submitted again by the wait that follows
//!   its completion.
//! * ENOBUFS of a receive says that the buffers are all taken, not that the stream has failed.
#![allow(unsafe_code)] // entries that point to buffers; descriptors that the kernel made

mod buffers;
mod in_flight;
mod ring;

use std::io;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, types};

use self::buffers::Buffers;
use self::in_flight::{InFlight, readiness};
use self::ring::{Entered, Ring};
use super::{
    Chunk, Completion, Completions, Config, Lent, LentMut, Operation, Returned, Setup, Unavailable,
};
use crate::{Slots, Token};

/// The user data of a request to cancel. A token's highest bits are never set.
const CANCEL: u64 = u64::MAX;
/// How long the end waits before it asks once more that everything be cancelled.
const CANCEL_AGAIN: Duration = Duration::from_millis(10);

/// Operations under way in a ring.
#[derive(Debug)]
pub struct Uring<B: Lent, M: LentMut> {
    /// First, so that it is closed before what follows is freed.
    ring: Ring,
    /// Leaked by `drop`, as what is `in_flight`, if the kernel may still use it.
    buffers: Buffers,
    in_flight: Slots<InFlight<B, M>>,
    /// Multishot operations and polls that are to be submitted again.
    resting: Vec<Token>,
    /// Receivers that found no free buffer, longest first.
    starved: Vec<Token>,
    /// Receivers that found no other free buffer after they had got some: they come after the
    /// starved, as one with much to receive would always be the first to have a buffer otherwise.
    sated: Vec<Token>,
    /// Operations that ended without the kernel, and the errors that they ended with.
    ended: Vec<(Token, i32)>,
    /// Completions on their way out of the queue; empty between calls.
    taken: Vec<cqueue::Entry>,
    /// The process that made the ring: a child has no business with it.
    process: u32,
}

impl<B: Lent, M: LentMut> Uring<B, M> {
    pub(super) fn new(config: Config) -> Result<Self, Unavailable> {
        config.check()?;
        let ring = Ring::new(&config)?;
        let mut buffers = Buffers::new(&config).map_err(ring::unavailable)?;
        buffers.register(ring.inner()).map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => Unavailable::TooOld { feature: "buffer rings", since: "5.19" },
            _ => ring::unavailable(error),
        })?;
        Ok(Self {
            ring,
            buffers,
            in_flight: Slots::new(),
            resting: Vec::new(),
            starved: Vec::new(),
            sated: Vec::new(),
            ended: Vec::new(),
            taken: Vec::new(),
            process: std::process::id(),
        })
    }

    pub(super) const fn setup(&self) -> Setup {
        self.ring.setup()
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    #[inline]
    pub(super) fn submit(&mut self, owner: Token, operation: Operation<B, M>) -> Token {
        let token = self.in_flight.insert(InFlight::new(owner, operation));
        self.start(token);
        token
    }

    pub(super) fn cancel(&mut self, token: Token) -> bool {
        let Some(operation) = self.in_flight.get_mut(token) else { return false };
        if operation.cancelled {
            return true;
        }
        operation.cancelled = true;
        if operation.resting {
            self.ended.push((token, libc::ECANCELED));
        } else {
            let entry = opcode::AsyncCancel::new(token.to_u64()).build().user_data(CANCEL);
            // SAFETY: the entry points to nothing.
            unsafe { self.ring.push(entry) };
        }
        true
    }

    pub(super) fn wait(
        &mut self,
        completions: &mut Completions<B, M>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.clear(completions);
        self.ring.enable()?;
        self.finish_ended(completions);
        let mut left = if completions.is_empty() { timeout } else { Some(Duration::ZERO) };
        let deadline = left.filter(|left| !left.is_zero()).and_then(deadline);
        loop {
            self.restart();
            let entered = self.ring.enter(left);
            self.collect(completions);
            self.finish_ended(completions);
            if !completions.is_empty() {
                // An error that lasts is the next wait's.
                return Ok(());
            }
            match entered? {
                Entered::Interrupted => return Err(io::ErrorKind::Interrupted.into()),
                Entered::All if left == Some(Duration::ZERO) => return Ok(()),
                // What came is ours alone: a cancellation, say.
                Entered::All | Entered::Part => {}
            }
            if let Some(deadline) = deadline {
                left = Some(deadline.saturating_duration_since(Instant::now()));
            }
        }
    }

    #[inline]
    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    #[inline]
    pub(super) fn recycle(&mut self, chunk: Chunk) {
        self.buffers.recycle(chunk);
    }

    pub(super) fn close(mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        self.clear(completions);
        self.end(completions)
    }

    /// Forgets completions, and takes back the buffers of those that nobody has looked at.
    fn clear(&mut self, completions: &mut Completions<B, M>) {
        for completion in completions.drain() {
            if let Returned::Chunk(chunk) = completion.returned {
                self.buffers.recycle(chunk);
            }
        }
    }

    /// Hands a resting operation to the kernel.
    fn start(&mut self, token: Token) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        if operation.cancelled || !operation.resting || operation.is_silent() {
            return;
        }
        // Receives that go on by themselves came with Linux 6.0; so did the flag `SINGLE_ISSUER`.
        match operation.entry(self.ring.setup() == Setup::Deferred) {
            Ok(entry) => {
                operation.resting = false;
                operation.served = false;
                // SAFETY: what the entry points to lies in `in_flight` until the last completion,
                // or in `buffers`; both outlive the ring or, at worst, everything (`drop`).
                unsafe { self.ring.push(entry.user_data(token.to_u64())) };
            }
            Err(error) => {
                self.ended.push((token, error.raw_os_error().unwrap_or(libc::EINVAL)));
            }
        }
    }

    /// Hands what rests to the kernel; of the receivers first those that have got least.
    fn restart(&mut self) {
        let mut again = Vec::new();
        // All of them, however few buffers there are: the first ones may have nothing to receive.
        if self.buffers.offered() > 0 {
            again.append(&mut self.starved);
            again.append(&mut self.sated);
        }
        again.append(&mut self.resting);
        for token in again {
            self.start(token);
        }
    }

    /// Takes what the kernel has completed.
    fn collect(&mut self, completions: &mut Completions<B, M>) {
        let mut taken = mem::take(&mut self.taken);
        loop {
            self.ring.take(&mut taken);
            for entry in taken.drain(..) {
                self.complete(&entry, completions);
            }
            // What cannot be moved up now is moved up by the next wait.
            if !self.ring.take_overflow().unwrap_or(false) {
                break;
            }
        }
        self.taken = taken;
    }

    fn complete(&mut self, entry: &cqueue::Entry, completions: &mut Completions<B, M>) {
        let token = Token::from_u64(entry.user_data());
        // Of a request to cancel, which may have come too late.
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        let result = entry.result();
        let more = cqueue::more(entry.flags());
        let returned = match &operation.operation {
            Operation::Accept { .. } if result >= 0 => {
                // SAFETY: the kernel has made the descriptor for us.
                Returned::Connection(unsafe { OwnedFd::from_raw_fd(result) })
            }
            Operation::Accept { .. } if result == -libc::ECONNABORTED => {
                return self.rest(token, completions);
            }
            Operation::Receive { .. } => {
                let buffer = cqueue::buffer_select(entry.flags());
                match buffer.map(|buffer| self.buffers.take(buffer, length(result))) {
                    Some(chunk) if result > 0 => {
                        operation.served = true;
                        Returned::Chunk(chunk)
                    }
                    chunk => {
                        // Some kernels take a buffer for the end of the stream, too.
                        if let Some(chunk) = chunk {
                            self.buffers.recycle(chunk);
                        }
                        return self.end_receiving(token, result, completions);
                    }
                }
            }
            Operation::Poll { interest, .. } if result >= 0 => {
                Returned::Readiness(readiness(result, *interest))
            }
            _ => return self.finish(token, result, completions),
        };
        let moved = match returned {
            Returned::Chunk(ref chunk) => chunk.len(),
            _ => 0,
        };
        let owner = operation.owner;
        let completion = Completion { token, owner, result: Ok(moved), returned, more: true };
        completions.list.push(completion);
        if !more {
            self.rest(token, completions);
        }
    }

    /// A receive that brought nothing: the end, an error, or no buffer to be had.
    fn end_receiving(&mut self, token: Token, result: i32, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.get_mut(token) else { return };
        if result != -libc::ENOBUFS || operation.cancelled {
            let result = if result == -libc::ENOBUFS { -libc::ECANCELED } else { result };
            return self.finish(token, result, completions);
        }
        operation.resting = true;
        let queue = if operation.served { &mut self.sated } else { &mut self.starved };
        queue.push(token);
    }

    /// Lets an operation that is to go on be submitted again, unless it was cancelled.
    fn rest(&mut self, token: Token, completions: &mut Completions<B, M>) {
        match self.in_flight.get_mut(token) {
            Some(operation) if !operation.cancelled => {
                operation.resting = true;
                self.resting.push(token);
            }
            _ => self.finish(token, -libc::ECANCELED, completions),
        }
    }

    /// Reports the last completion of an operation.
    fn finish(&mut self, token: Token, result: i32, completions: &mut Completions<B, M>) {
        let Some(operation) = self.in_flight.remove(token) else { return };
        let owner = operation.owner;
        let result = match usize::try_from(result) {
            Ok(count) => Ok(count),
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        };
        let returned = operation.finish(&result);
        completions.list.push(Completion { token, owner, result, returned, more: false });
    }

    fn finish_ended(&mut self, completions: &mut Completions<B, M>) {
        for (token, error) in mem::take(&mut self.ended) {
            self.finish(token, -error, completions);
        }
    }

    /// Cancels everything and waits until the kernel has no buffer of ours.
    fn end(&mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        let foreign = !self.ring.is_enabled() || std::process::id() != self.process;
        for token in self.in_flight.iter().map(|(token, _)| token).collect::<Vec<_>>() {
            // What the kernel has never seen, or has seen in the memory of another process.
            if foreign {
                self.ended.push((token, libc::ECANCELED));
            } else if let Some(operation) = self.in_flight.get_mut(token) {
                operation.cancelled = true;
                if operation.resting {
                    self.ended.push((token, libc::ECANCELED));
                }
            }
        }
        self.finish_ended(completions);
        while !self.in_flight.is_empty() {
            let all = types::CancelBuilder::any();
            let entry = opcode::AsyncCancel2::new(all).build().user_data(CANCEL);
            // SAFETY: the entry points to nothing.
            unsafe { self.ring.push(entry) };
            match self.ring.enter(Some(CANCEL_AGAIN)) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => return Err(error),
                // A signal, or no memory at the moment.
                _ => self.collect(completions),
            }
        }
        Ok(())
    }
}

impl<B: Lent, M: LentMut> Drop for Uring<B, M> {
    fn drop(&mut self) {
        let mut completions = Completions::new();
        if self.end(&mut completions).is_err() {
            self.buffers.leak();
            mem::forget(mem::take(&mut self.in_flight));
        }
        drop(completions);
    }
}

fn length(result: i32) -> usize {
    usize::try_from(result).unwrap_or(0)
}

fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
