//! Operations that the kernel carries out and then reports: completion, not readiness.
//!
//! # Contract of every kind
//!
//! * An [`Operation`] is plain data that owns its buffers. They are lent to the kernel from
//!   `submit` on; the last completion of the operation hands them back, and dropping them is the
//!   owner's act.
//! * `submit` names the operation by a [`Token`] with a generation, and cannot fail: whatever is
//!   wrong with it (a descriptor that is not open, say) its completion says. Nothing need begin
//!   before the next `wait`.
//! * Every operation has exactly one completion whose [`more`](Completion::more) is false, its
//!   last; the name is dead from then on. Only [`Operation::Accept`], [`Operation::Receive`] and
//!   [`Operation::Poll`] have others before it: they go on until they fail, the stream ends, or
//!   they are cancelled.
//! * Operations begin in the order in which they were submitted, but those of one descriptor may
//!   overtake each other later on: who wants an order has one of each direction under way.
//! * `cancel` asks the kernel to hurry. What was done by then is reported as done, and what was
//!   received comes first; the last completion is `ECANCELED` of [`os_error`](crate::sys::os_error),
//!   or the success that came before (a part of one counts as such). So no byte that was taken from
//!   or given to a socket is lost.
//! * Cancel *before* closing a descriptor: the kernel keeps the open file until its operations have
//!   ended, so that the peer would not hear of the end before the next wait; after `withdraw` it
//!   does at once, and of what was at rest nothing is left to report. Completions that come later are
//!   known by their [`owner`](Completion::owner): a token whose generation has passed finds nobody,
//!   and dropping the completion drops what it brings.
//! * [`Operation::Poll`] is level triggered, as a selector is: it is reported by every wait, once, for
//!   as long as the descriptor is ready, and by nothing else. Errors and hang-ups count as ready in every direction asked
//!   for.
//! * `wait` replaces what was in [`Completions`]. EINTR is the caller's to see
//!   (`ErrorKind::Interrupted`); neither it nor any other error loses anything. The nanoseconds of
//!   a timeout count: a wait never ends before it, unless something is complete.
//! * A [`Chunk`] lies in a buffer that all receivers share. It is the consumer's until
//!   `recycle`; those left in [`Completions`] are recycled by the next wait. While all buffers are
//!   taken receivers pause, and go on in turn as soon as there are some.
//! * `suspend` frees the operations from the thread: the next wait may be any other's. Of Linux it
//!   takes everything back: no file, no thread and no memory is in use by the kernel after that. What
//!   goes on rests, and is submitted again by the next wait, without its owner hearing of it; what is
//!   done once is reported as if it had been cancelled. Of Windows, where an operation belongs to no
//!   thread and a descriptor that is closed is closed for its peer, everything stays under way. Who
//!   suspends may submit, cancel, close and drop from any thread.
//! * In a child of the process (fork(2)) nothing is the kernel's: the child's first call finds what
//!   goes on at rest and what is done once cancelled, and its first wait makes a ring of its own.
//! * `close` cancels everything, waits until the kernel is done with the buffers, and hands them
//!   back. Dropping the proactor does so, too, and drops them.
//!
//! # What to use when
//!
//! On Windows pipes have no readiness: they are read by [`Operation::Read`] or [`Operation::Receive`] and
//! written by [`Operation::Write`]. Of sockets [`Operation::Poll`] and [`Operation::Receive`] cost the
//! same there, a call each time, and [`Operation::Accept`] less than a poll. Nothing was measured: it has run
//! under Wine alone.
//!
//! Measured on Linux 6.18, over loopback, as CPU of the whole against the same by epoll:
//!
//! * Small messages: [`Operation::Receive`], and a copy out of the chunk; an echo takes 0.96 to 1.0
//!   with 10 to 1,000 connections.
//! * Large ones, and the first of a connection, as it may be large: [`Operation::Poll`], then recv(2) into the
//!   final memory, and send(2) while the processor has it in its cache; 0.9 to 1.1. A turn that
//!   receives for all connections first and sends for all afterwards moves each byte twice through
//!   memory: into memory of their own ([`Operation::ReceiveInto`]) it took 1.16, by shared buffers
//!   and copies 1.3 to 2.5.
//! * Datagrams: [`Operation::Poll`] and recvmmsg(2), 1.07 for one at a time and 0.97 for ten and
//!   more. `io_uring` can receive them into shared buffers, too, each with room for the largest;
//!   that took 0.93 and 0.99, which is not worth a second kind of buffers.
//! * An event of [`Operation::Poll`] costs 0.8 (one in a turn) to 1.05 (a hundred) of what one of
//!   epoll does: submitting it again is a part of the system call that waits.
//! * [`Operation::SendOne`] costs 1.06 of send(2), if the turn has something else to submit or to
//!   wait for, and a system call more otherwise.
//! * A program that only begins and ends should not have a ring: making it, and closing it, takes
//!   50 µs, epoll's 2; hence [`Proactor::lazy`].
//!
//! Another thread ends a wait by a [`Waker`] ([`Proactor::waker`]). A
//! proactor belongs to the thread that waits first, until it is suspended.

