//! Waiting with timeouts in milliseconds: macOS has no ppoll.
#![allow(unsafe_code)] // rustix's poll wants descriptors that are known to be open

use std::io;
use std::time::Duration;

/// poll(2), its timeout rounded up: how many entries have something to report.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let millis = timeout.map_or(-1, |timeout| {
        timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX)
    });
    let length = entries.len().try_into().unwrap_or(libc::nfds_t::MAX);
    // SAFETY: the entries are valid for reads and writes over their length; the kernel checks the
    // descriptors.
    let count = unsafe { libc::poll(entries.as_mut_ptr(), length, millis) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
