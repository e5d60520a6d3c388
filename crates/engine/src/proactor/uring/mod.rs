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
//!   its completion; unless its owner is patient, and poll(2) is asked for the level instead.
//! * A poll always waits for the end of what the peer sends (`POLLRDHUP`), too, and it is a level. Who
//!   waits for room only, and has no use for it, waits for a change after that, until there is room.
//! * ENOBUFS of a receive says that the buffers are all taken, not that the stream has failed.
//! * A thread that ends takes its operations with it: the kernel cancels them.
//! * Linux 6.18 does the deferred work of 20 operations in one call, and not more unless more
//!   completions are waited for: a turn brings no more than twice that, be there a thousand ready.
#![allow(unsafe_code)] // entries that point to buffers

mod buffers;
mod in_flight;
mod patience;
mod peek;
mod process;
mod report;
mod ring;
mod withdrawal;

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use io_uring::opcode;
use io_uring::squeue::Flags;
use rustix::event::{EventfdFlags, eventfd};

use self::buffers::Buffers;
use self::in_flight::InFlight;
use self::patience::Patience;
use self::process::Process;
use self::ring::{Entered, Full, Ring};
use super::{
    Chunk, Completion, Completions, Config, Lent, LentMut, Operation, Returned, Setup, Unavailable,
};
use crate::sys::fd::OwnedFd;
use crate::{Slots, Token, Waker};

/// The user data of a request to cancel. A token's highest bits are never set.
const CANCEL: u64 = u64::MAX;

/// Operations under way in a ring.
#[derive(Debug)]
pub struct Uring<B: Lent, M: LentMut> {
    /// First, so that it is closed before what follows is freed.
    ring: Ring,
    /// Leaked by `drop`, as what is `in_flight`, if the kernel may still use it.
    buffers: Buffers,
    /// Holds the place of the ring's descriptor until there is a ring: a loop that was made while there were
    /// descriptors runs when none are left.
    reserve: Option<OwnedFd>,
    in_flight: Slots<InFlight<B, M>>,
    /// How many of them are the kernel's, and do not rest.
    lent: usize,
    /// Operations that the next wait hands to the kernel: new ones, and those that go on.
    resting: Vec<Token>,
    /// Patient polls: of which of them it is not known whether there is still something to read.
    patience: Patience,
    /// Receivers that found no free buffer, longest first.
    starved: Vec<Token>,
    /// Receivers that found no other free buffer after they had got some: they come after the
    /// starved, as one with much to receive would always be the first to have a buffer otherwise.
    sated: Vec<Token>,
    /// Operations of the kernel that it has not been asked to cancel yet.
    unwanted: Vec<Token>,
    /// Operations that ended without the kernel, and the errors that they ended with.
    ended: Vec<(Token, i32)>,
    /// What `withdraw` has seen, for the next wait to report.
    early: Vec<Completion<B, M>>,
    /// Whether the next thread that waits may be any: set by `suspend`, cleared by `wait`.
    suspended: bool,
    /// How often `wait` has looked without a ring since the last suspension.
    peeks: u8,
    /// The process that made the ring: a child has no business with it.
    process: Process,
    config: Config,
}

impl<B: Lent, M: LentMut> Uring<B, M> {
    pub(super) fn new(config: Config) -> Result<Self, Unavailable> {
        let mut uring = Self::lazy(config)?;
        uring.open()?;
        Ok(uring)
    }

