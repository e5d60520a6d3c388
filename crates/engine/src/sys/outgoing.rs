//! What is sent.

use std::net::SocketAddr;

/// A datagram that is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// All of it.
    pub data: &'a [u8],
    /// Where to; `None` on a connected socket.
    pub target: Option<SocketAddr>,
}
