//! A packet that the kernel itself puts into a port, once a handle is signalled.
//!
//! That is what the system's own pools of threads wait by, since Windows 8. The functions stand in no library to
//! link with, and not every system that runs programs for Windows has them, so they are looked up.
#![allow(unsafe_code)] // functions of ntdll, which are known by name

use std::ffi::c_void;
use std::mem::transmute;
use std::ptr;

use windows_sys::Wdk::Foundation::OBJECT_ATTRIBUTES;
use windows_sys::Win32::Foundation::{FARPROC, GENERIC_ALL, HANDLE, NTSTATUS};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};
use windows_sys::core::{PCSTR, s, w};

use crate::sys::fd::{AsRawFd, OwnedFd, handle, owned};
use crate::sys::port::Port;
use crate::sys::status;

type Create = unsafe extern "system" fn(*mut HANDLE, u32, *const OBJECT_ATTRIBUTES) -> NTSTATUS;
type Associate = unsafe extern "system" fn(
    HANDLE,
    HANDLE,
    HANDLE,
    *const c_void,
    *const c_void,
    NTSTATUS,
    usize,
    *mut u8,
) -> NTSTATUS;
type Cancel = unsafe extern "system" fn(HANDLE, u8) -> NTSTATUS;

/// A packet that waits for one handle at a time.
#[derive(Debug)]
pub(super) struct WaitPacket {
    packet: OwnedFd,
    associate: Associate,
    cancel: Cancel,
}

impl WaitPacket {
    /// A packet, if the system has such.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: these are the types of the functions, as System Informer's `ntioapi.h` has them.
        let (create, associate, cancel) = unsafe {
            (
                transmute::<FARPROC, Option<Create>>(find(s!("NtCreateWaitCompletionPacket")))?,
                transmute::<FARPROC, Option<Associate>>(find(s!(
                    "NtAssociateWaitCompletionPacket"
                )))?,
                transmute::<FARPROC, Option<Cancel>>(find(s!("NtCancelWaitCompletionPacket")))?,
            )
        };
        let mut packet = ptr::null_mut();
        // SAFETY: the handle is valid for writes, and made for us.
        let packet = unsafe {
            let result = create(&raw mut packet, GENERIC_ALL, ptr::null());
            status::is_success(result).then(|| owned(packet))?.ok()?
        };
        Some(Self { packet, associate, cancel })
    }

    /// Ends a wait for the port once `waited_for` is signalled, at once if it is so already. False if it cannot,
    /// as when the last time was not over when it was cancelled.
    pub(super) fn associate(&self, port: &Port, waited_for: HANDLE) -> bool {
        let mut signalled = 0;
        // SAFETY: the handles are open; the kernel only hands the key back.
        let result = unsafe {
            let (packet, port) = (handle(self.packet.as_raw_fd()), port.raw());
            let (key, none) = (Port::CALL as *const c_void, ptr::null());
            (self.associate)(packet, port, waited_for, key, none, 0, 0, &raw mut signalled)
        };
        status::is_success(result)
    }

    /// Waits no longer, and takes the packet out of the queue if it is there. It may be on its way, however.
    pub(super) fn cancel(&self) {
        // SAFETY: the handle is open.
        unsafe { (self.cancel)(handle(self.packet.as_raw_fd()), 1) };
    }
}

/// A function of ntdll, which every process has.
fn find(name: PCSTR) -> FARPROC {
    // SAFETY: the names end with a zero.
    unsafe { GetProcAddress(GetModuleHandleW(w!("ntdll.dll")), name) }
}
