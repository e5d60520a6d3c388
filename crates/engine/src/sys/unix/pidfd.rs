//! Descriptors of processes, where the system has them.

use std::io;

use rustix::process::{Pid, PidfdFlags};

use crate::sys::fd::OwnedFd;

/// `pidfd_open(2)`, Linux 5.3: a descriptor that becomes readable when the process has ended.
///
/// # Errors
/// ESRCH when there is no such process, not even one that waits to be reaped; ENOSYS before Linux
/// 5.3, and whatever a sandbox answers.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}
