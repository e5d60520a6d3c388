//! Why there is no proactor, in words for users.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;

use crate::sys::os_error;

/// Why a proactor cannot be had here.
#[derive(Debug)]
pub enum Unavailable {
    /// The system has no mechanism for it, or none that we know.
    System,
    /// The kernel does not know `io_uring` (ENOSYS): it is older than Linux 5.1, or built without it,
    /// or a sandbox pretends so.
    Kernel,
    /// The kernel has `io_uring`, but is older than Linux 5.19.
    TooOld {
        /// What is missing.
        feature: &'static str,
    },
    /// `kernel.io_uring_disabled` forbids it (EPERM); the value that it has.
    Disabled(u8),
    /// Something else forbids it (EPERM, EACCES): a seccomp filter, as containers have, or a
    /// security module.
    Forbidden,
    /// There is not enough memory for it, or too little that this user may lock (ENOMEM).
    Memory,
    /// The sizes asked for are out of range.
    Sizes,
    /// Any other error.
    Other(io::Error),
}

impl Display for Unavailable {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => formatter.write_str("this system has no io_uring"),
            Self::Kernel => formatter.write_str("the kernel has no io_uring (ENOSYS)"),
            Self::TooOld { feature } => {
                write!(
                    formatter,
                    "the kernel's io_uring has no {feature}: it takes Linux 5.19 or later"
                )
            }
            Self::Disabled(value) => write!(
                formatter,
                "io_uring is disabled on this system (kernel.io_uring_disabled is {value})"
            ),
            Self::Forbidden => formatter.write_str(
                "io_uring is not permitted here (EPERM): a seccomp filter, as containers have, or \
                 a security module forbids it",
            ),
            Self::Memory => formatter.write_str(
                "there is not enough memory for io_uring (ENOMEM): the limit of locked memory \
                 (ulimit -l) may be too low",
            ),
            Self::Sizes => formatter.write_str(
                "entries must be from 1 to 32768, buffers a power of two up to 32768, and \
                 buffer_size from 1 to 2147483647 bytes",
            ),
            Self::Other(error) => write!(formatter, "io_uring cannot be set up: {error}"),
        }
    }
}

impl Error for Unavailable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Other(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Unavailable> for io::Error {
    fn from(reason: Unavailable) -> Self {
        match reason {
            Unavailable::Memory => Self::from_raw_os_error(os_error::ENOMEM),
            Unavailable::Other(error) => error,
            reason => Self::other(reason),
        }
    }
}
