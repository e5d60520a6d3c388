//! SIGPIPE, which Windows does not have.

use std::io;

/// Whether SIGPIPE would end the process: never.
pub const fn would_kill() -> bool {
    false
}

/// Runs `write`.
pub fn shielded<R>(write: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    write()
}
