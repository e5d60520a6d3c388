//! Readiness of sockets: what `select` asks Winsock's driver for, as an operation.
//!
//! `\Device\Afd` is the driver behind all sockets of Microsoft's own providers. Its poll is documented
//! nowhere, and yet what `select` and `WSAPoll` are made of; others have built upon it for many
//! years. It ends as soon as a socket is ready, at once if it is so already.
//!
//! What surprised us: the driver knows its own sockets alone, so that what a layered provider has put on
//! top of one must be asked for what lies below; and thousands of polls by one handle of the driver
//! are slow to cancel, hence there is one for each few.
#![allow(unsafe_code)] // NtCreateFile, NtDeviceIoControlFile

use std::io;
use std::ptr;

use windows_sys::Wdk::Foundation::OBJECT_ATTRIBUTES;
use windows_sys::Wdk::Storage::FileSystem::{FILE_OPEN, NtCreateFile};
use windows_sys::Wdk::System::IO::NtDeviceIoControlFile;
use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS, STATUS_PENDING, UNICODE_STRING};
use windows_sys::Win32::Networking::WinSock::{
    MAX_PROTOCOL_CHAIN, SIO_BASE_HANDLE, SIO_BSP_HANDLE_POLL, SOCKET, WSAENOTSOCK, WSAEOPNOTSUPP,
    WSAIoctl,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_SHARE_READ, FILE_SHARE_WRITE, SYNCHRONIZE};
use windows_sys::Win32::System::IO::{IO_STATUS_BLOCK, OVERLAPPED};
use windows_sys::core::w;

use super::kernel::last_error;
use crate::Interest;
use crate::sys::fd::{AsRawFd, OwnedFd, RawFd, handle, owned, socket};
use crate::sys::port::Port;
use crate::sys::status;

/// How many polls go by one handle of the driver.
const GROUP: usize = 32;

/// The control code of a poll.
const IOCTL_AFD_POLL: u32 = 0x0001_2024;
/// `OBJ_CASE_INSENSITIVE` is not set: the name is the driver's, and ours behind it.
const NAME: *const u16 = w!("\\Device\\Afd\\Oxloop");
/// How many bytes the name has.
const NAME_SIZE: u16 = 2 * 18;

const RECEIVE: u32 = 0x001;
const SEND: u32 = 0x004;
/// The peer has ended its stream.
const DISCONNECT: u32 = 0x008;
/// The connection is broken.
const ABORT: u32 = 0x010;
/// This side has closed the socket.
const LOCAL_CLOSE: u32 = 0x020;
const ACCEPT: u32 = 0x080;
const CONNECT_FAIL: u32 = 0x100;

/// What a poll of one socket reads and writes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    timeout: i64,
    count: u32,
    exclusive: u32,
    socket: HANDLE,
    events: u32,
    status: NTSTATUS,
}

/// What a poll has found out.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Found {
    /// What the socket is ready for; perhaps nothing.
    Ready(Interest),
    /// The socket was closed.
    Closed,
}

impl Poll {
    /// A poll of nothing.
    pub(super) const fn new() -> Self {
        Self {
            timeout: i64::MAX,
            count: 0,
            exclusive: 0,
            socket: ptr::null_mut(),
            events: 0,
            status: 0,
        }
    }

    fn ask(&mut self, socket: SOCKET, interest: Interest) {
        let read = if interest.is_readable() { RECEIVE | ACCEPT | DISCONNECT } else { 0 };
        let write = if interest.is_writable() { SEND } else { 0 };
        let events = read | write | ABORT | CONNECT_FAIL | LOCAL_CLOSE;
        let socket = socket as HANDLE;
        *self = Self { timeout: i64::MAX, count: 1, exclusive: 0, socket, events, status: 0 };
    }

    /// What the driver has written.
    pub(super) fn found(&self, interest: Interest) -> Found {
        if self.count == 0 {
            return Found::Ready(Interest::NONE);
        }
        let mut readiness = Interest::NONE;
        if self.events & LOCAL_CLOSE != 0 {
            return Found::Closed;
        }
        if self.events & (RECEIVE | ACCEPT | DISCONNECT | ABORT | CONNECT_FAIL) != 0 {
            readiness = readiness.with(Interest::READABLE);
        }
        if self.events & (SEND | ABORT | CONNECT_FAIL) != 0 {
            readiness = readiness.with(Interest::WRITABLE);
        }
        Found::Ready(readiness.and(interest))
    }
}

