//! kqueue(2) of macOS and FreeBSD, level triggered (no `EV_CLEAR`).
//!
//! Reading and writing are two filters, hence two events, which are put together here. The kernel
//! drops filters when the last number of the open file goes away, and adding one that is there
//! changes it, so registering and modifying are the same.
#![allow(unsafe_code)] // kevent on numbers that may be closed, which rustix does not allow

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use libc::kevent;

use super::Events;
use crate::sys::descriptor::{DescriptorMap, timespec};
use crate::sys::fd::{AsRawFd, OwnedFd, RawFd};
use crate::{Interest, Token};

/// A kqueue.
#[derive(Debug)]
pub struct Kqueue {
    queue: OwnedFd,
    /// The kernel names the number in its events, and this what it was registered as.
    sources: DescriptorMap<Source>,
    /// How many entries of `sources` there are.
    registered: usize,
    /// Where the kernel writes; room for both filters of every descriptor.
    buffer: Vec<MaybeUninit<kevent>>,
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
        let queue = rustix::event::kqueue::kqueue()?;
        rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
        let sources = DescriptorMap::default();
        Ok(Self { queue, sources, registered: 0, buffer: Vec::new() })
    }

    pub(super) fn register(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        crate::sys::descriptor::check_open(fd)?;
        self.apply(fd, libc::EVFILT_READ, interest.is_readable())?;
        if let Err(error) = self.apply(fd, libc::EVFILT_WRITE, interest.is_writable()) {
            self.deregister(fd)?;
            return Err(error);
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
        if self.sources.remove(fd).is_some() {
            self.registered -= 1;
        }
        self.apply(fd, libc::EVFILT_READ, false)?;
        self.apply(fd, libc::EVFILT_WRITE, false)
    }

    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.buffer.resize((self.registered * 2).max(1), MaybeUninit::uninit());
        let count = self.wait_into_buffer(timeout)?;
        for event in &self.buffer[..count] {
            // SAFETY: the kernel has filled in the first `count`.
            let event = unsafe { event.assume_init_ref() };
            if let Some(source) = self.sources.get_mut(descriptor(event)) {
                source.readiness = source.readiness.with(direction(event));
            }
        }
        for event in &self.buffer[..count] {
            // SAFETY: as above.
            let event = unsafe { event.assume_init_ref() };
            if let Some(source) = self.sources.get_mut(descriptor(event)) {
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

    /// Adds or deletes one filter. Deleting one that is not there, or whose descriptor is closed,
    /// is fine.
    fn apply(&self, fd: RawFd, filter: i16, wanted: bool) -> io::Result<()> {
        // SAFETY: all-zero is a valid `kevent`: numbers and a null pointer.
        let mut change: kevent = unsafe { std::mem::zeroed() };
        change.ident =
            usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        change.filter = filter;
        change.flags = if wanted { libc::EV_ADD | libc::EV_ENABLE } else { libc::EV_DELETE };
        // SAFETY: one change, which is valid, and no room for events: errors are the result.
        let result = unsafe {
            kevent(
                self.queue.as_raw_fd(),
                &raw const change,
                1,
                std::ptr::null_mut(),
                0,
                std::ptr::null(),
            )
        };
        if result != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::EBADF) if !wanted => Ok(()),
            // A pipe whose other end is gone: the filter is there, and will report it (macOS).
            Some(libc::EPIPE) if wanted => Ok(()),
            _ => Err(error),
        }
    }

    fn wait_into_buffer(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| {
            let timeout = timespec(timeout);
            libc::timespec { tv_sec: timeout.tv_sec, tv_nsec: timeout.tv_nsec }
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let length = libc::c_int::try_from(self.buffer.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the buffer is valid for writes over its length; the timeout is null or valid.
        let count = unsafe {
            kevent(
                self.queue.as_raw_fd(),
                std::ptr::null(),
                0,
                self.buffer.as_mut_ptr().cast(),
                length,
                timeout,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

fn descriptor(event: &kevent) -> RawFd {
    RawFd::try_from(event.ident).unwrap_or(-1)
}

const fn direction(event: &kevent) -> Interest {
    match event.filter {
        libc::EVFILT_READ => Interest::READABLE,
        libc::EVFILT_WRITE => Interest::WRITABLE,
        _ => Interest::NONE,
    }
}
