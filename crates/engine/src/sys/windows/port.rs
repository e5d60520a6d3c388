//! Completion ports: a queue in the kernel that ended operations are put into.
//!
//! A wake-up is a packet that nobody's operation has caused. One is in the queue at most, so that a
//! thousand wake-ups cost one.
#![allow(unsafe_code)] // completion ports

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use windows_sys::Win32::Foundation::{
    HANDLE, INVALID_HANDLE_VALUE, WAIT_IO_COMPLETION, WAIT_TIMEOUT,
};
use windows_sys::Win32::System::IO::{
    CreateIoCompletionPort, GetQueuedCompletionStatusEx, OVERLAPPED, OVERLAPPED_ENTRY,
    PostQueuedCompletionStatus,
};

use super::fd::{AsRawFd, OwnedFd, RawFd, handle, owned};

/// The key of packets of operations.
const OPERATION: usize = 0;
/// The key of wake-ups.
const WAKE_UP: usize = 1;

/// A completion port.
#[derive(Debug)]
pub(crate) struct Port {
    handle: OwnedFd,
    /// Whether a wake-up is in the queue. Set by whoever puts it there, cleared by whoever takes it
    /// out, before he looks at what he was woken for.
    woken: AtomicBool,
}

/// How a wait ended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Waited {
    /// There are packets, of operations alone.
    Packets,
    /// Somebody wanted the wait to end. There may be packets, too.
    Woken,
    /// Time is up.
    Timeout,
    /// A timer has called: this thread, or by a packet of its own. There may be packets, too.
    Called,
}

impl Port {
    /// The key of packets that end a wait and say nothing.
    pub(crate) const CALL: usize = 2;

    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a port of no file, made for us.
        let handle = unsafe {
            let none = ptr::null_mut();
            owned(CreateIoCompletionPort(INVALID_HANDLE_VALUE, none, OPERATION, 1))?
        };
        Ok(Self { handle, woken: AtomicBool::new(false) })
    }

    pub(crate) fn raw(&self) -> HANDLE {
        handle(self.handle.as_raw_fd())
    }

    /// Has the ends of all operations of `fd` put into the queue. `ERROR_INVALID_PARAMETER` when
    /// that is so already, or those of another port are.
    pub(crate) fn associate(&self, fd: RawFd) -> io::Result<()> {
        // SAFETY: the kernel checks the handle.
        let port = unsafe { CreateIoCompletionPort(handle(fd), self.raw(), OPERATION, 0) };
        if port.is_null() { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Ends a wait, this one or the next.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) && !self.post(WAKE_UP, ptr::null()) {
            // The next one tries again.
            self.woken.store(false, Ordering::Release);
        }
    }

    /// Puts the end of an operation into the queue that the kernel knows nothing of. It has moved
    /// nothing.
    pub(crate) fn end(&self, overlapped: *const OVERLAPPED) {
        self.post(OPERATION, overlapped);
    }

    /// False for lack of memory in the kernel.
    fn post(&self, key: usize, overlapped: *const OVERLAPPED) -> bool {
        // SAFETY: the kernel hands the pointer back and does not look at what it points to.
        unsafe { PostQueuedCompletionStatus(self.raw(), 0, key, overlapped) != 0 }
    }

    /// Takes packets out of the queue, as soon as there are some, and puts those of operations into
    /// `packets`; as many as there is room for. `millis`: for how long to wait, in the grain of the
    /// system's clock; `u32::MAX` is without end.
    pub(crate) fn wait(
        &self,
        entries: &mut [OVERLAPPED_ENTRY],
        packets: &mut Vec<*mut OVERLAPPED>,
        millis: u32,
    ) -> io::Result<Waited> {
        let room = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let mut count = 0;
        // SAFETY: the entries and the count are valid for writes.
        let result = unsafe {
            let start = entries.as_mut_ptr();
            GetQueuedCompletionStatusEx(self.raw(), start, room, &raw mut count, millis, 1)
        };
        if result == 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error().map(i32::cast_unsigned) {
                Some(WAIT_TIMEOUT) => Ok(Waited::Timeout),
                Some(WAIT_IO_COMPLETION) => Ok(Waited::Called),
                _ => Err(error),
            };
        }
        let mut waited = Waited::Packets;
        for entry in entries.iter().take(count as usize) {
            match entry.lpCompletionKey {
                WAKE_UP => {
                    // Before the loop looks into its inbox, and after whoever woke it has filled it.
                    self.woken.swap(false, Ordering::AcqRel);
                    waited = Waited::Woken;
                }
                Self::CALL if waited == Waited::Woken => {}
                Self::CALL => waited = Waited::Called,
                _ => packets.push(entry.lpOverlapped),
            }
        }
        Ok(waited)
    }
}
