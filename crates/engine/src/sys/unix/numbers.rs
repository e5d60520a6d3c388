//! The numbers of the kernel that a host names: address families, kinds of sockets, signals, errors.

pub use libc::{
    AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, AI_PASSIVE, EADDRINUSE, EADDRNOTAVAIL, EBADF, ECANCELED,
    EINPROGRESS, EINVAL, EIO, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOTCONN, ESRCH, IPPROTO_TCP,
    SIGKILL, SIGTERM, SOCK_DGRAM, SOCK_STREAM,
};
