//! The system calls of `kqueue`, and nothing of what they are for.
#![allow(unsafe_code)] // kevent on numbers that may be closed, which rustix does not allow

use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::process;
use std::time::Duration;

use super::system::{
    EV_ADD, EV_DELETE, EV_ENABLE, EV_RECEIPT, EVFILT_READ, EVFILT_WRITE, kevent, kqueue,
};
use crate::Interest;
use crate::sys::descriptor::timespec;
use crate::sys::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A kernel queue, and where the kernel writes its events.
#[derive(Debug)]
pub(super) struct Queue {
    descriptor: ManuallyDrop<OwnedFd>,
    /// The process that has made it, and the only one that has it.
    process: u32,
    buffer: Vec<MaybeUninit<kevent>>,
}

// SAFETY: the pointers in the events are the callers' own data, which nobody gives or follows.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: it takes nothing.
        let queue = unsafe { kqueue() };
        if queue == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, and it is nobody else's.
        let queue = unsafe { OwnedFd::from_raw_fd(queue) };
        rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
        let descriptor = ManuallyDrop::new(queue);
        Ok(Self { descriptor, process: process::id(), buffer: Vec::new() })
    }

    /// Adds the filters of `interest` and deletes the others: the errno for reading and the one for
    /// writing, zero for none.
    #[allow(clippy::needless_pass_by_ref_mut)] // libkqueue's has something to keep
    pub(super) fn set(&mut self, fd: RawFd, interest: Interest) -> io::Result<[i32; 2]> {
        let ident = usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        let mut changes = [
            change(ident, EVFILT_READ, interest.is_readable()),
            change(ident, EVFILT_WRITE, interest.is_writable()),
        ];
        // SAFETY: the changes are valid, and there is room for as many receipts, which take their
        // place and are all that the call gives.
        let count = unsafe {
            kevent(
                self.descriptor.as_raw_fd(),
                changes.as_ptr(),
                2,
                changes.as_mut_ptr(),
                2,
                std::ptr::null(),
            )
        };
        if count == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(changes.map(|receipt| i32::try_from(receipt.data).unwrap_or(libc::EIO)))
    }

    /// Waits for at most `room` events: the descriptor and the direction of each.
    pub(super) fn wait(
        &mut self,
        room: usize,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = (RawFd, Interest)> + Clone> {
        self.buffer.resize(room, MaybeUninit::uninit());
        let timeout = timeout.map(|timeout| {
            let timeout = timespec(timeout);
            libc::timespec { tv_sec: timeout.tv_sec, tv_nsec: timeout.tv_nsec }
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let length = libc::c_int::try_from(self.buffer.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the buffer is valid for writes over its length; the timeout is null or valid.
        let count = unsafe {
            kevent(
                self.descriptor.as_raw_fd(),
                std::ptr::null(),
                0,
                self.buffer.as_mut_ptr().cast(),
                length,
                timeout,
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        Ok(self.buffer[..count].iter().map(|event| {
            // SAFETY: the kernel has filled in the first `count`.
            let event = unsafe { event.assume_init_ref() };
            (RawFd::try_from(event.ident).unwrap_or(-1), direction(event))
        }))
    }
}

impl Drop for Queue {
    /// A child of fork(2) does not get its parent's queues (kqueue(2)): their numbers are free there, and the
    /// next file's, a new loop's queue perhaps (gh-110395 of Python).
    fn drop(&mut self) {
        if process::id() == self.process {
            // SAFETY: it is dropped once, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.descriptor) };
        }
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// A change of one filter, answered by a receipt: in the place of events that wait, which are left
/// alone.
fn change(ident: usize, filter: i16, wanted: bool) -> kevent {
    // SAFETY: all-zero is a valid `kevent`: numbers and a null pointer.
    let mut change: kevent = unsafe { std::mem::zeroed() };
    change.ident = ident;
    change.filter = filter;
    change.flags = EV_RECEIPT | if wanted { EV_ADD | EV_ENABLE } else { EV_DELETE };
    change
}

const fn direction(event: &kevent) -> Interest {
    match event.filter {
        EVFILT_READ => Interest::READABLE,
        EVFILT_WRITE => Interest::WRITABLE,
        _ => Interest::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_closes_no_number_that_was_its_parents_queue() -> io::Result<()> {
        let queue = Queue::new()?;
        let number = queue.as_raw_fd();
        // SAFETY: the child only drops the queue and makes system calls.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: nobody else uses the number in this process.
            unsafe { libc::dup2(2, number) };
            drop(queue);
            // SAFETY: the kernel checks the number.
            unsafe { libc::_exit(libc::fcntl(number, libc::F_GETFD)) };
        }
        let mut status = -1;
        // SAFETY: the status is valid for writes.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "it was closed");
        Ok(())
    }
}
