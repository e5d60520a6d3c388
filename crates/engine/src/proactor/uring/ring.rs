//! The two queues: what goes into the kernel, and how a thread waits for what comes out.
//!
//! What surprised us:
//! * A ring with `SINGLE_ISSUER` belongs to the thread that makes it, unless it is made disabled:
//!   then to the one that enables it. Every other gets EEXIST.
//! * `io_uring_enter` reports either how many entries it took or an error of the wait, and the
//!   former wins: a signal that ends the wait of a call that has submitted something shows as a
//!   success without a completion. So does the end of the timeout.
//! * When it takes less than all entries it does not wait.
//! * Completions that do not fit are kept by the kernel and are moved up only by a call that asks
//!   for completions, whether it waits or not.
#![allow(unsafe_code)] // io_uring_enter

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Submitter, cqueue};

use super::super::{Config, Setup, Unavailable};

/// Where Linux says whether `io_uring` is for everybody (0), for a group (1) or for nobody (2).
const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// The kernel's seconds are signed.
const MOST_SECONDS: u64 = i64::MAX as u64;

/// How late the kernel lets a wait of a selector be by default, so that it wakes once for several timers
/// (`PR_SET_TIMERSLACK`, prctl(2)). A wait of `io_uring` is as late as it is asked to be.
const SLACK: Duration = Duration::from_micros(50);

/// How a wait ended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Entered {
    /// Everything is submitted, and if something was waited for, it has come or time is up.
    All,
    /// Everything is submitted, nothing has come, and time is up.
    Late,
    /// Everything was submitted, and yet nothing has come before its time: a signal.
    Interrupted,
    /// The kernel took a part of the entries only, and did not wait.
    Part,
}

/// The submission queue is full, and the kernel takes nothing out of it; why, if it says so.
#[derive(Debug)]
pub(super) struct Full(pub(super) Option<io::Error>);

/// A ring. Between the calls of its owner there is nothing in its submission queue, unless the
/// kernel would not take it.
pub(super) struct Ring {
    /// None until a wait needs them.
    queues: Option<IoUring>,
    setup: Setup,
    /// `NO_IOWAIT` where it is known (Linux 6.15): a loop without work is idle, and does not wait
    /// for a disk, which is what tools would show.
    flags: EnterFlags,
    /// The thread that has made the ring its own.
    owner: Option<ThreadId>,
}

impl Debug for Ring {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ring").field("setup", &self.setup).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring that the kernel does not know of.
    pub(super) const fn unopened(config: &Config) -> Self {
        Self { queues: None, setup: config.setup, flags: EnterFlags::empty(), owner: None }
    }

