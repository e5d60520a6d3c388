//! Numbers of address families, socket types, flags and signals.

use windows_sys::Win32::Networking::WinSock;

/// Any family.
pub const AF_UNSPEC: i32 = WinSock::AF_UNSPEC as i32;
/// Unix sockets.
pub const AF_UNIX: i32 = WinSock::AF_UNIX as i32;
/// IPv4.
pub const AF_INET: i32 = WinSock::AF_INET as i32;
/// IPv6.
pub const AF_INET6: i32 = WinSock::AF_INET6 as i32;
pub use WinSock::{IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, SOCK_STREAM};
/// Addresses to listen on.
pub const AI_PASSIVE: i32 = WinSock::AI_PASSIVE.cast_signed();
/// What `Popen.terminate` sends, as C has it.
pub const SIGTERM: i32 = 15;
/// There is none: whatever ends a process does it by `TerminateProcess`, and so does `Popen.kill`.
pub const SIGKILL: i32 = SIGTERM;
