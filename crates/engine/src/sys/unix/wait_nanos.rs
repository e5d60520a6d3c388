//! Waiting with timeouts in nanoseconds.
#![allow(unsafe_code)] // rustix's poll wants descriptors that are known to be open

use std::io;
use std::time::Duration;

/// ppoll(2) without a signal mask: how many entries have something to report.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let length = entries.len().try_into().unwrap_or(libc::nfds_t::MAX);
    // SAFETY: the entries are valid for reads and writes over their length; the timeout is null or
    // valid; the kernel checks the descriptors.
    let count = unsafe { libc::ppoll(entries.as_mut_ptr(), length, timeout, std::ptr::null()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