    pub(super) fn lazy(config: Config) -> Result<Self, Unavailable> {
        config.check()?;
        let reserve =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| ring::unavailable(errno.into()))?;
        Ok(Self {
            reserve: Some(reserve),
            ring: Ring::unopened(&config),
            buffers: Buffers::new(&config),
            in_flight: Slots::new(),
            lent: 0,
            resting: Vec::new(),
            patience: Patience::default(),
            starved: Vec::new(),
            sated: Vec::new(),
            unwanted: Vec::new(),
            ended: Vec::new(),
            early: Vec::new(),
            suspended: true,
            peeks: 0,
            process: Process::any(),
            config,
        })
    }

    /// Makes a ring, in place of any other.
    fn open(&mut self) -> Result<(), Unavailable> {
        // Before, as its descriptor may be the last one; nothing is under way in it.
        self.ring = Ring::unopened(&self.config);
        drop(self.reserve.take());
        let ring = Ring::open(&self.config)?;
        let process = Process::new().map_err(ring::unavailable)?;
        self.buffers.register(&ring).map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => Unavailable::TooOld { feature: "buffer rings" },
            _ => ring::unavailable(error),
        })?;
        (self.ring, self.process) = (ring, process);
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "one signature for all kinds")]
    pub(super) fn waker(&self) -> io::Result<Waker> {
        Waker::new()
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
        self.resting.push(token);
        token
    }

    pub(super) fn cancel(&mut self, token: Token) -> bool {
        let Some(operation) = self.in_flight.get_mut(token) else { return false };
        if !mem::replace(&mut operation.cancelled, true) {
            if operation.resting {
                self.ended.push((token, libc::ECANCELED));
            } else {
                self.unwanted.push(token);
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
        self.catch_up(completions);
        let mut left = if completions.is_empty() { timeout } else { Some(Duration::ZERO) };
        if self.suspended && left == Some(Duration::ZERO) && self.peek(completions) {
            return Ok(());
        }
        if let Err(error) = self.claim() {
            return if completions.is_empty() { Err(error) } else { Ok(()) };
        }
        let deadline = left.filter(|left| !left.is_zero()).and_then(deadline);
        loop {
            let looks = self.ask_again(left, completions);
            let restarted = self.restart();
            // What has ended may not have to wait, nor what is still to be started.
            let hurry = looks || !self.ended.is_empty() || self.has_starving();
            let entered = match restarted {
                Ok(()) => {
                    self.ring.enter(if hurry { Some(Duration::ZERO) } else { left }, deadline)
                }
                Err(Full(None)) => Ok(Entered::Part),
                Err(Full(Some(error))) => Err(error),
            };
            self.collect(completions);
            self.finish_ended(completions);
            if !completions.is_empty() {
                // An error that lasts is the next wait's.
                return Ok(());
            }
            match entered? {
                Entered::Interrupted => return Err(io::ErrorKind::Interrupted.into()),
                Entered::Late => return Ok(()),
                Entered::All if left == Some(Duration::ZERO) && !hurry => return Ok(()),
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

    /// Forgets completions, and takes back the buffers of those that nobody has looked at.
    fn clear(&mut self, completions: &mut Completions<B, M>) {
        for completion in completions.drain() {
            if let Returned::Chunk(chunk) = completion.returned {
                self.buffers.recycle(chunk);
            }
        }
    }

    /// Reports what is known already.
    #[inline]
    fn catch_up(&mut self, completions: &mut Completions<B, M>) {
        if self.process.is_other() {
            self.forget();
        }
        if !self.early.is_empty() {
            completions.list.append(&mut self.early);
        }
        self.finish_ended(completions);
    }

    /// Makes sure that this thread has a ring.
    #[inline]
    fn claim(&mut self) -> io::Result<()> {
        if self.suspended { self.resume() } else { Ok(()) }
    }

    #[cold]
    fn resume(&mut self) -> io::Result<()> {
        if !self.ring.is_open() || self.ring.is_elsewhere() || self.process.is_other() {
            self.open()?;
        }
        if !self.ring.is_enabled() {
            self.ring.enable()?;
        }
        self.suspended = false;
        Ok(())
    }

    /// Hands what rests to the kernel, and what is to be cancelled; of the receivers first those
    /// that have got least.
    fn restart(&mut self) -> Result<(), Full> {
        self.ask_to_cancel(usize::MAX)?;
        let starving = self.starved.len() + self.sated.len();
        self.buffers.next_turn(starving);
        // More of them than there are buffers, as the first ones may have nothing to receive. But
        // not all: a thousand that try in vain in each turn are most of what it costs.
        if self.has_starving() {
            let most = 2 * self.buffers.offered() + 16;
            let (mut starved, mut sated) =
                (mem::take(&mut self.starved), mem::take(&mut self.sated));
            let left = most.saturating_sub(starved.len());
            let result = self.start(&mut starved, most).and_then(|()| self.start(&mut sated, left));
            (self.starved, self.sated) = (starved, sated);
            result?;
        }
        let mut resting = mem::take(&mut self.resting);
        let result = self.start(&mut resting, usize::MAX);
        self.resting = resting;
        result
    }

    /// Whether there are receivers without a buffer, and buffers.
    fn has_starving(&self) -> bool {
        self.buffers.offered() > 0 && !(self.starved.is_empty() && self.sated.is_empty())
    }

    /// Hands resting operations to the kernel, as many as are wanted; leaves those that it does not
    /// take.
    fn start(&mut self, tokens: &mut Vec<Token>, most: usize) -> Result<(), Full> {
        let mut started = 0;
        let result = tokens.iter().take(most).try_for_each(|token| {
            self.start_one(*token)?;
            started += 1;
            Ok(())
        });
        if started == tokens.len() {
            tokens.clear();
        } else {
            tokens.drain(..started);
        }
        result
    }

    fn start_one(&mut self, token: Token) -> Result<(), Full> {
        let Some(operation) = self.in_flight.get_mut(token) else { return Ok(()) };
        if operation.cancelled || !operation.resting || operation.paused || operation.is_silent() {
            return Ok(());
        }
        // Receives that go on by themselves came with Linux 6.0; so did the flag `SINGLE_ISSUER`.
        match operation.entry(self.ring.setup() == Setup::Deferred) {
            Ok(entry) => {
                // SAFETY: what the entry points to lies in `in_flight` until the last completion,
                // or in `buffers`; both outlive the ring or, at worst, everything (`drop`).
                unsafe { self.ring.push(&entry.user_data(token.to_u64()))? };
                operation.resting = false;
                operation.served = false;
                self.lent += 1;
            }
            Err(error) => {
                self.ended.push((token, error.raw_os_error().unwrap_or(libc::EINVAL)));
            }
        }
        Ok(())
    }

    /// Asks the kernel to cancel what is not wanted, as many as `most`, the last ones first.
    fn ask_to_cancel(&mut self, most: usize) -> Result<(), Full> {
        for _ in 0..most {
            let Some(token) = self.unwanted.last() else { break };
            let entry = opcode::AsyncCancel::new(token.to_u64()).build();
            // The operation's own completion says enough.
            let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(CANCEL);
            // SAFETY: the entry points to nothing.
            unsafe { self.ring.push(&entry)? };
            self.unwanted.pop();
        }
        Ok(())
    }
}

fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
