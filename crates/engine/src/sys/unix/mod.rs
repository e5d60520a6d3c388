//! System calls of POSIX systems.

mod clock;

pub(crate) use clock::monotonic_nanos;
