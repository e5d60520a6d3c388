//! Numbers of address families, socket types, flags and signals.

pub use libc::{
    AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, AI_PASSIVE, IPPROTO_TCP, IPPROTO_UDP, SIGKILL, SIGTERM,
    SOCK_DGRAM, SOCK_STREAM,
};