use std::io;
use std::time::Duration;

use crate::{Token, Waker};

mod completion;
mod op;
mod unavailable;

// io_uring: on Linux, where its crate knows the kernel's structures.
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "powerpc64"
    )
))]
mod uring;
#[cfg(not(any(
    windows,
    all(
        target_os = "linux",
        any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "loongarch64",
            target_arch = "powerpc64"
        )
    )
)))]
#[path = "no_uring.rs"]
mod uring;

#[cfg(windows)]
mod iocp;

pub use completion::{Chunk, Completion, Completions, Returned};
pub use op::{Lent, LentMut, Operation};
pub use unavailable::Unavailable;

/// Whether a selector's loop does better by a proactor's polls than by any selector: on Windows, where
/// these know neither processes nor more than a few hundred sockets.
pub const SERVES_SELECTORS: bool = cfg!(windows);

/// How large a proactor is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Config {
    /// How many submissions leave in one system call; more of them take several. From 1 to 32768,
    /// rounded up to a power of two.
    pub entries: u32,
    /// How many buffers receivers share at most; a power of two from 1 to 32768. Few of them are
    /// in use at first, and as many as have data at the same time later on.
    pub buffers: u16,
    /// How many bytes one of them has. Memory that no data has arrived in yet is not taken.
    pub buffer_size: u32,
    /// How the kernel is asked to do its part.
    pub setup: Setup,
}

impl Default for Config {
    fn default() -> Self {
        Self { entries: 256, buffers: 1024, buffer_size: 32 * 1024, setup: Setup::Deferred }
    }
}

impl Config {
    /// Whether the sizes are in range.
    pub fn check(&self) -> Result<(), Unavailable> {
        let in_range = (1..=32_768).contains(&self.entries)
            && self.buffers.is_power_of_two()
            && (1..=i32::MAX.cast_unsigned()).contains(&self.buffer_size);
        if in_range { Ok(()) } else { Err(Unavailable::Sizes) }
    }
}

/// When the kernel does its part of an operation, from the best on. Where the kernel is too old for
/// one the next is taken; to begin with a later one is for tests of it.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub enum Setup {
    /// During waits alone (`DEFER_TASKRUN`, Linux 6.1): completions come in batches.
    Deferred,
    /// During any system call of the thread (`COOP_TASKRUN`, Linux 5.19).
    Cooperative,
    /// At any time, by interrupting the thread.
    Plain,
}

/// Operations under way, of buffers `B` to send from and `M` to receive into.
#[derive(Debug)]
pub enum Proactor<B: Lent, M: LentMut> {
    /// `io_uring(7)` of Linux.
    #[cfg(not(windows))]
    Uring(uring::Uring<B, M>),
    /// Completion ports of Windows.
    #[cfg(windows)]
    Iocp(iocp::Iocp<B, M>),
}

macro_rules! backend {
    ($proactor:expr, $backend:ident => $call:expr) => {
        match $proactor {
            #[cfg(not(windows))]
            Proactor::Uring($backend) => $call,
            #[cfg(windows)]
            Proactor::Iocp($backend) => $call,
        }
    };
}

impl<B: Lent, M: LentMut> Proactor<B, M> {
    /// A proactor with nothing under way. The error says why this system has none.
    pub fn new(config: Config) -> Result<Self, Unavailable> {
        #[cfg(windows)]
        return iocp::Iocp::new(config).map(Self::Iocp);
        #[cfg(not(windows))]
        uring::Uring::new(config).map(Self::Uring)
    }

    /// The same, made by the first wait that needs the kernel: one that sleeps, or that has more to
    /// do than to look at a few polls for a few times. Making it is most of what a short run costs.
    /// For who has asked [`probe`]; what is wrong all the same is that wait's error.
    pub fn lazy(config: Config) -> Result<Self, Unavailable> {
        #[cfg(windows)]
        return iocp::Iocp::new(config).map(Self::Iocp);
        #[cfg(not(windows))]
        uring::Uring::lazy(config).map(Self::Uring)
    }

