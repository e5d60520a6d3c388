//! Waits that end when they should.
//!
//! What surprised us: every timeout of Windows ends with a tick of the system's clock, which is 64
//! times in a second unless some program wants it more often, for all of them and at the cost of
//! everybody's battery. Since Windows 10, version 1803, there are timers that are accurate without
//! that (`CREATE_WAITABLE_TIMER_HIGH_RESOLUTION`), but a wait for a completion port does not wait for a
//! timer. A packet does (`wait_packet`), and so it ends the wait: Go's runtime has it like this, since 1.23.
//! A timer may also call the waiting thread (an APC), where there are no such packets, which is under Wine. On
//! Windows that is for the inaccurate ones: the others are made and set by `NtCreateTimer2` and `NtSetTimer2`,
//! which take no routine. If neither works, the port's own timeout is what remains.
#![allow(unsafe_code)] // waitable timers

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use windows_sys::Win32::System::Threading::{
    CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, CancelWaitableTimer, CreateWaitableTimerExW,
    PTIMERAPCROUTINE, SetWaitableTimer, TIMER_ALL_ACCESS,
};

use super::wait_packet::WaitPacket;
use crate::sys::fd::{AsRawFd, OwnedFd, handle, owned};
use crate::sys::port::Port;

/// A timer that ends the wait of the thread that has set it.
#[derive(Debug)]
pub(super) struct Timer {
    timer: OwnedFd,
    /// What ends the wait for a port; without it the timer calls the thread.
    packet: Option<WaitPacket>,
}

impl Timer {
    /// A timer, if the system has any that is accurate.
    pub(super) fn new() -> Option<Self> {
        Self::with(CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, WaitPacket::new())
    }

    fn with(flags: u32, packet: Option<WaitPacket>) -> Option<Self> {
        // SAFETY: no attributes, no name; the handle is made for us.
        let timer = unsafe {
            owned(CreateWaitableTimerExW(ptr::null(), ptr::null(), flags, TIMER_ALL_ACCESS))
        };
        Some(Self { timer: timer.ok()?, packet })
    }

    /// Ends an alertable wait of this thread for the port after `timeout`. False if it cannot.
    pub(super) fn set(&self, port: &Port, timeout: Duration) -> bool {
        // In units of 100 ns, and negative for a time from now on.
        let units = i64::try_from(timeout.as_nanos().div_ceil(100)).unwrap_or(i64::MAX);
        let due = -units;
        let timer = handle(self.timer.as_raw_fd());
        let routine: PTIMERAPCROUTINE = if self.packet.is_none() { Some(nothing) } else { None };
        // SAFETY: the time is valid for reads, and the routine lives for ever. To be set ends that a timer is
        // signalled; so the packet comes after it.
        let is_set =
            unsafe { SetWaitableTimer(timer, &raw const due, 0, routine, ptr::null(), 0) != 0 };
        is_set && self.packet.as_ref().is_none_or(|packet| packet.associate(port, timer))
    }

    /// Takes back what `set` has asked for, the call included if it was not made yet. A packet that is on its
    /// way ends a wait in vain.
    pub(super) fn clear(&self) {
        match &self.packet {
            // Nobody hears of the timer then.
            Some(packet) => packet.cancel(),
            // SAFETY: the handle is open.
            None => drop(unsafe { CancelWaitableTimer(handle(self.timer.as_raw_fd())) }),
        }
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
    use crate::sys::port::Waited;

    #[test]
    fn timers_end_the_wait_of_their_thread() -> io::Result<()> {
        // An inaccurate one does it, too, in either way, and every system has that.
        let inaccurate = [Timer::with(0, None), Timer::with(0, WaitPacket::new())];
        assert!(inaccurate.iter().all(Option::is_some));
        for timer in inaccurate.into_iter().chain([Timer::new()]).flatten() {
            let port = Port::new()?;
            let (mut entries, mut packets) = ([OVERLAPPED_ENTRY::default(); 4], Vec::new());
            let timeout = Duration::from_micros(2_500);
            for _ in 0..20 {
                let start = Instant::now();
                assert!(timer.set(&port, timeout));
                assert_eq!(port.wait(&mut entries, &mut packets, u32::MAX)?, Waited::Called);
                assert!(start.elapsed() >= timeout);
                timer.clear();
            }
            // One that was cleared in time does nothing.
            assert!(timer.set(&port, Duration::from_micros(1)));
            std::thread::yield_now();
            timer.clear();
            assert_eq!(port.wait(&mut entries, &mut packets, 5)?, Waited::Timeout);
            assert!(packets.is_empty());
        }
        Ok(())
    }
}