/// Handles of the driver.
#[derive(Debug, Default)]
pub(super) struct Driver {
    handles: Vec<OwnedFd>,
}

impl Driver {
    /// The handle for the operation at the place `index`.
    pub(super) fn handle(&mut self, index: usize, port: &Port) -> io::Result<HANDLE> {
        let group = index / GROUP;
        while self.handles.len() <= group {
            let opened = open()?;
            port.associate(opened.as_raw_fd())?;
            self.handles.push(opened);
        }
        Ok(handle(self.handles[group].as_raw_fd()))
    }
}

fn open() -> io::Result<OwnedFd> {
    let mut name =
        UNICODE_STRING { Length: NAME_SIZE, MaximumLength: NAME_SIZE, Buffer: NAME.cast_mut() };
    let attributes = OBJECT_ATTRIBUTES {
        Length: size_of::<OBJECT_ATTRIBUTES>().try_into().unwrap_or(0),
        ObjectName: &raw mut name,
        ..OBJECT_ATTRIBUTES::default()
    };
    let mut status_block = IO_STATUS_BLOCK::default();
    let mut opened = ptr::null_mut();
    // SAFETY: what is passed is valid for the call; the handle is valid for writes.
    let result = unsafe {
        NtCreateFile(
            &raw mut opened,
            SYNCHRONIZE,
            &raw const attributes,
            &raw mut status_block,
            ptr::null(),
            0,
            FILE_SHARE_READ | FILE_SHARE_WRITE,
            FILE_OPEN,
            0,
            ptr::null(),
            0,
        )
    };
    if !status::is_success(result) {
        return Err(io::Error::from_raw_os_error(status::win32(result)));
    }
    // SAFETY: the handle was made for us.
    unsafe { owned(opened) }
}

/// Starts a poll. Its end comes as a packet with `overlapped`, unless this is an error.
///
/// # Safety
/// `overlapped` and `poll` stay valid, and nobody else's, until the packet comes.
pub(super) unsafe fn start(
    driver: HANDLE,
    socket: SOCKET,
    interest: Interest,
    poll: *mut Poll,
    overlapped: *mut OVERLAPPED,
) -> Result<(), i32> {
    let size = size_of::<Poll>().try_into().unwrap_or(0);
    // SAFETY: the caller's promise. An OVERLAPPED begins with the fields of a status block, and the
    // context of the call is what the packet brings.
    let result = unsafe {
        (*poll).ask(socket, interest);
        NtDeviceIoControlFile(
            driver,
            ptr::null_mut(),
            None,
            overlapped.cast(),
            overlapped.cast(),
            IOCTL_AFD_POLL,
            poll.cast(),
            size,
            poll.cast(),
            size,
        )
    };
    // What succeeds at once is told by a packet all the same.
    if result == STATUS_PENDING || status::is_success(result) {
        Ok(())
    } else {
        Err(status::winsock(result))
    }
}

/// The socket of the driver below `fd`, which is a socket: of anything else Wine answers, too.
pub(super) fn base(fd: RawFd) -> Result<SOCKET, i32> {
    let mut top = socket(fd);
    // Some providers keep the base to themselves, although they may not, but let `select` work; what they name
    // for that may be another one's above the base.
    for _ in 0..MAX_PROTOCOL_CHAIN {
        match ask(top, SIO_BASE_HANDLE) {
            Err(error) if error != WSAENOTSOCK => match ask(top, SIO_BSP_HANDLE_POLL) {
                Ok(below) if below != top => top = below,
                _ => return Err(error),
            },
            result => return result,
        }
    }
    Err(WSAEOPNOTSUPP)
}

/// What the provider of a socket has below it.
fn ask(top: SOCKET, what: u32) -> Result<SOCKET, i32> {
    let mut below: SOCKET = 0;
    let mut moved = 0;
    // SAFETY: the result and the count are valid for writes, and nothing is read.
    let result = unsafe {
        WSAIoctl(
            top,
            what,
            ptr::null(),
            0,
            (&raw mut below).cast(),
            size_of::<SOCKET>().try_into().unwrap_or(0),
            &raw mut moved,
            ptr::null_mut(),
            None,
        )
    };
    if result == 0 { Ok(below) } else { Err(last_error()) }
}
