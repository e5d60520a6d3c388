//! File descriptors as numbers: those that a selector watches and that somebody else owns.
#![allow(unsafe_code)] // fcntl on numbers that may be closed

use std::io;
use std::time::Duration;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::sys::fd::{BorrowedFd, RawFd};

pub(crate) use super::wait::poll;

/// EBADF when `fd` is not an open descriptor.
pub(crate) fn check_open(fd: RawFd) -> io::Result<()> {
    // SAFETY: F_GETFD reads flags, and the kernel checks the number.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Device and inode: another file where these differ. Files of the kernel's own that have no name (an eventfd, say) are
/// all alike.
pub type FileId = (u64, u64);

/// Which file `fd` is open for, if it can be polled.
///
/// # Errors
/// As `epoll_ctl(2)` has it: EBADF when it is not open, EPERM for regular files and directories. Of character devices
/// nobody but epoll knows; those that cannot are always ready.
pub fn check_pollable(fd: RawFd) -> io::Result<FileId> {
    let stat = stat(fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Directory => Err(Errno::PERM.into()),
        _ => Ok(file_id(&stat)),
    }
}

/// Which file `fd` is open for; `None` if it is not open.
pub fn file_of(fd: RawFd) -> Option<FileId> {
    Some(file_id(&stat(fd).ok()?))
}

fn stat(fd: RawFd) -> rustix::io::Result<Stat> {
    // SAFETY: the number is used in this call alone, and the kernel checks it.
    rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The types of these numbers differ between systems, and they are only compared.
#[allow(clippy::cast_sign_loss)]
fn file_id(stat: &Stat) -> FileId {
    (stat.st_dev as _, stat.st_ino as _)
}

/// A timeout as the kernel wants it.
pub(crate) fn timespec(timeout: Duration) -> Timespec {
    Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

/// Values by descriptor: an array, as the kernel gives out the lowest number that is free.
#[derive(Debug)]
pub(crate) struct DescriptorMap<V> {
    values: Vec<Option<V>>,
}

impl<V> Default for DescriptorMap<V> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<V> DescriptorMap<V> {
    #[inline]
    pub(crate) fn get(&self, fd: RawFd) -> Option<&V> {
        self.values.get(usize::try_from(fd).ok()?)?.as_ref()
    }

    /// Only the kqueue backend changes values in place.
    #[allow(dead_code)]
    pub(crate) fn get_mut(&mut self, fd: RawFd) -> Option<&mut V> {
        self.values.get_mut(usize::try_from(fd).ok()?)?.as_mut()
    }

    /// Keeps `value` and gives back the one before it. Negative numbers are no descriptors.
    pub(crate) fn insert(&mut self, fd: RawFd, value: V) -> Option<V> {
        let index = usize::try_from(fd).ok()?;
        if self.values.len() <= index {
            self.values.resize_with(index + 1, || None);
        }
        self.values[index].replace(value)
    }

    pub(crate) fn remove(&mut self, fd: RawFd) -> Option<V> {
        self.values.get_mut(usize::try_from(fd).ok()?)?.take()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RawFd, &V)> {
        (0..).zip(&self.values).filter_map(|(fd, value)| Some((fd, value.as_ref()?)))
    }
}
