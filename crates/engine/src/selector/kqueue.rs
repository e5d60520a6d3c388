//! kqueue(2) of macOS and FreeBSD, level triggered (no `EV_CLEAR`).
//!
//! Reading and writing are two filters, hence two events, which are put together here. The kernel
//! drops filters when the number is closed, be the file open under another one or not, and adding
//! one that is there changes it, so registering and modifying are the same.

use std::io;
use std::time::Duration;

use super::refused::Refused;
use super::{Events, Queue};
use crate::sys::descriptor::DescriptorMap;
use crate::sys::fd::{AsRawFd, RawFd};
use crate::{Interest, Token};

const NOW: Option<Duration> = Some(Duration::ZERO);

/// A kqueue.
#[derive(Debug)]
pub struct Kqueue {
    queue: Queue,
    /// The kernel names the number in its events, and this what it was registered as.
    sources: DescriptorMap<Source>,
    /// How many entries of `sources` there are.
    registered: usize,
    /// What the kernel does not watch in a queue, if there is such a thing.
    refused: Option<Box<Refused>>,
}

#[derive(Debug)]
struct Source {
    token: Token,
    interest: Interest,
    /// During a wait: what the events so far say of this descriptor. Empty between waits.
    readiness: Interest,
}

impl Kqueue {
    pub(super) fn new() -> io::Result<Self> {
        let (queue, sources) = (Queue::new()?, DescriptorMap::default());
        Ok(Self { queue, sources, registered: 0, refused: None })
    }

    pub(super) fn register(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        crate::sys::descriptor::check_open(fd)?;
        match self.apply(fd, interest) {
            Ok(()) => self.forget_refused(fd)?,
            Err(error) if is_refusal(&error) => return self.register_refused(fd, token, interest),
            Err(error) => {
                self.deregister(fd)?;
                return Err(error);
            }
        }
        let source = Source { token, interest, readiness: Interest::NONE };
        if self.sources.insert(fd, source).is_none() {
            self.registered += 1;
        }
        Ok(())
    }

    pub(super) fn modify(&mut self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.register(fd, token, interest)
    }

    pub(super) fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        self.forget_refused(fd)?;
        if self.sources.remove(fd).is_some() {
            self.registered -= 1;
        }
        self.apply(fd, Interest::NONE)
    }

    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if self.refused.is_none() {
            return self.take(events, timeout);
        }
        // A queue is readable by what was ready when it was looked at last, be it ready or not by now: so it
        // is looked at before waiting for it, too.
        self.take(events, NOW)?;
        let waits = events.is_empty();
        let timeout = if waits { timeout } else { NOW };
        let Some(refused) = &mut self.refused else { return Ok(()) };
        if refused.wait(events, timeout)? && waits { self.take(events, NOW) } else { Ok(()) }
    }

    /// What is in the queue, or will be before the time is over.
    fn take(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        // Room for both filters of every descriptor.
        let ready = self.queue.wait((self.registered * 2).max(1), timeout)?;
        for (fd, direction) in ready.clone() {
            if let Some(source) = self.sources.get_mut(fd) {
                source.readiness = source.readiness.with(direction);
            }
        }
        for (fd, _) in ready {
            if let Some(source) = self.sources.get_mut(fd) {
                // Empty the second time, which reports nothing.
                let readiness = std::mem::replace(&mut source.readiness, Interest::NONE);
                events.push(source.token, readiness.and(source.interest));
            }
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "one signature for all kinds")]
    pub(super) fn as_raw_fd(&self) -> Option<RawFd> {
        Some(self.queue.as_raw_fd())
    }

    #[cold]
    fn register_refused(&mut self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.deregister(fd)?;
        let refused = match &mut self.refused {
            Some(refused) => refused,
            none => none.insert(Box::new(Refused::new(self.queue.as_raw_fd())?)),
        };
        refused.register(fd, token, interest)
    }

    fn forget_refused(&mut self, fd: RawFd) -> io::Result<()> {
        let refused = self.refused.as_mut().filter(|refused| refused.contains(fd));
        let Some(refused) = refused else { return Ok(()) };
        refused.deregister(fd)?;
        if refused.is_empty() {
            self.refused = None;
        }
        Ok(())
    }

    /// Has the filters of `interest` and no others. Deleting one that is not there, or whose descriptor
    /// is closed, is fine.
    fn apply(&mut self, fd: RawFd, interest: Interest) -> io::Result<()> {
        let errors = self.queue.set(fd, interest)?;
        for (errno, wanted) in
            errors.into_iter().zip([interest.is_readable(), interest.is_writable()])
        {
            match errno {
                0 => {}
                libc::ENOENT | libc::EBADF if !wanted => {}
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(())
    }
}

/// Whether the kernel has said that it does not watch such a descriptor, rather than that something
/// was wrong.
///
/// Its words for that: EINVAL for most character devices of macOS, `/dev/tty` among them (XNU,
/// `filt_specattach`), ENODEV and ENXIO for devices, ENOTSUP for other things, EPERM from a
/// sandbox, and on FreeBSD EPIPE for a pipe whose reader is gone (`pipe_kqfilter`; asyncio's gh-109757).
fn is_refusal(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOMEM))
}