    /// The name of the mechanism, in small letters.
    pub const fn name(&self) -> &'static str {
        match self {
            #[cfg(not(windows))]
            Self::Uring(_) => "io_uring",
            #[cfg(windows)]
            Self::Iocp(_) => "iocp",
        }
    }

    /// A waker of this proactor. One that has a source is an ordinary one, and an
    /// [`Operation::Poll`] is to watch it; one that has none ends waits by itself, and they may have
    /// nothing to report then.
    pub fn waker(&self) -> io::Result<Waker> {
        backend!(self, backend => backend.waker())
    }

    /// What of [`Config::setup`] the kernel has granted; what was asked for, as long as it does not
    /// know of a lazy one.
    pub const fn setup(&self) -> Setup {
        backend!(self, backend => backend.setup())
    }

    /// How many operations are under way.
    pub fn len(&self) -> usize {
        backend!(self, backend => backend.len())
    }

    /// Whether no operation is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an operation under way. Its completions bring `owner` back, whatever that means to the
    /// caller.
    #[inline]
    pub fn submit(&mut self, owner: Token, operation: Operation<B, M>) -> Token {
        backend!(self, backend => backend.submit(owner, operation))
    }

    /// Lets a poll that was reported miss a few of the waits that follow, of those that do not sleep: asking whether the
    /// descriptor is still ready takes a system call. For an owner that reads all there is, or else calls [`hurry`](Self::hurry). Nothing more than a permission, to be given before the poll's first wait.
    pub fn set_patient(&mut self, poll: Token) {
        backend!(self, backend => backend.set_patient(poll));
    }

    /// Has the next wait miss nothing: there is more than was read.
    pub fn hurry(&mut self) {
        backend!(self, backend => backend.hurry());
    }

    /// Has a patient poll report nothing until [`resume_poll`](Self::resume_poll). That takes no system call; it is false, and
    /// nothing has changed, where it is no cheaper than a withdrawal.
    pub fn pause_poll(&mut self, poll: Token) -> bool {
        backend!(self, backend => backend.pause_poll(poll))
    }

    /// Has the next wait report a poll that pauses, if it is ready.
    pub fn resume_poll(&mut self, poll: Token) {
        backend!(self, backend => backend.resume_poll(poll));
    }

    /// Asks that an operation end. False when it had its last completion before.
    #[inline]
    pub fn cancel(&mut self, operation: Token) -> bool {
        backend!(self, backend => backend.cancel(operation))
    }

    /// Ends an operation, and returns when the kernel has let go of its file: a descriptor that
    /// is closed next is closed for its peer, too. The last completion is handed back if it is
    /// ECANCELED and the only one that is left to report; else the next `wait` reports them,
    /// without sleeping, as it does with what is seen of other operations meanwhile. `None` then,
    /// and when the operation had its last completion before.
    ///
    /// One system call, or none for an operation that is not the kernel's at the moment. On another
    /// thread than the one that waits, what is the kernel's is only cancelled.
    pub fn withdraw(&mut self, operation: Token) -> Option<Completion<B, M>> {
        backend!(self, backend => backend.withdraw(operation))
    }

    /// Takes everything back from the kernel until the next `wait`, which may be another thread's.
    /// What had happened by then is put into `completions`, in order, after what is done once had a
    /// chance to begin.
    ///
    /// One system call where little is under way, none if nothing is. The error is that of a thread
    /// other than the one that waited (EEXIST); nothing has changed then.
    pub fn suspend(&mut self, completions: &mut Completions<B, M>) -> io::Result<()> {
        backend!(self, backend => backend.suspend(completions))
    }

    /// Submits everything, and waits until something is complete, for at most `timeout` (`None`:
    /// without end).
    ///
    /// The first wait after `suspend` on another thread makes a new ring; where it cannot, nothing
    /// is lost, and the next wait tries again.
    #[inline]
    pub fn wait(
        &mut self,
        completions: &mut Completions<B, M>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        backend!(self, backend => backend.wait(completions, timeout))
    }

    /// The bytes of a chunk that this proactor reported.
    ///
    /// # Panics
    /// When it is of another proactor, and this one lends no such buffer.
    #[inline]
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        backend!(self, backend => backend.bytes(chunk))
    }

    /// Gives the buffer of a chunk back to the receivers.
    #[inline]
    pub fn recycle(&mut self, chunk: Chunk) {
        backend!(self, backend => backend.recycle(chunk));
    }

    /// Cancels everything, and puts the last completions of all operations into `completions`.
    ///
    /// The error is that of a thread other than the one that waited: the kernel does not let it
    /// cancel, so that the buffers lent to it are never freed.
    pub fn close(self, completions: &mut Completions<B, M>) -> io::Result<()> {
        backend!(self, backend => backend.close(completions))
    }
}

/// Why this process can have no proactor of the default size, if so. Makes one to find out.
pub fn probe() -> Result<(), Unavailable> {
    Proactor::<Vec<u8>, Vec<u8>>::new(Config::default()).map(drop)
}
