//! Whether this is still the process that has made a ring.
//!
//! A child has the ring's queues in common with its parent, as they are mapped shared: what it put
//! into them, the parent would submit. So each wait asks, and asking must be cheaper than
//! getpid(2): a page that the kernel fills with zeros in a child (`MADV_WIPEONFORK`, madvise(2))
//! tells it by one load.
#![allow(unsafe_code)] // a mapping

use std::io;
use std::ptr::{self, NonNull};

/// How much is mapped: one byte of it is used, and the kernel rounds up to a page.
const LENGTH: usize = 1;

/// The process that has made this value, or, in a child of it, another one.
#[derive(Debug)]
pub(super) struct Process {
    /// One readable page: 1 in its first byte, in a child 0. None until there is a ring.
    page: Option<NonNull<u8>>,
}

// SAFETY: the mapping belongs to the value, whichever thread that is on, and is only read.
unsafe impl Send for Process {}
// SAFETY: as above.
unsafe impl Sync for Process {}

impl Process {
    /// Any process.
    pub(super) const fn any() -> Self {
        Self { page: None }
    }

    /// This process.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nobody.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                LENGTH,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let process = Self { page: NonNull::new(page.cast()) };
        // SAFETY: the page is ours.
        if unsafe { libc::madvise(page, LENGTH, libc::MADV_WIPEONFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: nobody else knows the page.
        unsafe { page.cast::<u8>().write(1) };
        Ok(process)
    }

    /// Whether the process that runs is a child of the one that made this.
    #[inline]
    pub(super) fn is_other(&self) -> bool {
        // SAFETY: the page is readable; volatile, as nothing that the compiler sees changes it.
        self.page.is_some_and(|page| unsafe { page.read_volatile() == 0 })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(page) = self.page {
            // SAFETY: the mapping is ours, and nobody refers to it.
            unsafe { libc::munmap(page.as_ptr().cast(), LENGTH) };
        }
    }
}
