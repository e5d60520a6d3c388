//! What the kernel says of an operation that failed, as errors that callers of Winsock know.
#![allow(unsafe_code)] // RtlNtStatusToDosError

use windows_sys::Win32::Foundation::{
    ERROR_CONNECTION_ABORTED, ERROR_CONNECTION_REFUSED, ERROR_HOST_UNREACHABLE, ERROR_MORE_DATA,
    ERROR_NETNAME_DELETED, ERROR_NETWORK_UNREACHABLE, ERROR_PORT_UNREACHABLE, ERROR_SEM_TIMEOUT,
    NTSTATUS, RtlNtStatusToDosError,
};
use windows_sys::Win32::Networking::WinSock::{
    WSAECONNABORTED, WSAECONNREFUSED, WSAECONNRESET, WSAEHOSTUNREACH, WSAEMSGSIZE, WSAENETUNREACH,
    WSAETIMEDOUT,
};

/// Whether it is a success, or news of one.
pub(crate) const fn is_success(status: NTSTATUS) -> bool {
    status >= 0
}

/// The number of Win32 for a failure.
pub(crate) fn win32(status: NTSTATUS) -> i32 {
    // SAFETY: any number is fine.
    unsafe { RtlNtStatusToDosError(status) }.cast_signed()
}

/// The number for a failure of a socket's operation: of those that Winsock has a number of its own
/// for, that one, as `WSAGetOverlappedResult` would say.
pub(crate) fn winsock(status: NTSTATUS) -> i32 {
    winsock_of_win32(win32(status))
}

/// The same for an error of Win32.
pub(crate) const fn winsock_of_win32(error: i32) -> i32 {
    match error.cast_unsigned() {
        // The latter tells of a datagram that nobody has received.
        ERROR_NETNAME_DELETED | ERROR_PORT_UNREACHABLE => WSAECONNRESET,
        ERROR_CONNECTION_ABORTED => WSAECONNABORTED,
        ERROR_CONNECTION_REFUSED => WSAECONNREFUSED,
        ERROR_NETWORK_UNREACHABLE => WSAENETUNREACH,
        ERROR_HOST_UNREACHABLE => WSAEHOSTUNREACH,
        ERROR_SEM_TIMEOUT => WSAETIMEDOUT,
        ERROR_MORE_DATA => WSAEMSGSIZE,
        _ => error,
    }
}
