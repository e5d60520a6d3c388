//! Waits that end when they should.
//!
//! What surprised us: every timeout of Windows ends with a tick of the system's clock, which is 64
//! times in a second unless some program wants it more often, for all of them and at the cost of
//! everybody's battery. Since Windows 10, version 1803, there are timers that are accurate without
//! that (`CREATE_WAITABLE_TIMER_HIGH_RESOLUTION`), but a wait for a completion port does not wait for a
//! timer. It is ended by a call to the waiting thread, however (an APC), which is what a timer may make.
#![allow(unsafe_code)] // waitable timers

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use windows_sys::Win32::System::Threading::{
    CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, CancelWaitableTimer, CreateWaitableTimerExW,
    SetWaitableTimer, TIMER_ALL_ACCESS,
};

use crate::sys::fd::{AsRawFd, OwnedFd, handle, owned};

/// A timer that ends the wait of the thread that has set it.
#[derive(Debug)]
pub(super) struct Timer {
    timer: OwnedFd,
}

impl Timer {
    /// A timer, if the system has any that is accurate.
    pub(super) fn new() -> Option<Self> {
        Self::with(CREATE_WAITABLE_TIMER_HIGH_RESOLUTION)
    }

    fn with(flags: u32) -> Option<Self> {
        // SAFETY: no attributes, no name; the handle is made for us.
        let timer = unsafe {
            owned(CreateWaitableTimerExW(ptr::null(), ptr::null(), flags, TIMER_ALL_ACCESS))
        };
        Some(Self { timer: timer.ok()? })
    }

    /// Ends an alertable wait of this thread after `timeout`. False if it cannot.
    pub(super) fn set(&self, timeout: Duration) -> bool {
        // In units of 100 ns, and negative for a time from now on.
        let units = i64::try_from(timeout.as_nanos().div_ceil(100)).unwrap_or(i64::MAX);
        let due = -units;
        // SAFETY: the time is valid for reads, and the routine lives for ever.
        let result = unsafe {
            let timer = handle(self.timer.as_raw_fd());
            SetWaitableTimer(timer, &raw const due, 0, Some(nothing), ptr::null(), 0)
        };
        result != 0
    }

    /// Takes back what `set` has asked for, the call included if it was not made yet.
    pub(super) fn clear(&self) {
        // SAFETY: the handle is open.
        unsafe { CancelWaitableTimer(handle(self.timer.as_raw_fd())) };
    }
}

/// Being called is all that it takes.
unsafe extern "system" fn nothing(_argument: *const c_void, _low: u32, _high: u32) {}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Instant;

    use windows_sys::Win32::System::IO::OVERLAPPED_ENTRY;

    use super::*;
    use crate::sys::port::{Port, Waited};

    #[test]
    fn timers_end_the_wait_of_their_thread() -> io::Result<()> {
        // An inaccurate one does it, too, and every system has that.
        for timer in [Timer::new(), Timer::with(0)].into_iter().flatten() {
            let port = Port::new()?;
            let (mut entries, mut packets) = ([OVERLAPPED_ENTRY::default(); 4], Vec::new());
            let timeout = Duration::from_micros(2_500);
            for _ in 0..20 {
                let start = Instant::now();
                assert!(timer.set(timeout));
                assert_eq!(port.wait(&mut entries, &mut packets, u32::MAX)?, Waited::Called);
                assert!(start.elapsed() >= timeout);
            }
            // One that was cleared in time does nothing.
            assert!(timer.set(Duration::from_micros(1)));
            std::thread::yield_now();
            timer.clear();
            assert_eq!(port.wait(&mut entries, &mut packets, 5)?, Waited::Timeout);
            assert!(packets.is_empty());
        }
        assert!(Timer::with(0).is_some());
        Ok(())
    }
}
