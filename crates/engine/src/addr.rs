//! Addresses of sockets, in the kinds that Python's `socket` tells apart.
//!
//! What surprised us: a Unix socket has three kinds of name. Python shows a path as `str`, an
//! abstract name (Linux) as `bytes` with a leading NUL, and no name as the empty `str`. Paths are
//! bytes, of no encoding.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// The address of one end of a socket.
#[derive(Clone, Eq, PartialEq, Hash, Debug)]
pub enum Address {
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6, with flow information and scope.
    V6(SocketAddrV6),
    /// A Unix socket in the file system: the bytes of the path.
    UnixPath(Vec<u8>),
    /// A Unix socket in Linux's abstract namespace: the name without its leading NUL.
    UnixAbstract(Vec<u8>),
    /// A Unix socket that was bound to nothing.
    UnixUnnamed,
    /// Of a family that this crate does not know.
    Other,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(address),
            SocketAddr::V6(address) => Self::V6(address),
        }
    }
}
