//! Handles that become signalled, a process that ends above all: a thread of the system waits for them.
#![allow(unsafe_code)] // RegisterWaitForSingleObject

use std::ffi::c_void;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::Threading::{
    INFINITE, RegisterWaitForSingleObject, UnregisterWaitEx, WT_EXECUTEINWAITTHREAD,
    WT_EXECUTEONLYONCE,
};

use crate::sys::fd::{RawFd, handle};
use crate::sys::port::Port;

/// A wait for one handle, which ends by a packet.
#[derive(Debug)]
pub(super) struct Wait {
    /// What the system calls the wait; null when it is over.
    registered: HANDLE,
    /// What the system's thread looks at, until the wait is over.
    target: Box<Target>,
}

#[derive(Debug)]
struct Target {
    port: Arc<Port>,
    overlapped: *mut OVERLAPPED,
    /// Whether the packet is on its way.
    posted: AtomicBool,
}

// SAFETY: the packet's address is only handed on, and the handle is of the whole process.
unsafe impl Send for Wait {}
// SAFETY: a shared reference gives access to nothing.
unsafe impl Sync for Wait {}

impl Wait {
    /// Has a packet with `overlapped` come once `fd` is signalled.
    pub(super) fn new(
        fd: RawFd,
        port: &Arc<Port>,
        overlapped: *mut OVERLAPPED,
    ) -> io::Result<Self> {
        let posted = AtomicBool::new(false);
        let target = Box::new(Target { port: Arc::clone(port), overlapped, posted });
        let mut registered = ptr::null_mut();
        let flags = WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD;
        // SAFETY: the target stays where it is until `end`, by which the wait is over.
        let result = unsafe {
            let context = ptr::from_ref(&*target).cast();
            let (registered, waited_for) = (&raw mut registered, handle(fd));
            RegisterWaitForSingleObject(
                registered,
                waited_for,
                Some(post),
                context,
                INFINITE,
                flags,
            )
        };
        if result == 0 { Err(io::Error::last_os_error()) } else { Ok(Self { registered, target }) }
    }

    /// Ends the wait. False when the packet is on its way.
    pub(super) fn end(&mut self) -> bool {
        if !self.registered.is_null() {
            // SAFETY: the wait is registered. The call returns when nobody looks at the target.
            unsafe { UnregisterWaitEx(self.registered, INVALID_HANDLE_VALUE) };
            self.registered = ptr::null_mut();
        }
        !self.target.posted.load(Ordering::Acquire)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.end();
    }
}

unsafe extern "system" fn post(target: *mut c_void, _timed_out: bool) {
    // SAFETY: the target lives until the wait is over, which waits for this call.
    let target = unsafe { &*target.cast::<Target>() };
    target.posted.store(true, Ordering::Release);
    target.port.end(target.overlapped);
}