    /// A disabled ring, set up as well as the kernel can.
    pub(super) fn open(config: &Config) -> Result<Self, Unavailable> {
        let mut setup = config.setup;
        let queues = loop {
            match build(config.entries, setup) {
                // A flag that the kernel does not know.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    setup = match setup {
                        Setup::Deferred => Setup::Cooperative,
                        Setup::Cooperative => Setup::Plain,
                        Setup::Plain => return Err(unavailable(error)),
                    };
                }
                result => break result.map_err(unavailable)?,
            }
        };
        // A ring that is disabled refuses this (EBADFD); a filter of system calls has an error of its own.
        // SAFETY: no argument.
        let entered = unsafe { queues.submitter().enter::<SubmitArgs<'_, '_>>(0, 0, 0, None) };
        if let Err(error) = entered
            && matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
        {
            return Err(unavailable(error));
        }
        let idle = queues.params().is_feature_no_iowait();
        let flags = if idle { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        Ok(Self { queues: Some(queues), setup, flags, owner: None })
    }

    /// What is registered with the ring goes by this; ENXIO for one that is not open.
    pub(super) fn submitter(&self) -> io::Result<Submitter<'_>> {
        let unopened = || io::Error::from_raw_os_error(libc::ENXIO);
        self.queues.as_ref().map(IoUring::submitter).ok_or_else(unopened)
    }

    pub(super) const fn is_open(&self) -> bool {
        self.queues.is_some()
    }

    pub(super) const fn setup(&self) -> Setup {
        self.setup
    }

    /// Makes the ring this thread's.
    pub(super) fn enable(&mut self) -> io::Result<()> {
        self.submitter()?.register_enable_rings()?;
        self.owner = Some(thread::current().id());
        Ok(())
    }

    /// Whether a thread has made the ring its own: nothing has gone to the kernel before that.
    pub(super) const fn is_enabled(&self) -> bool {
        self.owner.is_some()
    }

    /// Whether another thread has made the ring its own.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.owner.is_some_and(|owner| owner != thread::current().id())
    }

    /// Whether the kernel would refuse what this thread asks of it.
    pub(super) fn refuses(&self) -> bool {
        self.setup == Setup::Deferred && self.is_elsewhere()
    }

    /// Appends an entry, after handing the others to the kernel if there is no place.
    ///
    /// # Safety
    /// What the entry points to stays valid until its last completion, or the end of the process.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: &Entry) -> Result<(), Full> {
        // SAFETY: the caller's promise.
        if unsafe { self.append(entry) } {
            return Ok(());
        }
        let entries = self.len();
        let taken = self.call(entries, 0, EnterFlags::empty(), None);
        // SAFETY: the caller's promise.
        if unsafe { self.append(entry) } { Ok(()) } else { Err(Full(taken.err())) }
    }

    /// # Safety
    /// As of `push`.
    #[inline]
    unsafe fn append(&mut self, entry: &Entry) -> bool {
        // SAFETY: the caller's promise.
        let push = |queues: &mut IoUring| unsafe { queues.submission().push(entry) }.is_ok();
        self.queues.as_mut().is_some_and(push)
    }

    /// Whether a wait would not sleep, as far as the queues tell.
    #[inline]
    pub(super) fn has_work(&mut self) -> bool {
        let submission = self.queues.as_mut().map(IoUring::submission);
        submission.is_some_and(|queue| queue.taskrun() || queue.cq_overflow())
            || self.has_completions()
    }

    #[inline]
    fn has_completions(&mut self) -> bool {
        self.queues.as_mut().is_some_and(|queues| !queues.completion().is_empty())
    }

    /// How many entries are still to be submitted.
    #[inline]
    fn len(&mut self) -> usize {
        self.queues.as_mut().map_or(0, |queues| queues.submission().len())
    }

    /// Submits everything and waits until there is a completion, for at most `timeout`, which ends at `deadline`.
    #[inline]
    pub(super) fn enter(
        &mut self,
        timeout: Option<Duration>,
        deadline: Option<Instant>,
    ) -> io::Result<Entered> {
        let Some(queues) = &mut self.queues else { return Ok(Entered::All) };
        let submission = queues.submission();
        let (entries, work) = (submission.len(), submission.taskrun() || submission.cq_overflow());
        drop(submission);
        let wait = timeout != Some(Duration::ZERO) && queues.completion().is_empty();
        // Without task work to run a call would do nothing.
        if entries == 0 && !wait && !work && self.setup != Setup::Plain {
            return Ok(Entered::All);
        }
        let limit = timeout.filter(|_| wait).map(slackened);
        match self.call(entries, u32::from(wait), EnterFlags::GETEVENTS, limit) {
            Ok(taken) if taken < entries => Ok(Entered::Part),
            Ok(_) if entries == 0 || !wait || self.has_completions() => Ok(Entered::All),
            Ok(_) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                Ok(Entered::Late)
            }
            Ok(_) => Ok(Entered::Interrupted),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(Entered::Late),
            Err(error) => Err(error),
        }
    }

    /// Submits everything and waits until `count` completions are in the queue, for at most
    /// `timeout`. What comes earlier, a signal say, is no error.
    pub(super) fn settle(&mut self, count: usize, timeout: Duration) -> io::Result<()> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let entries = self.len();
        match self.call(entries, count, EnterFlags::GETEVENTS, Some(timeout)) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; no memory at the moment; completions are to be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::ENOMEM | libc::EBUSY) => {
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Takes the next completion out of the queue.
    #[inline]
    pub(super) fn take(&mut self) -> Option<cqueue::Entry> {
        self.queues.as_mut()?.completion().next()
    }

    /// Whether the kernel keeps completions that did not fit; moves them up, if so.
    #[inline]
    pub(super) fn take_overflow(&mut self) -> io::Result<bool> {
        let Some(queues) = &mut self.queues else { return Ok(false) };
        if !queues.submission().cq_overflow() {
            return Ok(false);
        }
        // Nothing is submitted: that is for a call that looks at how much was.
        // SAFETY: no argument.
        unsafe {
            let flags = EnterFlags::GETEVENTS.bits();
            queues.submitter().enter::<SubmitArgs<'_, '_>>(0, 0, flags, None)?;
        }
        Ok(true)
    }

    /// `io_uring_enter(2)` with the `entries` that are in the queue; says how many were taken.
    fn call(
        &self,
        entries: usize,
        want: u32,
        flags: EnterFlags,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let Some(queues) = &self.queues else { return Ok(0) };
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let submitter = queues.submitter();
        let flags = flags | self.flags;
        let Some(timeout) = timeout else {
            // SAFETY: no argument.
            return unsafe {
                submitter.enter::<SubmitArgs<'_, '_>>(entries, want, flags.bits(), None)
            };
        };
        let limit =
            Timespec::new().sec(timeout.as_secs().min(MOST_SECONDS)).nsec(timeout.subsec_nanos());
        let arguments = SubmitArgs::new().timespec(&limit);
        let flags = flags | EnterFlags::EXT_ARG;
        // SAFETY: the arguments are what EXT_ARG announces, and live until the call returns.
        unsafe { submitter.enter(entries, want, flags.bits(), Some(&arguments)) }
    }
}

fn build(entries: u32, setup: Setup) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_r_disabled().setup_clamp().setup_submit_all();
    match setup {
        Setup::Deferred => {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        }
        Setup::Cooperative => {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        Setup::Plain => {}
    }
    builder.build(entries)
}

/// A timeout to sleep for: a sleep and its end take 15 µs of CPU, which many short ones are not worth. Longer ones end
/// when they should.
fn slackened(timeout: Duration) -> Duration {
    timeout.saturating_add(SLACK).min(2 * SLACK).max(timeout)
}

/// The reason that an error of `io_uring_setup(2)` stands for.
pub(super) fn unavailable(error: io::Error) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Unavailable::Kernel,
        Some(libc::EPERM | libc::EACCES) => {
            let value = std::fs::read_to_string(DISABLED).ok();
            match value.and_then(|value| value.trim().parse().ok()) {
                Some(value) if value > 0 => Unavailable::Disabled(value),
                _ => Unavailable::Forbidden,
            }
        }
        Some(libc::ENOMEM) => Unavailable::Memory,
        Some(libc::EINVAL) => Unavailable::TooOld { feature: "submission of whole batches" },
        _ => Unavailable::Other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_are_slack() {
        let slackened = |micros| slackened(Duration::from_micros(micros)).as_micros();
        assert_eq!([0, 1, 20, 49].map(slackened), [50, 51, 70, 99]);
        assert_eq!([50, 51, 99, 100, 101].map(slackened), [100, 100, 100, 100, 101]);
        assert_eq!(super::slackened(Duration::MAX), Duration::MAX);
        assert_eq!(super::slackened(Duration::from_nanos(100_001)).as_nanos(), 100_001);
    }
}
