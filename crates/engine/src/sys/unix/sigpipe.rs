//! SIGPIPE, which a write to a pipe without a reader raises, and which ends the process by default.
//!
//! Python ignores it, but a program that embeds Python may not, and a script may have set it back.
#![allow(unsafe_code)] // signal sets

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Whether SIGPIPE would end the process, as it does unless it is ignored or handled.
pub fn would_kill() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only fills in the present one, and it cannot fail for
    // a signal that exists.
    unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_DFL
    }
}

/// Runs `write` with SIGPIPE blocked in this thread, and takes the signal that it raises.
///
/// SIGPIPE is sent to the thread that writes, so nobody else's is taken (signal(7)). But macOS sends it to the
/// process (XNU, `fp_writev`): where there are threads that do not block it, it is theirs, as without this.
pub fn shielded<R>(write: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is made by sigemptyset; the mask before it is filled in.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
        set.assume_init()
    };
    let was_pending = is_pending();
    let result = write();
    if !was_pending && is_pending() {
        let mut signal = 0;
        // SAFETY: the signal is blocked and pending: sigwait(3) takes it without waiting.
        unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    }
    // SAFETY: the mask that was filled in above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

fn is_pending() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is filled in.
    unsafe {
        libc::sigpending(pending.as_mut_ptr()) == 0
            && libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    }
}

#[cfg(test)]
mod tests {
    use crate::sys::fd::AsFd;

    use super::super::pipe;
    use super::*;

    #[test]
    fn the_signal_is_taken() -> io::Result<()> {
        if cfg!(target_vendor = "apple") {
            // The other threads of the tests would get it, and end them.
            return Ok(());
        }
        // Rust's runtime ignores SIGPIPE; no other test writes to a pipe that nobody reads.
        assert!(!would_kill());
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        assert!(would_kill());
        let (reader, writer) = pipe::pipe()?;
        drop(reader);
        let error = shielded(|| pipe::write(writer.as_fd(), b"x")).expect_err("there is no reader");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(!is_pending());
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        Ok(())
    }
}
