//! What ends a wait from another thread: a file descriptor that the selector watches.
//!
//! Contract of every kind: `wake` makes the descriptor readable, is cheap, never blocks and never
//! fails; any number of wake-ups before one `drain` count as one; `drain` makes it unreadable.
//! Neither takes a lock or allocates, so that a signal handler may call `wake`.

#[cfg(all(any(target_os = "linux", target_os = "android"), not(oxloop_libkqueue)))]
mod eventfd;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(oxloop_libkqueue)))]
pub use eventfd::Waker;

#[cfg(all(unix, any(not(any(target_os = "linux", target_os = "android")), oxloop_libkqueue)))]
mod pipe;
#[cfg(all(unix, any(not(any(target_os = "linux", target_os = "android")), oxloop_libkqueue)))]
pub use pipe::Waker;
