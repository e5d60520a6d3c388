//! What operations are started with: the port, the driver of sockets, and what a port knows of files.
//!
//! What surprised us: a file belongs to one port as long as it is open, and nothing tells to which. So
//! each operation asks once for ours; what is ours already, or another loop's, is the same error, and
//! then we put ourselves in the place of whoever it was. Of a listener we do not, as that is shared by processes:
//! a port hears of what it has not begun, and who has begun it never does.
#![allow(unsafe_code)] // Winsock's extensions

use std::ffi::c_void;
use std::io;
use std::mem::transmute_copy;
use std::ptr;
use std::sync::Arc;

use windows_sys::Wdk::Storage::FileSystem::{
    FILE_COMPLETION_INFORMATION, FileReplaceCompletionInformation, NtSetInformationFile,
};
use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, HANDLE};
use windows_sys::Win32::Networking::WinSock::{
    LPFN_ACCEPTEX, LPFN_CONNECTEX, SIO_GET_EXTENSION_FUNCTION_POINTER, WSAID_ACCEPTEX,
    WSAID_CONNECTEX, WSAIoctl,
};
use windows_sys::Win32::Storage::FileSystem::SetFileCompletionNotificationModes;
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
use windows_sys::Win32::System::Pipes::{PIPE_READMODE_BYTE, SetNamedPipeHandleState};
use windows_sys::Win32::System::WindowsProgramming::{
    FILE_SKIP_COMPLETION_PORT_ON_SUCCESS, FILE_SKIP_SET_EVENT_ON_HANDLE,
};
use windows_sys::core::GUID;

use super::afd::Driver;
use super::in_flight::{File, Told};
use crate::sys::descriptor;
use crate::sys::fd::{RawFd, handle, socket};
use crate::sys::port::Port;

/// No packet for what ends at once, and no event that nobody waits for.
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
const MODES: u8 = (FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | FILE_SKIP_SET_EVENT_ON_HANDLE) as u8;

/// What operations are started with.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) port: Arc<Port>,
    pub(super) driver: Driver,
    accept: LPFN_ACCEPTEX,
    connect: LPFN_CONNECTEX,
}

/// What `CreateIoCompletionPort` says of a file that has a port, or waits.
const REFUSED: i32 = ERROR_INVALID_PARAMETER.cast_signed();

/// The number of an error.
pub(super) fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(REFUSED)
}

/// The error of the call that has just failed.
pub(super) fn last_error() -> i32 {
    number(&io::Error::last_os_error())
}

impl Kernel {
    pub(super) fn new() -> io::Result<Self> {
        let port = Arc::new(Port::new()?);
        Ok(Self { port, driver: Driver::default(), accept: None, connect: None })
    }

    /// Has the port told of the operations of a file.
    ///
    /// # Errors
    /// `ERROR_INVALID_PARAMETER` for a file that was not opened for overlapped operations.
    pub(super) fn associate(&self, fd: RawFd, file: File) -> Result<Told, i32> {
        match self.port.associate(fd).map_err(|error| number(&error)) {
            Err(REFUSED) => {
                if file == File::Pipe && !descriptor::is_overlapped(fd).unwrap_or(true) {
                    return Err(REFUSED);
                }
                self.replace(fd);
            }
            result => result?,
        }
        Ok(told(fd, file))
    }

    /// The same for a listener. `Nothing` when a port is told of its operations already, be it ours or another
    /// process's: such are shared (`multiprocessing`), and what the other one has begun is his to hear of.
    pub(super) fn associate_listener(&self, fd: RawFd, file: File) -> Result<Told, i32> {
        match self.port.associate(fd).map_err(|error| number(&error)) {
            Err(REFUSED) => Ok(Told::Nothing),
            result => result.map(|()| told(fd, file)),
        }
    }

