//! What ends a wait from another thread.
//!
//! Contract of every kind: `wake` ends the wait, or the next one if there is none, is cheap, never
//! blocks and never fails; any number of wake-ups before one `drain` count as one. Neither takes a
//! lock or allocates, so that a signal handler may call `wake`.
//!
//! [`Waker::new`] makes one that works with whatever watches descriptors: its `source` becomes
//! readable, and the loop watches it and calls `drain`. A proactor may have a better one of its own
//! ([`Proactor::waker`](crate::proactor::Proactor::waker)), without a source, of which nothing is
//! to be watched.

#[cfg(all(any(target_os = "linux", target_os = "android"), not(oxloop_libkqueue)))]
mod eventfd;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(oxloop_libkqueue)))]
pub use eventfd::Waker;

#[cfg(all(unix, any(not(any(target_os = "linux", target_os = "android")), oxloop_libkqueue)))]
mod pipe;
#[cfg(all(unix, any(not(any(target_os = "linux", target_os = "android")), oxloop_libkqueue)))]
pub use pipe::Waker;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::Waker;
