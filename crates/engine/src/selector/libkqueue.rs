//! kqueue(2) as libkqueue 2.3 has it on Linux, to test there what `kqueue` makes of it (`make test-kqueue`).
//!
//! The names, numbers and types are those of `libc` for macOS and FreeBSD. What surprised us: a
//! descriptor has one filter at a time, as it goes to one epoll(7), hence a duplicate here for the
//! second; a number that was closed and is used again is taken for what it was; and two threads that
//! make their first queues at once lock each other up (the tests are run by one).
#![allow(unsafe_code)] // a library in C

use crate::sys::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::time::Duration;

use libc::timespec;

use super::kernel_queue;
use crate::Interest;

/// `struct kevent` of `<kqueue/sys/event.h>`.
#[repr(C)]
#[derive(Copy, Clone, Debug)]
#[allow(non_camel_case_types)] // as in C
pub(super) struct kevent {
    pub(super) ident: usize,
    pub(super) filter: i16,
    pub(super) flags: u16,
    fflags: u32,
    pub(super) data: isize,
    udata: *mut c_void,
}

pub(super) const EVFILT_READ: i16 = -1;
pub(super) const EVFILT_WRITE: i16 = -2;
pub(super) const EV_ADD: u16 = 1;
pub(super) const EV_DELETE: u16 = 2;
pub(super) const EV_ENABLE: u16 = 4;
pub(super) const EV_RECEIPT: u16 = 0x40;

#[link(name = "kqueue")]
unsafe extern "C" {
    pub(super) fn kqueue() -> c_int;
    pub(super) fn kevent(
        kq: c_int,
        changes: *const kevent,
        change_count: c_int,
        events: *mut kevent,
        event_count: c_int,
        timeout: *const timespec,
    ) -> c_int;
}

/// The queue of `kernel_queue`, with duplicates of the descriptors that are watched in both directions.
#[derive(Debug)]
pub(super) struct Queue {
    queue: kernel_queue::Queue,
    /// By the number of the descriptor, its duplicate, which is watched for writing.
    writers: HashMap<RawFd, OwnedFd>,
    ready: Vec<(RawFd, Interest)>,
}

impl Queue {
    pub(super) fn new() -> io::Result<Self> {
        let queue = kernel_queue::Queue::new()?;
        Ok(Self { queue, writers: HashMap::new(), ready: Vec::new() })
    }

    pub(super) fn set(&mut self, fd: RawFd, interest: Interest) -> io::Result<[i32; 2]> {
        let gone = self.queue.set(fd, Interest::NONE)?;
        if let Some(writer) = self.writers.remove(&fd) {
            self.queue.set(writer.as_raw_fd(), Interest::NONE)?;
        }
        if interest.is_empty() {
            return Ok(gone);
        }
        if interest != Interest::BOTH {
            return self.queue.set(fd, interest);
        }
        // SAFETY: it is open: whoever registers it has looked, and is this thread.
        let writer = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        let [reading, _] = self.queue.set(fd, Interest::READABLE)?;
        let [_, writing] = self.queue.set(writer.as_raw_fd(), Interest::WRITABLE)?;
        self.writers.insert(fd, writer);
        Ok([reading, writing])
    }

    pub(super) fn wait(
        &mut self,
        room: usize,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = (RawFd, Interest)> + Clone> {
        self.ready.clear();
        for (found, direction) in self.queue.wait(room, timeout)? {
            let writer = self.writers.iter().find(|(_, writer)| writer.as_raw_fd() == found);
            self.ready.push((writer.map_or(found, |(fd, _)| *fd), direction));
        }
        Ok(self.ready.iter().copied())
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.queue.as_raw_fd()
    }
}