    /// Puts our port in the place of another one (Windows 8.1), and ends what was asked of that
    /// (`FILE_SKIP_COMPLETION_PORT_ON_SUCCESS` and its kin). The kernel refuses while something is under way by the
    /// file: mostly that is ours, and so is the file. Else whoever has used it with two loops at a time waits for
    /// ever.
    #[cold]
    fn replace(&self, fd: RawFd) {
        let port = FILE_COMPLETION_INFORMATION { Port: self.port.raw(), Key: ptr::null_mut() };
        let mut block = IO_STATUS_BLOCK::default();
        // SAFETY: what is passed is valid for the call, and the kernel checks the handles.
        unsafe {
            NtSetInformationFile(
                handle(fd),
                &raw mut block,
                (&raw const port).cast(),
                size_of::<FILE_COMPLETION_INFORMATION>().try_into().unwrap_or(0),
                FileReplaceCompletionInformation,
            )
        };
    }

    /// `AcceptEx` of the provider of `fd`.
    pub(super) fn accept(&mut self, fd: RawFd) -> Result<LPFN_ACCEPTEX, i32> {
        // SAFETY: this is what the identifier stands for.
        unsafe { look_up(&mut self.accept, fd, &WSAID_ACCEPTEX) }
    }

    /// `ConnectEx` of the provider of `fd`.
    pub(super) fn connect(&mut self, fd: RawFd) -> Result<LPFN_CONNECTEX, i32> {
        // SAFETY: as above.
        unsafe { look_up(&mut self.connect, fd, &WSAID_CONNECTEX) }
    }
}

/// Asks that there be no packets for what ends at once, of sockets alone: whether there is one of a pipe's
/// message that was cut short is written nowhere. Nor of those of layered providers, which may lose what ends
/// later then (KB 2568167).
fn told(fd: RawFd, file: File) -> Told {
    match file {
        // SAFETY: the kernel checks the handle.
        File::Socket(base) if base == socket(fd) => unsafe {
            let done = SetFileCompletionNotificationModes(handle(fd), MODES) != 0;
            if done { Told::Later } else { Told::Everything }
        },
        File::Socket(_) => Told::Everything,
        _ => {
            read_bytes(handle(fd));
            Told::Everything
        }
    }
}

/// Has a pipe of messages read as one of bytes: reading a part of a message is a warning otherwise,
/// which is no success and no failure. A pipe that is written only refuses, and need not care; so does, on
/// Windows, one that is read only (it takes `FILE_WRITE_ATTRIBUTES`), as `multiprocessing.Pipe(False)` makes it.
fn read_bytes(pipe: HANDLE) {
    let mode = PIPE_READMODE_BYTE;
    // SAFETY: the mode is valid for reads, and the kernel checks the handle.
    unsafe { SetNamedPipeHandleState(pipe, &raw const mode, ptr::null(), ptr::null()) };
}

/// One of Winsock's functions, asked for once.
///
/// # Safety
/// `F` is the type of the function that the identifier stands for.
unsafe fn look_up<F: Copy>(
    known: &mut Option<F>,
    fd: RawFd,
    identifier: &GUID,
) -> Result<Option<F>, i32> {
    if known.is_none() {
        let function = extension(fd, identifier)?;
        // SAFETY: the caller's promise; a function that is none is null.
        *known = unsafe { transmute_copy::<Extension, Option<F>>(&function) };
    }
    Ok(*known)
}

/// The address of such a function.
type Extension = *const c_void;

fn extension(fd: RawFd, identifier: &GUID) -> Result<Extension, i32> {
    let mut function: Extension = ptr::null();
    let mut moved = 0;
    // SAFETY: the identifier is valid for reads, the function and the count for writes.
    let result = unsafe {
        WSAIoctl(
            socket(fd),
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            ptr::from_ref(identifier).cast(),
            size_of::<GUID>().try_into().unwrap_or(0),
            (&raw mut function).cast(),
            size_of_val(&function).try_into().unwrap_or(0),
            &raw mut moved,
            ptr::null_mut(),
            None,
        )
    };
    if result == 0 { Ok(function) } else { Err(last_error()) }
}
