//! epoll(7), level triggered.
//!
//! What surprised us: the kernel watches the open file, not the number. A number closed behind our
//! back is forgotten by the kernel (unless the file lives on under another number), and its next
//! user may meet what is left of the last one, or nothing where we expect something: hence ADD
//! falls back upon MOD and MOD upon ADD.
//!
//! The two spare bits of the token carry the interest, so that an error can be reported in the
//! directions that were asked for without a look-up.
#![allow(unsafe_code)] // epoll_ctl on numbers that may be closed; epoll_pwait2 is not in rustix

use std::io;
use std::time::Duration;

use rustix::event::epoll::{CreateFlags, create};

use super::Events;
use crate::sys::descriptor::timespec;
use crate::sys::fd::{AsRawFd, OwnedFd, RawFd};
use crate::{Interest, Token};

const INTEREST_SHIFT: u32 = 64 - Token::SPARE_BITS;
const READ_BIT: u32 = libc::EPOLLIN as u32;
const WRITE_BIT: u32 = libc::EPOLLOUT as u32;
const ONCE_BIT: u32 = libc::EPOLLONESHOT as u32;

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    instance: OwnedFd,
    /// Where the kernel writes; as long as there are descriptors, to see every one in one wait.
    buffer: Vec<libc::epoll_event>,
    /// How many descriptors were added and not removed. Too many by those that were closed
    /// without `deregister`, which costs a little memory.
    registered: usize,
    /// Whether `epoll_pwait2` (Linux 5.11) works here; cleared by the first ENOSYS or EPERM (what
    /// seccomp filters give for calls that they do not know).
    has_pwait2: bool,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        let instance = create(CreateFlags::CLOEXEC)?;
        Ok(Self { instance, buffer: Vec::new(), registered: 0, has_pwait2: true })
    }

    pub(super) fn register(
        &mut self,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        match self.control(libc::EPOLL_CTL_ADD, fd, token, interest) {
            Ok(()) => {
                self.registered += 1;
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
            }
            result => result,
        }
    }

    pub(super) fn modify(&mut self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        match self.control(libc::EPOLL_CTL_MOD, fd, token, interest) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                // Already counted when it was registered.
                self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
            }
            result => result,
        }
    }

    pub(super) fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        self.registered = self.registered.saturating_sub(1);
        match self.control(libc::EPOLL_CTL_DEL, fd, Token::reserved(0), Interest::NONE) {
            // The number was closed behind our back; EPERM says that it is one of a regular file now.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::EBADF | libc::EPERM)
                ) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    pub(super) fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let capacity = self.registered.max(events.events.capacity()).max(1);
        if self.buffer.len() < capacity {
            self.buffer.resize(capacity, libc::epoll_event { events: 0, u64: 0 });
        }
        let count = self.wait_into_buffer(timeout)?;
        for event in &self.buffer[..count] {
            let data = event.u64;
            let interest = Interest::from_bits((data >> INTEREST_SHIFT) as u8);
            events.push(Token::from_u64(data), readiness(event.events).and(interest));
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "one signature for all kinds")]
    pub(super) fn as_raw_fd(&self) -> Option<RawFd> {
        Some(self.instance.as_raw_fd())
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let data = token.to_u64() | u64::from(interest.bits()) << INTEREST_SHIFT;
        let mut event = libc::epoll_event { events: interest_bits(interest), u64: data };
        // SAFETY: `event` is valid; the kernel checks both descriptors, and adding one of somebody
        // else's to an epoll instance of ours changes nothing for its owner.
        let result =
            unsafe { libc::epoll_ctl(self.instance.as_raw_fd(), operation, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn wait_into_buffer(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let millis = match timeout {
            None => -1,
            Some(Duration::ZERO) => 0,
            Some(timeout) => {
                if self.has_pwait2 {
                    match self.pwait2(timeout) {
                        Err(error)
                            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) =>
                        {
                            self.has_pwait2 = false;
                        }
                        result => return result,
                    }
                }
                // Rounded up: a wait that ends early would turn the loop for nothing.
                i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
            }
        };
        // SAFETY: the buffer is valid for writes over its length.
        let count = unsafe {
            libc::epoll_wait(
                self.instance.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                length(&self.buffer),
                millis,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn pwait2(&mut self, timeout: Duration) -> io::Result<usize> {
        let timeout = timespec(timeout);
        // SAFETY: the buffer is valid for writes over its length; the timeout is a 64-bit
        // `__kernel_timespec` on every architecture, as the call wants; there is no signal mask.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.instance.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                length(&self.buffer),
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

fn length(buffer: &[libc::epoll_event]) -> libc::c_int {
    // EP_MAX_EVENTS in fs/eventpoll.c: more is EINVAL.
    const MOST: usize = i32::MAX as usize / size_of::<libc::epoll_event>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    let length = buffer.len().min(MOST) as libc::c_int;
    length
}

fn interest_bits(interest: Interest) -> u32 {
    if interest.is_empty() {
        // With no bits set epoll still reports hang-ups, and would without end. Like this it ends
        // one wait without an event and is quiet then.
        return ONCE_BIT;
    }
    let mut bits = 0;
    if interest.is_readable() {
        bits |= READ_BIT;
    }
    if interest.is_writable() {
        bits |= WRITE_BIT;
    }
    bits
}

/// As `selectors.EpollSelector.select`: whatever is not plain readiness for the one direction
/// counts for the other.
#[inline]
fn readiness(bits: u32) -> Interest {
    let mut readiness = Interest::NONE;
    if bits & !READ_BIT != 0 {
        readiness = readiness.with(Interest::WRITABLE);
    }
    if bits & !WRITE_BIT != 0 {
        readiness = readiness.with(Interest::READABLE);
    }
    readiness
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn without_pwait2_timeouts_are_rounded_up() -> io::Result<()> {
        let mut epoll = Epoll::new()?;
        epoll.has_pwait2 = false;
        let start = Instant::now();
        epoll.wait(&mut Events::default(), Some(Duration::from_nanos(1_000_001)))?;
        assert!(start.elapsed() >= Duration::from_millis(2));
        assert!(!epoll.has_pwait2);
        Ok(())
    }

    #[test]
    fn bits_mean_what_python_takes_them_for() {
        let bits = |bits: i32| readiness(bits.cast_unsigned());
        assert_eq!(bits(libc::EPOLLIN), Interest::READABLE);
        assert_eq!(bits(libc::EPOLLOUT), Interest::WRITABLE);
        assert_eq!(bits(libc::EPOLLHUP), Interest::BOTH);
        assert_eq!(bits(libc::EPOLLERR | libc::EPOLLOUT), Interest::BOTH);
        assert_eq!(bits(libc::EPOLLIN | libc::EPOLLRDHUP), Interest::BOTH);
    }
}
